"""Strict reading of small text and Parquet tables: a bad value raises `DataError` naming file and row."""

from pathlib import Path

import polars as pl

from recfm.errors import DataError

# Stands in for a two-byte separator: Polars splits on one byte, and no data set contains this control code.
_UNIT = "\x1f"


def read_text(
    path: Path,
    *,
    separator: str,
    columns: list[str] | None = None,
    encoding: str = "utf-8",
    quote: str | None = None,
) -> pl.DataFrame:
    """Read a delimited text file with every column as String.

    Args:
        path: The file.
        separator: One or two characters.
        columns: Names for a file without a header; None takes the names from the first line.
        encoding: "utf-8" or any single-byte codec.
        quote: Quote character, None where quotes are ordinary text.

    Returns:
        A frame of String columns; empty fields are null.

    Raises:
        DataError: The file is empty, ragged or not in this encoding.
    """
    source: Path | bytes = path
    if len(separator) > 1 or encoding != "utf-8":
        text = path.read_bytes().decode(encoding, errors="replace")
        source = (text.replace(separator, _UNIT) if len(separator) > 1 else text).encode()
    try:
        frame = pl.read_csv(
            source,
            has_header=columns is None,
            separator=_UNIT if len(separator) > 1 else separator,
            quote_char=quote,
            infer_schema=False,
        )
    except pl.exceptions.NoDataError:
        raise DataError(f"{path} is empty") from None
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is not a table separated by {separator!r}: {reason}") from error
    if columns is not None:
        if frame.width != len(columns):
            raise DataError(
                f"{path}, row 1: found {frame.width} fields, expected {len(columns)} ({', '.join(columns)})"
            )
        frame.columns = columns
    while frame.height and all(value is None for value in frame.row(-1)):
        frame = frame.head(-1)
    return frame


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file; a truncated or foreign file raises `DataError`."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from error


def require(frame: pl.DataFrame, columns: list[str], path: Path) -> pl.DataFrame:
    """Return only `columns` of `frame`, or raise `DataError` naming the missing ones and those present."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    return frame.select(columns)


def cast(column: pl.Series, dtype: type[pl.DataType], path: Path, *, what: str) -> pl.Series:
    """Cast without losing anything: nulls, text that is no number, NaN and fractions (for integers) raise.

    Args:
        column: Raw values; its name is used in the message.
        dtype: The wanted type.
        path: The file, for the message.
        what: What a good value is, for the message, e.g. "an integer".

    Raises:
        DataError: Naming the first bad row and its value.
    """
    out = column.cast(dtype, strict=False)
    bad = out.is_null()
    if out.dtype.is_float():
        bad = bad | ~out.fill_null(0.0).is_finite()
    if column.dtype.is_float() and out.dtype.is_integer():
        bad = bad | out.cast(pl.Float64).ne_missing(column)
    refuse(bad, column, path, what=what)
    return out


def refuse(bad: pl.Series, column: pl.Series, path: Path, *, what: str) -> None:
    """Raise `DataError` for the first true row of the Boolean mask `bad`, quoting that row of `column`."""
    row = bad.arg_max() if bad.any() else None
    if row is not None:
        value = column[row]
        shown = "missing" if value is None else repr(value)
        count = f" ({bad.sum()} such rows)" if bad.sum() > 1 else ""
        raise DataError(f"{path}, row {row + 1}: {column.name} is {shown}, expected {what}{count}")


def unique(column: pl.Series, path: Path) -> None:
    """Raise `DataError` naming the first value that stands twice in a key column."""
    refuse(~column.is_first_distinct(), column, path, what="each value once")
