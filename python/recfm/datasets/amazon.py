"""AmazonElectronics_x1: DIN's split of Amazon reviews; a user's last item is the test row; no time column."""

from pathlib import Path

import polars as pl

from recfm.datasets.ctr import CtrData, Protocol, validation
from recfm.datasets.ctr_files import Columns, Layout, find, read_csv, read_parquet, verify
from recfm.schema import Categorical, Schema, Tokens

MD5 = {"train.csv": "e9bf80b92985e463db18fdc753d347b5", "test.csv": "57a20e82fe736dd495f2eaf0669bf6d0"}
ACKNOWLEDGEMENT = (
    "Ruining He and Julian McAuley. 2016. Ups and Downs: Modeling the Visual Evolution of Fashion Trends with "
    "One-Class Collaborative Filtering, WWW; prepared by Guorui Zhou et al. 2018, Deep Interest Network, KDD."
)
NOTES = (
    "the set has no time column; a row's history is the user's items before it, so no leak-free join of logged events "
    "is possible",
    "the training rows are not in the order of time: the held-out tail is a random sample",
)
_LAYOUTS = (
    Layout(files=("train.csv", "test.csv"), read=read_csv),
    Layout(files=("train.parquet", "test.parquet"), read=read_parquet),
)
_COLUMNS: Columns = {
    "label": pl.Float32,
    **dict.fromkeys(("user_id", "item_id", "cate_id"), pl.String),
    **dict.fromkeys(("item_history", "cate_history"), pl.List),
}


def schema() -> Schema:
    """The benchmark's features: the user groups gAUC and is no feature."""
    return Schema(
        user="user_id",
        item="item_id",
        label="label",
        features=(
            Categorical(name="item_id", side="item"),
            Categorical(name="cate_id", side="item"),
            Tokens(name="item_history", side="user", shares="item_id", max_length=100),
            Tokens(name="cate_history", side="user", shares="cate_id", max_length=100),
        ),
    )


def load(folder: str | Path, *, protocol: Protocol = "honest", check: bool = True) -> CtrData:
    """AmazonElectronics_x1 from a folder.

    Args:
        folder: Where its train and test files are (csv or Parquet).
        protocol: Which rows are the validation rows; see `Protocol`.
        check: Compare files with their published MD5, where there is one.

    Raises:
        ConfigError: There is no such protocol.
        DataError: Files are missing or not the published ones.
    """
    layout, paths = find(folder, _LAYOUTS, "AmazonElectronics_x1")
    checks = verify(paths, MD5, check=check)
    train, test = (layout.read(path, _COLUMNS) for path in paths)
    train, valid, note = validation(train, test, protocol)
    return CtrData(
        name="amazonelectronics_x1",
        train=train,
        valid=valid,
        test=test,
        schema=schema(),
        embedding_dim=64,
        acknowledgement=ACKNOWLEDGEMENT,
        notes=(note, *NOTES),
        checks=checks,
    )
