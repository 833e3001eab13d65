"""A log larger than the memory it may use: encode, index and one epoch of batches, from a million events up.

Each size runs in a process of its own, whose resident memory at most is what is reported. The log is synthetic, on
disk as Parquet, sorted by time: users and items as skewed as in real logs. `SCALE_FOLDER` says where the files go
(about 9 GB for 100 M events); they are removed at the end.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import harness
import numpy as np
import polars as pl

SIZES = [100_000, 300_000] if harness.QUICK else [1_000_000, 10_000_000, 100_000_000]
LIMIT_GIB = 4.0
MEMORY = "1GiB"
PIECE = 2_000_000
BATCH = 4096
STAGES = ("fit", "encode", "index", "epoch")
JOINED = 10
"""An epoch that looks up every event's past runs for one event in so many; its seconds are scaled."""


def write_log(folder: Path, events: int) -> None:
    """Parquet files of PIECE events each."""
    users, items = max(events // 25, 10), max(events // 200, 10)
    for first in range(0, events, PIECE):
        count = min(PIECE, events - first)
        rng = np.random.default_rng(first)
        item = (rng.random(count) ** 3 * items).astype(np.int64)
        pl.DataFrame(
            {
                # Squared and scattered: a few users and items have most events, and ids are no dense range.
                "user": (rng.random(count) ** 2 * users).astype(np.int64) * 2_654_435_761 % 2**40,
                "item": item * 40_503 % 2**32,
                "time": 1_700_000_000 + np.arange(first, first + count) * (30 * 86_400) // events,
                "label": (rng.random(count) < 0.3).astype(np.int8),
                "category": pl.Series((item % 997).astype(str)),
                "price": rng.lognormal(3, 1, count),
            }
        ).write_parquet(folder / f"part-{first // PIECE:05d}.parquet")


def whole_job(folder: str, events: int) -> Iterator[dict[str, float] | None]:
    """Encode, index and serve one epoch; runs in a child process."""
    import torch  # noqa: F401  its import is not what is measured

    from recfm.data.batches import Batches
    from recfm.data.encode import Encoder
    from recfm.history.index import HistoryIndex, PastEvents
    from recfm.schema import Categorical, Numeric, Schema

    features = (
        Categorical(name="user", side="user"),
        Categorical(name="item", side="item", min_count=2),
        Categorical(name="category", side="item"),
        Numeric(name="price", side="item", transform="log"),
    )
    schema = Schema(user="user", item="item", time="time", label="label", features=features)
    log, out, index_folder = (str(Path(folder) / name) for name in ("log", "encoded", "index"))
    yield None
    clock = [time.perf_counter()]
    encoder = Encoder(schema).fit(log, memory=MEMORY)
    clock.append(time.perf_counter())
    table = encoder.encode(log, out, memory=MEMORY)
    clock.append(time.perf_counter())
    HistoryIndex.build(
        index_folder,
        lambda: ((table.column("user", [b]), table.column("time", [b])) for b in range(table.num_blocks)),
        memory=MEMORY,
    )
    clock.append(time.perf_counter())
    opened = time.perf_counter()
    index = HistoryIndex.open(index_folder)
    opened = time.perf_counter() - opened
    batches = Batches(table, batch_size=BATCH, seed=1, memory="512MiB")
    if sum(map(len, batches.epoch(0))) != events:
        raise SystemExit("the epoch has not every event")
    clock.append(time.perf_counter())
    past = {"past": PastEvents(index=index, counts_only=True)}
    joined = Batches(table, batch_size=BATCH, seed=1, memory="512MiB", sequences=past)
    served, seen = 0, 0
    for batch in joined.epoch(0):
        served += len(batch)
        seen += int(batch.sequences["past"].lengths.sum())
        if served >= events // JOINED:
            break
    clock.append(time.perf_counter())
    if seen <= 0:
        raise SystemExit("no event has a past")
    seconds = dict(zip((*STAGES, "joined"), np.diff(clock).tolist(), strict=True))
    seconds["joined"] *= events / served
    yield {**seconds, "open": opened}


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Nanoseconds per event and resident memory, by size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    sizes = [row["events"] for row in rows]
    for stage in (*STAGES, "joined"):
        left.plot(sizes, [row[stage] / row["events"] * 1e9 for row in rows], marker="o", label=stage)
    left.set(xscale="log", ylim=(0, None), xlabel="events", ylabel="ns per event", title="Cost of an event")
    left.legend(frameon=False)
    right.plot(sizes, [row["peak_gib"] for row in rows], marker="o", color="black")
    right.axhline(LIMIT_GIB, color="tab:red", linestyle="--", linewidth=1)
    right.set(
        xscale="log",
        ylim=(0, LIMIT_GIB * 1.1),
        xlabel="events",
        ylabel="GiB",
        title="Resident memory at most",
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    results, rows = harness.Results("scale"), []
    for events in SIZES:
        folder = Path(tempfile.mkdtemp(prefix="recfm-scale-", dir=os.environ.get("SCALE_FOLDER")))
        try:
            (folder / "log").mkdir()
            write_log(folder / "log", events)
            measured = harness.in_child(whole_job, str(folder), events)
            sizes = {
                name: sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file())
                / 2**30
                for name in ("log", "encoded", "index")
            }
        finally:
            shutil.rmtree(folder)
        rows.append({"events": events, **measured, **{f"{name}_gib": size for name, size in sizes.items()}})
        print(rows[-1], flush=True)
    last, first = rows[-1], rows[0]
    results.note(memory=MEMORY, sizes=rows)
    results.add("scale.resident.limit", ours=last["peak_gib"], peer=LIMIT_GIB, unit="GiB", target=1.0)
    for name, stages, target in (("cost-per-event", STAGES, 0.8), ("joined-per-event", ("joined",), None)):
        nanoseconds = [sum(row[stage] for stage in stages) / row["events"] * 1e9 for row in (last, first)]
        results.add(
            f"scale.{name}.smallest",
            ours=nanoseconds[0],
            peer=nanoseconds[1],
            unit="ns",
            target=target,
            note=f"{last['events']:,} events against {first['events']:,}: 1 is flat",
        )
    results.write()
    if not harness.QUICK:
        draw(rows, results.path.with_suffix(".png"))


if __name__ == "__main__":
    main()
