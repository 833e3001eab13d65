"""Past events per user, in time order: the leak-free join between a row and what came before it.

The rule that everything rests on: a row at time t sees events with `event_time < t - delay`, strictly. Equal
times never count, so rows of one request, and the row itself, never see each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.errors import DataError
from recfm.history.build import Chunks, memory_bytes, write_parts
from recfm.history.parts import (
    commit,
    map_part,
    new_folder,
    next_number,
    refuse_existing,
    sweep,
    write_part,
)
from recfm.history.quantize import Shape, Vectors, refuse_mixed, vectors_of
from recfm.schema import MAX_DELAY
from recfm.storage import INDEX, locked, read_manifest

if TYPE_CHECKING:
    pass

MICROSECONDS = 1_000_000
_NO_LIMIT = int(np.iinfo(np.int64).max)
Values = NDArray[Any] | Vectors


class HistoryIndex:
    """Events grouped by user and ordered by (user, time, position).

    An index is made of parts. `append` adds one and leaves the others alone; windows are merged when they are read.

    Args:
        user: int64 [n], user key of each event, or any other key (see `joint_key`).
        time: int64 [n], microseconds.
        values: [n, d] float32 or float16 vectors, int32 ids, or quantised `Vectors`, in event order; None to index
            counts only.
        keep: bool [n], the events to index (clicks only, for example); the others keep their place in `values`.

    Raises:
        DataError: The arrays differ in length, or `values` has another dtype.
    """

    def __init__(
        self,
        user: NDArray[np.int64],
        time: NDArray[np.int64],
        values: Values | None = None,
        *,
        keep: NDArray[np.bool_] | None = None,
    ) -> None:
        self._stores = None if values is None else [vectors_of(values, len(user))]
        self._given = values
        self._parts = [_part(user, time, keep)]
        self._folder: Path | None = None
        self._manifest: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: str | Path, *, values: Values | Sequence[Values] | None = None) -> "HistoryIndex":
        """Open a saved index at its last commit; its parts are mapped, not read.

        Every block of a part is verified when it is first touched, so later calls raise StorageError where the
        file is damaged.

        Args:
            folder: Where `save` or `build` put it.
            values: [n, d] of all events, or one store for each part.

        Raises:
            StorageError: There is no index, or its manifest or a part is missing, truncated or damaged.
            DataError: `values` are not those of these events.
        """
        folder = Path(folder)
        manifest = read_manifest(folder, INDEX)
        index = cls._of_parts([map_part(folder, found) for found in manifest["parts"]], values)
        index._folder, index._manifest = folder, manifest
        return index

    @classmethod
    def build(
        cls,
        folder: str | Path,
        chunks: Chunks,
        *,
        memory: str | int = "1GiB",
        values: Values | Sequence[Values] | None = None,
    ) -> "HistoryIndex":
        """Index events that do not fit in memory, into a folder; the same bytes as building in memory and saving.

        Args:
            folder: Created if absent; must not hold an index yet.
            chunks: Called for each pass, returns an iterator over (user, time) int64 arrays in event order, always
                the same.
            memory: What the process may use at most, its own 0.2 GiB included. More means fewer passes.
            values: As for `open`.

        Raises:
            DataError: The chunks are no such arrays or differ from pass to pass, or `memory` is too small.
            StorageError: The folder holds an index already, or the disk refuses.
        """
        folder, limit = new_folder(folder), memory_bytes(memory)
        with locked(folder, INDEX):
            refuse_existing(folder)
            commit(folder, list(write_parts(folder, chunks, memory=limit)))
        return cls.open(folder, values=values)

    @classmethod
    def _of_parts(
        cls, parts: list[_core.HistoryIndex], values: Values | Sequence[Values] | None
    ) -> "HistoryIndex":
        index = cls.__new__(cls)
        index._parts, index._folder, index._manifest = parts, None, {}
        index._stores = index._given = None
        if values is None:
            return index
        if isinstance(values, np.ndarray | Vectors):
            whole, first, stores = vectors_of(values, sum(part.table for part in parts)), 0, []
            for part in parts:
                stores.append(whole.slice(first, first + part.table))
                first += part.table
            index._stores, index._given = stores, values
            return index
        if len(values) != len(parts):
            raise DataError(
                f"there are {len(values)} stores of values for {len(parts)} parts: give one for each"
            )
        index._stores = [vectors_of(v, part.table) for v, part in zip(values, parts, strict=True)]
        refuse_mixed(index._stores)
        return index

    @classmethod
    def empty(cls, folder: str | Path) -> None:
        """Start a saved index without any part, to open and append to.

        Raises:
            StorageError: The folder holds an index already, or the disk refuses.
        """
        cls._of_parts([], None).save(folder)

    def with_values(self, values: Values | Sequence[Values]) -> "HistoryIndex":
        """The same index over other values: [n, d] of all events, or one store for each part.

        Raises:
            DataError: `values` are not those of these events.
        """
        index = self._of_parts(self._parts, values)
        index._folder, index._manifest = self._folder, self._manifest
        return index

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What the manifest keeps of each part; empty for an index in memory."""
        return list(self._manifest.get("parts", []))

    @property
    def values(self) -> Any:
        """The values, or something with their `dtype` and `shape` [n, d]; None if there are none."""
        if self._stores is None or isinstance(self._given, np.ndarray):
            return self._given
        if not self._stores:
            return None
        return Shape((sum(map(len, self._stores)), self._stores[0].dim), self._stores[0].dtype)

    @property
    def num_parts(self) -> int:
        """P."""
        return len(self._parts)

    @property
    def nbytes(self) -> int:
        """Bytes of the index itself, without the values."""
        return sum(c.nbytes for part in self._parts for c in part.columns().values())

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def window(
        self,
        user: NDArray[np.int64],
        time: NDArray[np.int64],
        *,
        length: int | None = 50,
        delay: float = 0.0,
        max_age: float | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each query's past lies: `start, stop` int64, into the (user, time) order of each part.

        Their shape is [B] for an index of one part, else [B, P]: together the newest `length` events, as one index
        over all parts would find them. How many those are is `stop - start`, summed over the parts.

        Args:
            user: int64 [B].
            time: int64 [B], microseconds.
            length: Newest events to keep; None for all.
            delay: Logging delay in seconds: an event becomes visible only `delay` after it happened.
            max_age: Seconds after which events are forgotten: `time - max_age <= event_time`; None for never.

        Raises:
            DataError: `delay`, `length` or `max_age` is negative, or the arrays differ in length.
            StorageError: The index is mapped from a folder, and a block that the answer needs is damaged.
        """
        horizon = _horizon(length, delay, max_age)
        if len(self._parts) == 1:
            return self._parts[0].window(user, time, **horizon)
        return _core.window_of_parts(self._parts, user, time, **horizon)

    def windows_of_events(
        self, *, length: int | None = 50, delay: float = 0.0, max_age: float | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`window` of every indexed event at its own time, in the order in which the events were given.

        A walk along each user's events: much faster than asking for each.

        Raises:
            DataError: `delay`, `length` or `max_age` is negative, or the index has several parts.
            StorageError: As for `window`.
        """
        if len(self._parts) != 1:
            raise DataError(
                f"this history index has {len(self._parts)} parts: compact it, or ask `window` for each event"
            )
        return self._parts[0].windows_of_events(**_horizon(length, delay, max_age))

    def gather(self, start: NDArray[np.int64], stop: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Fill `out` [B, L, d] with the events of `window`, newest first, zeros behind them.

        Raises:
            DataError: `out` has the wrong shape or dtype, or the index holds no values.
            StorageError: The values or the index are mapped from a file, and a block of it is damaged.
        """
        if self._stores is None:
            raise DataError("this history index counts events only: build it with values to gather them")
        if not self._stores:
            out[:] = 0
            return
        first = self._stores[0]
        _core.gather_parts(
            self._parts,
            start,
            stop,
            [store.codes for store in self._stores],
            out,
            blocks=[store.blocks for store in self._stores],
            dtype="bf16" if first.stored == "bf16" else None,
            codebook=first.codebook,
        )

    def save(self, folder: str | Path) -> None:
        """Save the index, but not its values, to a new folder; visible once this returns.

        Raises:
            StorageError: The folder holds an index already, or the disk refuses.
        """
        folder = new_folder(folder)
        with locked(folder, INDEX):
            refuse_existing(folder)
            commit(folder, [write_part(folder, n, part) for n, part in enumerate(self._parts)])

    def append(
        self,
        user: NDArray[np.int64],
        time: NDArray[np.int64],
        values: Values | None = None,
        *,
        keep: NDArray[np.bool_] | None = None,
        **facts: str,
    ) -> None:
        """Add later rows of the table as a part of their own; the other parts are not touched.

        An index that was opened from a folder grows there too, visible to others once this returns.

        Args:
            user: int64 [m].
            time: int64 [m], microseconds; may be earlier than events that are there.
            values: [m, d], stored as those that are there; None if the index has none.
            keep: bool [m], the events to index.
            facts: Strings that the manifest keeps with the part.

        Raises:
            DataError: The arrays differ in length, or the values are stored otherwise than those that are there.
            StorageError: The disk refuses, or another process is writing or has written; the index is as it was.
        """
        if (values is None) != (self._stores is None):
            has = "no values" if self._stores is None else "values"
            raise DataError(f"this history index has {has}: append events like those that are there")
        stores = None if values is None else [*(self._stores or []), vectors_of(values, len(user))]
        refuse_mixed(stores or [])
        part = _part(user, time, keep)
        if self._folder is not None:
            with locked(self._folder, INDEX):
                self._refuse_changed()
                entries = self._manifest["parts"]
                sweep(self._folder, entries)
                found = {**write_part(self._folder, next_number(entries), part), **facts}
                self._manifest = commit(self._folder, [*entries, found])
            part = map_part(self._folder, found)
        self._parts, self._stores, self._given = [*self._parts, part], stores, None

    def compact(self) -> None:
        """Merge all parts into one, on disk too if the index was opened from a folder.

        This holds all events in memory, and values in memory become one array.

        Raises:
            StorageError: The disk refuses, another process is writing or has written, or a part is damaged; the
                index is as it was.
        """
        if len(self._parts) <= 1:
            return
        user, time, keep = (
            np.concatenate(columns) for columns in zip(*map(_table, self._parts), strict=True)
        )
        part = _part(user, time, None if keep.all() else keep)
        stores = None if self._stores is None else [Vectors.joined(self._stores)]
        if self._folder is not None:
            with locked(self._folder, INDEX):
                self._refuse_changed()
                old = self._manifest["parts"]
                found = write_part(self._folder, next_number(old), part)
                self._manifest = commit(self._folder, [found])
                sweep(self._folder, [found])
            part = map_part(self._folder, found)
        self._parts, self._stores, self._given = [part], stores, None

    def _refuse_changed(self) -> None:
        assert self._folder is not None
        if read_manifest(self._folder, INDEX) != self._manifest:
            raise INDEX.error(
                f"'{self._folder}' was changed by another writer since it was opened: open it again"
            )


@dataclass(frozen=True, kw_only=True)
class PastEvents:
    """How a model sees a `HistoryIndex`: the newest `length` events older than `delay` seconds.

    With `counts_only` a row carries the number of its past events (all of them) and nothing else. With `jagged`
    nothing is padded: a batch carries the events of its rows one behind the other, and offsets. Events older than
    `max_age` seconds are forgotten. A `length` of None keeps all events, for jagged or counted ones only.

    `key` says what the index groups events by: "user", "item", or an int64 array with the key of every row of the
    encoded table (see `joint_key`).
    """

    index: HistoryIndex
    length: int | None = 50
    delay: float = 0.0
    counts_only: bool = False
    jagged: bool = False
    max_age: float | None = None
    key: Literal["user", "item"] | NDArray[np.int64] = field(default="user", compare=False)

    def check_key(self, rows: int) -> None:
        """Refuse a key that is none for a table of so many rows.

        Raises:
            DataError: `key` is no such name, or not an int64 for each row.
        """
        if isinstance(self.key, np.ndarray):
            if self.key.dtype != np.int64 or self.key.shape != (rows,):
                raise DataError(
                    f"key is {self.key.dtype} of shape {self.key.shape}: expected int64 ({rows},), a key per row"
                )
        elif self.key not in ("user", "item"):
            raise DataError(
                f"key is {self.key!r}: it must be 'user', 'item' or an int64 array, a key per row"
            )

    def window(
        self, user: NDArray[np.int64], time: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`start, stop` int64 [B] for these rows ([B, P] for an index of several parts)."""
        length = None if self.counts_only else self.length
        return self.index.window(user, time, length=length, delay=self.delay, max_age=self.max_age)


def joint_key(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """One int64 key for each row of several int64 columns [n], such as user and category.

    XXH3 of the row's integers as little-endian bytes, the same on every platform and in every version.

    Raises:
        DataError: There are no columns, or they differ in length or dtype.
    """
    return _core.joint_key(*columns)


def _part(
    user: NDArray[np.int64], time: NDArray[np.int64], keep: NDArray[np.bool_] | None
) -> _core.HistoryIndex:
    # The core refuses other dtypes by name; casting here would move float times.
    return _core.HistoryIndex(
        np.ascontiguousarray(user),
        np.ascontiguousarray(time),
        None if keep is None else np.ascontiguousarray(keep),
    )


def _horizon(length: int | None, delay: float, max_age: float | None) -> dict[str, Any]:
    """The arguments of the core's `window`."""
    limit = _NO_LIMIT if length is None else length
    if not 0 <= delay <= MAX_DELAY:
        raise DataError(f"delay is {delay} seconds: it must lie between 0 and {MAX_DELAY:g}")
    if max_age is not None and not 0 <= max_age <= MAX_DELAY:
        raise DataError(f"max_age is {max_age} seconds: it must lie between 0 and {MAX_DELAY:g}, or be None")
    if not isinstance(limit, int | np.integer) or not 0 <= limit <= _NO_LIMIT:
        raise DataError(f"length is {length}: it must be an integer of at least 0, or None for all")
    age = None if max_age is None else round(max_age * MICROSECONDS)
    return {"length": limit, "delay": round(delay * MICROSECONDS), "max_age": age}


def _table(part: _core.HistoryIndex) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """User and time of each row of a part's table, and whether it is indexed."""
    rows, columns = part.rows(), part.verified()
    user, time = np.zeros(part.table, np.int64), np.zeros(part.table, np.int64)
    keep = np.zeros(part.table, bool)
    offsets = columns["offsets"].astype(np.int64)
    user[rows] = np.repeat(columns["users"], offsets[1:] - offsets[:-1])
    time[rows] = columns["times"]
    keep[rows] = True
    return user, time, keep
