"""Where batches take their rows from; here, from an encoded table in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.data.encode import Encoded, Jagged
from recfm.data.side import By
from recfm.errors import DataError

RowsToServe = NDArray[np.int64] | tuple[int, int] | None
"""Row positions [n], a period (first, last), or all."""

Ranges = Sequence[tuple[int, int]]
"""Positions of an epoch: (first, count) each."""


@dataclass(kw_only=True)
class Rows:
    """Some rows of a table, in the order in which they are served.

    Attributes:
        row: int64 [m], positions in the table.
        ids: int32 [m, F].
        numeric: float32 [m, N].
        label: float32 [m].
        user: int64 [m].
        item: int64 [m]; None where nobody asked for it.
        time: int64 [m].
        tokens: Jagged ids by feature.
    """

    row: NDArray[np.int64]
    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    label: NDArray[np.float32]
    user: NDArray[np.int64]
    item: NDArray[np.int64] | None
    time: NDArray[np.int64]
    tokens: dict[str, Jagged]

    @staticmethod
    def empty(count: int, like: Encoded, *, with_item: bool) -> "Rows":
        """Room for `count` rows of such a table, without tokens."""
        return Rows(
            row=np.empty(count, np.int64),
            ids=np.empty((count, like.ids.shape[1]), np.int32),
            numeric=np.empty((count, like.numeric.shape[1]), np.float32),
            label=np.empty(count, np.float32),
            user=np.empty(count, np.int64),
            item=np.empty(count, np.int64) if with_item else None,
            time=np.empty(count, np.int64),
            tokens={},
        )

    def columns(self, table: Encoded) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Pairs of a column of `table` and its place here; columns without values are left out."""
        pairs: list[tuple[NDArray[Any], NDArray[Any] | None]] = [
            (table.ids, self.ids),
            (table.numeric, self.numeric),
            (table.label, self.label),
            (table.user, self.user),
            (table.item, self.item),
            (table.time, self.time),
        ]
        return [(source, out) for source, out in pairs if out is not None and out.shape[1:] != (0,)]

    def key(self, by: By) -> NDArray[np.int64]:
        """The user or the item of each row."""
        key = self.user if by == "user" else self.item
        assert key is not None  # a batch that is joined by items asks for them
        return key

    def between(self, first: int, last: int) -> "Rows":
        """Rows `first` to `last`, sharing memory with these."""
        cut = slice(first, last)
        return Rows(
            row=self.row[cut],
            ids=self.ids[cut],
            numeric=self.numeric[cut],
            label=self.label[cut],
            user=self.user[cut],
            item=None if self.item is None else self.item[cut],
            time=self.time[cut],
            tokens={name: _lists_between(*lists, first, last) for name, lists in self.tokens.items()},
        )


class Source(Protocol):
    """A table as batches see it: rows by their position in an epoch."""

    @property
    def like(self) -> Encoded:
        """A table of these columns; the whole of it or none of its rows."""
        ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """int64 [n], the rows of an epoch in the order of the table or as they were given."""
        ...

    @property
    def num_pools(self) -> int:
        """Pools that an epoch is shuffled in."""
        ...

    @property
    def rows_digest(self) -> int:
        """XXH3 of which rows these are."""
        ...

    def __len__(self) -> int:
        """Rows in an epoch."""
        ...

    def take(self, epoch: int, ranges: Ranges, *, with_item: bool) -> Rows:
        """The rows at these positions of an epoch."""
        ...


class MemorySource:
    """Rows of a table in memory, permuted as a whole."""

    num_pools = 1

    def __init__(self, encoded: Encoded, rows: RowsToServe, *, seed: int, shuffle: bool) -> None:
        if rows is None or isinstance(rows, tuple):
            rows = np.arange(*check_period(rows, len(encoded)))
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise DataError(f"rows are {rows.dtype} of shape {rows.shape}: give row positions, 1-d integers")
        if len(rows) == 0:
            raise DataError("there are no rows to batch: the period is empty")
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        if rows.min() < 0 or rows.max() >= len(encoded):
            raise DataError(
                f"rows go from {rows.min()} to {rows.max()}, but the table has {len(encoded)} rows"
            )
        self.like, self.seed, self.shuffle = encoded, seed, shuffle
        self.rows, self._n, self._offset = rows, len(rows), 0
        self._served: NDArray[np.int64] | None = rows
        if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):  # one look-up less for each row
            self._offset, self._served = int(rows[0]), None

    @cached_property
    def rows_digest(self) -> int:
        """XXH3 of which rows these are, the same for a table on disk."""
        if self._served is None:
            return period_digest(self._offset, self._offset + self._n)
        return _core.checksum(self._served.view(np.uint8))

    def __len__(self) -> int:
        return self._n

    def take(self, epoch: int, ranges: Ranges, *, with_item: bool) -> Rows:
        """The rows at these positions of an epoch."""
        rows = Rows.empty(sum(count for _, count in ranges), self.like, with_item=with_item)
        _core.fill_rows(
            self._n,
            ranges,
            rows.row,
            rows.columns(self.like),
            served=self._served,
            offset=self._offset,
            seed=self.seed,
            epoch=epoch,
            shuffle=self.shuffle,
        )
        for name, (values, offsets) in self.like.tokens.items():
            rows.tokens[name] = _core.take_lists(values, offsets, rows.row)
        return rows


def period_digest(first: int, last: int) -> int:
    """XXH3 of a period of rows."""
    return _core.checksum(np.array([first, last], np.int64).view(np.uint8))


def _lists_between(values: NDArray[np.int32], offsets: NDArray[np.int64], first: int, last: int) -> Jagged:
    bounds = offsets[first : last + 1]
    return values[bounds[0] : bounds[-1]], bounds - bounds[0]


def check_period(rows: object, n: int) -> tuple[int, int]:
    """A period (first, last) of a table of `n` rows; None is all of it.

    Raises:
        DataError: It is no period of the table.
    """
    if rows is None:
        rows = (0, n)
    if not (
        isinstance(rows, tuple) and len(rows) == 2 and all(isinstance(r, int | np.integer) for r in rows)
    ):
        raise DataError(
            f"rows are a {type(rows).__name__}, but a table on disk is served by period: give (first, last), or None"
        )
    first, last = int(rows[0]), int(rows[1])
    if not 0 <= first <= last <= n:
        raise DataError(f"rows go from {first} to {last}, but the table has {n} rows")
    if first == last:
        raise DataError("there are no rows to batch: the period is empty")
    return first, last
