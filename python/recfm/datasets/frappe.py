"""Frappe_x1 (Baltrunas et al. 2015): which app is used in which context; ten categorical fields, no time.

Layouts: train.csv, valid.csv, test.csv · train.libsvm, ... · frappe.train.libfm, ... · train.parquet, ... where
train_redrawn.parquet stands for training rows whose negatives were drawn again.
"""

from pathlib import Path

import polars as pl

from recfm.datasets.ctr import CtrData
from recfm.datasets.ctr_files import Columns, Layout, find, read_csv, read_libfm, read_parquet, verify
from recfm.schema import Categorical, Schema

MD5 = {
    "train.csv": "ba7306e6c4fc19dd2cd84f2f0596d158",
    "valid.csv": "88d51bf2173505436d3a8f78f2a59da8",
    "test.csv": "3470f6d32713dc5f7715f198ca7c612a",
}
ACKNOWLEDGEMENT = (
    "Linas Baltrunas, Karen Church, Alexandros Karatzoglou, Nuria Oliver. 2015. Frappe: Understanding the Usage and "
    "Perception of Mobile App Recommendations In-The-Wild. arXiv:1505.03014. For research, to be acknowledged; it "
    "may not be redistributed."
)
REDRAWN = "train negatives re-drawn"
_CONTEXT = ("daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
_REDRAWN_FILE = "train_redrawn.parquet"
_LAYOUTS = (
    Layout(files=("train.csv", "valid.csv", "test.csv"), read=read_csv),
    Layout(files=("train.libsvm", "valid.libsvm", "test.libsvm"), read=read_libfm),
    Layout(files=("frappe.train.libfm", "frappe.validation.libfm", "frappe.test.libfm"), read=read_libfm),
    Layout(files=("train.parquet", "valid.parquet", "test.parquet"), read=read_parquet),
    Layout(files=(_REDRAWN_FILE, "valid.parquet", "test.parquet"), read=read_parquet),
)


def schema() -> Schema:
    """The ten fields, each value kept that occurs once in training."""
    return Schema(
        user="user",
        item="item",
        label="label",
        features=(
            Categorical(name="user", side="user"),
            Categorical(name="item", side="item"),
            *(Categorical(name=name, side="context") for name in _CONTEXT),
        ),
    )


def load(folder: str | Path, *, check: bool = True) -> CtrData:
    """Frappe_x1 from a folder.

    Args:
        folder: Where its files are.
        check: Compare files with their published MD5, where there is one.

    Raises:
        DataError: Files are missing or not the published ones.
    """
    layout, paths = find(folder, _LAYOUTS, "Frappe_x1")
    checks = verify(paths, MD5, check=check)
    columns: Columns = {"label": pl.Float32, **dict.fromkeys(("user", "item", *_CONTEXT), pl.Int64)}
    train, valid, test = (layout.read(path, columns) for path in paths)
    return CtrData(
        name="frappe_x1",
        train=train,
        valid=valid,
        test=test,
        schema=schema(),
        embedding_dim=10,
        acknowledgement=ACKNOWLEDGEMENT,
        notes=(REDRAWN,) if paths[0].name == _REDRAWN_FILE else (),
        checks=checks,
    )
