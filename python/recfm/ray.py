"""Encode a log that is larger than one machine, on a Ray cluster: `pip install 'recfm[ray]'`.

fit:     blocks ─map_batches─► sums of each block ─► merged here
encode:  blocks ─zip─► row numbers ─map_batches─► encoded ─groupby(partition)─map_groups─► a folder for each partition

Everything runs in Ray Data. What comes out does not depend on blocks, workers or scheduling: sums are exact, and the
rows of a partition are sorted by their number in the dataset.
"""

import contextlib
import functools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

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

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PartitionedFolder", "encode", "fit"]

_PART, _ROW = "part", "row"
_WHOLE: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}


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
    with _running(ray, dataset):
        learned = dataset.map_batches(functools.partial(_learn, schema=schema.to_json()), **_WHOLE)
        for batch in learned.iter_batches(**_WHOLE):
            for sums, refused in zip(*(batch[name].to_pylist() for name in ("sums", "refused")), strict=True):
                if refused is not None:
                    # Refused once more here, where the block's place in the table is known.
                    frame = pl.read_ipc(refused)
                    check_frame(frame, schema, first_row=fitting.rows)
                    fitting.add(frame)
                else:
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
    files = encoder.files()
    with _running(ray, dataset), PartitionedWriter(folder, encoder, partitions) as writer:
        known = [ray.put(files)]  # in a list: workers fetch it once, and not with every block
        columns = encoder.schema.columns()
        rows = dataset.map_batches(functools.partial(_selected, columns=columns), **_WHOLE).materialize()
        count = rows.count()
        if not count:
            raise DataError("the event table has no rows")
        encoded = rows.zip(ray.data.range(count)).map_batches(
            functools.partial(_encoded, known=known, partitions=partitions), **_WHOLE
        )
        written = encoded.groupby(_PART, num_partitions=partitions).map_groups(
            functools.partial(_written, known=known, folder=str(writer.temporary)), batch_format="pyarrow"
        )
        parts: dict[int, int] = {}
        for batch in written.iter_batches(**_WHOLE):
            parts.update(zip(batch[_PART].to_pylist(), batch["rows"].to_pylist(), strict=True))
        writer.commit(parts, user_kind=_user_kind(rows, encoder.schema))
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
def _running(ray: Any, dataset: Any) -> Iterator[None]:
    """Blocks keep their order, and what recfm raises in a worker is raised here."""
    contexts = [dataset.context, ray.data.DataContext.get_current()]
    before = [(c.execution_options.preserve_order, c.raise_original_map_exception) for c in contexts]
    try:
        for context in contexts:
            context.execution_options.preserve_order = context.raise_original_map_exception = True
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if not isinstance(cause, RecfmError):
            raise
        raise type(cause)(*cause.args) from None
    finally:
        for context, (order, original) in zip(contexts, before, strict=True):
            context.execution_options.preserve_order = order
            context.raise_original_map_exception = original


def _learn(table: "pa.Table", *, schema: str) -> "pa.Table":
    """The sums of a block, or the block itself if it is refused."""
    import pyarrow as pa

    parsed = Schema.from_json(schema)
    fitting, sums, refused = Fitting(parsed), None, None
    if table.num_rows:
        frame = _frame(_selected(table, columns=parsed.columns()))
        try:
            check_frame(frame, parsed)
            fitting.add(frame)
        except RecfmError:
            refused = frame.write_ipc(None).getvalue()
    if refused is None:
        sums = pickle.dumps(fitting.state())
    return pa.table(
        {"sums": pa.array([sums], pa.large_binary()), "refused": pa.array([refused], pa.large_binary())}
    )


def _selected(table: "pa.Table", *, columns: list[str]) -> "pa.Table":
    """These columns; a table that lacks one stays as it is, to be refused with a hint at the right name."""
    return table.select(columns) if set(columns) <= set(table.column_names) else table


def _frame(table: "pa.Table") -> pl.DataFrame:
    try:
        frame = pl.from_arrow(table)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, TypeError, ValueError) as error:
        raise SchemaError(f"a column has a type that Polars cannot read: {error}") from None
    assert isinstance(frame, pl.DataFrame)
    return frame


def _encoded(table: "pa.Table", *, known: list[Any], partitions: int) -> "pa.Table":
    """A block of numbered rows as `Encoded`, with the partition and number of each row."""
    import pyarrow as pa

    encoder = _encoder(known[0])
    numbers = table.column(table.num_columns - 1)  # `zip` puts its right side last
    first = numbers[0].as_py()
    encoded = encoder.transform(_frame(table).drop(table.column_names[-1]), first_row=first)
    columns: dict[str, Any] = {_PART: partition_of(encoded.user, partitions), _ROW: numbers}
    for name in ("user", "item", "time", "label"):
        columns[f"key.{name}"] = getattr(encoded, name)
    for name in ("ids", "numeric"):
        matrix = getattr(encoded, name)
        if matrix.shape[1]:
            flat = pa.array(matrix.reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    for name, (values, offsets) in encoded.tokens.items():
        columns[f"tokens.{name}"] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    return pa.table(columns)


def _written(table: "pa.Table", *, known: list[Any], folder: str) -> "pa.Table":
    """Write the rows of one partition, which come in any order, as its part."""
    import pyarrow as pa

    encoder, part = _encoder(known[0]), table[_PART][0].as_py()
    order = np.argsort(table[_ROW].to_numpy())
    write_part(Path(folder), part, _in_order(table, order, encoder), encoder)
    return pa.table({_PART: [part], "rows": [table.num_rows]})


def _in_order(table: "pa.Table", order: NDArray[np.int64], encoder: Encoder) -> Encoded:
    """The rows of a table of `_encoded` in another order."""

    def matrix(name: str, dtype: type) -> NDArray[Any]:
        if name not in table.column_names:
            return np.zeros((len(order), 0), dtype)
        flat: NDArray[Any] = table[name].combine_chunks().flatten().to_numpy()
        return flat.reshape(len(order), -1)[order]

    def lists(name: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        taken = table[name].combine_chunks().take(order)
        return taken.flatten().to_numpy(), (taken.offsets.to_numpy() - taken.offsets[0].as_py())

    return Encoded(
        schema=encoder.schema,
        layout=encoder.layout,
        ids=matrix("ids", np.int32),
        numeric=matrix("numeric", np.float32),
        tokens={column.name: lists(f"tokens.{column.name}") for column in encoder.layout.tokens},
        **{name: table[f"key.{name}"].to_numpy()[order] for name in ("user", "item", "time", "label")},
    )


@functools.lru_cache(maxsize=1)
def _encoder(known: Any) -> Encoder:
    """The encoder of a run; a worker builds it once."""
    import ray

    return Encoder.from_files(ray.get(known).__getitem__)


def _user_kind(rows: Any, schema: Schema) -> str:
    first = _frame(rows.take_batch(1, batch_format="pyarrow"))
    return "integers" if first.schema[schema.user].is_integer() else "strings"
