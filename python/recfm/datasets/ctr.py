"""The public click benchmarks (the `reczoo` files), each from a folder that the user downloaded.

    from recfm.datasets import ctr, frappe

    data = frappe.load("data/Frappe_x1")              # or ctr.load("frappe_x1", "data/Frappe_x1")
    train, valid, test = ctr.encode_ctr(data)         # vocabularies from the training rows alone

Nothing is shipped or fetched: the files are the user's.
"""

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from recfm.data.encode import Encoded, Encoder
from recfm.data.folder import EncodedFolder
from recfm.data.side import SideTable
from recfm.datasets.ctr_files import Check, tail
from recfm.errors import ConfigError, DataError
from recfm.schema import Schema

__all__ = ["DATASETS", "Check", "CtrData", "Protocol", "Splits", "encode_ctr", "load"]

Protocol = Literal["honest", "bars"]
"""Where the published validation rows are the test rows: "honest" holds out the tail of the training rows instead,
"bars" keeps the test rows, on which early stopping then selects."""

DATASETS: dict[str, tuple[str, dict[str, str]]] = {
    "frappe_x1": ("frappe", {}),
    "movielenslatest_x1": ("movielens_tags", {}),
    "criteo_x1": ("criteo", {"version": "x1"}),
    "criteo_x4": ("criteo", {"version": "x4"}),
    "avazu_x1": ("avazu", {"version": "x1"}),
    "avazu_x4": ("avazu", {"version": "x4"}),
    "taobaoad_x1": ("taobao", {}),
    "kuaivideo_x1": ("kuaivideo", {}),
    "amazonelectronics_x1": ("amazon", {}),
    "microvideo1.7m_x1": ("microvideo", {}),
}
"""Names, the module that reads each, and what its `load` is told."""

_TAIL = 0.1


@dataclass(frozen=True, kw_only=True)
class CtrData:
    """One benchmark data set, nothing of it read yet.

    Attributes:
        name: Its name in the benchmark.
        train: Rows to fit and train on.
        valid: Rows for early stopping.
        test: Rows to report on.
        schema: Features, minimum counts and keys of the benchmark's configuration.
        embedding_dim: Of the benchmark's configuration.
        acknowledgement: Whose data it is, and what its licence asks for.
        notes: What any result on it must say.
        checks: Which of its files are the published ones.
        sides: Pretrained vectors to join to batches (`Batches(sides=...)`).
    """

    name: str
    train: pl.LazyFrame
    valid: pl.LazyFrame
    test: pl.LazyFrame
    schema: Schema
    embedding_dim: int
    acknowledgement: str
    notes: tuple[str, ...]
    checks: tuple[Check, ...]
    sides: tuple[SideTable, ...] = ()


class Splits(NamedTuple):
    """Encoded splits, each a table of its own."""

    train: Encoded | EncodedFolder
    valid: Encoded | EncodedFolder
    test: Encoded | EncodedFolder


def load(name: str, folder: str | Path, **options: Any) -> CtrData:
    """A data set by its name in the benchmark.

    Args:
        name: A key of `DATASETS`, in any case.
        folder: Where its files are.
        options: Of the `load` of its module, such as `protocol` and `check`.

    Raises:
        ConfigError: There is no such data set, or it has no such option.
        DataError: Its files are missing, damaged or not the published ones.
    """
    if name.lower() not in DATASETS:
        raise ConfigError(f"there is no data set '{name}': use one of {', '.join(DATASETS)}")
    module, told = DATASETS[name.lower()]
    read = importlib.import_module(f"recfm.datasets.{module}").load
    try:
        data: CtrData = read(folder, **told, **options)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ConfigError(f"data set {name}: {error}") from None
    return data


def encode_ctr(
    data: CtrData,
    *,
    encoder: Encoder | None = None,
    folder: str | Path | None = None,
    memory: str | int = "2GiB",
) -> Splits:
    """Encode the splits with vocabularies and statistics of the training rows alone.

    A feature with a minimum count of 1 has a row for each value of the training rows, and two more, for padding and
    for values that only later rows have.

    Args:
        data: A loaded data set.
        encoder: Fitted before, to be used as it is; None fits one.
        folder: Write the tables there (`train`, `valid`, `test`), for sets larger than memory.
        memory: What reading and encoding may take.

    Raises:
        DataError: A row is bad.
        StorageError: The folder holds such a table already, or the disk refuses.
    """
    if encoder is None:
        with _named(data, "train"):
            encoder = Encoder(data.schema).fit(data.train, memory=memory)
    tables: dict[str, Encoded | EncodedFolder] = {}
    for split in ("train", "valid", "test"):
        rows: pl.LazyFrame = getattr(data, split)
        if split == "test" and rows is data.valid:
            tables[split] = tables["valid"]
            continue
        with _named(data, split):
            if folder is not None:
                Path(folder).mkdir(parents=True, exist_ok=True)
                tables[split] = encoder.encode(rows, Path(folder) / split, memory=memory)
            else:
                tables[split] = encoder.transform(_collected(rows.select(data.schema.columns())))
    return Splits(**tables)


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    try:
        return rows.collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(str(error).splitlines()[0]) from None


@contextlib.contextmanager
def _named(data: CtrData, split: str) -> Iterator[None]:
    """Puts the data set and the split in front of what is wrong with a row."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{data.name}, {split} rows: {error}") from None


def validation(
    train: pl.LazyFrame, test: pl.LazyFrame, protocol: str
) -> tuple[pl.LazyFrame, pl.LazyFrame, str]:
    """Training rows, validation rows and the note to print, for a set that was published without validation rows.

    Raises:
        ConfigError: There is no such protocol.
        DataError: There are too few rows.
    """
    if protocol == "bars":
        note = (
            "protocol bars: the validation rows are the test rows, as in the benchmark, so early stopping selects "
            "the best test epoch"
        )
        return train, test, note
    if protocol != "honest":
        raise ConfigError(f"protocol is {protocol!r}: use honest or bars")
    train, valid = tail(train, _TAIL)
    note = (
        "protocol honest: the last tenth of the training rows, in the order of the file, is held out for "
        "validation; the test rows select nothing. Compare with published results with care: those selected on test"
    )
    return train, valid, note
