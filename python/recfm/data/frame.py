"""The door through which every event table comes in: read, checked, and refused with the column's name."""

import difflib
import glob
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm.errors import DataError, SchemaError
from recfm.files import reason
from recfm.schema import Categorical, Numeric, Schema, Tokens

_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}


def read_events(path: str | Path) -> pl.DataFrame:
    """Read an event table from a Parquet file, a folder of them or a glob.

    Raises:
        DataError: Nothing is there, or it is not Parquet.
    """
    files = parquet_files(path)
    frames = [_read_parquet(file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.schema != frames[0].schema:
            raise DataError(f"'{file}' has other columns or dtypes than '{files[0]}': {frame.schema}")
    return pl.concat(frames)


def parquet_files(path: str | Path) -> list[Path]:
    """The files that a path, a folder or a glob stands for, in order of their names.

    Raises:
        DataError: There are none.
    """
    path = Path(path)
    try:
        path = path.expanduser()
        if path.is_dir():
            files = sorted(file for file in path.glob("*.parquet") if file.name[0] not in "._")
        elif path.exists():
            files = [path]
        else:
            files = [Path(file) for file in sorted(glob.glob(str(path)))]
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({reason(error)}): give a Parquet file") from None
    except (ValueError, RuntimeError) as error:  # a NUL byte in the path, or the ~ of nobody
        raise DataError(f"'{path}' is no path: {error}") from None
    if not files:
        raise DataError(f"no event table at '{path}': give a Parquet file, a folder of them or a glob")
    return files


def _read_parquet(file: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(file, glob=False)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"'{file}' cannot be read as Parquet: {first_line(error)}") from None


def check_frame(frame: pl.DataFrame, schema: Schema, *, first_row: int = 0) -> None:
    """Check key columns, labels and dtypes.

    Args:
        frame: Rows of the table.
        schema: What its columns mean.
        first_row: Which row of the table the frame begins with, for errors.

    Raises:
        SchemaError: A column is missing or has the wrong dtype.
        DataError: The frame is empty, a key or label is null, or a label is not 0 or 1.
    """
    if not isinstance(frame, pl.DataFrame):
        raise SchemaError(
            f"events are a {type(frame).__name__}: give a polars.DataFrame (or pl.from_arrow / from_pandas)"
        )
    for name in schema.columns():
        if name not in frame.columns:
            near = difflib.get_close_matches(name, frame.columns, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            raise SchemaError(f"column '{name}' is missing{hint} The table has: {', '.join(frame.columns)}")
    if frame.is_empty():
        raise DataError("the event table has no rows")
    _check_dtypes(frame, schema)
    for role in ("user", "item", "time", "label"):
        name = getattr(schema, role)
        if name is None:
            continue
        nulls = frame[name].is_null()
        if nulls.any():
            row = first_row + int(nulls.arg_max() or 0)
            raise DataError(
                f"column '{name}' ({role}) has {int(nulls.sum())} nulls, the first in row {row}: "
                "drop those rows or fill them"
            )
    label = frame[schema.label].cast(pl.Float64)
    bad = ~label.is_in([0.0, 1.0])
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise DataError(
            f"column '{schema.label}' (label) holds {label[row]:g} in row {first_row + row}: labels must be 0 or 1 "
            f"({int(bad.sum())} rows are not); binarise it first, for example (pl.col('{schema.label}') >= 4)"
        )


def _check_dtypes(frame: pl.DataFrame, schema: Schema) -> None:
    for role, key in (("user", schema.user), ("item", schema.item)):
        if key is not None:
            _expect(frame, key, role, "integers or strings", _is_key)
    if schema.time is not None:
        choice = "Datetime, Date or integers in the schema's time_unit"
        _expect(frame, schema.time, "time", choice, lambda t: t.is_integer() or t in (pl.Datetime, pl.Date))
    _expect(frame, schema.label, "label", "integers, booleans or floats holding 0 and 1", _is_number)
    for feature in schema.features:
        if isinstance(feature, Categorical):
            _expect(frame, feature.name, "categorical feature", "integers, booleans or strings", _is_id)
        elif isinstance(feature, Tokens):
            _expect(frame, feature.name, "token feature", "a list of integers or strings", _is_ids)
        elif isinstance(feature, Numeric):
            _expect(frame, feature.name, "numeric feature", "numbers", _is_number)


def _is_key(dtype: pl.DataType) -> bool:
    narrow = dtype.is_integer() and str(dtype) not in ("Int128", "UInt128")  # which Arrow does not have
    return narrow or dtype in (pl.String, pl.Categorical, pl.Enum)


def _is_ids(dtype: pl.DataType) -> bool:
    return (
        isinstance(dtype, pl.List | pl.Array) and isinstance(dtype.inner, pl.DataType) and _is_id(dtype.inner)
    )


def _is_id(dtype: pl.DataType) -> bool:
    return _is_key(dtype) or dtype in (pl.Boolean, pl.Null)


def _is_number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype == pl.Boolean


def _expect(
    frame: pl.DataFrame, name: str, role: str, wanted: str, fits: Callable[[pl.DataType], bool]
) -> None:
    dtype = frame.schema[name]
    if not fits(dtype):
        raise SchemaError(f"column '{name}' ({role}) has dtype {dtype}: it must hold {wanted}")


def event_time(frame: pl.DataFrame, schema: Schema, *, first_row: int = 0) -> NDArray[np.int64]:
    """The time column as int64 microseconds [n]. Integers are taken in `schema.time_unit`.

    Errors count rows from `first_row` on.

    Raises:
        SchemaError: The schema has no time.
        DataError: An integer time does not fit in 64-bit microseconds.
    """
    name = schema.require("time", "what happens by time")
    column, unit = frame[name], schema.time_unit
    if isinstance(column.dtype, pl.Datetime):
        unit = column.dtype.time_unit
    elif column.dtype == pl.Date:
        column, unit = column.cast(pl.Datetime("us")), "us"
    values = column.to_physical().cast(pl.Int64, strict=False)
    if values.null_count():
        row = int(values.is_null().arg_max() or 0)
        raise DataError(
            f"column '{name}' holds {column[row]} in row {first_row + row}: a time must fit int64"
        )
    times: NDArray[np.int64] = values.to_numpy()
    if unit == "ns":
        return times // 1_000
    factor = _MICROSECONDS[unit]
    limit = np.iinfo(np.int64).max // factor
    if len(times) and (times.max() > limit or times.min() < -limit):
        worst = int(times[np.abs(times.astype(np.float64)).argmax()])
        raise DataError(
            f"column '{name}' holds {worst}, too large for time unit '{unit}': "
            "give the column its real unit (the schema's time_unit, or the Datetime's own)"
        )
    return times * factor


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
