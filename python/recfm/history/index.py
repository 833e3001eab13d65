"""Past events per user, in time order: the leak-free join between a row and what came before it.

The rule that everything rests on: a row at time t sees events with `event_time < t - delay`, strictly. Equal
times never count, so rows of one request, and the row itself, never see each other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.errors import DataError
from recfm.schema import MAX_DELAY

MICROSECONDS = 1_000_000
_NO_LIMIT = int(np.iinfo(np.int64).max)


class HistoryIndex:
    """Events grouped by user and ordered by (user, time, position).

    Args:
        user: int64 [n], user key of each event.
        time: int64 [n], microseconds.
        values: [n, d] float32 or float16 vectors, or int32 ids, in event order; None to index counts only.

    Raises:
        DataError: The arrays differ in length, or `values` has another dtype.
    """

    def __init__(
        self, user: NDArray[np.int64], time: NDArray[np.int64], values: NDArray[Any] | None = None
    ) -> None:
        if values is not None:
            if values.ndim != 2 or len(values) != len(user):
                raise DataError(
                    f"history values have shape {values.shape}: expected [{len(user)}, d], a row per event"
                )
            if values.dtype not in (np.float32, np.float16, np.int32):
                raise DataError(f"history values are {values.dtype}: expected float32, float16 or int32 ids")
            values = np.ascontiguousarray(values)
        self.values = values
        # The core refuses other dtypes by name; casting here would move float times.
        self._index = _core.HistoryIndex(np.ascontiguousarray(user), np.ascontiguousarray(time))

    def __len__(self) -> int:
        return len(self._index)

    def window(
        self,
        user: NDArray[np.int64],
        time: NDArray[np.int64],
        *,
        length: int | None = 50,
        delay: float = 0.0,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each query's past lies: `start, stop` int64 [B] into the (user, time) order.

        Args:
            user: int64 [B].
            time: int64 [B], microseconds.
            length: Newest events to keep; None for all.
            delay: Logging delay in seconds: an event becomes visible only `delay` after it happened.

        Raises:
            DataError: `delay` or `length` is negative, or the arrays differ in length.
        """
        limit = _NO_LIMIT if length is None else length
        if not 0 <= delay <= MAX_DELAY:
            raise DataError(f"delay is {delay} seconds: it must lie between 0 and {MAX_DELAY:g}")
        if not isinstance(limit, int | np.integer) or not 0 <= limit <= _NO_LIMIT:
            raise DataError(f"length is {length}: it must be an integer of at least 0, or None for all")
        return self._index.window(user, time, length=limit, delay=round(delay * MICROSECONDS))

    def gather(self, start: NDArray[np.int64], stop: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Fill `out` [B, L, d] with the events of `window`, newest first, zeros behind them.

        Raises:
            DataError: `out` has the wrong shape or dtype, or the index holds no values.
        """
        if self.values is None:
            raise DataError("this history index counts events only: build it with values to gather them")
        self._index.gather(start, stop, self.values, out)


@dataclass(frozen=True, kw_only=True)
class PastEvents:
    """How a model sees a `HistoryIndex`: the newest `length` events older than `delay` seconds.

    With `counts_only` a row carries the number of its past events (all of them) and nothing else. With `jagged`
    nothing is padded: a batch carries the events of its rows one behind the other, and offsets.
    """

    index: HistoryIndex
    length: int = 50
    delay: float = 0.0
    counts_only: bool = False
    jagged: bool = False

    def window(
        self, user: NDArray[np.int64], time: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`start, stop` int64 [B] for these rows."""
        length = None if self.counts_only else self.length
        return self.index.window(user, time, length=length, delay=self.delay)
