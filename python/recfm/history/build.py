"""Build a history index of more events than memory holds: several passes, each sorts one range of keys."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.errors import DataError
from recfm.history.parts import MAX_ROWS, PartWriter

Chunks = Callable[[], Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]]
_UNITS = {"MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9}
# Of one event in a pass: 20 collected, 28 in the sort, 16 more where its keys are partitioned again, and some slack.
_BYTES_PER_EVENT = 80
_FIXED = 192 << 20  # the interpreter, a chunk and the sample
_SAMPLE = 1 << 20


def memory_bytes(memory: str | int) -> int:
    """Bytes of a size such as "1GiB".

    Raises:
        DataError: It is no size, or too small for the interpreter itself.
    """
    number, unit = memory, 1
    if isinstance(memory, str):
        text = next((text for text in _UNITS if memory.endswith(text)), "")
        unit = _UNITS.get(text, 1)
        number = memory.removesuffix(text).strip()
    try:
        size = int(float(number) * unit)
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"memory is {memory!r}: give bytes, or a size such as '512MiB' or '4GiB'") from None
    if size < _FIXED + (64 << 20):
        raise DataError(f"memory is {memory!r}: at least 256MiB are needed")
    return size


@dataclass(frozen=True)
class _Sample:
    """Every `stride`-th event of a stretch of the table, and how many there are."""

    keys: NDArray[np.int64]
    count: int
    more: bool


def write_parts(
    folder: Path, chunks: Chunks, *, memory: int, max_rows: int = MAX_ROWS
) -> Iterator[dict[str, Any]]:
    """Write the part files of all events and yield what a manifest keeps of each.

    Raises:
        DataError: The chunks are no pairs of equally long int64 arrays, or differ from pass to pass.
        StorageError: The disk refuses.
    """
    first, number, more = 0, 0, True
    while more:
        sample = _sampled(chunks, first, max_rows)
        yield _write_part(folder / f"part-{number:06d}.safetensors", chunks, first, sample, memory)
        first, number, more = first + sample.count, number + 1, sample.more


def _write_part(path: Path, chunks: Chunks, first: int, sample: _Sample, memory: int) -> dict[str, Any]:
    at_once = (memory - _FIXED) // _BYTES_PER_EVENT
    ranges = max(1, -(-sample.count // at_once))
    order = np.lexsort(sample.keys[::-1])
    cuts = [order[len(order) * k // ranges] for k in range(1, ranges)]
    splits = [None, *(tuple(int(x) for x in sample.keys[:, cut]) for cut in cuts), None]
    with PartWriter(path, events=sample.count, table=sample.count) as writer:
        done = 0
        for low, high in itertools.pairwise(splits):
            user, time, row = _collected(chunks, first, sample.count, low, high, sample.count // ranges)
            writer.add(_core.HistoryIndex(user, time), row)
            done += len(row)
        if done != sample.count:
            raise DataError(f"chunks gave {sample.count} events in one pass and {done} in another")
        return writer.finish()


def _sampled(chunks: Chunks, first: int, max_rows: int) -> _Sample:
    kept: list[NDArray[np.int64]] = []
    size, stride, count = 0, 1, 0
    for row, user, time in _stretch(chunks, first, max_rows + 1):
        end = row + len(user)
        more = end > max_rows
        count = min(end, max_rows)
        here = np.arange(-(-row // stride) * stride, count, stride) - row
        kept.append(np.stack([user[here], time[here], here + row]))
        size += len(here)
        while size > 2 * _SAMPLE:
            stride *= 2
            keys = np.concatenate(kept, axis=1)
            kept = [keys[:, keys[2] % stride == 0]]
            size = kept[0].shape[1]
        if more:
            break
    else:
        more = False
    keys = np.concatenate(kept, axis=1) if kept else np.zeros((3, 0), np.int64)
    return _Sample(keys, count, more)


_Split = tuple[int, ...] | None


def _collected(
    chunks: Chunks, first: int, count: int, low: _Split, high: _Split, expected: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]:
    """The events from `low` up to `high`, as (user, time, row)."""
    room = expected + expected // 8 + (1 << 16)  # memory that is never touched costs nothing
    columns: list[NDArray[Any]] = [np.empty(room, dtype) for dtype in (np.int64, np.int64, np.uint32)]
    size = 0
    for start, user, time in _stretch(chunks, first, count):
        row = np.arange(start, start + len(user))
        chosen = np.ones(len(user), bool)
        if low is not None:
            chosen &= ~_before(user, time, row, low)
        if high is not None:
            chosen &= _before(user, time, row, high)
        here = slice(size, size + int(np.count_nonzero(chosen)))
        if here.stop > len(columns[0]):
            columns = [np.concatenate([c[:size], np.empty(here.stop, c.dtype)]) for c in columns]
        for column, values in zip(columns, (user, time, row), strict=True):
            column[here] = values if low is high else values[chosen]
        size = here.stop
    return columns[0][:size], columns[1][:size], columns[2][:size]


def _before(
    user: NDArray[np.int64], time: NDArray[np.int64], row: NDArray[np.int64], split: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Which events are below a split, by user, then time, then row."""
    below = user < split[0]
    same = np.flatnonzero(user == split[0])
    below[same] = (time[same] < split[1]) | ((time[same] == split[1]) & (row[same] < split[2]))
    return below


def _stretch(
    chunks: Chunks, first: int, count: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """The events `first..first + count` of a fresh pass, with the place of each chunk behind `first`."""
    at = 0
    for chunk in chunks():
        user, time = chunk
        for name, values in (("user", user), ("time", time)):
            if not isinstance(values, np.ndarray) or values.dtype != np.int64 or values.ndim != 1:
                raise DataError(f"chunks must be pairs of 1-d int64 arrays: '{name}' is {values!r:.80}")
        if len(user) != len(time):
            raise DataError(f"a chunk has {len(user)} users but {len(time)} times")
        low, high = max(first - at, 0), min(first + count - at, len(user))
        if low < high:
            yield at + low - first, user[low:high], time[low:high]
        at += len(user)
        if at >= first + count:
            return
