"""Training epochs at the settings of Frappe_x1 (recfm/sweeps/frappe.toml) beside torch-rechub, deepctr-torch and a
plain eager Wukong.

Ours is `Trainer.fit` over `Batches`, as users train; each peer trains by its own trainer and loader (`train_peers`).
A repeat is a fresh model on every side, trained EPOCHS (2) passes over all rows from weights drawn alike, the sides
taking turns in one process with THREADS (2) threads; the first SEEDS (3) repeats are scored by validation AUC. The
peers' trainers cannot clip the gradient's norm, which lifts the AUC of the first epochs at these settings, so ours is
scored without clipping too.
`train.<model>.matmul` sets an epoch's FLOPs over its time against the rate of a [batch, 400] x [400, 400] product in
the same run; 1 is an epoch that is nothing but matmul.

Frappe is read from the folder FRAPPE, a folder that `recfm.datasets` reads; without it rows are drawn with the same
columns, and labels that follow an effect of each value.
"""

import contextlib
import os
import statistics
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import harness

os.environ.setdefault("THREADS", "2")
os.environ["RECFM_NUM_THREADS"] = os.environ["THREADS"]
os.environ["OMP_NUM_THREADS"] = os.environ["THREADS"]

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.profiler import ProfilerActivity, profile
from train_peers import PEERS, Side, Table, Work, installed

from recfm.data.batches import Batches
from recfm.data.encode import Encoded
from recfm.datasets import frappe
from recfm.layout import Column, Layout
from recfm.models.count import count
from recfm.models.layers import initialise
from recfm.models.zoo import build_model
from recfm.train.callbacks import Callback, FitStart, StepReport
from recfm.train.trainer import TrainConfig, Trainer

THREADS = int(os.environ["THREADS"])
EPOCHS = int(os.environ.get("EPOCHS", "1" if harness.QUICK else "2"))
SEEDS = int(os.environ.get("SEEDS", "1" if harness.QUICK else "3"))
REPEATS = 1 if harness.QUICK else harness.REPEATS
SIZES = {
    "user": 957,
    "item": 4082,
    "daytime": 7,
    "weekday": 7,
    "isweekend": 2,
    "homework": 3,
    "cost": 2,
    "weather": 9,
    "country": 80,
    "city": 233,
}
"""Values of each column, where there is no data."""
CLIPPED = ("wukong",)
"""Models whose peer clips the gradient as ours does; the trainers of the others cannot."""
UNCLIPPED = "ours without clipping"
MATMUL = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
LAYERS = ("_Hidden", "_SmallNorm", "norm", "threshold", "clamp_min", "bernoulli", "dropout", "aten::relu")
OPTIMISER = ("_fused_adam", "_foreach", "Optimizer.", "clip_grad", "linalg_vector_norm")
EMBEDDING = ("embedding", "index_select", "index_add", "_Lookup")
KINDS = {
    "optimiser": OPTIMISER,
    "matmul": MATMUL,
    "norm, activation, dropout": LAYERS,
    "embedding": EMBEDDING,
}


def tables() -> tuple[Table, Table, tuple[int, ...], str]:
    """Training and validation rows, the rows of each column's embedding table, and what they are."""
    columns, folder = list(SIZES), os.environ.get("FRAPPE")
    if folder is None:
        rng = np.random.default_rng(0)
        effects = [rng.normal(size=size) for size in SIZES.values()]

        def drawn(rows: int) -> Table:
            picks = [(rng.random(rows) ** 2 * size).astype(np.int32) for size in SIZES.values()]
            logit = sum(effect[pick] for effect, pick in zip(effects, picks, strict=True)) - 1
            return np.stack(picks, axis=1) + np.int32(2), (logit > rng.logistic(size=rows)).astype(np.float32)

        sizes = tuple(size + 2 for size in SIZES.values())
        return fewer(drawn(202_027)), fewer(drawn(57_722)), sizes, "drawn at random"
    data = frappe.load(folder)
    parts = [part.collect() for part in (data.train, data.valid)]
    ids = [part.select(columns).to_numpy().astype(np.int64) for part in parts]
    known = [np.unique(np.concatenate([part[:, j] for part in ids])) for j in range(len(columns))]
    coded = [
        np.stack([np.searchsorted(values, part[:, j]) + 2 for j, values in enumerate(known)], axis=1)
        for part in ids
    ]
    train, valid = (
        (codes.astype(np.int32), part["label"].to_numpy().astype(np.float32))
        for codes, part in zip(coded, parts, strict=True)
    )
    return fewer(train), fewer(valid), tuple(len(values) + 2 for values in known), "Frappe_x1"


