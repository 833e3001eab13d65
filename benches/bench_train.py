"""One training epoch at the settings of Frappe_x1, beside torch-rechub, deepctr-torch and a plain eager Wukong.

Batch 4096, float32, Adam 1e-3, L2 of 0.05 on whole embedding tables (its gradient is 0.05 * w for everyone), d = 10;
ours clips the gradient's norm at 10, which the peers cannot. Every side trains from its own loader and takes turns
in one process with the same threads. `train.<model>.matmul` sets a step's FLOPs over its time against the rate of a
[4096, 400] x [400, 400] product in the same run; 1 is a step that is nothing but matmul.

Frappe is read from the folder FRAPPE (or ../shared/data/frappe: train_redrawn.parquet, valid.parquet); without it the
rows are drawn at random with the same columns, and AUC means nothing.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness

os.environ.setdefault("RECFM_NUM_THREADS", "2")
os.environ.setdefault("OMP_NUM_THREADS", os.environ["RECFM_NUM_THREADS"])

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from recfm.data.batches import Batches
from recfm.data.encode import Encoded
from recfm.data.loader import Loader
from recfm.layout import Column, Layout
from recfm.models.zoo import MODELS, build_model
from recfm.schema import Categorical, Schema

THREADS = int(os.environ["RECFM_NUM_THREADS"])
BATCH, DIM, L2, CLIP, RATE = 4096, 10, 0.05, 10.0, 1e-3
COLUMNS = [
    "user",
    "item",
    "daytime",
    "weekday",
    "isweekend",
    "homework",
    "cost",
    "weather",
    "country",
    "city",
]
SIZES = (957, 4082, 7, 7, 2, 3, 2, 9, 80, 233)  # values of each column, where there is no data
REPEATS = 1 if harness.QUICK else 3
SETTINGS: dict[str, dict[str, Any]] = {
    "dnn": {"dim": DIM, "hidden": (400,) * 3, "dropout": 0.2, "batch_norm": True},
    "dcnv2": {"cross_layers": 4, "dim": DIM, "hidden": (400,) * 3, "dropout": 0.2, "batch_norm": True},
    "wukong": {
        "dim": DIM,
        "layers": 3,
        "fm_rows": 16,
        "linear_rows": 16,
        "rank": 8,
        "fm_hidden": (256,),
        "hidden": (400, 400),
        "dropout": 0.2,
    },
}
KINDS = {
    "matmul": ("aten::mm", "aten::addmm", "aten::bmm"),
    "norm, activation and dropout": ("_Hidden", "_SmallNorm", "native_", "threshold", "clamp", "bernoulli"),
    "optimiser, L2 and clip": ("_fused_adam", "_foreach", "linalg_vector_norm"),
    "embedding": ("embedding", "index_select"),
}
Table = tuple[NDArray[np.int32], NDArray[np.float32]]


def tables() -> tuple[Table, Table, tuple[int, ...]]:
    """Training and validation rows, ids from 2 up, and the rows of each column's embedding table."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "frappe"
    folder = Path(os.environ.get("FRAPPE", default))
    if not (folder / "train_redrawn.parquet").exists():
        rng, count = np.random.default_rng(0), 202_027
        drawn = [
            (
                np.stack([rng.integers(2, size + 2, n) for size in SIZES], axis=1).astype(np.int32),
                (rng.random(n) < 1 / 3).astype(np.float32),
            )
            for n in (count, count // 4)
        ]
        return _fewer(drawn[0]), _fewer(drawn[1]), tuple(size + 2 for size in SIZES)
    import polars as pl

    parts = [pl.read_parquet(folder / f"{name}.parquet") for name in ("train_redrawn", "valid")]
    ids = [part.select(COLUMNS).to_numpy().astype(np.int64) for part in parts]
    columns = [np.unique(np.concatenate([part[:, j] for part in ids])) for j in range(len(COLUMNS))]
    coded = [np.stack([np.searchsorted(c, part[:, j]) + 2 for j, c in enumerate(columns)], 1) for part in ids]
    train, valid = (
        (codes.astype(np.int32), part["label"].to_numpy().astype(np.float32))
        for codes, part in zip(coded, parts, strict=True)
    )
    return _fewer(train), _fewer(valid), tuple(len(c) + 2 for c in columns)


def _fewer(table: Table) -> Table:
    rows = 6 * BATCH if harness.QUICK else len(table[1])
    return table[0][:rows], table[1][:rows]


class Side:
    """A model that trains an epoch at a time and predicts."""

    def __init__(
        self, model: nn.Module, epoch: Callable[[], None], predict: Callable[[Table], NDArray[np.float64]]
    ) -> None:
        self.model, self.epoch, self.predict = model, epoch, predict


def step(model: nn.Module, tables: list[Tensor], optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Backward, whole-table L2, clip and Adam, as the benchmark's protocol has them."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch._foreach_add_([t.grad for t in tables], [t.detach() for t in tables], alpha=L2)
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    return loss.item()


def ours(name: str, train: Table, rows: tuple[int, ...], *, bf16: bool = False) -> tuple[Side, list[float]]:
    """Our model from our loader, and the seconds that it waited for batches."""
    torch.manual_seed(1)
    layout = Layout(
        categorical=tuple(Column(name=c, rows=n, side="context") for c, n in zip(COLUMNS, rows, strict=True)),
        tokens=(),
        numeric=(),
    )
    model = build_model(name, layout, SETTINGS[name])
    weight: nn.Parameter = model.embedding.weight
    nn.init.normal_(weight, std=1e-4 if name != "wukong" else 1e-2)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    batches, epochs, waited = (
        Batches(encoded(train, layout), batch_size=BATCH, seed=1),
        iter(range(10**6)),
        [0.0],
    )

    def epoch() -> None:
        model.train()
        asked = time.perf_counter()
        for batch in Loader(batches, start=(next(epochs), 0)):
            waited[0] += time.perf_counter() - asked
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logit = model(batch)
            step(
                model,
                [weight],
                optimizer,
                functional.binary_cross_entropy_with_logits(logit.float(), batch.label),
            )
            asked = time.perf_counter()

    def predict(table: Table) -> NDArray[np.float64]:
        model.eval()
        served = Batches(encoded(table, layout), batch_size=BATCH, shuffle=False)
        with torch.inference_mode():
            return torch.cat([model(batch) for batch in Loader(served)]).double().numpy()

    return Side(model, epoch, predict), waited


def encoded(table: Table, layout: Layout) -> Encoded:
    """The rows as our encoder would leave them."""
    ids, label = table
    features = tuple(Categorical(name=c, side="context") for c in COLUMNS)
    keys = np.zeros(len(label), np.int64)
    return Encoded(
        schema=Schema(user="u", item="i", time="t", label="l", features=features),
        layout=layout,
        ids=np.ascontiguousarray(ids),
        numeric=np.zeros((len(label), 0), np.float32),
        tokens={},
        user=keys,
        item=keys,
        time=keys,
        label=label,
    )


def torch_rechub(name: str, train: Table, rows: tuple[int, ...]) -> Side:
    """Its trainer and its loader; it has no plain DNN, so that is its embedding layer under its MLP."""
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.basic.layers import MLP, EmbeddingLayer
    from torch_rechub.models.ranking import DCNv2
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    torch.manual_seed(1)
    features = [SparseFeature(c, n, embed_dim=DIM) for c, n in zip(COLUMNS, rows, strict=True)]
    widths = {"dims": [400] * 3, "dropout": 0.2}

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.mlp = EmbeddingLayer(features), MLP(DIM * len(rows), **widths)

        def forward(self, x: dict[str, Tensor]) -> Tensor:
            return self.mlp(self.embedding(x, features, squeeze_dim=True)).squeeze(1).sigmoid()

    model = Plain() if name == "dnn" else DCNv2(features, 4, widths, "parallel", use_low_rank_mixture=False)
    l2 = {"embedding_l1": 0.0, "embedding_l2": L2 / 2, "dense_l1": 0.0, "dense_l2": 0.0}
    adam = {"lr": RATE, "weight_decay": 0.0}
    trainer = CTRTrainer(model, optimizer_params=adam, regularization_params=l2)
    ids, label = train
    by_name = {c: ids[:, j] for j, c in enumerate(COLUMNS)}
    data = DataGenerator(by_name, label)
    few = {c: v[:1] for c, v in by_name.items()}
    loader, _, _ = data.generate_dataloader(
        x_val=few, y_val=label[:1], x_test=few, y_test=label[:1], batch_size=BATCH
    )

    def predict(table: Table) -> NDArray[np.float64]:
        model.eval()
        x = {c: torch.from_numpy(table[0][:, j].copy()) for j, c in enumerate(COLUMNS)}
        with torch.inference_mode():
            return model(x).double().numpy()

    return Side(model, lambda: trainer.train_one_epoch(loader), predict)


def deepctr_torch(name: str, train: Table, rows: tuple[int, ...]) -> Side:
    """Its `fit`; WDL without a wide part is a DNN. It sums the loss over the batch, so L2 is scaled alike."""
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DCN, WDL

    features = [SparseFeat(c, n, embedding_dim=DIM) for c, n in zip(COLUMNS, rows, strict=True)]
    common: dict[str, Any] = {
        "dnn_hidden_units": (400,) * 3,
        "dnn_dropout": 0.2,
        "dnn_use_bn": True,
        "l2_reg_embedding": L2 / 2 * BATCH,
        "l2_reg_linear": 0.0,
        "seed": 1,
    }
    if name == "dnn":
        model = WDL([], features, **common)
    else:
        model = DCN([], features, cross_num=4, cross_parameterization="matrix", l2_reg_cross=0.0, **common)
    model.compile(torch.optim.Adam(model.parameters(), RATE), "binary_crossentropy")
    model.history.epoch = []
    columns = {c: train[0][:, j] for j, c in enumerate(COLUMNS)}

    def predict(table: Table) -> NDArray[np.float64]:
        return model.predict({c: table[0][:, j] for j, c in enumerate(COLUMNS)}, BATCH)[:, 0]

    return Side(model, lambda: model.fit(columns, train[1], batch_size=BATCH, epochs=1, verbose=0), predict)


class EagerLayer(nn.Module):
    """A Wukong layer the way open ports write it."""

    def __init__(self, inputs: int, fm: int, linear: int, rank: int, hidden: int) -> None:
        super().__init__()
        self.fm, out = fm, fm + linear
        self.y = nn.Parameter(torch.randn(inputs, rank) / inputs**0.5)
        self.lcb = nn.Parameter(torch.randn(linear, inputs) / inputs**0.5)
        self.residual = nn.Parameter(torch.randn(out, inputs) / inputs**0.5) if inputs != out else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(inputs * rank),
            nn.Linear(inputs * rank, hidden),
            nn.ReLU(),
            nn.Linear(hidden, fm * DIM),
        )
        self.norm = nn.LayerNorm(DIM)

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        projected = torch.bmm(x.transpose(1, 2), self.y.expand(rows, -1, -1))
        fmb = self.mlp(torch.bmm(x, projected).flatten(1)).view(rows, self.fm, DIM)
        lcb = torch.bmm(self.lcb.expand(rows, -1, -1), x)
        residual = x if self.residual is None else torch.bmm(self.residual.expand(rows, -1, -1), x)
        return self.norm(torch.cat([fmb, lcb], dim=1) + residual)


class EagerWukong(nn.Module):
    """The same sizes as ours."""

    def __init__(self, rows: tuple[int, ...]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sum(rows), DIM)
        nn.init.normal_(self.embedding.weight, std=1e-2)
        self.register_buffer("starts", torch.tensor([0, *np.cumsum(rows)[:-1]]))
        self.layers = nn.Sequential(*(EagerLayer(n, 16, 16, 8, 256) for n in (len(rows), 32, 32)))
        widths = [
            nn.Linear(320, 400),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(400, 400),
            nn.ReLU(),
            nn.Dropout(0.2),
        ]
        self.top = nn.Sequential(*widths, nn.Linear(400, 1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.top(self.layers(self.embedding(ids + self.starts)).flatten(1)).squeeze(1)


def eager(_: str, train: Table, rows: tuple[int, ...]) -> Side:
    """Plain PyTorch from end to end: TensorDataset, DataLoader, Adam."""
    torch.manual_seed(1)
    model = EagerWukong(rows)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    data = TensorDataset(torch.from_numpy(train[0]).long(), torch.from_numpy(train[1]))
    loader = DataLoader(data, batch_size=BATCH, shuffle=True)

    def epoch() -> None:
        model.train()
        for ids, label in loader:
            loss = functional.binary_cross_entropy_with_logits(model(ids), label)
            step(model, [model.embedding.weight], optimizer, loss)

    def predict(table: Table) -> NDArray[np.float64]:
        model.eval()
        with torch.inference_mode():
            return (
                torch.cat([model(ids.long()) for ids in torch.from_numpy(table[0]).split(BATCH)])
                .double()
                .numpy()
            )

    return Side(model, epoch, predict)


PEERS: dict[str, dict[str, Callable[..., Side]]] = {
    "dnn": {"torch-rechub": torch_rechub, "deepctr-torch": deepctr_torch},
    "dcnv2": {"torch-rechub": torch_rechub, "deepctr-torch": deepctr_torch},
    "wukong": {"eager": eager},
}


def flops(name: str, rows: tuple[int, ...], batch: int) -> float:
    """Of a training step's matrix products: three times forward."""
    n = len(rows)
    inputs = n * DIM
    hidden = inputs * 400 + 2 * 400 * 400
    if name == "dnn":
        return 6.0 * batch * (hidden + 400)
    if name == "dcnv2":
        return 6.0 * batch * (hidden + 400 + inputs + 4 * inputs * inputs)
    total, wide = 320 * 400 + 400 * 400 + 400, 32
    for m in (n, wide, wide):
        total += 2 * m * DIM * 8 + m * 8 * 256 + 256 * 16 * DIM + 16 * m * DIM + (m != wide) * wide * m * DIM
    return 6.0 * batch * total


def matmul_rate(dtype: torch.dtype, repeats: int = 9) -> float:
    """FLOP/s of a hidden layer's product."""
    left, right = torch.randn(BATCH, 400).to(dtype), torch.randn(400, 400).to(dtype)
    out = torch.empty(BATCH, 400, dtype=dtype)
    torch.mm(left, right, out=out)
    seconds = statistics.median(harness.once(lambda: torch.mm(left, right, out=out)) for _ in range(repeats))
    return 2.0 * BATCH * 400 * 400 / seconds


def breakdown(side: Side) -> dict[str, float]:
    """Shares of an epoch by kind of work, from the profiler; what is left of 1 is Python and waiting."""
    from torch.profiler import ProfilerActivity, profile

    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        side.epoch()
    whole = (time.perf_counter() - start) * 1e6
    shares = dict.fromkeys([*KINDS, "other operations"], 0.0)
    for event in seen.key_averages():
        kind = next(
            (k for k, names in KINDS.items() if any(n in event.key for n in names)), "other operations"
        )
        shares[kind] += event.self_cpu_time_total / whole
    return {kind: round(share, 4) for kind, share in shares.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Peers print as they train."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def compare(results: harness.Results, name: str, train: Table, valid: Table, rows: tuple[int, ...]) -> None:
    """One model against its peers and against matmul."""
    mine, waited = ours(name, train, rows)
    sides = {"ours": mine}
    with quiet():
        sides |= {peer: make(name, train, rows) for peer, make in PEERS[name].items()}
        waited[0], count = 0.0, len(train[1])
        rates: list[float] = []
        works = {"matmul": lambda: rates.append(matmul_rate(torch.float32))}
        works |= {peer: side.epoch for peer, side in sides.items()}
        seconds = harness.medians(works, repeats=REPEATS)
        auc = {
            peer: round(float(roc_auc_score(valid[1], side.predict(valid))), 4)
            for peer, side in sides.items()
        }
    sizes = {peer: sum(p.numel() for p in side.model.parameters()) for peer, side in sides.items()}
    loader = waited[0] / (REPEATS + 1) / seconds["ours"]
    for peer in PEERS[name]:
        results.add(
            f"train.{name}.{peer}",
            ours=count / seconds["ours"],
            peer=count / seconds[peer],
            unit="rows/s",
            target=2.0,
            auc={who: auc[who] for who in ("ours", peer)},
            epochs=REPEATS + 1,
            parameters={who: sizes[who] for who in ("ours", peer)},
        )
    results.add(
        f"train.{name}.matmul",
        ours=flops(name, rows, count) / seconds["ours"] / 1e9,
        peer=statistics.median(rates) / 1e9,
        unit="GFLOP/s",
        target=0.8,
        loader_share=round(loader, 4),
        breakdown=breakdown(mine),
    )


def bf16(results: harness.Results, train: Table, rows: tuple[int, ...]) -> None:
    """Autocast, which needs a processor with bf16 products to pay."""
    full, half = matmul_rate(torch.float32), matmul_rate(torch.bfloat16, repeats=1)
    results.add("train.bf16.matmul", ours=half / 1e9, peer=full / 1e9, unit="GFLOP/s", target=None)
    one = (train[0][:BATCH], train[1][:BATCH])
    works = {str(b): ours("dnn", one, rows, bf16=b)[0].epoch for b in (True, False)}
    seconds = harness.medians(works, repeats=1)
    results.add(
        "train.dnn.bf16",
        ours=BATCH / seconds["True"],
        peer=BATCH / seconds["False"],
        unit="rows/s",
        target=None,
    )


def main() -> None:
    """Every model in turn."""
    torch.set_num_threads(THREADS)
    results = harness.Results("train")
    train, valid, rows = tables()
    results.note(rows=len(train[1]), batch_size=BATCH, threads=THREADS, train_negatives="re-drawn")
    for name in PEERS:
        if name in MODELS:
            compare(results, name, train, valid, rows)
    bf16(results, train, rows)
    results.write()


if __name__ == "__main__":
    main()
