"""The Rust data core: ids, histories, batches and metrics.

A `column` is anything that speaks the Arrow PyCapsule protocol: a Polars Series, a pyarrow Array or
ChunkedArray, a table of one column. It holds integers, booleans (as 0 and 1), strings, or dictionaries of
them (Polars Categorical and Enum); where lists are asked for, lists of those. Nothing is cast silently: any
other dtype is a `SchemaError`. Array arguments must be NumPy arrays of exactly the dtype given, C-contiguous,
or it is a `DataError`. Results are the same bytes for any number of threads; `RECFM_NUM_THREADS` sets it.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HistoryIndex",
    "KeyIndex",
    "Vocab",
    "auc",
    "batch_rows",
    "build_info",
    "fill_rows",
    "gauc",
    "hash_ids",
    "hash_keys",
    "hash_lists",
    "logloss",
    "normalized_entropy",
    "num_threads",
    "seed_of",
    "take_lists",
    "take_rows",
]

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class _ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

_Column: TypeAlias = _ArrowStream | _ArrowArray

def build_info() -> dict[str, str]:
    """What was built: `version`, `profile` (debug or release), `target` (the triple), `threads`."""

def num_threads() -> int:
    """Number of threads in this process's pool.

    Raises:
        ConfigError: `RECFM_NUM_THREADS` is no whole number from 1 to 1024.
    """

@final
class Vocab:
    """The distinct values of a training column as dense ids.

    Id 0 is padding, 1 is null and everything unseen, then the values by falling count; ties by value, strings
    by bytes.

    Example:
        >>> vocab = Vocab.fit(polars.Series(["b", "a", "b"]), name="genre")
        >>> vocab.encode(polars.Series(["a", "b", "new", None]))
        array([3, 2, 1, 1], dtype=int32)
    """

    @staticmethod
    def fit(column: _Column, *, name: str, min_count: int = 1) -> Vocab:
        """Fits a vocabulary on a column, or on the elements of a list column; nulls do not count.

        Args:
            column: Values to learn from. A column of nulls without a type gives an empty `int` vocabulary.
            name: Name of the feature, for error messages.
            min_count: Values that occur less often get no id.

        Raises:
            SchemaError: The column is neither integers nor strings, or `min_count` is below 1.
            DataError: An unsigned integer is above 2**63 - 1, or there are too many values for an i32.
        """

    @staticmethod
    def from_values(values: _Column, counts: NDArray[np.int64], *, name: str) -> Vocab:
        """Restores a vocabulary.

        Args:
            values: The values in id order, the first of them id 2.
            counts: `[n]`, how often each occurred; never rising.
            name: Name of the feature, for error messages.

        Raises:
            SchemaError: The values are neither integers nor strings.
            DataError: A value is null or occurs twice, the counts rise or are below 1, or the lengths differ.
        """

    def encode(self, column: _Column) -> NDArray[np.int32]:
        """The id of every row, `[n]`.

        Raises:
            SchemaError: The column is of another kind than the vocabulary.
        """

    def encode_lists(self, column: _Column) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of a list column: values, and offsets `[n + 1]` of the rows in them. A null list is empty.

        Raises:
            SchemaError: The column holds no lists, or lists of another kind than the vocabulary.
        """

    def __len__(self) -> int:
        """Rows of an embedding table for these ids, padding and unknown included."""

    @property
    def name(self) -> str:
        """Name given at the fit."""

    @property
    def kind(self) -> Literal["int", "str"]:
        """What the values are."""

    def values(self) -> list[int] | list[str]:
        """The values in id order, the first of them id 2."""

    def counts(self) -> NDArray[np.int64]:
        """How often each value occurred in the fit, in the order of `values`."""

def seed_of(name: str) -> int:
    """Hash seed of a feature: the XXH3 64-bit hash of its name's UTF-8 bytes, unsigned."""

