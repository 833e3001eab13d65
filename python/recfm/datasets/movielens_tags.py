"""MovielensLatest_x1: which tag a user puts on a movie; three categorical fields, no time.

Layouts: train.csv, valid.csv, test.csv · train.libsvm, ... · movielens.train.libfm, ... · train.parquet, ...
"""

from pathlib import Path

import polars as pl

from recfm.datasets import movielens
from recfm.datasets.ctr import CtrData
from recfm.datasets.ctr_files import Columns, Layout, find, read_csv, read_libfm, read_parquet, verify
from recfm.schema import Categorical, Schema

MD5 = {
    "train.csv": "efc8bceeaa0e895d566470fc99f3f271",
    "valid.csv": "e1930223a5026e910ed5a48687de8af1",
    "test.csv": "54e8c6baff2e059fe067fb9b69e692d0",
}
_LAYOUTS = (
    Layout(files=("train.csv", "valid.csv", "test.csv"), read=read_csv),
    Layout(files=("train.libsvm", "valid.libsvm", "test.libsvm"), read=read_libfm),
    Layout(
        files=("movielens.train.libfm", "movielens.validation.libfm", "movielens.test.libfm"), read=read_libfm
    ),
    Layout(files=("train.parquet", "valid.parquet", "test.parquet"), read=read_parquet),
)
_COLUMNS: Columns = {"label": pl.Float32, "user_id": pl.Int64, "item_id": pl.Int64, "tag_id": pl.Int64}


def schema() -> Schema:
    """User, movie and tag, each value kept that occurs once in training."""
    return Schema(
        user="user_id",
        item="item_id",
        label="label",
        features=(
            Categorical(name="user_id", side="user"),
            Categorical(name="item_id", side="item"),
            Categorical(name="tag_id", side="context"),
        ),
    )


def load(folder: str | Path, *, check: bool = True) -> CtrData:
    """MovielensLatest_x1 from a folder.

    Args:
        folder: Where its files are.
        check: Compare files with their published MD5, where there is one.

    Raises:
        DataError: Files are missing or not the published ones.
    """
    layout, paths = find(folder, _LAYOUTS, "MovielensLatest_x1")
    checks = verify(paths, MD5, check=check)
    train, valid, test = (layout.read(path, _COLUMNS) for path in paths)
    return CtrData(
        name="movielenslatest_x1",
        train=train,
        valid=valid,
        test=test,
        schema=schema(),
        embedding_dim=10,
        acknowledgement=movielens.ACKNOWLEDGEMENT,
        notes=(),
        checks=checks,
    )
