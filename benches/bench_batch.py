"""Shuffled batches of 4096 rows of 27 ids, as tensors: from memory and from disk, against what people use today.

Ours is a whole `Batch` (ids, label, user, time, row number); every peer delivers the ids alone.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import harness

os.environ.setdefault("RECFM_NUM_THREADS", "2")

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from recfm.data.batches import Batches
from recfm.data.encode import Encoded, Encoder
from recfm.data.folder import EncodedFolder
from recfm.data.loader import Loader
from recfm.schema import Categorical, Schema

ROWS = 1_000_000  # in a quick run too: a table that fits in the cache would be another comparison
FEW = 20_000 if harness.QUICK else 100_000  # rows that a slow peer serves
FEATURES, BATCH = 27, 4096
FIRST_BATCH = 0.05  # seconds from a table in memory to its first batch, at most
STREAM = 10e6  # rows per second from disk, at least


def table() -> tuple[pl.DataFrame, Encoder]:
    """Made-up events of 27 features, and what encodes them."""
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(FEATURES)]
    keys = {
        "user": rng.integers(0, 50_000, ROWS),
        "item": rng.integers(0, 50_000, ROWS),
        "time": np.arange(ROWS),
        "label": (rng.random(ROWS) < 0.2).astype(np.int8),
    }
    frame = pl.DataFrame(keys | {name: rng.integers(0, 100_000, ROWS) for name in names})
    features = tuple(Categorical(name=name, side="context", buckets=100_000) for name in names)
    schema = Schema(user="user", item="item", time="time", label="label", features=features)
    return frame, Encoder(schema).fit(frame.head(1))


class ByRow(Dataset[torch.Tensor]):
    """The tutorial's data set: one row at a time."""

    def __init__(self, ids: NDArray[np.int32]) -> None:
        self._ids = torch.from_numpy(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self._ids[row]


class ByRows(ByRow):
    """The same with the batched protocol: a list of rows at a time."""

    def __getitems__(self, rows: list[int]) -> torch.Tensor:
        return self._ids[rows]


def served(batches: Iterable[Any]) -> int:
    """Go through the batches; the number of rows."""
    return sum(len(batch) for batch in batches)


def rate(batches: Iterable[Any], most: int) -> float:
    """Rows per second from the first batch on, over `most` rows: the start of an epoch is not held against it."""
    running = iter(batches)
    next(running)
    rows, start = 0, time.perf_counter()
    while rows < most:
        rows += len(next(running))
    return rows / (time.perf_counter() - start)


def numpy_take(ids: NDArray[np.int32]) -> Iterator[torch.Tensor]:
    """Rows of one matrix by a permutation."""
    order = np.random.default_rng(1).permutation(len(ids))
    for first in range(0, len(ids), BATCH):
        yield torch.from_numpy(ids[order[first : first + BATCH]])


def index_select(ids: torch.Tensor) -> Iterator[torch.Tensor]:
    """The same in torch."""
    order = torch.randperm(len(ids))
    for first in range(0, len(ids), BATCH):
        yield ids.index_select(0, order[first : first + BATCH])


def row_groups(path: Path) -> Iterator[torch.Tensor]:
    """Row groups of a Parquet file in random order, shuffled inside."""
    import pyarrow.parquet as pq

    rng, file = np.random.default_rng(1), pq.ParquetFile(path)
    for group in rng.permutation(file.num_row_groups):
        columns = file.read_row_group(int(group)).columns
        ids = np.stack([column.to_numpy() for column in columns], axis=1)
        order = rng.permutation(len(ids))
        for first in range(0, len(ids), BATCH):
            yield torch.from_numpy(ids[order[first : first + BATCH]])


def in_memory(results: harness.Results, encoded: Encoded) -> None:
    """Batches of a table in memory, and the peers that take one."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    batches, epochs = Batches(encoded, batch_size=BATCH, seed=1), iter(range(10**6))
    seconds = harness.medians(
        {
            "ours": lambda: served(batches.epoch(next(epochs))),
            "loader": lambda: served(Loader(batches, start=(next(epochs), 0))),
            "numpy-take": lambda: served(numpy_take(encoded.ids)),
            "index-select": lambda: served(index_select(torch.from_numpy(encoded.ids))),
        }
    )
    ours = ROWS / seconds["ours"]
    results.note(rows=ROWS, features=FEATURES, batch_size=BATCH, loader_rows_per_s=ROWS / seconds["loader"])
    for peer, target in (("numpy-take", 2.0), ("index-select", None)):
        results.add(
            f"batch.shuffled.{peer}", ours=ours, peer=ROWS / seconds[peer], unit="rows/s", target=target
        )

    slow: dict[str, Callable[[], Any]] = {
        "per-row-dataloader": lambda: DataLoader(ByRow(encoded.ids), batch_size=BATCH, shuffle=True),
        "getitems": lambda: DataLoader(
            ByRows(encoded.ids), batch_size=BATCH, shuffle=True, collate_fn=lambda rows: rows
        ),
        "torchdata": lambda: StatefulDataLoader(ByRow(encoded.ids), batch_size=BATCH, shuffle=True),
    }
    for peer, make in slow.items():
        found = statistics.median(rate(make(), FEW) for _ in range(3))
        results.add(f"batch.shuffled.{peer}", ours=ours, peer=found, unit="rows/s", target=None)

    first = batches.batch(0, 0)
    row_bytes = sum(t.nbytes for t in (first.ids, first.label, first.user, first.time, first.row)) / BATCH
    copied = ROWS / harness.copy_seconds(round(ROWS * row_bytes))
    results.add("batch.shuffled.memcpy", ours=ours, peer=copied, unit="rows/s", target=None)
    seconds = harness.medians({"first": lambda: Batches(encoded, batch_size=BATCH, seed=1).batch(0, 0)})
    results.add("batch.first-ms.bound", ours=seconds["first"], peer=FIRST_BATCH, unit="s", target=1.0)


def from_disk(results: harness.Results, blocks: EncodedFolder, encoded: Encoded, folder: Path) -> None:
    """Batches of a table on disk, an eighth of it in a pool, against Parquet row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {column.name: encoded.ids[:, i] for i, column in enumerate(encoded.layout.categorical)}
    parquet = folder / "events.parquet"
    pq.write_table(pa.table(columns), parquet, row_group_size=65_536)
    memory = blocks.nbytes // 4
    epochs = iter(range(10**6))

    def streamed() -> int:
        return served(Batches(blocks, batch_size=BATCH, seed=1, memory=memory).epoch(next(epochs)))

    seconds = harness.medians({"ours": streamed, "parquet": lambda: served(row_groups(parquet))})
    ours = ROWS / seconds["ours"]
    whole = harness.medians(
        {"whole": lambda: served(Batches(blocks, batch_size=BATCH, memory="1GiB").epoch(0))}
    )
    results.note(pool_memory=memory, read_whole_then_served_rows_per_s=ROWS / whole["whole"])
    peer = ROWS / seconds["parquet"]
    results.add("batch.streamed.parquet-row-groups", ours=ours, peer=peer, unit="rows/s", target=None)
    results.add("batch.streamed.rows", ours=ours, peer=STREAM, unit="rows/s", target=1.0)


def main() -> None:
    """Run every comparison of the theme."""
    torch.set_num_threads(2)
    results, (frame, encoder) = harness.Results("batch"), table()
    encoded = encoder.transform(frame)
    in_memory(results, encoded)
    with tempfile.TemporaryDirectory() as folder:
        blocks = encoder.encode(frame, Path(folder) / "encoded")
        del frame
        from_disk(results, blocks, encoded, Path(folder))
    results.write()


if __name__ == "__main__":
    main()
