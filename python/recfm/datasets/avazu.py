"""Avazu mobile advertising, as Avazu_x1 and Avazu_x4: 22 categorical fields, no user.

x1 has anonymous columns feat_1 to feat_22; x4 Kaggle's own, with `hour` (YYMMDDHH) made into hour, weekday, weekend.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from recfm.datasets.ctr import CtrData
from recfm.datasets.ctr_files import Columns, Layout, find, read_csv, read_parquet, verify
from recfm.errors import ConfigError
from recfm.schema import Categorical, Schema

MD5 = {
    "x1": {
        "train.csv": "f1114a07aea9e996842c71648e0f6395",
        "valid.csv": "d9568f246357d156c4b8030fadb8b623",
        "test.csv": "9e2fe9c48705c9315ae7a0953eb57acf",
    },
    "x4": {
        "train.csv": "de3a27264cdabf66adf09df82328ccaa",
        "valid.csv": "33232931d84d6452d3f956e936cab2c9",
        "test.csv": "3ebb774a9ca74d05919b84a3d402986d",
    },
}
ACKNOWLEDGEMENT = (
    "Avazu. 2014. Click-Through Rate Prediction (Kaggle). The terms of the challenge apply; it may not be "
    "redistributed."
)
Version = Literal["x1", "x4"]
_SETTINGS = {"001": (2, 16), "002": (1, 40)}
_X1 = tuple(f"feat_{i}" for i in range(1, 23))
_X4 = (
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category",
    "device_id", "device_ip", "device_model", "device_type", "device_conn_type", "C14", "C15", "C16", "C17", "C18",
    "C19", "C20", "C21",
)  # fmt: skip
_FROM_TIME = ("weekday", "weekend")
_LAYOUTS = (
    Layout(files=("train.csv", "valid.csv", "test.csv"), read=read_csv),
    Layout(files=("train.parquet", "valid.parquet", "test.parquet"), read=read_parquet),
)


def schema(version: Version = "x1", *, setting: str = "001") -> Schema:
    """The benchmark's features; see `load`."""
    names = _X1 if version == "x1" else ("hour", *_X4, *_FROM_TIME)
    count = 1 if version == "x1" else _SETTINGS[setting][0]
    return Schema(
        label="label" if version == "x1" else "click",
        features=tuple(Categorical(name=name, side="context", min_count=count) for name in names),
    )


def load(
    folder: str | Path,
    *,
    version: Version = "x1",
    setting: Literal["001", "002"] = "001",
    check: bool = True,
) -> CtrData:
    """Avazu_x1 or Avazu_x4 from a folder.

    Args:
        folder: Where its train, valid and test files are (csv or Parquet).
        version: Which of the two splits it is.
        setting: Of x4: "001" is minimum count 2 and 16 dimensions, "002" is 1 and 40.
        check: Compare files with their published MD5, where there is one.

    Raises:
        ConfigError: There is no such version or setting.
        DataError: Files are missing or not the published ones.
    """
    for name, value, known in (("version", version, ("x1", "x4")), ("setting", setting, tuple(_SETTINGS))):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}: use {' or '.join(known)}")
    layout, paths = find(folder, _LAYOUTS, f"Avazu_{version}")
    checks = verify(paths, MD5[version], check=check)
    whole = schema(version, setting=setting)
    ids = _X1 if version == "x1" else ("hour", *_X4)
    columns: Columns = {whole.label: pl.Float32, **dict.fromkeys(ids, pl.String)}
    frames = [layout.read(path, columns) for path in paths]
    if version == "x4":
        frames = [frame.with_columns(_from_time()) for frame in frames]
    train, valid, test = frames
    return CtrData(
        name=f"avazu_{version}",
        train=train,
        valid=valid,
        test=test,
        schema=whole,
        embedding_dim=10 if version == "x1" else _SETTINGS[setting][1],
        acknowledgement=ACKNOWLEDGEMENT,
        notes=(),
        checks=checks,
    )


def _from_time() -> list[pl.Expr]:
    """Hour of the day, weekday (0 is Sunday) and weekend of `hour`, YYMMDDHH."""
    day = ("20" + pl.col("hour").str.head(6)).str.to_date("%Y%m%d")
    weekday = day.dt.weekday() % 7
    return [
        pl.col("hour").str.slice(6, 2),
        weekday.alias("weekday"),
        weekday.is_in([0, 6]).cast(pl.Int8).alias("weekend"),
    ]