def fewer(table: Table) -> Table:
    """A part of the rows where little time is given."""
    rows = 4 * 4096 if harness.QUICK else len(table[1])
    return table[0][:rows], table[1][:rows]


def work_of(name: str, rows: tuple[int, ...]) -> Work:
    """A model's entry in the sweep over Frappe."""
    sweep = tomllib.loads((resources.files("recfm") / "sweeps" / "frappe.toml").read_text())
    run = next(run for run in sweep["runs"] if run["model"] == name)
    return Work(
        name=name,
        columns=list(SIZES),
        rows=rows,
        settings=run["settings"],
        train=sweep["train"] | run.get("train", {}),
        init=sweep["init"] | run.get("init", {}),
    )


class LoaderWait(Callback):
    """Seconds from the end of each step (or the start of the fit) to the next forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.seconds, self._since = 0.0, 0.0
        model.register_forward_pre_hook(self._forward)

    def _forward(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._since

    def on_fit_start(self, start: FitStart) -> None:
        self._since = time.perf_counter()

    def on_step(self, report: StepReport) -> None:
        self._since = time.perf_counter()


def layout_of(work: Work) -> Layout:
    """Ten categorical columns."""
    sizes = zip(work.columns, work.rows, strict=True)
    columns = tuple(Column(name=column, rows=rows, side="context") for column, rows in sizes)
    return Layout(categorical=columns, tokens=(), numeric=())


def batches_of(work: Work, table: Table, *, shuffle: bool, seed: int = 0) -> Batches:
    """The rows as our encoder would leave them, in batches."""
    ids, label = table
    keys = np.zeros(len(label), np.int64)
    encoded = Encoded(
        schema=frappe.schema(),
        layout=layout_of(work),
        ids=np.ascontiguousarray(ids),
        numeric=np.zeros((len(label), 0), np.float32),
        tokens={},
        user=keys,
        item=keys,
        time=keys,
        label=label,
    )
    return Batches(encoded, batch_size=work.batch_size, shuffle=shuffle, seed=seed)


def ours(work: Work, train: Table, seed: int, precision: str = "fp32") -> tuple[Side, LoaderWait]:
    """Our model under our trainer, without validation rows: every epoch is trained."""
    torch.manual_seed(seed)
    model = build_model(work.name, layout_of(work), work.settings)
    initialise(model, **work.init)
    wait = LoaderWait(model)
    batches = batches_of(work, train, shuffle=True, seed=seed)
    settings = work.train | {"schedule": "constant", "seed": seed, "precision": precision}

    def trainer(epochs: int) -> Trainer:
        return Trainer(TrainConfig(**(settings | {"epochs": epochs})), callbacks=[wait])

    def predict(table: Table) -> Any:
        return trainer(1).predict(model, batches_of(work, table, shuffle=False))

    return Side(model, lambda epochs: trainer(epochs).fit(model, batches), predict), wait


def matmul_rate(rows: int, dtype: torch.dtype = torch.float32, repeats: int = 9) -> float:
    """FLOP/s of a hidden layer's product."""
    left, right = torch.randn(rows, 400).to(dtype), torch.randn(400, 400).to(dtype)
    out = torch.empty(rows, 400, dtype=dtype)
    torch.mm(left, right, out=out)
    seconds = statistics.median(harness.once(lambda: torch.mm(left, right, out=out)) for _ in range(repeats))
    return 2.0 * rows * 400 * 400 / seconds


