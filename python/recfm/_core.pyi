"""The Rust data core: ids, histories, batches and metrics.

A `column` is anything that speaks the Arrow PyCapsule protocol: a Polars Series, a pyarrow Array or
ChunkedArray, a table of one column. It holds integers, booleans (as 0 and 1), strings, or dictionaries of
them (Polars Categorical and Enum); where lists are asked for, lists of those. Nothing is cast silently: any
other dtype is a `SchemaError`. Array arguments must be NumPy arrays of exactly the dtype given, C-contiguous,
or it is a `DataError`. Results are the same bytes for any number of threads; `RECFM_NUM_THREADS` sets it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ArrowArray",
    "ArrowChunks",
    "BlockWriter",
    "Blocks",
    "ExactMoments",
    "Hasher",
    "HistoryIndex",
    "KeyIndex",
    "Predictions",
    "Vocab",
    "VocabBuilder",
    "adam_rows",
    "auc",
    "batch_rows",
    "block_sums",
    "build_info",
    "calibration",
    "checksum",
    "encode_ids",
    "fill_bell",
    "fill_rows",
    "fill_slots",
    "gather_parts",
    "gauc",
    "hash_keys",
    "hidden_backward",
    "hidden_forward",
    "joint_key",
    "logloss",
    "lookup_rows",
    "normalized_entropy",
    "num_threads",
    "quantize_rows",
    "read_regions",
    "rowwise_adagrad",
    "seed_of",
    "small_norm_backward",
    "small_norm_forward",
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

    def encode_lists(
        self, column: _Column, *, max_length: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of a list column: values, and offsets `[n + 1]` of the rows in them. A null list is empty.

        Of a list longer than `max_length` the last elements stay.

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

    def arrow_values(self) -> ArrowArray:
        """The same as an Arrow array of int64 or large strings."""

    def counts(self) -> NDArray[np.int64]:
        """How often each value occurred in the fit, in the order of `values`."""

@final
class VocabBuilder:
    """Counts of a column that arrives in pieces; `finish` makes the vocabulary that `Vocab.fit` would make.

    Args:
        name: Name of the feature, for error messages.
    """

    def __new__(cls, *, name: str) -> VocabBuilder: ...
    def add(self, column: _Column, counts: NDArray[np.int64] | None = None) -> None:
        """Counts these rows too, or the elements of these lists; nulls do not count.

        Args:
            column: Integers or strings, the same kind as before.
            counts: `[n]`, how often row i counts; once by default.

        Raises:
            SchemaError: The column is neither integers nor strings, or of another kind than before.
            DataError: The lengths differ.
        """

    def finish(self, *, min_count: int = 1) -> Vocab:
        """The vocabulary of the values that came at least `min_count` times; more may be added afterwards.

        Raises:
            SchemaError: `min_count` is below 1.
            DataError: There are more values than an int32 id can tell apart.
        """

    def __len__(self) -> int:
        """Distinct values so far."""

    @property
    def kind(self) -> Literal["int", "str"] | None:
        """What the values are; None as long as the columns had no type."""

    @property
    def nbytes(self) -> int:
        """Bytes that the counts take."""

@final
class ArrowArray:
    """An array that any Arrow consumer reads without a copy."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...
    def __len__(self) -> int:
        """Number of values."""

@final
class ArrowChunks:
    """The record batches of a producer's Arrow stream, one at a time.

    Raises:
        AttributeError: The producer has no `__arrow_c_stream__`.
        ValueError: The stream was read before, or (while reading) breaks off.
    """

    def __new__(cls, producer: _ArrowStream) -> ArrowChunks: ...
    def __iter__(self) -> ArrowChunks: ...
    def __next__(self) -> ArrowArray: ...

@final
class BlockWriter:
    """Writes blocks of equal columns to one Arrow IPC file, uncompressed, a record batch each.

    Args:
        path: The file.
    """

    def __new__(cls, path: str) -> BlockWriter: ...
    def write(
        self, columns: Sequence[tuple[str, NDArray[Any]] | tuple[str, NDArray[Any], NDArray[Any]]]
    ) -> None:
        """Writes one block.

        Args:
            columns: `(name, array)` with int32, int64 or float32 `[n]` or `[n, d]`, or `(name, values, offsets)`
                with int32 lists.

        Raises:
            DataError: An array has another dtype or layout.
            StorageError: The disk refuses.
        """

    def finish(self) -> list[list[list[tuple[int, int, int]]]]:
        """Ends the file, waits for the disk, and says where the data lies: by block, by column, its buffers.

        A buffer is (offset in the file, bytes, XXH3); an array has one, lists have two: offsets, values.

        Raises:
            StorageError: The disk refuses.
        """

