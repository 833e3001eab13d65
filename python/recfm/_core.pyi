"""The Rust data core: ids, histories, batches and metrics.

A `column` is anything that speaks the Arrow PyCapsule protocol: a Polars Series, a pyarrow Array or
ChunkedArray, a table of one column. It holds integers, booleans (as 0 and 1), strings, or dictionaries of
them (Polars Categorical and Enum); where lists are asked for, lists of those. Nothing is cast silently: any
other dtype is a `SchemaError`. Array arguments must be NumPy arrays of exactly the dtype given, C-contiguous,
or it is a `DataError`. Results are the same bytes for any number of threads; `RECFM_NUM_THREADS` sets it.
"""

from typing import Any, Literal, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Blocks",
    "HistoryIndex",
    "Vocab",
    "auc",
    "batch_rows",
    "block_sums",
    "build_info",
    "fill_slots",
    "gather_parts",
    "gauc",
    "hash_ids",
    "hash_keys",
    "hash_lists",
    "joint_key",
    "logloss",
    "normalized_entropy",
    "num_threads",
    "quantize_rows",
    "seed_of",
    "take_lists",
    "take_rows",
    "uniform_codebook",
    "window_of_parts",
]

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class _ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

_Column: TypeAlias = _ArrowStream | _ArrowArray
_Store: TypeAlias = NDArray[Any]

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
        user: `[n]`, user of each event; fewer than 2^32 - 1.
        time: `[n]`, its time, in any unit.
        keep: `[n]`, the events to index; None for all.

    Raises:
        DataError: The lengths differ, there are too many events, or an array has another dtype or layout.
    """

    def __new__(
        cls,
        user: NDArray[np.int64],
        time: NDArray[np.int64],
        keep: NDArray[np.bool_] | None = None,
    ) -> HistoryIndex: ...
    @staticmethod
    def mapped(
        *,
        rows: NDArray[np.uint32],
        times: NDArray[np.int64],
        users: NDArray[np.int64],
        offsets: NDArray[np.uint32],
        slots: NDArray[np.uint32],
        table: int,
        blocks: Blocks | None,
    ) -> HistoryIndex:
        """An index over `columns` that were saved before.

        Args:
            rows: `[n]`.
            times: `[n]`.
            users: `[u]`.
            offsets: `[u + 1]`.
            slots: `[2u]`.
            table: Rows of the table that the index was built from.
            blocks: The file that the arrays are views of, to be verified on the way; None if they are in memory.

        Raises:
            DataError: An array has another dtype or layout.
        """

    def window(
        self,
        user: NDArray[np.int64],
        time: NDArray[np.int64],
        *,
        length: int,
        delay: int,
        max_age: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The newest `length` events of each user with `time - max_age <= event_time < time - delay`.

        Strictly: an event at exactly that moment is never seen. The subtractions saturate.

        Args:
            user: `[B]`, user of each query.
            time: `[B]`, its moment, in the index's unit.
            length: How many events at most.
            delay: How long after an event it can be known, in the same unit.
            max_age: How long after an event it is forgotten; None for never.

        Returns:
            Starts and stops `[B]`, ranges into `rows()`; (0, 0) for an unknown user.

        Raises:
            DataError: `length`, `delay` or `max_age` is negative, or the lengths differ.
            StorageError: A block of the index's file is damaged.
        """

    def windows_of_events(
        self, *, length: int, delay: int, max_age: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`window` of every indexed event, in the order in which the events were given.

        Raises:
            DataError: `length`, `delay` or `max_age` is negative.
            StorageError: A block of the index's file is damaged.
        """

    def gather(
        self,
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
        store: _Store,
        out: NDArray[np.float32] | NDArray[np.int32],
        *,
        dtype: Literal["bf16"] | None = None,
        codebook: NDArray[np.float32] | None = None,
    ) -> None:
        """Fills `out` with the stored rows of each window, newest first, and zeros behind them.

        Args:
            start: `[B]`, as `window` returned it.
            stop: `[B]`.
            store: `[n, d]`, one row for each event in the order in which the index was given them; uint8 codes of
                int4 are `[n, ceil(d / 2)]`.
            out: `[B, L, d]`, written in place: int32 for an int32 store, else float32. A uint16 store holds
                the bits of float16 values.
            dtype: "bf16" if a uint16 store holds the bits of bfloat16 values.
            codebook: `[16]`, what int4 codes stand for; None for 16 values evenly over [-1, 1].

        Raises:
            DataError: A dtype, shape or layout is wrong, `out` is read-only, a window is no range of events,
                or it has more than `L` events.
            StorageError: A block of the index's file is damaged.
        """

    def rows(self) -> NDArray[np.int64]:
        """A copy of the event positions, as given, ordered by (user, time, position); `[n]`.

        Raises:
            StorageError: A block of the index's file is damaged.
        """

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays that the index is made of, read-only and not copied: times, rows, users, offsets, slots."""

    def verified(self) -> dict[str, NDArray[Any]]:
        """`columns`, every block of their file verified first.

        Raises:
            StorageError: A block of the index's file is damaged.
        """

    def __len__(self) -> int:
        """Number of indexed events."""

    @property
    def num_users(self) -> int:
        """Number of distinct users."""

    @property
    def table(self) -> int:
        """Rows of the table that the index was built from, those that are not indexed included."""

def window_of_parts(
    parts: list[HistoryIndex],
    user: NDArray[np.int64],
    time: NDArray[np.int64],
    *,
    length: int,
    delay: int,
    max_age: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One window in each part for each query: together the newest `length` events, later parts newer at a tie.

    Args:
        parts: Indexes over tables that follow each other.
        user: `[B]`.
        time: `[B]`.
        length: As for `HistoryIndex.window`, over all parts.
        delay: Likewise.
        max_age: Likewise.

    Returns:
        Starts and stops `[B, P]`.

    Raises:
        DataError: `length`, `delay` or `max_age` is negative, or the lengths differ.
        StorageError: A block of an index's file is damaged.
    """

def gather_parts(
    parts: list[HistoryIndex],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    stores: list[_Store],
    out: NDArray[np.float32] | NDArray[np.int32],
    *,
    blocks: list[Blocks | None],
    dtype: Literal["bf16"] | None = None,
    codebook: NDArray[np.float32] | None = None,
) -> None:
    """`HistoryIndex.gather` over several parts, their windows merged newest first.

    Args:
        parts: `P` indexes.
        start: `[B, P]`, or `[B]` for one part.
        stop: Like `start`.
        stores: One for each part.
        out: `[B, L, d]`.
        blocks: For each store the file that it is a view of, or None.
        dtype: As for `HistoryIndex.gather`.
        codebook: Likewise.

    Raises:
        DataError: As for `HistoryIndex.gather`.
        StorageError: A block of a file is damaged.
    """

def fill_slots(users: NDArray[np.int64], first: int, last: int, slots: NDArray[np.uint32]) -> None:
    """Enters `users[first:last]` into a table of slots, in place.

    Args:
        users: `[u]`, distinct.
        first: Users below it are in the table.
        last: May lie behind the last user.
        slots: `[2u]`, all 2^32 - 1 at first.

    Raises:
        DataError: `slots` has another length, or an array another dtype or layout.
    """

@final
class Blocks:
    """A file in memory whose blocks of 256 KiB are verified where they are first touched.

    Args:
        file: `[bytes]`, usually mapped.
        sums: XXH3 of each block, see `block_sums`.
        name: Of the file, for messages.

    Raises:
        DataError: An array has another dtype or layout.
    """

    def __new__(cls, file: NDArray[np.uint8], sums: NDArray[np.uint64], name: str) -> Blocks: ...
    def check(self, start: int, length: int) -> None:
        """Verifies the blocks of `length` bytes from `start`.

        Raises:
            StorageError: One is damaged, or has no checksum.
        """

    def check_array(self, values: NDArray[Any]) -> None:
        """Verifies the blocks that an array, a C-contiguous view of the file, lies in.

        Raises:
            StorageError: One is damaged, or the array is no part of the file.
        """

def block_sums(bytes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """XXH3 of each 256 KiB of `bytes`; the last may be shorter."""

def joint_key(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """One key for each row of several columns: XXH3 of its integers as little-endian bytes.

    Raises:
        DataError: There are no columns, or they differ in length or dtype.
    """

def uniform_codebook() -> NDArray[np.float32]:
    """Sixteen values evenly over [-1, 1], rising."""

def quantize_rows(
    values: NDArray[np.float32],
    *,
    dtype: Literal["bf16", "int8", "int4"],
    codebook: NDArray[np.float32] | None = None,
) -> NDArray[Any]:
    """Vectors `[n, d]` in [-1, 1] as bf16 bits (uint16), int8, or int4 codes (uint8 `[n, ceil(d / 2)]`).

    Args:
        values: `[n, d]`; what lies outside [-1, 1] becomes its nearer end.
        dtype: How to store them.
        codebook: `[16]`, finite and rising, for int4; None for `uniform_codebook`.

    Raises:
        DataError: `dtype` is unknown, the codebook is no such, or `values` has another dtype or layout.
    """

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
