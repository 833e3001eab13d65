"""Files of the click benchmarks: found in a folder, compared with their published checksums, read lazily.

Files       | what they hold
x.csv       | a header; lists of ids are joined by `^`
x.libsvm    | label and `id:value` pairs, one field behind the other, separated by blanks (libFM's format)
x.parquet   | the columns of the csv; lists of ids are lists, or joined by `^`
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recfm.datasets.download import digest
from recfm.errors import DataError

Columns = Mapping[str, type[pl.DataType]]
"""Columns to read and what they hold; `pl.List` is a list of ids."""
Files = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A file that was read, and whether it is the published one.

    Attributes:
        file: Its name.
        published: Its published MD5; "" where none is.
        found: Its own MD5; "" where it was not computed.
    """

    file: str
    published: str
    found: str

    @property
    def verified(self) -> bool:
        """Whether it is known to be the published file."""
        return self.published != "" and self.found == self.published


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Files that stand for a data set, one for each split, and how one of them is read."""

    files: Files
    read: Callable[[Path, Columns], pl.LazyFrame]


def find(folder: str | Path, layouts: Sequence[Layout], name: str) -> tuple[Layout, list[Path]]:
    """The first layout whose files are all there.

    Raises:
        DataError: There is no such folder, or a file of every layout is missing.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"no folder '{folder}': give the folder that {name} was unpacked into")
    for layout in layouts:
        paths = [folder / file for file in layout.files]
        if all(path.is_file() for path in paths):
            return layout, paths
    looked = "; ".join(", ".join(layout.files) for layout in layouts)
    raise DataError(f"no {name} in '{folder}': looked for {looked}")


def verify(paths: Sequence[Path], published: Mapping[str, str], *, check: bool) -> tuple[Check, ...]:
    """Compare files with their published MD5.

    Args:
        paths: The files.
        published: MD5 by file name.
        check: Compute and compare; without it nothing is read.

    Raises:
        DataError: A file is not the published one.
    """
    checks = []
    for path in dict.fromkeys(paths):
        wanted = published.get(path.name, "")
        found = digest(path, "md5") if check and wanted else ""
        if found != wanted and check:
            raise DataError(
                f"'{path}' has md5 {found}, but the published file has {wanted}: download it again, or pass "
                "check=False to read it as it is"
            )
        checks.append(Check(file=path.name, published=wanted, found=found))
    return tuple(checks)


def read_csv(path: Path, columns: Columns) -> pl.LazyFrame:
    """A csv file with a header; an empty field is null.

    Raises:
        DataError: It is empty or lacks a column.
    """
    return _typed(pl.scan_csv(path, infer_schema=False), path, columns)


def read_parquet(path: Path, columns: Columns) -> pl.LazyFrame:
    """A Parquet file.

    Raises:
        DataError: It cannot be read or lacks a column.
    """
    return _typed(pl.scan_parquet(path, glob=False), path, columns)


def read_libfm(path: Path, columns: Columns) -> pl.LazyFrame:
    """A libFM file whose fields come in a fixed order: `label id:1 id:1 ...`; a label of -1 is 0.

    Raises:
        DataError: It is empty, or its first row has another number of fields.
    """
    label, *fields = columns
    frame = pl.scan_csv(path, has_header=False, separator=" ", infer_schema=False)
    found = _names(frame, path)
    if len(found) != len(columns):
        raise DataError(
            f"'{path}', row 1: {len(found)} fields, expected {len(columns)} ({', '.join(columns)})"
        )
    frame = frame.rename(dict(zip(found, columns, strict=True)))
    # What is no `id:value` becomes "", which is no number: a row that was cut off is an error, not a rare id.
    ids = [pl.col(name).str.extract(r"^(\d+):[^:]").fill_null("").alias(name) for name in fields]
    zero_one = pl.col(label).cast(pl.Float32).clip(lower_bound=0).cast(pl.String)
    return _typed(frame.with_columns(zero_one, *ids), path, columns)


def tail(train: pl.LazyFrame, share: float) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """The rows before the last `share` of a table, and these last ones, in the order of the file."""
    try:
        rows = int(train.select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"the training rows cannot be counted: {str(error).splitlines()[0]}") from None
    if rows < 2:
        raise DataError(f"{rows} training rows cannot be cut into training and validation rows")
    cut = min(max(round(rows * (1 - share)), 1), rows - 1)
    return train.head(cut), train.slice(cut)


def _names(frame: pl.LazyFrame, path: Path) -> list[str]:
    try:
        return frame.collect_schema().names()
    except pl.exceptions.NoDataError:
        raise DataError(f"'{path}' is empty") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"'{path}' cannot be read: {str(error).splitlines()[0]}") from None


def _typed(frame: pl.LazyFrame, path: Path, columns: Columns) -> pl.LazyFrame:
    names = _names(frame, path)
    for name in columns:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise DataError(f"'{path}' has no column '{name}'{hint} It has: {', '.join(names)}")
    found = frame.collect_schema()
    out = []
    for name, dtype in columns.items():
        column = pl.col(name)
        if dtype is pl.List:
            if not isinstance(found[name], pl.List):
                column = pl.when(column != "").then(column.str.split("^"))
            out.append(column.cast(pl.List(pl.String)))
        else:
            out.append(column.cast(dtype))
    return frame.select(out)
