"""Event tables of any size, read in pieces of a known number of rows, as often as needed.

DataFrame, LazyFrame, Parquet file, folder or glob, Arrow producer  ──►  pieces of N rows, in order
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import polars as pl

from recfm import _core
from recfm.data.frame import first_line, parquet_files
from recfm.errors import DataError, SchemaError

_READING = 2**17
"""Rows that a reader hands over at a time; pieces are cut from these."""
_FAILURES = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


class ArrowStream(Protocol):
    """Anything that speaks the Arrow PyCapsule protocol: a pyarrow Table, a DuckDB relation, a Polars frame."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A fresh stream of record batches."""
        ...


Events: TypeAlias = pl.DataFrame | pl.LazyFrame | str | Path | ArrowStream | Callable[[], ArrowStream]
"""An event table: a frame, a Parquet file, folder or glob, an Arrow producer, or a function that makes one."""


class TableReader:
    """An event table that can be read again and again.

    Args:
        events: The table.
        columns: The columns to read, in this order.

    Raises:
        DataError: There is no such file, or it cannot be read.
        SchemaError: `events` is nothing that holds a table, or lacks a column.
    """

    def __init__(self, events: Events, columns: list[str]) -> None:
        self._columns = columns
        self._rows: int | None = None
        if isinstance(events, pl.DataFrame):
            self._open: Callable[[], Iterator[pl.DataFrame]] = lambda: iter([events])
            self._rows = len(events)
        elif isinstance(events, pl.LazyFrame):
            self._open = lambda: _batches(events.select(columns), "the query")
        elif isinstance(events, str | Path):
            files = parquet_files(events)
            self._rows = sum(_parquet_rows(file) for file in files)
            self._open = lambda: _parquet(files, columns)
        elif hasattr(events, "__arrow_c_stream__"):
            self._open = lambda: _arrow(events)
        elif callable(events):
            self._open = lambda: _arrow(events())
        else:
            raise SchemaError(
                f"events are a {type(events).__name__}: give a Polars frame, the path of a Parquet file, folder or "
                "glob, or an object with __arrow_c_stream__ (pyarrow, DuckDB)"
            )

    @property
    def rows(self) -> int | None:
        """Rows in all, where that is known before they are read to the end once."""
        return self._rows

    def pieces(self, rows: int) -> Iterator[pl.DataFrame]:
        """The whole table in order, in frames of exactly `rows` rows but for the last.

        Raises:
            DataError: Reading fails, or the table has another number of rows than the last time.
        """
        pending: list[pl.DataFrame] = []
        waiting, seen = 0, 0
        empty = None
        for frame in self._open():
            empty = frame if not len(frame) else empty
            taken = frame.select(self._columns) if set(self._columns) <= set(frame.columns) else frame
            for start in range(0, len(taken), rows):
                part = taken.slice(start, rows)
                seen += len(part)
                while len(part):
                    head = part.head(rows - waiting)
                    pending.append(head)
                    waiting += len(head)
                    part = part.slice(len(head))
                    if waiting == rows:
                        yield _joined(pending)
                        pending, waiting = [], 0
        if pending:
            yield _joined(pending)
        if not seen and empty is not None:
            yield empty  # for its columns and dtypes to be checked
        if self._rows is not None and seen != self._rows:
            raise DataError(
                f"the table had {self._rows} rows before and {seen} now: a stream that can be read only once "
                "must be given as a function that makes it afresh, and files must not change while they are read"
            )
        self._rows = seen


def _joined(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return frames[0] if len(frames) == 1 else pl.concat(frames)


def _batches(query: pl.LazyFrame, what: str) -> Iterator[pl.DataFrame]:
    try:
        query.collect_schema()  # older Polars swallow what goes wrong behind an iterator
        yield from query.collect_batches(chunk_size=_READING, maintain_order=True)
    except pl.exceptions.ColumnNotFoundError as error:
        raise SchemaError(f"{what} lacks a column: {first_line(error)}") from None
    except _FAILURES as error:
        raise DataError(f"{what} cannot be read: {first_line(error)}") from None


def _parquet_rows(file: Path) -> int:
    try:
        rows: int = pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()
    except _FAILURES as error:
        raise DataError(f"'{file}' cannot be read as Parquet: {first_line(error)}") from None
    return rows


def _parquet(files: list[Path], columns: list[str]) -> Iterator[pl.DataFrame]:
    first: pl.Schema | None = None
    for file in files:
        try:
            query = pl.scan_parquet(file, glob=False)
            found = query.collect_schema()
        except _FAILURES as error:
            raise DataError(f"'{file}' cannot be read as Parquet: {first_line(error)}") from None
        if first is not None and found != first:
            raise DataError(f"'{file}' has other columns or dtypes than '{files[0]}': {found}")
        first = found
        present = [name for name in columns if name in found]
        # A frame without a column that it should have is refused later, with a hint at the right name.
        yield from _batches(
            query.select(present) if len(present) == len(columns) else query.head(1), f"'{file}'"
        )


def _arrow(producer: Any) -> Iterator[pl.DataFrame]:
    try:
        chunks = _core.ArrowChunks(producer)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"the Arrow producer ({type(producer).__name__}) gives no stream ({first_line(error)}): one that can be "
            "read only once must be given as a function that makes it afresh"
        ) from None
    while True:
        try:
            chunk = next(chunks, None)
        except ValueError as error:
            raise DataError(f"the Arrow stream broke off: {first_line(error)}") from None
        if chunk is None:
            return
        try:
            frame = pl.from_arrow(chunk)
        except pl.exceptions.PolarsError as error:
            raise SchemaError(
                f"the Arrow stream is no table that Polars reads: {first_line(error)}"
            ) from None
        if isinstance(frame, pl.Series):
            if not isinstance(frame.dtype, pl.Struct):
                raise SchemaError(f"the Arrow stream is one column of {frame.dtype}: give a table")
            frame = frame.struct.unnest()
        yield frame
