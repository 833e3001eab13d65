"""Rows of a table on disk, shuffled in pools of blocks that fit in memory.

An epoch puts the blocks in a keyed random order; consecutive groups of them are pools, and the rows of a pool are
permuted as a table in memory is. Every row has one position in that order, so a batch is still a function of
(seed, epoch, k), and starting anywhere costs the reading of one pool.

How good the shuffle is depends on the pool. A table that fits in `memory` is one pool: a true global shuffle, the
very batches of the same table in memory. Otherwise two pools are held, one served and one read ahead, and the
rows of a batch come from the blocks of one pool (of two where it straddles them), another random choice of blocks
in each epoch. A pool of G blocks is as good as a global shuffle up to how much G random blocks differ from the
whole table: in a log ordered by time that is the drift between periods, so give a pool tens of blocks at least.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.config import memory_bytes
from recfm.data.encode import Encoded, Jagged
from recfm.data.source import Ranges, Rows, RowsToServe, check_period, period_digest
from recfm.errors import ConfigError
from recfm.layout import Layout


class BlockReader(Protocol):
    """An encoded table that is read in blocks; all but the last have `block_rows` rows."""

    @property
    def layout(self) -> Layout:
        """Its features."""
        ...

    @property
    def block_rows(self) -> int:
        """Rows in a block."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks in the table."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that the table takes."""
        ...

    def __len__(self) -> int:
        """Rows in the table."""
        ...

    def read(self, blocks: Sequence[int]) -> Encoded:
        """These blocks, one behind the other, in memory."""
        ...


@dataclass(frozen=True)
class _Plan:
    """The pools of an epoch: their blocks, rising within each, and their first positions (and the end)."""

    pools: list[NDArray[np.int64]]
    starts: NDArray[np.int64]


class PoolSource:
    """Rows of a table on disk, shuffled in pools.

    Args:
        folder: The table.
        rows: (first, last), the period to serve, `last` excluded; None for all rows.
        seed: Seed of the shuffle.
        shuffle: Shuffle; otherwise rows come in order.
        memory: What the pools may take in all, as bytes or "512MiB"; the batches come on top. Blocks count as
            large as they are on average. Below about 64 MiB the C allocator may keep the memory of one more pool.

    Raises:
        ConfigError: `memory` is no size, or is too small for two blocks.
        DataError: `rows` is no period of the table.
    """

    def __init__(
        self, folder: BlockReader, rows: RowsToServe, *, seed: int, shuffle: bool, memory: str | int
    ) -> None:
        self._folder, self.seed, self.shuffle = folder, seed, shuffle
        self._first, self._last = check_period(rows, len(folder))
        size = folder.block_rows
        self._blocks = np.arange(self._first // size, -(-self._last // size))
        self._like = folder.read([])
        per_pool = _blocks_per_pool(folder.nbytes / len(folder) * size, len(self._blocks), size, memory)
        self.num_pools = -(-len(self._blocks) // per_pool)
        self._plans: dict[int, _Plan] = {}
        self._reset()

    def _reset(self) -> None:
        """Nothing held; in a forked child too, where the lock may be taken and the reading thread is gone."""
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._held: tuple[bytes, Encoded] | None = None
        self._ahead: _Reading | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.__dict__.items() if name not in ("_lock", "_held", "_ahead")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __len__(self) -> int:
        return self._last - self._first

    @property
    def rows(self) -> NDArray[np.int64]:
        """int64 [n], the rows of the period, in order."""
        return np.arange(self._first, self._last)

    @cached_property
    def rows_digest(self) -> int:
        """XXH3 of which rows these are, the same for a table in memory."""
        return period_digest(self._first, self._last)

    @property
    def like(self) -> Encoded:
        """A table of these columns, without rows."""
        return self._like

    def take(self, epoch: int, ranges: Ranges, *, with_item: bool) -> Rows:
        """The rows at these positions of an epoch."""
        if self._pid != os.getpid():
            self._reset()
        rows = Rows.empty(sum(count for _, count in ranges), self._like, with_item=with_item)
        tokens: dict[str, list[Jagged]] = {name: [] for name in self._like.tokens}
        plan, filled = self._plan(epoch), 0
        with self._lock:
            for pool, inside in _by_pool(plan.starts, ranges):
                count = sum(count for _, count in inside)
                part = rows.between(filled, filled + count)
                filled += count
                self._fill(part, tokens, epoch, plan, pool, inside)
        rows.tokens = {name: _concatenated(parts) for name, parts in tokens.items()}
        return rows

    def _fill(
        self, part: Rows, tokens: dict[str, list[Jagged]], epoch: int, plan: _Plan, pool: int, ranges: Ranges
    ) -> None:
        table, blocks, size = self._pool(epoch, plan, pool), plan.pools[pool], self._folder.block_rows
        _core.fill_rows(
            int(plan.starts[pool + 1] - plan.starts[pool]),
            ranges,
            part.row,
            part.columns(table),
            served=None,
            # The period may begin within the first block, which is then the first of its pool.
            offset=max(0, self._first - int(blocks[0]) * size),
            seed=self._pool_seed(pool),
            epoch=epoch,
            shuffle=self.shuffle,
        )
        for name, lists in table.tokens.items():
            tokens[name].append(_core.take_lists(*lists, part.row))
        slot, within = np.divmod(part.row, size)
        np.add(blocks[slot] * size, within, out=part.row)

    def _pool_seed(self, pool: int) -> int:
        if self.num_pools == 1:
            return self.seed  # the order of the same table in memory
        seed = _core.seed_of(f"{self.seed}:{pool}")
        return seed - 2**64 if seed >= 2**63 else seed

    def _plan(self, epoch: int) -> _Plan:
        key = epoch if self.shuffle and self.num_pools > 1 else 0
        plan = self._plans.get(key)
        if plan is None:
            n, pools, size = len(self._blocks), self.num_pools, self._folder.block_rows
            order = _core.batch_rows(n, n, seed=self.seed, epoch=key, index=0, shuffle=self.shuffle)
            parts = [
                np.sort(self._blocks[order[n * p // pools : n * (p + 1) // pools]]) for p in range(pools)
            ]
            served = np.minimum(self._last, (self._blocks + 1) * size) - np.maximum(
                self._first, self._blocks * size
            )
            counts = [int(served[part - self._blocks[0]].sum()) for part in parts]
            plan = _Plan(parts, np.concatenate([[0], np.cumsum(counts)]))
            self._plans = {key: plan}
        return plan

    def _pool(self, epoch: int, plan: _Plan, pool: int) -> Encoded:
        """The rows of a pool; the one that follows is then read in the background."""
        blocks = plan.pools[pool]
        key = blocks.tobytes()
        if self._held is not None and self._held[0] == key:
            return self._held[1]
        self._held = None  # before anything else is read: two pools are all that fits
        ahead, self._ahead = self._ahead, None
        table = ahead.result(key) if ahead is not None else None
        del ahead
        if table is None:
            table = self._folder.read(blocks.tolist())
        self._held = key, table
        if pool + 1 < self.num_pools:
            self._ahead = _Reading(self._folder.read, plan.pools[pool + 1])
        elif self.shuffle and self.num_pools > 1 and epoch + 1 < 2**63:
            self._ahead = _Reading(self._folder.read, self._plan(epoch + 1).pools[0])
        return table


class _Reading:
    """A pool that is being read by a thread."""

    def __init__(self, read: Callable[[Sequence[int]], Encoded], blocks: NDArray[np.int64]) -> None:
        self.key = blocks.tobytes()
        self._read, self._blocks = read, blocks.tolist()
        self._table: Encoded | None = None
        self._thread = threading.Thread(target=self._run, name="recfm-pool", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # whoever needs the pool reads it again, and raises
            self._table = self._read(self._blocks)

    def result(self, key: bytes) -> Encoded | None:
        """The pool, if it is that of `key` and could be read."""
        self._thread.join()
        return self._table if self.key == key else None


def _by_pool(starts: NDArray[np.int64], ranges: Ranges) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The ranges cut at pool boundaries: (pool, ranges within it), neighbours of one pool together."""
    pool, inside = -1, list[tuple[int, int]]()
    for first, count in ranges:
        while count > 0:
            at = int(np.searchsorted(starts, first, side="right")) - 1
            taken = min(count, int(starts[at + 1]) - first)
            if at != pool and inside:
                yield pool, inside
                inside = []
            pool = at
            inside.append((first - int(starts[at]), taken))
            first, count = first + taken, count - taken
    if inside:
        yield pool, inside


def _concatenated(parts: list[Jagged]) -> Jagged:
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
    return np.concatenate([values for values, _ in parts]), np.concatenate([[0], np.cumsum(lengths)])


def _blocks_per_pool(block: float, blocks: int, block_rows: int, memory: str | int) -> int:
    budget = memory_bytes(memory)
    if block * blocks <= budget:
        return blocks
    per_pool = int(budget / 2 / block)
    if per_pool < 1:
        raise ConfigError(
            f"memory is {memory}, but two blocks of {block_rows} rows take {2 * block / 2**20:.1f} MiB: give more"
        )
    return per_pool
