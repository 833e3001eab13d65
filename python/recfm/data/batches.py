"""Shuffled mini-batches whose bytes depend on (seed, epoch, k) alone."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.data.batch import Batch, Jagged, Sequence
from recfm.data.encode import Encoded
from recfm.errors import DataError

if TYPE_CHECKING:
    from recfm.history.index import PastEvents


class Batches:
    """Batches over some rows of an encoded table, with histories joined on the fly.

    Args:
        encoded: The table.
        rows: int64 [n], the rows to serve.
        batch_size: Rows per batch; the last one of an epoch may be shorter.
        seed: Seed of the shuffle.
        shuffle: Serve rows in a random order that differs by epoch, else in the order of `rows`.
        sequences: Histories to join, by name.
        teacher: float32 [len(encoded)], the FM's probability for each row of the table; NaN where it has none.

    Raises:
        DataError: `rows` is empty, a row is out of range, or a served row has no teacher.
    """

    def __init__(
        self,
        encoded: Encoded,
        rows: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        sequences: "Mapping[str, PastEvents] | None" = None,
        teacher: NDArray[np.float32] | None = None,
    ) -> None:
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise DataError(f"rows are {rows.dtype} of shape {rows.shape}: give row positions, 1-d integers")
        if len(rows) == 0:
            raise DataError("there are no rows to batch: the period is empty")
        for name, value, low in (("batch_size", batch_size, 1), ("seed", seed, 0)):
            if not isinstance(value, int | np.integer) or not low <= value < 2**63:
                raise DataError(f"{name} is {value}: it must be an integer from {low} to 2^63 - 1")
        self.encoded, self.batch_size, self.seed, self.shuffle = encoded, batch_size, seed, shuffle
        self.rows = np.ascontiguousarray(rows, dtype=np.int64)
        if self.rows.min() < 0 or self.rows.max() >= len(encoded):
            raise DataError(
                f"rows go from {self.rows.min()} to {self.rows.max()}, but the table has {len(encoded)} rows"
            )
        self.sequences = dict(sequences or {})
        for name, past in self.sequences.items():
            if past.index.values is None and not past.counts_only:
                raise DataError(
                    f"sequence '{name}' has an index without values: give it some, or set counts_only"
                )
        # A window is two integers per row, so all of them are found once; only the gather is left to each batch.
        user, time = encoded.user[self.rows], encoded.time[self.rows]
        self._windows = {name: past.window(user, time) for name, past in self.sequences.items()}
        self.teacher = None
        if teacher is not None:
            if teacher.shape != (len(encoded),):
                raise DataError(
                    f"teacher has shape {teacher.shape}: expected ({len(encoded)},), a score per row"
                )
            missing = int(np.isnan(teacher[self.rows]).sum())
            if missing:
                raise DataError(f"{missing} of {len(rows)} rows have no FM score to distil: log them first")
            self.teacher = teacher.astype(np.float32)

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self.rows) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """All batches of one epoch, in order."""
        return (self.batch(epoch, k) for k in range(len(self)))

    def batch(self, epoch: int, k: int) -> Batch:
        """Batch `k` of epoch `epoch`; the same bytes whenever and on however many threads it is asked for.

        Raises:
            DataError: There is no such batch, or the epoch does not fit 63 bits.
        """
        import torch

        if not 0 <= epoch < 2**63:
            raise DataError(f"epoch is {epoch}: it must lie between 0 and 2^63 - 1")

        n = len(self.rows)
        order = _core.batch_rows(
            n, self.batch_size, seed=self.seed, epoch=epoch, index=k, shuffle=self.shuffle
        )
        rows, table = self.rows[order], self.encoded
        ids = np.empty((len(rows), table.ids.shape[1]), np.int32)
        _core.take_rows(table.ids, rows, ids)
        numeric = np.empty((len(rows), table.numeric.shape[1]), np.float32)
        _core.take_rows(table.numeric, rows, numeric)
        tokens = {}
        for name, (values, offsets) in table.tokens.items():
            taken, bounds = _core.take_lists(values, offsets, rows)
            tokens[name] = Jagged(values=torch.from_numpy(taken), offsets=torch.from_numpy(bounds))
        return Batch(
            ids=torch.from_numpy(ids),
            numeric=torch.from_numpy(numeric),
            label=torch.from_numpy(table.label[rows]),
            user=torch.from_numpy(table.user[rows]),
            time=torch.from_numpy(table.time[rows]),
            row=torch.from_numpy(rows),
            tokens=tokens,
            sequences={name: self._sequence(name, past, order) for name, past in self.sequences.items()},
            teacher=None if self.teacher is None else torch.from_numpy(self.teacher[rows]),
        )

    def _sequence(self, name: str, past: "PastEvents", order: NDArray[np.int64]) -> Sequence:
        import torch

        start, stop = (bound[order] for bound in self._windows[name])
        lengths = torch.from_numpy(stop - start)
        if past.counts_only:
            return Sequence(lengths=lengths)
        values = past.index.values
        assert values is not None  # checked when these batches were built
        as_ids = values.dtype == np.int32
        out = np.empty((len(order), past.length, values.shape[1]), np.int32 if as_ids else np.float32)
        past.index.gather(start, stop, out)
        gathered = torch.from_numpy(out)
        return (
            Sequence(lengths=lengths, ids=gathered) if as_ids else Sequence(lengths=lengths, vectors=gathered)
        )
