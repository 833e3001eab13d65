"""Encode a log that is larger than one machine, on a Ray cluster: `pip install 'recfm[ray]'`.

fit:     blocks ─map_batches─► sums of each block ─► merged here
encode:  blocks ─map_batches─► encoded ─groupby(partition)─map_groups─► a folder for each partition

Everything runs in Ray Data. What comes out does not depend on blocks, workers or scheduling: sums are exact, and the
rows of a partition are sorted by their number in the dataset. That number is a block's first row, known here once all
blocks are encoded, and the row in the block; a block is named by the hash of what it holds, so that one that Ray makes
again has the same name. What recfm refuses in a worker travels back as a value: Ray would wrap an exception.
"""

import contextlib
import functools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.data.encode import Encoded, Encoder
from recfm.data.fit import Fitting
from recfm.data.frame import check_frame
from recfm.data.partitioned import (
    PartitionedFolder,
    PartitionedWriter,
    check_partitions,
    partition_of,
    write_part,
)
from recfm.errors import ConfigError, DataError, RecfmError, SchemaError
from recfm.schema import Schema

__all__ = ["PartitionedFolder", "encode", "fit"]

Table: TypeAlias = Any
"""A `pyarrow.Table`."""
_PART, _BLOCK, _ROW, _STRINGS, _REFUSED = "part", "block", "row", "strings", "refused"
_KEYS = ("user", "item", "time", "label")
_WHOLE: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
_OTHER_VERSION = (
    "a worker refused rows that are accepted here: all machines must run the same version of recfm"
)


def fit(dataset: Any, schema: Schema) -> Encoder:
    """Learn vocabularies and numeric statistics; the same encoder as `Encoder(schema).fit` on the whole table.

    Args:
        dataset: A `ray.data.Dataset` of the training rows, and only of them.
        schema: What its columns mean.

    Raises:
        SchemaError: A column is missing or has a dtype that its feature cannot take.
        DataError: The dataset is empty, a key is null, or a label is not 0 or 1.
        ConfigError: Ray is not installed, or `dataset` is no Ray dataset.
    """
    ray = _ray(dataset)
    fitting = Fitting(schema)
    with _in_order(ray, dataset):
        learned = dataset.map_batches(functools.partial(_learned, schema=schema.to_json()), **_WHOLE)
        for sums, refused in _rows_of(learned, "sums", _REFUSED):
            if refused is not None:
                # Once more here, where the block's place in the table is known.
                frame = pl.read_ipc(refused)
                check_frame(frame, schema, first_row=fitting.rows)
                fitting.add(frame)
                raise ConfigError(_OTHER_VERSION)
            fitting.merge(pickle.loads(sums))
    return Encoder(schema, fitting.finish())


def encode(dataset: Any, encoder: Encoder, folder: str | Path, *, partitions: int) -> PartitionedFolder:
    """Encode a dataset into one folder for each partition of the users, each with its history index.

    The folder appears whole, or not at all. Its bytes depend on the rows, their order, the encoder and `partitions`
    alone. The order is the dataset's own (files in order of their paths, rows as they lie in them).

    Args:
        dataset: A `ray.data.Dataset`.
        encoder: Fitted.
        folder: Must not exist yet, on a disk that all machines share.
        partitions: Folders to write; a worker holds the encoded rows of one in memory.

    Raises:
        SchemaError: A column is missing or has a dtype that its feature cannot take.
        DataError: The encoder was not fitted, the dataset is empty, or a key or label is bad.
        StorageError: The folder exists, or the disk refuses.
        ConfigError: Ray is not installed, `dataset` is no Ray dataset, or `partitions` is no such number.
    """
    ray = _ray(dataset)
    check_partitions(partitions)
    for role in ("user", "time"):
        encoder.schema.require(role, "a table partitioned by user, with histories,")
    files = encoder.files()
    with _in_order(ray, dataset), PartitionedWriter(folder, encoder, partitions) as writer:
        known = [ray.put(files)]  # in a list: Ray fetches bare references with every block
        encoded = dataset.map_batches(
            functools.partial(_encoded, known=known, partitions=partitions), **_WHOLE
        ).materialize()
        rows, starts, strings = _check_blocks(encoded, encoder)
        written = (
            encoded.drop_columns([_REFUSED, _STRINGS])
            .groupby(_PART, num_partitions=partitions)
            .map_groups(
                functools.partial(_written, known=known, starts=starts, folder=str(writer.temporary)),
                batch_format="pyarrow",
            )
        )
        parts: dict[int, int] = {}
        for part, count, refused in _rows_of(written, _PART, "rows", _REFUSED):
            if refused is not None:
                raise pickle.loads(refused)
            parts[part] = count
        if sum(parts.values()) != rows:  # as where DataContext.max_errored_blocks lets Ray drop them
            raise DataError(
                f"Ray lost rows: {rows} were encoded and {sum(parts.values())} written; run it again"
            )
        writer.commit(parts, user_kind="strings" if strings else "integers")
    return PartitionedFolder(folder)


