"""A training step of an embedding table: look a batch up, walk back, update, for tables of 10 thousand rows and up.

A batch is 4096 examples of 26 features, dimension 16. Ids are skewed as in real logs (the density of id k falls as
1/k); uniform ids, the worst case of every cache, are run beside them. All tables of one size run in one process of
their own: ours with row-wise AdaGrad and with Adam on rows, and PyTorch's `nn.Embedding` with SparseAdam, Adagrad and
dense Adam. Adam needs two more tables, so the largest sizes have only what fits in memory.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import harness

SIZES = (
    [10_000, 100_000, 1_000_000] if harness.QUICK else [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]
)
EXAMPLES, FEATURES, DIM = 4096, 26, 16
BATCHES = 4
ROUNDS = 2 if harness.QUICK else 7
ROUNDS_OF_DENSE = 2
MOST = {
    "adam-rows": 10_000_000,
    "sparse-adam": 10_000_000,
    "sparse-adagrad": 10_000_000,
    "dense-adam": 1_000_000,
}
"""Rows of the largest table that each is run on; ours with row-wise AdaGrad has no limit."""
LABELS = {
    "ours": "recfm, row-wise AdaGrad",
    "ours-uniform": "recfm, row-wise AdaGrad, uniform ids",
    "adam-rows": "recfm, Adam on rows",
    "sparse-adam": "torch SparseAdam",
    "sparse-adagrad": "torch Adagrad, sparse",
    "dense-adam": "torch Adam, dense",
}


def one_size(rows: int, torch_threads: int) -> Iterator[dict[str, float] | None]:
    """Median milliseconds of a step of each; runs in a child process."""
    import numpy as np
    import torch
    from torch import nn

    from recfm.data.batch import Batch
    from recfm.layout import Column, Layout
    from recfm.models.features import FeatureEmbedding
    from recfm.train.sparse import RowAdam, RowwiseAdagrad

    torch.set_num_threads(torch_threads)
    torch.sparse.check_sparse_tensor_invariants.disable()  # the default, said aloud so that torch does not warn
    torch.manual_seed(0)
    each = rows // FEATURES
    rng = np.random.default_rng(0)

    def batches(kind: str) -> list[Batch]:
        made = []
        for _ in range(BATCHES):
            chance = rng.random((EXAMPLES, FEATURES))
            drawn = each**chance - 1 if kind == "skewed" else chance * each
            none = torch.zeros(EXAMPLES)
            ids = torch.from_numpy(drawn.astype(np.int32))
            made.append(
                Batch(ids=ids, numeric=none, label=none, user=none, time=none, row=none)  # only ids are read
            )
        return made

    skewed, uniform = batches("skewed"), batches("uniform")
    pull = torch.randn(EXAMPLES, FEATURES, DIM, generator=torch.Generator().manual_seed(1))
    offsets = torch.arange(FEATURES) * each
    columns = tuple(Column(name=f"f{i}", rows=each, side="context") for i in range(FEATURES))
    layout = Layout(categorical=columns, tokens=(), numeric=())

    def ours(kind: type[RowwiseAdagrad] | type[RowAdam]) -> Callable[[Batch], None]:
        table = FeatureEmbedding(layout, DIM, viewer="fm", sparse=True)
        optimizer = kind([table.weight], lr=0.01)

        def step(batch: Batch) -> None:
            optimizer.zero_grad()
            table(batch).backward(pull)
            optimizer.step()

        return step

    def torchs(make: Callable[..., torch.optim.Optimizer], *, sparse: bool) -> Callable[[Batch], None]:
        weight = torch.empty(each * FEATURES, DIM).normal_(std=0.02)
        table = nn.Embedding(each * FEATURES, DIM, sparse=sparse, _weight=weight)
        optimizer = make([table.weight], lr=0.01)

        def step(batch: Batch) -> None:
            optimizer.zero_grad()
            table(batch.ids + offsets).backward(pull)
            optimizer.step()

        return step

    works: dict[str, Callable[[], Callable[[Batch], None]]] = {
        "adam-rows": lambda: ours(RowAdam),
        "sparse-adam": lambda: torchs(torch.optim.SparseAdam, sparse=True),
        "sparse-adagrad": lambda: torchs(torch.optim.Adagrad, sparse=True),
        "dense-adam": lambda: torchs(torch.optim.Adam, sparse=False),
    }
    yield None
    started = time.perf_counter()
    reference = ours(RowwiseAdagrad)
    for batch in skewed + uniform:  # the state is made, and the rows are in memory
        reference(batch)
    yield {
        "init_seconds": time.perf_counter() - started,
        "rows_in_a_batch": len((skewed[0].ids + offsets).unique()),
    }

    def milliseconds(step: Callable[[Batch], None], made: list[Batch]) -> list[float]:
        return [1e3 * harness.once(lambda batch=batch: step(batch)) for batch in made]  # type: ignore[misc]

    times: dict[str, list[float]] = {"ours": [], "ours-uniform": []}
    for _ in range(ROUNDS):
        times["ours"] += milliseconds(reference, skewed)
        times["ours-uniform"] += milliseconds(reference, uniform)
    yield {"alone_ms": statistics.median(times["ours"])}
    for name, make in works.items():
        if rows > MOST[name]:
            continue
        step = make()
        step(skewed[0])
        step(skewed[1])
        times[name] = []
        for _ in range(ROUNDS_OF_DENSE if name == "dense-adam" else ROUNDS):
            times[name] += milliseconds(step, skewed)
            times["ours"] += milliseconds(reference, skewed)  # both meet the same moments of a shared machine
    yield {name: statistics.median(found) for name, found in times.items()}


def draw(rows: list[dict[str, float]], path: object) -> None:
    """Milliseconds of a step by size of the table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    for name, label in LABELS.items():
        points = [(row["rows"], row[name]) for row in rows if name in row]
        ours = name.startswith("ours")
        axes.plot(*zip(*points, strict=True), marker="o", label=label, linewidth=2 if ours else 1)
    axes.set(xscale="log", yscale="log", xlabel="rows of the table", ylabel="ms")
    axes.set_title(f"A step of {EXAMPLES} x {FEATURES} ids, dimension {DIM}")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    results, rows = harness.Results("embedding"), []
    for size in SIZES:
        measured = harness.in_child(one_size, size, 2)
        rows.append({"rows": size, **measured})
        print({name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
    results.note(batch=[EXAMPLES, FEATURES], dim=DIM, sizes=rows)
    for peer, ours, target in (
        ("sparse-adam", "adam-rows", None),
        ("sparse-adagrad", "ours", None),
        ("dense-adam", "ours", None),
    ):
        largest = max((row for row in rows if peer in row), key=lambda row: row["rows"])
        results.add(
            f"embedding.step.torch-{peer}",
            ours=largest[ours] / 1e3,
            peer=largest[peer] / 1e3,
            unit="s",
            target=target,
            note=f"{largest['rows']:,} rows, {LABELS[ours]}",
        )
    middle = next(row for row in rows if row["rows"] == min(1_000_000, SIZES[-1] // 100))
    for name, key in (("flat", "ours"), ("flat-uniform", "ours-uniform")):
        results.add(
            f"embedding.{name}.smaller-table",
            ours=rows[-1][key] / 1e3,
            peer=middle[key] / 1e3,
            unit="s",
            target=None,
            note=f"{SIZES[-1]:,} rows against {middle['rows']:,}: 1 is flat",
            peak_gib=rows[-1]["peak_gib"],
        )
    results.write()
    if not harness.QUICK:
        draw(rows, results.path.with_suffix(".png"))


if __name__ == "__main__":
    main()