def read_regions(paths: list[str], regions: list[tuple[int, int, int, int]], out: NDArray[np.uint8]) -> None:
    """Reads parts of files into `out`, end to end, on all cores, each checked against its checksum.

    Args:
        paths: The files.
        regions: (place in `paths`, offset, bytes, XXH3) of each part.
        out: `[n]`, as long as all parts together.

    Raises:
        DataError: `out` has another length, or there is no such file in `paths`.
        StorageError: A file cannot be read, or its bytes are not those that were written.
    """

def seed_of(name: str) -> int:
    """Hash seed of a feature: the XXH3 64-bit hash of its name's UTF-8 bytes, unsigned."""

@final
class Hasher:
    """Hashes the values of one feature to ids.

    A value becomes `2 + xxh3_64_with_seed(bytes, seed_of(name)) % (buckets - 2)`, an integer being 8
    little-endian bytes and a string its UTF-8 bytes; null becomes 1. The same on every platform and in every
    version.

    Args:
        name: Name of the feature; equal values of different features hash differently.
        buckets: Rows of the embedding table, padding and unknown included; from 3 to 2**31 - 1.

    Raises:
        SchemaError: `buckets` is out of range.
    """

    def __new__(cls, *, name: str, buckets: int) -> Hasher: ...
    def encode(self, column: _Column) -> NDArray[np.int32]:
        """The id of every row, `[n]`.

        Raises:
            SchemaError: The column is neither integers nor strings.
        """

    def encode_lists(
        self, column: _Column, *, max_length: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of a list column: values, and offsets `[n + 1]` of the rows in them. A null list is empty.

        Of a list longer than `max_length` the last elements stay.

        Raises:
            SchemaError: The column holds no lists of integers or strings.
        """

    def __len__(self) -> int:
        """Rows of an embedding table for these ids, padding and unknown included."""

    @property
    def name(self) -> str:
        """Name of the feature."""

def encode_ids(columns: list[_Column], encoders: Sequence[Vocab | Hasher], out: NDArray[np.int32]) -> None:
    """Fills `out`, `[n, len(columns)]`, with the ids of all columns, each by the encoder in its place.

    Raises:
        SchemaError: A column is of another kind than its encoder takes.
        DataError: A column has not `n` rows, or `out` has not a column for each.
    """

def checksum(bytes: NDArray[np.uint8]) -> int:
    """XXH3 64-bit of an array's bytes, unsigned and unseeded: the checksum of recfm's files."""

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

@final
class KeyIndex:
    """From a key to the row of a side table that holds it.

    Args:
        keys: `[m]`, distinct.
        name: Name of their column, for error messages.

    Raises:
        DataError: A key occurs twice, or there are more than 2**31 - 3.
    """

    def __new__(cls, keys: NDArray[np.int64], *, name: str) -> KeyIndex: ...
    def rows(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each key, from 1 in the order in which the index was given them; 0 for a stranger.

        Args:
            keys: `[b]`.
        """

    def __len__(self) -> int:
        """Number of keys."""

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

def lookup_rows(
    weight: NDArray[np.float32],
    ids: NDArray[np.int32],
    features: Sequence[tuple[str, int, int, int]],
    rows: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Rows of a fused embedding table for a batch of ids.

    Args:
        weight: `[n, d]`.
        ids: `[B, C]`.
        features: For each feature its name, its column of `ids`, and the first and the number of its table rows.
        rows: `[B, F]`, takes the row of each id: the feature's first row plus the id.
        out: `[B, F, d]`, takes `weight[rows]`.

    Raises:
        DataError: An id is negative or not below its feature's number of rows, a feature lies outside `ids` or
            `weight`, or a dtype, shape or layout is wrong; what was written by then is undefined.
    """

def rowwise_adagrad(
    weight: NDArray[np.float32],
    state: NDArray[np.float32],
    rows: NDArray[np.int64],
    grads: NDArray[np.float32],
    *,
    lr: float,
    eps: float,
    l2: float,
) -> None:
    """One step of AdaGrad with an accumulator for each row, in place; rows that are not named stay as they are.

    Gradients of the same row are summed in their order; with that sum `g`, plus `l2 * w`, once for each row:
    `state += mean(g ** 2)`, then `w -= lr * g / (sqrt(state) + eps)`.

    Args:
        weight: `[n, d]`.
        state: `[n]`.
        rows: `[m]`, any order, any number of times.
        grads: `[m, d]`.

    Raises:
        DataError: A row is negative or not below `n` (nothing is written then), or a dtype, shape or layout is wrong.
    """

def adam_rows(
    weight: NDArray[np.float32],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    rows: NDArray[np.int64],
    grads: NDArray[np.float32],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    l2: float,
    step: int,
) -> None:
    """One step of Adam on the rows that are named, in place; the others and their moments stay as they are.

    Args:
        weight: `[n, d]`.
        first: First moment, `[n, d]`.
        second: Second moment, `[n, d]`.
        rows: `[m]`, any order, any number of times; gradients of the same row are summed in their order.
        grads: `[m, d]`.
        step: Number of this step from 1, for the bias correction.

    Raises:
        DataError: A row is negative or not below `n` (nothing is written then), or a dtype, shape or layout is wrong.
    """

def fill_bell(out: NDArray[np.float32], *, std: float, seed: int) -> None:
    """Fills an array with independent values of mean 0 and deviation `std`, in parallel.

    Value i depends on (`seed`, i) only and is the same on every machine. Each is a sum of four uniform numbers: a
    bell shape that ends at 3.46 deviations. 0 fills with zeros. Large arrays get huge pages where the system has them.

    Args:
        out: `[n]`.

    Raises:
        DataError: The dtype, shape or layout is wrong.
    """

@final
class ExactMoments:
    """Count, mean, standard deviation and range of finite numbers, without rounding until they are read.

    What is read is the float nearest to the true value, the same bits for any order of the values, any chunks
    and any merges. Takes 64 KiB whatever the count. May be updated from several threads. Pickles as its bytes.

    Example:
        >>> moments = ExactMoments()
        >>> moments.update(np.array([1e16, 1.0, -1e16]))
        >>> moments.mean()
        0.3333333333333333
    """

    def __new__(cls) -> ExactMoments: ...
    def update(self, values: NDArray[np.float64]) -> None:
        """Takes `values`, `[n]`, in: all of them or, where it raises, none.

        Raises:
            DataError: A value is NaN or infinite, or the array has another dtype or layout.
        """

    def merge(self, other: ExactMoments) -> None:
        """Takes in what `other` was made of, as if this had been updated with it.

        Raises:
            DataError: There would be more than 2**62 values; only copies add up to so many.
        """

    @property
    def count(self) -> int:
        """Number of values."""

    @property
    def min(self) -> float:
        """Smallest value; a `DataError` where there is none."""

    @property
    def max(self) -> float:
        """Largest value; a `DataError` where there is none."""

    def mean(self) -> float:
        """Mean, the exact quotient rounded once.

        Raises:
            DataError: There are no values.
        """

    def std(self) -> float:
        """Standard deviation of the population (`ddof=0`), the exact root rounded once; 0 only of a constant.

        Raises:
            DataError: There are no values.
        """

    def to_bytes(self) -> bytes:
        """The moments as 848 bytes with a checksum; equal for equal values, however they came."""

    @staticmethod
    def from_bytes(data: bytes) -> ExactMoments:
        """Reads what `to_bytes` wrote.

        Raises:
            DataError: The bytes are damaged or something else.
        """

    def __reduce__(self) -> tuple[Callable[[bytes], ExactMoments], tuple[bytes]]: ...

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
    group: NDArray[np.int64],
    label: NDArray[np.float32],
    score: NDArray[np.float64],
    weighting: str = "impressions",
) -> tuple[float, int, int]:
    """Weighted mean of the groups' AUCs; groups of one class have none and are left out.

    Args:
        group: `[n]`, usually the user.
        label: `[n]`, 0 or 1.
        score: `[n]`, any numbers but NaN.
        weighting: What a group counts for: "impressions", its rows (FuxiCTR, BARS); "positives", its rows of
            label 1 (RecBole); "uniform", one (TorchRec's `gauc`, TorchEasyRec's `grouped_auc`).

    Returns:
        The value, groups with both labels, and groups with one label only, which are left out.

    Raises:
        MetricError: As for `auc`, but where no group has both labels.
        DataError: The lengths differ, or an array has another dtype or layout.
        ConfigError: No such weighting.
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

def calibration(label: NDArray[np.float32], probability: NDArray[np.float64]) -> float:
    """Mean prediction over mean label, as TorchRec's: 1 is right on average, more is too much. Exact.

    Args:
        label: `[n]`, 0 or 1.
        probability: `[n]`, in [0, 1].

    Raises:
        MetricError: As for `logloss`, or no label is 1.
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

@final
class Predictions:
    """Labelled predictions that arrive in parts and from several workers; every metric is that of all rows at once.

    The metrics are the same bits for any order of the rows, any parts and any merges. A row takes 4 bytes while
    every probability is a 32-bit float (8 from the first that is not) and 8 bytes for its user. May be updated
    from several threads. Pickles as its bytes.
    """

    def __new__(cls) -> Predictions: ...
    def update(
        self,
        label: NDArray[np.float32],
        probability: NDArray[np.float64],
        user: NDArray[np.int64] | None = None,
    ) -> None:
        """Takes rows in: all of them or, where it raises, none.

        Args:
            label: `[n]`, 0 or 1.
            probability: `[n]`, in [0, 1].
            user: `[n]`; with every update or with none.

        Raises:
            MetricError: A label is not 0 or 1, a probability is NaN or outside [0, 1], or users came before and
                do not now, or the other way round.
            DataError: The lengths differ, or an array has another dtype or layout.
        """

    def merge(self, other: Predictions) -> None:
        """Takes in the rows of `other`, which keeps them.

        Raises:
            MetricError: One of the two has users and the other has not.
        """

    def __len__(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""

    @property
    def has_users(self) -> bool:
        """Whether the rows have users."""

    def auc(self) -> float:
        """Area under the ROC curve, as `auc`, with its errors."""

    def gauc(self, weighting: str = "impressions") -> tuple[float, int, int]:
        """Mean AUC of the users, as `gauc`, with its errors; a `MetricError` without users."""

    def logloss(self) -> float:
        """Mean negative log-likelihood, as `logloss`, with its errors."""

    def normalized_entropy(self) -> float:
        """Normalised entropy, as `normalized_entropy`, with its errors."""

    def calibration(self) -> float:
        """Mean prediction over mean label, as `calibration`, with its errors."""

    def reliability(
        self, bins: int = 10, by: str = "width"
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], float]:
        """Predicted against observed rates in bins of probability.

        Args:
            bins: From 1 to 10,000.
            by: "width": bin i holds probabilities in (i / bins, (i + 1) / bins], and 0 is in the first. "count":
                about as many rows in each; equal probabilities share the bin of the lowest of them.

        Returns:
            Of each bin that has rows, by rising probability: its number, its rows, its rows of label 1 and its
            mean probability. Last the expected calibration error: the mean over rows of the distance between
            their bin's mean probability and mean label.

        Raises:
            MetricError: There are no rows.
            ConfigError: No such number of bins or no such kind.
        """

    def to_bytes(self) -> bytes:
        """The rows as bytes with a checksum."""

    @staticmethod
    def from_bytes(data: bytes) -> Predictions:
        """Reads what `to_bytes` wrote.

        Raises:
            DataError: The bytes are damaged or something else.
        """

    def __reduce__(self) -> tuple[Callable[[bytes], Predictions], tuple[bytes]]: ...

def hidden_forward(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    *,
    norm: tuple[NDArray[np.float32], NDArray[np.float32], float] | None,
    rate: float,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Batch norm, ReLU and dropout of a hidden layer, in training.

    Args:
        x: `[B, w]`.
        y: `[B, w]`, receives the output.
        norm: Gain `[w]`, shift `[w]` and epsilon; None for no norm.
        rate: Share to drop, from 0 to below 1.
        seed: The mask is a function of (seed, row, column).

    Returns:
        Mean and biased variance of each column, `[w]` each; None without a norm.

    Raises:
        DataError: An array has another dtype, shape or layout.
    """

def hidden_backward(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    grad_y: NDArray[np.float32],
    grad_x: NDArray[np.float32],
    *,
    norm: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float] | None,
    rate: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The way back through `hidden_forward`.

    Args:
        x: Its input `[B, w]`.
        y: Its output `[B, w]`.
        grad_y: Gradient of the output.
        grad_x: `[B, w]`, receives the gradient of the input.
        norm: Gain, mean, variance `[w]` and epsilon; None for no norm.
        rate: Share that was dropped.

    Returns:
        Gradients of gain and shift `[w]`; None without a norm.

    Raises:
        DataError: An array has another dtype, shape or layout.
    """

def small_norm_forward(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    *,
    gain: NDArray[np.float32],
    shift: NDArray[np.float32],
    eps: float,
) -> None:
    """Layer norm of rows of at most 64 values.

    Args:
        x: `[n, d]`.
        y: `[n, d]`, receives the output.
        gain: `[d]`.
        shift: `[d]`.
        eps: Added to the variance.

    Raises:
        DataError: An array has another dtype, shape or layout, or rows are longer.
    """

def small_norm_backward(
    x: NDArray[np.float32],
    grad_y: NDArray[np.float32],
    grad_x: NDArray[np.float32],
    *,
    gain: NDArray[np.float32],
    eps: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The way back through `small_norm_forward`.

    Args:
        x: Its input `[n, d]`.
        grad_y: Gradient of its output.
        grad_x: `[n, d]`, receives the gradient of the input.
        gain: `[d]`.
        eps: Added to the variance.

    Returns:
        Gradients of gain and shift `[d]`.

    Raises:
        DataError: An array has another dtype, shape or layout, or rows are longer.
    """
