"""MicroVideo1.7M_x1: micro-videos with cover image vectors; every item of the test rows is new."""

from pathlib import Path

import polars as pl

from recfm.data.side import SideTable
from recfm.datasets.ctr import CtrData, Protocol, validation
from recfm.datasets.ctr_files import Columns, Layout, find, read_csv, read_parquet, verify
from recfm.datasets.vectors import read_vectors, vector_table
from recfm.schema import Categorical, Schema, Tokens

MD5 = {"train.csv": "936e6612714c887e76226a60829b4e0a", "test.csv": "9417a18304fb62411ac27c26c5e0de56"}
ACKNOWLEDGEMENT = (
    "Xusong Chen, Dong Liu, Zheng-Jun Zha, Wengang Zhou, Zhiwei Xiong, Yan Li. 2018. Temporal Hierarchical Attention "
    "at Category- and Item-Level for Micro-Video Click-Through Prediction, MM. For research, to be acknowledged."
)
NOTES = (
    "items have learned ids beside their vectors; the benchmark reads items, past ones too, by their vectors alone",
    "histories of the test rows stop where the training rows end",
)
VECTORS = "item_image_emb_dim64.h5"
_LAYOUTS = (
    Layout(files=("train.csv", "test.csv"), read=read_csv),
    Layout(files=("train.parquet", "test.parquet"), read=read_parquet),
)
_COLUMNS: Columns = {
    "is_click": pl.Float32,
    "timestamp": pl.Int64,
    **dict.fromkeys(("user_id", "item_id", "cate_id"), pl.String),
    **dict.fromkeys(("clicked_items", "clicked_categories"), pl.List),
}


def schema() -> Schema:
    """User, item, category and the lists of past ones; the vectors are joined."""
    return Schema(
        user="user_id",
        item="item_id",
        time="timestamp",
        label="is_click",
        features=(
            Categorical(name="user_id", side="user"),
            Categorical(name="item_id", side="item"),
            Categorical(name="cate_id", side="item"),
            Tokens(name="clicked_items", side="user", shares="item_id", max_length=100),
            Tokens(name="clicked_categories", side="user", shares="cate_id", max_length=100),
        ),
    )


def load(
    folder: str | Path, *, protocol: Protocol = "honest", vectors: bool = True, check: bool = True
) -> CtrData:
    """MicroVideo1.7M_x1 from a folder.

    Args:
        folder: Where its train and test files are (csv or Parquet), and its image vectors.
        protocol: Which rows are the validation rows; see `Protocol`.
        vectors: Read the vectors as a side table; needs h5py.
        check: Compare files with their published MD5, where there is one.

    Raises:
        ConfigError: There is no such protocol, or h5py is not installed.
        DataError: Files are missing or not the published ones.
    """
    layout, paths = find(folder, _LAYOUTS, "MicroVideo1.7M_x1")
    checks = verify(paths, MD5, check=check)
    train, test = (layout.read(path, _COLUMNS) for path in paths)
    train, valid, note = validation(train, test, protocol)
    sides: tuple[SideTable, ...] = ()
    seen = "the item's cover image vector is joined; the benchmark also pools those of the histories"
    if vectors:
        sides = (
            vector_table(
                *read_vectors(paths[0].parent / VECTORS), by="item", name="item_emb", like=pl.String
            ),
        )
    else:
        seen = "without the image vectors, which the benchmark reads"
    return CtrData(
        name="microvideo1.7m_x1",
        train=train,
        valid=valid,
        test=test,
        schema=schema(),
        embedding_dim=64,
        acknowledgement=ACKNOWLEDGEMENT,
        notes=(note, seen, *NOTES),
        checks=checks,
        sides=sides,
    )
