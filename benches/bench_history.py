"""Per-row histories: recfm's index beside the ways people do it today, and its gather beside a plain copy.

Every peer finds, for each of the events, the last 50 events of the same user strictly before it. The answers are
compared in the run. `QUICK=1` takes a tenth of the events.
"""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("RECFM_NUM_THREADS", "2")

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import harness
import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from recfm.history.index import HistoryIndex

EVENTS, USERS, HEAVIEST = (500_000, 20_000, 1_500) if harness.QUICK else (5_000_000, 200_000, 15_000)
PANDAS_EVENTS = EVENTS // 25
LENGTH = 50
BATCH, DIM = 4096, 32
Windows = tuple[NDArray[np.int64], NDArray[np.int64]]


def events(n: int = EVENTS) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """User and time of a log in time order: skewed users, one of them with 15 thousand events, 2% ties."""
    random = np.random.default_rng(0)
    users = max(1, USERS * n // EVENTS)
    user = np.minimum(random.integers(0, users, n), random.integers(0, users, n))
    user[random.choice(n, max(1, HEAVIEST * n // EVENTS), replace=False)] = users
    time = np.sort(random.integers(0, 90 * 86_400 * 10**6, n))
    tied = np.flatnonzero(random.random(n - 1) < 0.02)
    for at in tied:  # an event at the moment of the one before it
        time[at + 1] = time[at]
        user[at + 1] = user[at]
    return user, time


def ours(user: NDArray[np.int64], time: NDArray[np.int64]) -> Windows:
    """The index, and the window of each event."""
    return HistoryIndex(user, time).windows_of_events(length=LENGTH)


def by_numpy(user: NDArray[np.int64], time: NDArray[np.int64]) -> Windows:
    """A stable sort by user of a log in time order, and running maxima for where users and moments begin."""
    order = np.argsort(user, kind="stable")
    user, time = user[order], time[order]
    place = np.arange(len(user))
    begins = np.ones(len(user), bool)
    begins[1:] = user[1:] != user[:-1]
    first = np.maximum.accumulate(np.where(begins, place, 0))
    begins[1:] |= time[1:] != time[:-1]
    until = np.maximum.accumulate(np.where(begins, place, 0))
    start, stop = np.empty_like(place), np.empty_like(place)
    start[order], stop[order] = np.maximum(first, until - LENGTH), until
    return start, stop


def by_polars(frame: pl.DataFrame) -> pl.DataFrame:
    """Rolling windows that end before the row, cut to the last 50."""
    rolling = frame.rolling("time", period="1000000000000000i", closed="left", group_by="user")
    return rolling.agg(pl.col("item").tail(LENGTH))


def by_duckdb(frame: pl.DataFrame) -> pl.DataFrame:
    """A list over the range up to one microsecond before, cut to its end."""
    return duckdb.sql(
        f'SELECT "user", "time", list(item) OVER (PARTITION BY "user" ORDER BY "time" RANGE BETWEEN UNBOUNDED '
        f"PRECEDING AND 1 PRECEDING)[-{LENGTH}:] AS past FROM frame"
    ).pl()


def by_pandas(frame: pd.DataFrame) -> list[Any]:
    """A slice of each user's items for every row."""
    past: list[Any] = [None] * len(frame)
    for rows in frame.groupby("user", sort=False).indices.values():
        items, times = frame["item"].to_numpy()[rows], frame["time"].to_numpy()[rows]
        for row, stop in zip(rows, np.searchsorted(times, times, side="left"), strict=True):
            past[row] = items[max(0, stop - LENGTH) : stop]
    return past


def frame_of(user: NDArray[np.int64], time: NDArray[np.int64]) -> pl.DataFrame:
    """The log as a table."""
    return pl.DataFrame({"user": user, "time": time, "item": np.arange(len(user), dtype=np.int32)})


def same_counts(
    user: NDArray[np.int64], time: NDArray[np.int64], windows: Windows, other: pl.DataFrame
) -> int:
    """Elements of all windows, once each (user, time) was found to have as many with the peer."""
    mine = pl.DataFrame({"user": user, "time": time, "count": windows[1] - windows[0]}).sort("user", "time")
    theirs = other.select("user", "time", pl.col("count").cast(pl.Int64)).sort("user", "time")
    assert mine.equals(theirs), "the peer sees other events"
    return int(mine["count"].sum())


def alone(way: Callable[..., Any]) -> Iterator[None]:
    """One way in a process of its own."""
    user, time = events()
    yield
    kept = way(user, time)
    del kept
    yield


def build(results: harness.Results) -> None:
    """Every window of every event."""
    user, time = events()
    frame = frame_of(user, time)
    windows = ours(user, time)
    expected = by_numpy(user, time)
    assert all((a == b).all() for a, b in zip(windows, expected, strict=True)), "numpy sees other events"
    rolled = by_polars(frame).with_columns(count=pl.col("item").list.len())
    results.note(events=EVENTS, users=USERS, length=LENGTH, elements=same_counts(user, time, windows, rolled))
    del rolled, expected
    seconds = harness.medians(
        {
            "ours": lambda: ours(user, time),
            "numpy": lambda: by_numpy(user, time),
            "polars": lambda: by_polars(frame),
        },
        warm=False,
    )
    mine = seconds["ours"]
    results.add("history.build.polars", ours=mine, peer=seconds["polars"], unit="s", target=8.0)
    results.add("history.build.numpy", ours=mine, peer=seconds["numpy"], unit="s", target=4.0)
    added = {way.__name__: harness.in_child(alone, way)["added_gib"] for way in (ours, by_numpy)}
    results.add(
        "history.build-memory.numpy", ours=added["ours"], peer=added["by_numpy"], unit="GiB", target=1.0
    )
    found: list[pl.DataFrame] = []
    duckdb.sql("SET threads = 2")
    taken = harness.once(lambda: found.append(by_duckdb(frame)))
    lists = found.pop().with_columns(count=pl.col("past").list.len().fill_null(0))
    same_counts(user, time, windows, lists)
    results.add("history.build.duckdb", ours=mine, peer=taken, unit="s", target=None, repeats=1)


def build_few(results: harness.Results) -> None:
    """The same of fewer events, for a way that takes a step of Python for each."""
    user, time = events(PANDAS_EVENTS)
    frame = frame_of(user, time).to_pandas()
    start, stop = ours(user, time)
    assert [len(past) for past in by_pandas(frame)] == (stop - start).tolist(), "pandas sees other events"
    seconds = harness.medians({"ours": lambda: ours(user, time), "pandas": lambda: by_pandas(frame)})
    results.add(
        "history.build.pandas",
        ours=seconds["ours"],
        peer=seconds["pandas"],
        unit="s",
        target=None,
        events=PANDAS_EVENTS,
    )


def gather(results: harness.Results) -> None:
    """Batches of 4096 full windows of 32 halves, as floats, into memory that is there."""
    user, time = events()
    random = np.random.default_rng(1)
    z = random.uniform(-1, 1, (EVENTS, DIM)).astype(np.float16)
    index = HistoryIndex(user, time, z)
    start, stop = index.windows_of_events(length=LENGTH)
    order = np.lexsort((time, user))
    picks = [random.integers(0, EVENTS, BATCH) for _ in range(8)]
    batches = [(start[pick], stop[pick]) for pick in picks]
    out = np.zeros((BATCH, LENGTH, DIM), np.float32)

    def by_fancy_indexing(start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.float32]:
        place = stop[:, None] - 1 - np.arange(LENGTH)
        past = place >= start[:, None]
        found = z[order[np.where(past, place, 0)]].astype(np.float32)
        found[~past] = 0
        return found

    for batch in batches:
        index.gather(*batch, out)
        assert (out == by_fancy_indexing(*batch)).all(), "numpy gathers other values"
    seconds = harness.medians(
        {
            "ours": lambda: [index.gather(*batch, out) for batch in batches],
            "numpy": lambda: [by_fancy_indexing(*batch) for batch in batches],
        }
    )
    nbytes = out.nbytes * len(batches)
    mine = nbytes / seconds["ours"]
    share = float(np.mean([(stop - start).mean() for start, stop in batches]) / LENGTH)
    results.add(
        "history.gather.numpy",
        ours=BATCH * len(batches) / seconds["ours"],
        peer=BATCH * len(batches) / seconds["numpy"],
        unit="rows/s",
        target=None,
    )
    copy = out.nbytes / harness.copy_seconds(out.nbytes, repeats=25)
    results.add(
        "history.gather.memcpy", ours=mine, peer=copy, unit="bytes/s", target=0.6, filled=round(share, 3)
    )


if __name__ == "__main__":
    results = harness.Results("history")
    build(results)
    build_few(results)
    gather(results)
    results.write()
