"""KuaiVideo_x1: micro-videos shown to users of Kuaishou, with lists of past clicks and non-clicks and image vectors."""

from pathlib import Path

import polars as pl

from recfm.data.side import SideTable
from recfm.datasets.ctr import CtrData, Protocol, validation
from recfm.datasets.ctr_files import Columns, Layout, find, read_csv, read_parquet, verify
from recfm.datasets.vectors import read_vectors, vector_table
from recfm.schema import Categorical, Schema, Tokens

MD5 = {"train.csv": "16f13734411532cc313caf2180bfcd56", "test.csv": "ba26c01caaf6c65c272af11aa451fc7a"}
ACKNOWLEDGEMENT = (
    "Kuaishou. 2018. User Interest Modeling Challenge (China MM), prepared by Yongqi Li et al. 2019, Routing "
    "Micro-videos via A Temporal Graph-guided Recommendation System, MM. The terms of the challenge apply."
)
NOTES = (
    "histories are the user's first 100 clicks and non-clicks, not the latest: those of heavy users stand still",
    "times are anonymised: their order is real, their distances are not",
)
VECTORS = "item_visual_emb_dim64.h5"
_LAYOUTS = (
    Layout(files=("train.csv", "test.csv"), read=read_csv),
    Layout(files=("train.parquet", "test.parquet"), read=read_parquet),
)
_COLUMNS: Columns = {
    "is_click": pl.Float32,
    "timestamp": pl.Int64,
    **dict.fromkeys(("user_id", "item_id"), pl.String),
    **dict.fromkeys(("pos_items", "neg_items"), pl.List),
}


def schema() -> Schema:
    """The benchmark's features but for the vectors, which are joined."""
    return Schema(
        user="user_id",
        item="item_id",
        time="timestamp",
        label="is_click",
        features=(
            Categorical(name="user_id", side="user", min_count=10),
            Categorical(name="item_id", side="item", min_count=10),
            Tokens(name="pos_items", side="user", shares="item_id", max_length=100),
            Tokens(name="neg_items", side="user", shares="item_id", max_length=100),
        ),
    )


def load(
    folder: str | Path, *, protocol: Protocol = "honest", vectors: bool = True, check: bool = True
) -> CtrData:
    """KuaiVideo_x1 from a folder.

    Args:
        folder: Where its train and test files are (csv or Parquet), and its image vectors.
        protocol: Which rows are the validation rows; see `Protocol`.
        vectors: Read the vectors as a side table; needs h5py.
        check: Compare files with their published MD5, where there is one.

    Raises:
        ConfigError: There is no such protocol, or h5py is not installed.
        DataError: Files are missing or not the published ones.
    """
    layout, paths = find(folder, _LAYOUTS, "KuaiVideo_x1")
    checks = verify(paths, MD5, check=check)
    train, test = (layout.read(path, _COLUMNS) for path in paths)
    train, valid, note = validation(train, test, protocol)
    sides: tuple[SideTable, ...] = ()
    seen = "the item's image vector is joined; the benchmark also pools those of the histories"
    if vectors:
        sides = (
            vector_table(
                *read_vectors(paths[0].parent / VECTORS), by="item", name="item_emb", like=pl.String
            ),
        )
    else:
        seen = "without the image vectors, which the benchmark reads"
    return CtrData(
        name="kuaivideo_x1",
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
