"""Past events joined to the rows of a batch."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recfm.data.batch import Sequence
from recfm.data.source import Rows
from recfm.errors import DataError

if TYPE_CHECKING:
    from recfm.history.index import PastEvents


def check(name: str, past: "PastEvents", rows: int) -> None:
    """Refuse what could not be joined to a table of so many rows, now and not at the first batch.

    Raises:
        DataError: The index has no values, or `past` has settings or keys that make no sense.
    """
    if past.index.values is None and not past.counts_only:
        raise DataError(f"sequence '{name}' has an index without values: give it some, or set counts_only")
    past.check_key(rows)
    none = np.zeros(0, np.int64)
    past.window(none, none)


def join(past: "PastEvents", rows: Rows) -> Sequence:
    """What each row's key did strictly before the row."""
    import torch

    key = past.key[rows.row] if isinstance(past.key, np.ndarray) else rows.key(past.key)
    start, stop = past.window(key, rows.time)
    lengths = stop - start if start.ndim == 1 else (stop - start).sum(axis=1)
    if past.counts_only:
        return Sequence(lengths=torch.from_numpy(lengths))
    if past.jagged:
        return Sequence(
            lengths=torch.from_numpy(lengths),
            values=torch.from_numpy(_jagged(past, start, stop, lengths)),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
        )
    out = _room(past, len(key), past.length)
    past.index.gather(start, stop, out)
    if out.dtype == np.int32:
        return Sequence(lengths=torch.from_numpy(lengths), ids=torch.from_numpy(out))
    return Sequence(lengths=torch.from_numpy(lengths), vectors=torch.from_numpy(out))


def _room(past: "PastEvents", rows: int, length: int) -> NDArray[np.float32] | NDArray[np.int32]:
    values = past.index.values
    shape = (rows, length, values.shape[1])
    return np.empty(shape, np.int32) if values.dtype == np.int32 else np.empty(shape, np.float32)


def _jagged(
    past: "PastEvents", start: NDArray[np.int64], stop: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float32] | NDArray[np.int32]:
    """The events of all rows one behind the other, newest first: [total, d]."""
    if start.ndim == 1:
        # Event i of a row is the one before `stop - i`, a window of one: nothing is padded on the way.
        first = np.cumsum(lengths) - lengths
        last = np.repeat(stop + first, lengths) - np.arange(lengths.sum())
        single = _room(past, len(last), 1)
        past.index.gather(last - 1, last, single)
        return single[:, 0]
    padded = _room(past, len(lengths), int(lengths.max(initial=0)))
    past.index.gather(start, stop, padded)
    return padded[np.arange(padded.shape[1]) < lengths[:, None]]
