"""Criteo display advertising, as Criteo_x1 and Criteo_x4: 13 numbers and 26 categorical fields; no user, item or time.

x1 comes with scaled numbers, x4 with raw counts, which the benchmark turns into ids: floor(log(x)^2) above 2.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from recfm.datasets.ctr import CtrData
from recfm.datasets.ctr_files import Columns, Layout, find, read_csv, read_parquet, verify
from recfm.errors import ConfigError
from recfm.schema import Categorical, Feature, Numeric, Schema

MD5 = {
    "x1": {
        "train.csv": "30b89c1c7213013b92df52ec44f52dc5",
        "valid.csv": "f73c71fb3c4f66b6ebdfa032646bea72",
        "test.csv": "2c48b26e84c04a69b948082edae46f8c",
    },
    "x4": {
        "train.csv": "4a53bb7cbc0e4ee25f9d6a73ed824b1a",
        "valid.csv": "fba5428b22895016e790e2dec623cb56",
        "test.csv": "cfc37da0d75c4d2d8778e76997df2976",
    },
}
ACKNOWLEDGEMENT = (
    "Criteo Labs. 2014. Display Advertising Challenge (Kaggle). The terms of Criteo and of the challenge apply; it may "
    "not be redistributed."
)
Version = Literal["x1", "x4"]
Numbers = Literal["buckets", "log"]
_NUMBERS = tuple(f"I{i}" for i in range(1, 14))
_IDS = tuple(f"C{i}" for i in range(1, 27))
_MIN_COUNTS = {"001": (10, 16), "002": (2, 40)}
_LAYOUTS = (
    Layout(files=("train.csv", "valid.csv", "test.csv"), read=read_csv),
    Layout(files=("train.parquet", "valid.parquet", "test.parquet"), read=read_parquet),
)


def schema(version: Version = "x1", *, setting: str = "001", numbers: Numbers = "buckets") -> Schema:
    """The benchmark's features; see `load`."""
    features: list[Feature] = []
    count = 1 if version == "x1" else _MIN_COUNTS[setting][0]
    if version == "x4" and numbers == "buckets":
        features += [Categorical(name=name, side="context", min_count=count) for name in _NUMBERS]
    else:
        transform: Literal["standard", "log"] = "standard" if version == "x1" else "log"
        features += [Numeric(name=name, side="context", transform=transform) for name in _NUMBERS]
    features += [Categorical(name=name, side="context", min_count=count) for name in _IDS]
    return Schema(label="label" if version == "x1" else "Label", features=tuple(features))


def load(
    folder: str | Path,
    *,
    version: Version = "x1",
    setting: Literal["001", "002"] = "001",
    numbers: Numbers = "buckets",
    check: bool = True,
) -> CtrData:
    """Criteo_x1 or Criteo_x4 from a folder.

    Args:
        folder: Where its train, valid and test files are (csv or Parquet).
        version: Which of the two splits it is.
        setting: Of x4: "001" is minimum count 10 and 16 dimensions, "002" is 2 and 40.
        numbers: Of x4: "buckets", the benchmark's ids; "log", numbers after log1p, for models that read numbers.
        check: Compare files with their published MD5, where there is one.

    Raises:
        ConfigError: There is no such version, setting or kind of numbers.
        DataError: Files are missing or not the published ones.
    """
    for name, value, known in (
        ("version", version, ("x1", "x4")),
        ("setting", setting, tuple(_MIN_COUNTS)),
        ("numbers", numbers, ("buckets", "log")),
    ):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}: use {' or '.join(known)}")
    layout, paths = find(folder, _LAYOUTS, f"Criteo_{version}")
    checks = verify(paths, MD5[version], check=check)
    whole = schema(version, setting=setting, numbers=numbers)
    columns: Columns = {
        whole.label: pl.Float32,
        **dict.fromkeys(_NUMBERS, pl.Float64),
        **dict.fromkeys(_IDS, pl.String),
    }
    frames = [layout.read(path, columns) for path in paths]
    notes: tuple[str, ...] = ()
    if version == "x1":
        notes = (
            "numbers, which the files hold scaled, are standardised once more; the benchmark reads them as is",
        )
    elif numbers == "buckets":
        frames = [frame.with_columns(_bucket(name) for name in _NUMBERS) for frame in frames]
    else:
        notes = ("numbers are standardised after log1p; the benchmark cuts them into ids",)
    train, valid, test = frames
    return CtrData(
        name=f"criteo_{version}",
        train=train,
        valid=valid,
        test=test,
        schema=whole,
        embedding_dim=10 if version == "x1" else _MIN_COUNTS[setting][1],
        acknowledgement=ACKNOWLEDGEMENT,
        notes=notes,
        checks=checks,
    )


def _bucket(name: str) -> pl.Expr:
    """A count as the benchmark's id; a missing one is 0, as there."""
    value = pl.col(name).fill_null(0.0)
    large = value.clip(lower_bound=2.0).log().pow(2).floor()
    return pl.when(value > 2).then(large).otherwise(value).cast(pl.Int64)