def breakdown(work: Work, train: Table) -> dict[str, float]:
    """Shares of the time of ten steps by kind of work; the profiler's own cost is in "other"."""
    few = (train[0][: 10 * work.batch_size], train[1][: 10 * work.batch_size])
    side, wait = ours(work, few, seed=0)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        whole = harness.once(lambda: side.fit(1))
    shares = dict.fromkeys(KINDS, 0.0)
    for event in seen.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(n in event.key for n in names)), None)
        if kind is not None:
            shares[kind] += event.self_cpu_time_total / 1e6 / whole
    shares["loader wait"] = wait.seconds / whole
    shares["other"] = 1 - sum(shares.values())
    return {kind: round(share, 3) for kind, share in shares.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Peers print as they train."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def compare(results: harness.Results, work: Work, train: Table, valid: Table) -> None:
    """One model against its peers and against matmul."""
    peers = [peer for peer in PEERS[work.name] if installed(peer)]
    seconds: dict[str, list[float]] = {side: [] for side in ("ours", *peers)}
    auc: dict[str, list[float]] = {side: [] for side in seconds}
    sizes: dict[str, int] = {}
    rates, waits = [], []
    unclipped = replace(work, train=work.train | {"clip_norm": 0.0})
    one = (train[0][: work.batch_size], train[1][: work.batch_size])
    with quiet():
        for repeat in range(-1, REPEATS):
            rows, epochs = (train, EPOCHS) if repeat >= 0 else (one, 1)  # a first step warms up every side
            for name in seconds:
                if name == "ours":
                    side, wait = ours(work, rows, seed=repeat + 1)
                else:
                    side = PEERS[work.name][name](work, rows, repeat + 1)
                took = harness.once(lambda side=side, epochs=epochs: side.fit(epochs)) / epochs
                if repeat < 0:
                    sizes[name] = side.parameters
                    continue
                seconds[name].append(took)
                if name == "ours":
                    waits.append(wait.seconds / epochs / took)
                    rates.append(matmul_rate(work.batch_size))
                if repeat < SEEDS:
                    auc[name].append(float(roc_auc_score(valid[1], side.predict(valid))))
            if 0 <= repeat < SEEDS and work.name not in CLIPPED:
                side, _ = ours(unclipped, train, seed=repeat + 1)
                side.fit(EPOCHS)
                auc.setdefault(UNCLIPPED, []).append(float(roc_auc_score(valid[1], side.predict(valid))))
    print(f"train.{work.name}: parameters {sizes}", file=sys.stderr)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for peer in peers:
        scored = [who for who in ("ours", UNCLIPPED, peer) if who in auc]
        results.add(
            f"train.{work.name}.{peer}",
            ours=len(train[1]) / median["ours"],
            peer=len(train[1]) / median[peer],
            unit="rows/s",
            target=2.0,
            auc={who: round(statistics.mean(auc[who]), 4) for who in scored},
            auc_by_seed={who: [round(value, 4) for value in auc[who]] for who in scored},
            parameters={who: sizes[who] for who in ("ours", peer)},
        )
    batch = next(batches_of(work, one, shuffle=False).epoch(0))
    flops = count(build_model(work.name, layout_of(work), work.settings), batch).training_flops
    results.add(
        f"train.{work.name}.matmul",
        ours=flops * len(train[1]) / median["ours"] / 1e9,
        peer=statistics.median(rates) / 1e9,
        unit="GFLOP/s",
        target=0.8,
        loader_share=round(statistics.median(waits), 4),
    )
    results.note(**{f"breakdown_{work.name}": breakdown(work, train)})


def bf16(results: harness.Results, work: Work, train: Table) -> None:
    """A step of a quarter batch under autocast, which needs a processor with bf16 products to pay."""
    rows = work.batch_size // 4
    few, seconds = (train[0][:rows], train[1][:rows]), {}
    for precision in ("fp32", "bf16"):
        side, _ = ours(work, few, 1, precision)
        side.fit(1)
        seconds[precision] = harness.once(lambda side=side: side.fit(1))
    results.add(
        f"train.{work.name}.bf16",
        ours=rows / seconds["bf16"],
        peer=rows / seconds["fp32"],
        unit="rows/s",
        target=None,
    )


def main() -> None:
    """Every model in turn."""
    torch.set_num_threads(THREADS)
    results = harness.Results("train")
    train, valid, rows, data = tables()
    results.note(data=data, rows=len(train[1]), threads=THREADS, epochs=EPOCHS, repeats=REPEATS)
    for peer in sorted({peer for peers in PEERS.values() for peer in peers}):
        if not installed(peer):
            print(f"{peer} is not installed (extra `bench`): its lines are left out", file=sys.stderr)
    for name in PEERS:
        work = work_of(name, rows)
        compare(results, work, train, valid)
        bf16(results, work, train)
        print(f"train.{name}: {results.notes[f'breakdown_{name}']}", file=sys.stderr)
    results.write()


if __name__ == "__main__":
    main()