def _ray(dataset: Any) -> Any:
    try:
        import pyarrow  # noqa: F401
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f"recfm.ray needs Ray Data ({error}): pip install 'recfm[ray]'") from None
    if not isinstance(dataset, ray.data.Dataset):
        raise ConfigError(f"dataset is a {type(dataset).__name__}: give a ray.data.Dataset")
    return ray


@contextlib.contextmanager
def _in_order(ray: Any, dataset: Any) -> Iterator[None]:
    """Blocks keep their order, whichever is done first."""
    options = [context.execution_options for context in (dataset.context, ray.data.DataContext.get_current())]
    before = [each.preserve_order for each in options]
    try:
        for each in options:
            each.preserve_order = True
        yield
    finally:
        for each, order in zip(options, before, strict=True):
            each.preserve_order = order


def _rows_of(dataset: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    for batch in dataset.iter_batches(**_WHOLE):
        yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


def _check_blocks(encoded: Any, encoder: Encoder) -> tuple[int, pl.DataFrame, bool]:
    """Rows of all blocks, where each starts, as (block, copy, start), and whether users are strings.

    Raises:
        SchemaError: A column is missing or has a dtype that its feature cannot take, or users are of two kinds.
        DataError: There are no rows, or a key or label is bad.
    """
    total, kinds = 0, set()
    blocks: list[int] = []
    starts: list[int] = []
    summaries = encoded.map_batches(_summary, **_WHOLE)
    for rows, block, strings, refused in _rows_of(summaries, "rows", _BLOCK, _STRINGS, _REFUSED):
        if refused is not None:
            # Once more here, where the block's place in the table is known.
            encoder.transform(pl.read_ipc(refused), first_row=total)
            raise ConfigError(_OTHER_VERSION)
        if rows:
            kinds.add(strings)
            blocks.append(block)
            starts.append(total)
            total += rows
    if not total:
        raise DataError("the event table has no rows")
    if len(kinds) > 1:
        raise SchemaError(
            f"column '{encoder.schema.user}' (user) holds integers in some blocks and strings in others: cast it"
        )
    table = pl.DataFrame({_BLOCK: pl.Series(blocks, dtype=pl.Int64), "start": starts})
    return total, table.with_columns(copy=pl.int_range(pl.len()).over(_BLOCK)), kinds.pop()


def _learned(table: Table, *, schema: str) -> Table:
    """The sums of a block, or the block itself if it is refused."""
    parsed = Schema.from_json(schema)
    fitting, refused = Fitting(parsed), None
    if table.num_rows:
        frame = _frame(table, parsed)
        try:
            check_frame(frame, parsed)
            fitting.add(frame)
        except RecfmError:
            refused = frame
    return _one_row(
        sums=None if refused is not None else pickle.dumps(fitting.state()),
        refused=None if refused is None else refused.write_ipc(None).getvalue(),
    )


def _encoded(table: Table, *, known: list[Any], partitions: int) -> Table:
    """A block encoded, a row for a row, or one row that holds the block itself if it is refused."""
    import pyarrow as pa

    encoder = _encoder(known[0])
    columns = _columns(encoder)
    if not table.num_rows:
        return columns.empty_table()
    frame = _frame(table, encoder.schema)
    try:
        encoded = encoder.transform(frame)
    except RecfmError:
        return pa.Table.from_pylist([{_REFUSED: frame.write_ipc(None).getvalue()}], schema=columns)
    arrays: dict[str, Any] = {name: getattr(encoded, name) for name in _KEYS}
    contents = list(arrays.values())
    for name in ("ids", "numeric"):
        matrix = getattr(encoded, name)
        if matrix.shape[1]:
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
            contents.append(matrix)
    for name, (values, offsets) in encoded.tokens.items():
        arrays[f"tokens.{name}"] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
        contents += [values, offsets]
    arrays[_PART] = partition_of(encoded.user, partitions)
    arrays[_BLOCK] = np.full(len(encoded), _name(contents))
    arrays[_ROW] = np.arange(len(encoded))
    user = encoder.schema.require("user", "a partition")
    arrays[_STRINGS] = np.full(len(encoded), not frame.schema[user].is_integer())
    arrays[_REFUSED] = pa.nulls(len(encoded), pa.large_binary())
    return pa.table(arrays, schema=columns)


def _name(contents: list[NDArray[Any]]) -> np.int64:
    sums = [_core.checksum(np.ascontiguousarray(array).view(np.uint8).reshape(-1)) for array in contents]
    return np.uint64(_core.checksum(np.array(sums, np.uint64).view(np.uint8))).view(np.int64)


def _columns(encoder: Encoder) -> Any:
    """The Arrow schema of encoded blocks."""
    import pyarrow as pa

    columns = {"user": pa.int64(), "item": pa.int64(), "time": pa.int64(), "label": pa.float32()}
    layout = encoder.layout
    if layout.categorical:
        columns["ids"] = pa.list_(pa.int32(), len(layout.categorical))
    if layout.numeric:
        columns["numeric"] = pa.list_(pa.float32(), len(layout.numeric))
    columns |= {f"tokens.{column.name}": pa.large_list(pa.int32()) for column in layout.tokens}
    columns |= {_PART: pa.int32(), _BLOCK: pa.int64(), _ROW: pa.int64()}
    return pa.schema(columns | {_STRINGS: pa.bool_(), _REFUSED: pa.large_binary()})


def _summary(table: Table) -> Table:
    names = (_BLOCK, _STRINGS, _REFUSED)
    first = {name: table[name][0].as_py() if table.num_rows else None for name in names}
    return _one_row(rows=table.num_rows, **first)


def _written(table: Table, *, known: list[Any], starts: pl.DataFrame, folder: str) -> Table:
    """Write the rows of one partition, which come in any order, as its part."""
    encoder, part = _encoder(known[0]), table[_PART][0].as_py()
    try:
        write_part(Path(folder), part, _decoded(table, _order(table, starts), encoder), encoder)
    except RecfmError as error:
        return _one_row(part=part, rows=0, refused=pickle.dumps(error))
    return _one_row(part=part, rows=table.num_rows, refused=None)


def _order(table: Table, starts: pl.DataFrame) -> NDArray[np.int64]:
    """The rows of a partition by their number in the dataset."""
    places = pl.DataFrame({name: table[name].to_numpy() for name in (_BLOCK, _ROW)})
    # Blocks of one name hold the same rows: which copy is which makes no difference.
    places = places.with_columns(copy=pl.int_range(pl.len()).over(_BLOCK, _ROW))
    found = places.join(starts, on=[_BLOCK, "copy"], how="left", maintain_order="left")
    if found["start"].null_count():
        raise DataError(
            "Ray made a block again and got other rows: every step of the dataset must be deterministic"
        )
    return np.argsort((found["start"] + found[_ROW]).to_numpy())


def _decoded(table: Table, order: NDArray[np.int64], encoder: Encoder) -> Encoded:
    """What `_encoded` encoded, in another order."""

    def matrix(name: str, dtype: type) -> NDArray[Any]:
        if name not in table.column_names:
            return np.zeros((len(order), 0), dtype)
        flat: NDArray[Any] = table[name].combine_chunks().flatten().to_numpy()
        return flat.reshape(len(order), -1)[order]

    def lists(name: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        taken = table[name].combine_chunks().take(order)
        return taken.values.to_numpy(), taken.offsets.to_numpy()

    return Encoded(
        schema=encoder.schema,
        layout=encoder.layout,
        ids=matrix("ids", np.int32),
        numeric=matrix("numeric", np.float32),
        tokens={column.name: lists(f"tokens.{column.name}") for column in encoder.layout.tokens},
        **{name: table[name].to_numpy()[order] for name in _KEYS},
    )


def _frame(table: Table, schema: Schema) -> pl.DataFrame:
    """The columns that are read; a table that lacks one stays whole, to be refused with a hint at the right name."""
    columns = schema.columns()
    table = table.select(columns) if set(columns) <= set(table.column_names) else table
    for place, field in enumerate(table.schema):
        if len(getattr(field.type, "shape", ())) == 1:  # Ray makes tensors of lists of one length
            table = table.set_column(place, field.name, _storage(table.column(place)))
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _storage(column: Any) -> Any:
    import pyarrow as pa

    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def _one_row(**values: Any) -> Table:
    import pyarrow as pa

    types = {
        "sums": pa.large_binary(),
        _REFUSED: pa.large_binary(),
        "rows": pa.int64(),
        _PART: pa.int32(),
        _BLOCK: pa.int64(),
        _STRINGS: pa.bool_(),
    }
    return pa.table({name: pa.array([value], types[name]) for name, value in values.items()})


@functools.lru_cache(maxsize=1)
def _encoder(known: Any) -> Encoder:
    """The encoder of a run; a worker builds it once."""
    import ray

    return Encoder.from_files(ray.get(known).__getitem__)