def hash_ids(column: _Column, *, name: str, buckets: int) -> NDArray[np.int32]:
    """Hashes every row to an id, `[n]`.

    A value becomes `2 + xxh3_64_with_seed(bytes, seed_of(name)) % (buckets - 2)`, an integer being 8
    little-endian bytes and a string its UTF-8 bytes; null becomes 1. The same on every platform and in every
    version.

    Args:
        column: Values to hash.
        name: Name of the feature; equal values of different features hash differently.
        buckets: Rows of the embedding table, padding and unknown included; from 3 to 2**31 - 1.

    Raises:
        SchemaError: The column is neither integers nor strings, or `buckets` is out of range.
    """

def hash_lists(column: _Column, *, name: str, buckets: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Hashes the elements of a list column like `hash_ids`: values, and offsets `[n + 1]`.

    A null list is an empty one.

    Raises:
        SchemaError: The column holds no lists of integers or strings, or `buckets` is out of range.
    """

def hash_keys(column: _Column, *, name: str) -> NDArray[np.int64]:
    """64-bit keys of users or items, `[n]`: integers as they are, strings as the bits of their XXH3 hash.

    Raises:
        SchemaError: The column is neither integers nor strings.
        DataError: A row is null; the message names the first.
    """

@final
class HistoryIndex:
    """Per user, the events in time order: the one place that decides what a moment may see.

    Args:
        user: `[n]`, user of each event.
        time: `[n]`, its time, in any unit.

    Raises:
        DataError: The lengths differ, or an array has another dtype or layout.
    """

    def __new__(cls, user: NDArray[np.int64], time: NDArray[np.int64]) -> HistoryIndex: ...
    def window(
        self, user: NDArray[np.int64], time: NDArray[np.int64], *, length: int, delay: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The newest `length` events of each user with `event_time < time - delay`.

        Strictly: an event at exactly that moment is never seen. The subtraction saturates.

        Args:
            user: `[B]`, user of each query.
            time: `[B]`, its moment, in the index's unit.
            length: How many events at most.
            delay: How long after an event it can be known, in the same unit.

        Returns:
            Starts and stops `[B]`, ranges into `rows()`; (0, 0) for an unknown user.

        Raises:
            DataError: `length` or `delay` is negative, or the lengths differ.
        """

    def gather(
        self,
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
        store: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16] | NDArray[np.int32],
        out: NDArray[np.float32] | NDArray[np.int32],
    ) -> None:
        """Fills `out` with the stored rows of each window, newest first, and zeros behind them.

        Args:
            start: `[B]`, as `window` returned it.
            stop: `[B]`.
            store: `[n, d]`, one row for each event in the order in which the index was given them.
            out: `[B, L, d]`, written in place: int32 for an int32 store, else float32. A uint16 store holds
                the bits of float16 values.

        Raises:
            DataError: A dtype, shape or layout is wrong, `out` is read-only, a window is no range of events,
                or it has more than `L` events.
        """

    def rows(self) -> NDArray[np.int64]:
        """A copy of the event positions, as given, ordered by (user, time, position); `[n]`."""

    def __len__(self) -> int:
        """Number of events."""

    @property
    def num_users(self) -> int:
        """Number of distinct users."""

