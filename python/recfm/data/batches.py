"""Shuffled mini-batches whose bytes depend on (seed, epoch, k) alone."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.data import sequences as sequences_of
from recfm.data.batch import Batch, Jagged
from recfm.data.encode import Encoded
from recfm.data.pools import BlockReader, PoolSource
from recfm.data.side import SideTable
from recfm.data.source import MemorySource, Rows, RowsToServe, Source
from recfm.errors import DataError
from recfm.layout import merged

if TYPE_CHECKING:
    from recfm.history.index import PastEvents

_AHEAD_ROWS = 1 << 15  # rows that one call into Rust serves at most, where a batch is smaller


class Batches:
    """Batches over some rows of an encoded table, with histories joined on the fly.

    Args:
        encoded: The table, in memory or on disk.
        rows: What to serve: int64 [n] rows of a table in memory, a period (first, last) of either, or all.
        batch_size: Rows per batch and rank; the last one of an epoch may be shorter.
        seed: Seed of the shuffle.
        shuffle: Serve rows in a random order that differs by epoch, else in the order of `rows`.
        sequences: Histories to join, by name.
        teacher: float32 [len(encoded)], the FM's probability for each row of the table; NaN where it has none.
        sides: Features of users or items, joined by key; their columns follow those of the table.
        rank: Which shard of each global batch these are, from 0.
        world_size: Number of shards. Global batch k is `world_size * batch_size` positions of the epoch's order,
            cut into consecutive shards. The last global batch holds what is left, cut as evenly as it goes; where
            that is less than a row for each rank, it joins the batch before. So the ranks' shards are disjoint,
            cover the epoch, are as many on each rank and never empty, and depend on
            (seed, epoch, k, rank, world_size) only.
        memory: Of a table on disk, what may be held of it at a time, in bytes or as "512MiB". A table that fits
            is shuffled as a whole, any other in pools: see `recfm.data.pools` for what that means. The order
            then depends on `memory` too.

    Raises:
        ConfigError: `memory` is no size, or holds less than two blocks of the table.
        DataError: `rows` is empty, a row is out of range, a served row has no teacher, or there are fewer rows
            than ranks.
        SchemaError: A side table has a feature of a name that is taken, or the schema lacks the key that a side table
            or sequence is joined by, or the time that a sequence needs.

    Attributes:
        has_users: Whether the table has user keys, without which gAUC is undefined.
    """

    def __init__(
        self,
        encoded: Encoded | BlockReader,
        rows: RowsToServe = None,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        sequences: "Mapping[str, PastEvents] | None" = None,
        teacher: NDArray[np.float32] | None = None,
        sides: Iterable[SideTable] = (),
        rank: int = 0,
        world_size: int = 1,
        memory: str | int = "512MiB",
    ) -> None:
        limits = (
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("world_size", world_size, 1),
            ("rank", rank, 0),
        )
        for name, value, low in limits:
            if not isinstance(value, int | np.integer) or not low <= value < 2**63:
                raise DataError(f"{name} is {value}: it must be an integer from {low} to 2^63 - 1")
        if rank >= world_size:
            raise DataError(
                f"rank is {rank}, but with world_size {world_size} ranks go from 0 to {world_size - 1}"
            )
        self._table, self.batch_size, self.seed, self.shuffle = encoded, batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self._source: Source
        if isinstance(encoded, Encoded):
            self._source = MemorySource(encoded, rows, seed=seed, shuffle=shuffle)
        else:
            self._source = PoolSource(encoded, rows, seed=seed, shuffle=shuffle, memory=memory)
        if len(self._source) < world_size:
            raise DataError(f"{len(self._source)} rows are fewer than {world_size} ranks: use fewer ranks")
        self.sides = tuple(sides)
        schema = self._source.like.schema
        self.has_users = schema.user is not None
        for side in self.sides:
            schema.require(side.by, f"the side table with key '{side.name}'")
        self.layout = merged([encoded.layout, *(side.layout for side in self.sides)])
        if isinstance(encoded, Encoded):  # on disk, looking at every key would mean reading every block
            for side in self.sides:
                side.refuse_strangers(encoded.user if side.by == "user" else encoded.item)
        self.sequences = dict(sequences or {})
        for name, past in self.sequences.items():
            schema.require("time", f"sequence '{name}'")
            if isinstance(past.key, str):
                schema.require(past.key, f"sequence '{name}'")
            sequences_of.check(name, past, len(encoded))
        keys = [past.key for past in self.sequences.values() if isinstance(past.key, str)]
        self._with_item = "item" in (*keys, *(side.by for side in self.sides))
        self.teacher = None
        if teacher is not None:
            if teacher.shape != (len(encoded),):
                raise DataError(
                    f"teacher has shape {teacher.shape}: expected ({len(encoded)},), a score per row"
                )
            missing = int(np.isnan(teacher[self.rows]).sum())
            if missing:
                raise DataError(
                    f"{missing} of {len(self._source)} rows have no FM score to distil: log them first"
                )
            self.teacher = np.ascontiguousarray(teacher, dtype=np.float32)

    @property
    def encoded(self) -> Encoded:
        """The table.

        Raises:
            DataError: It is on disk.
        """
        if not isinstance(self._table, Encoded):
            raise DataError("these batches come from a table on disk, which is not in memory as a whole")
        return self._table

    @property
    def rows(self) -> NDArray[np.int64]:
        """int64 [n], the rows to serve; the order of an epoch without shuffling."""
        return self._source.rows

    @property
    def rows_digest(self) -> int:
        """XXH3 of which rows are served; part of a loader's state."""
        return self._source.rows_digest

    @property
    def num_pools(self) -> int:
        """Pools that an epoch is shuffled in, which `memory` decides; 1 is a global shuffle."""
        return self._source.num_pools

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        n, together = len(self._source), self.batch_size * self.world_size
        full, rest = divmod(n, together)
        return full + (rest >= self.world_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start` on, in order.

        Batches that follow each other share memory: copy one (`copy.deepcopy`) to keep it without its neighbours.

        Raises:
            DataError: There is no such batch to start at, or the epoch does not fit 63 bits.
        """
        if not 0 <= start <= len(self):
            raise DataError(f"start is {start}: an epoch has {len(self)} batches")
        group = max(1, _AHEAD_ROWS // self.batch_size)
        for first in range(start, len(self), group):
            yield from self._batches(epoch, range(first, min(first + group, len(self))))

    def batch(self, epoch: int, k: int) -> Batch:
        """Batch `k` of epoch `epoch`; the same bytes whenever and on however many threads it is asked for.

        Raises:
            DataError: There is no such batch, or the epoch does not fit 63 bits.
        """
        if not 0 <= k < len(self):
            raise DataError(
                f"batch {k} is out of range: {len(self._source)} rows in batches of "
                f"{self.batch_size * self.world_size} make {len(self)} batches"
            )
        return next(self._batches(epoch, range(k, k + 1)))

    def _range(self, k: int) -> tuple[int, int]:
        """First position and rows of this rank's shard of global batch `k`."""
        n, together = len(self._source), self.batch_size * self.world_size
        start = k * together
        size = n - start if k == len(self) - 1 else together
        first, last = (start + size * r // self.world_size for r in (self.rank, self.rank + 1))
        return first, last - first

    def _batches(self, epoch: int, numbers: range) -> Iterator[Batch]:
        if not 0 <= epoch < 2**63:
            raise DataError(f"epoch is {epoch}: it must lie between 0 and 2^63 - 1")
        ranges = [self._range(k) for k in numbers]
        rows, first = self._source.take(epoch, ranges, with_item=self._with_item), 0
        for _, count in ranges:
            yield self._joined(rows if len(ranges) == 1 else rows.between(first, first + count))
            first += count

    def _joined(self, rows: Rows) -> Batch:
        """These rows as tensors, with everything that is joined to them."""
        import torch

        teacher = None
        if self.teacher is not None:
            teacher = np.empty(len(rows.row), np.float32)
            _core.take_rows(self.teacher, rows.row, teacher)
        ids, numeric, tokens = rows.ids, rows.numeric, rows.tokens
        if self.sides:
            parts = [side.take(rows.key(side.by)) for side in self.sides]
            ids = np.concatenate([ids, *(part.ids for part in parts)], axis=1)
            numeric = np.concatenate([numeric, *(part.numeric for part in parts)], axis=1)
            for part in parts:
                tokens = tokens | part.tokens
        return Batch(
            ids=torch.from_numpy(ids),
            numeric=torch.from_numpy(numeric),
            label=torch.from_numpy(rows.label),
            user=torch.from_numpy(rows.user),
            time=torch.from_numpy(rows.time),
            row=torch.from_numpy(rows.row),
            tokens={
                name: Jagged(values=torch.from_numpy(values), offsets=torch.from_numpy(offsets))
                for name, (values, offsets) in tokens.items()
            },
            sequences={name: sequences_of.join(past, rows) for name, past in self.sequences.items()},
            teacher=None if teacher is None else torch.from_numpy(teacher),
        )