@final
class KeyIndex:
    """From a key to the row of a side table that holds it.

    Args:
        keys: `[m]`, distinct.
        name: Name of their column, for error messages.

    Raises:
        DataError: A key occurs twice, or there are more than 2**31 - 1.
    """

    def __new__(cls, keys: NDArray[np.int64], *, name: str) -> KeyIndex: ...
    def rows(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each key, from 1 in the order in which the index was given them; 0 for a stranger.

        Args:
            keys: `[b]`.
        """

    def __len__(self) -> int:
        """Number of keys."""

def batch_rows(
    n: int, batch_size: int, *, seed: int, epoch: int, index: int, shuffle: bool
) -> NDArray[np.int64]:
    """The rows of batch `index` of an epoch over `n` rows; the last batch holds what is left.

    A function of its arguments alone, so a run resumes at any batch. No permutation is stored.

    Args:
        n: Rows in the table.
        batch_size: Rows in a batch.
        seed: Seed of the run, any signed 64-bit integer.
        epoch: Number of the epoch; each has its own order.
        index: Number of the batch in the epoch.
        shuffle: Permute the rows; otherwise they come in order.

    Raises:
        DataError: The batch lies outside the epoch, `n` is negative or `batch_size` below 1.
    """

def fill_rows(
    n: int,
    ranges: Sequence[tuple[int, int]],
    rows: NDArray[np.int64],
    columns: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    *,
    served: NDArray[np.int64] | None,
    offset: int,
    seed: int,
    epoch: int,
    shuffle: bool,
) -> None:
    """Fills the row numbers of some batches, and those rows of every column, in one pass.

    Position p of the epoch serves row `served[q]`, or `offset + q`, where q is p itself or, shuffled, position p
    of the permutation that `batch_rows` follows.

    Args:
        n: Rows in the epoch.
        ranges: Positions to fill, `(first, count)` each, one behind the other.
        rows: `[m]`, receives the row numbers; m is the sum of the counts.
        columns: Pairs of a table, `[height]` or `[height, f]`, int32, float32 or int64, and where its rows go,
            `[m]` or `[m, f]` of the same dtype.
        served: `[n]`, the rows of an epoch; None for `offset` and the rows that follow.
        offset: First row where `served` is None.
        seed: Seed of the run, any signed 64-bit integer.
        epoch: Number of the epoch.
        shuffle: Permute the rows; otherwise they come in order.

    Raises:
        DataError: A range lies outside the epoch, a row outside a table, or a dtype, shape or layout is wrong;
            what was written by then is undefined.
    """

def take_rows(
    src: NDArray[np.int32] | NDArray[np.float32] | NDArray[np.int64],
    rows: NDArray[np.int64],
    out: NDArray[np.int32] | NDArray[np.float32] | NDArray[np.int64],
) -> None:
    """Copies `src[rows]` to `out` in place.

    Args:
        src: `[n]` or `[n, f]`.
        rows: `[b]`.
        out: `[b]` or `[b, f]`, of the dtype of `src`.

    Raises:
        DataError: A row is negative or not below `n`, or a dtype, shape or layout is wrong.
    """

def take_lists(
    values: NDArray[np.int32], offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The lists `rows` of a jagged table, as values and offsets.

    Args:
        values: `[total]`.
        offsets: `[n + 1]`; list `i` is `values[offsets[i]:offsets[i + 1]]`.
        rows: `[b]`.

    Raises:
        DataError: A row is out of range, or the offsets of a list asked for are no range of `values`.
    """

def auc(label: NDArray[np.float32], score: NDArray[np.float64]) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting half. Exact.

    Args:
        label: `[n]`, 0 or 1.
        score: `[n]`, any numbers but NaN.

    Raises:
        MetricError: There are no rows, all labels are equal, a label is not 0 or 1, or a score is NaN.
        DataError: The lengths differ, or an array has another dtype or layout.
    """

def gauc(
    group: NDArray[np.int64], label: NDArray[np.float32], score: NDArray[np.float64]
) -> tuple[float, int, int]:
    """Mean of the groups' AUCs weighted by their rows, as FuxiCTR's gAUC.

    Args:
        group: `[n]`, usually the user.
        label: `[n]`, 0 or 1.
        score: `[n]`, any numbers but NaN.

    Returns:
        The value, groups with both labels, and groups with one label only, which are left out.

    Raises:
        MetricError: No group has both labels, a label is not 0 or 1, or a score is NaN.
        DataError: The lengths differ, or an array has another dtype or layout.
    """

def logloss(label: NDArray[np.float32], probability: NDArray[np.float64]) -> float:
    """Mean negative log-likelihood in nats; probabilities are clipped to [1e-7, 1 - 1e-7].

    Args:
        label: `[n]`, 0 or 1.
        probability: `[n]`, in [0, 1].

    Raises:
        MetricError: There are no rows, a label is not 0 or 1, or a probability is NaN or outside [0, 1].
        DataError: The lengths differ, or an array has another dtype or layout.
    """

def normalized_entropy(label: NDArray[np.float32], probability: NDArray[np.float64]) -> float:
    """Log loss over the entropy of these labels' base rate: a constant reaches 1, less is better.

    Args:
        label: `[n]`, 0 or 1, both present.
        probability: `[n]`, in [0, 1].

    Raises:
        MetricError: As for `logloss`, or all labels are equal.
        DataError: The lengths differ, or an array has another dtype or layout.
    """
