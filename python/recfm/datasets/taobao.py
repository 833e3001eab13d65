"""TaobaoAd_x1: ads of Taobao, 7 days to train and the day after to test; users' behaviour as lists; no time column."""

from pathlib import Path

import polars as pl

from recfm.datasets.ctr import CtrData, Protocol, validation
from recfm.datasets.ctr_files import Columns, Layout, find, read_csv, read_parquet, verify
from recfm.schema import Categorical, Numeric, Schema, Side, Tokens

MD5 = {"train.csv": "eaabfc8629f23519b04593e26c7522fc", "test.csv": "f5ae6197e52385496d46e2867c1c8da1"}
ACKNOWLEDGEMENT = (
    "Alibaba. 2018. Ad Display/Click Data on Taobao.com (Tianchi data set 56), prepared by Ze Lyu et al. 2020, Deep "
    "Match to Rank Model for Personalized Click-Through Rate Prediction, AAAI. Tianchi's terms apply: research only."
)
NOTES = (
    "the set has no time column: the order of rows is the only clock, and no leak-free join of logged events is "
    "possible",
    "histories hold categories, brands and kinds of behaviour, no ads",
    "the price is standardised after log1p; the benchmark reads it raw",
)
_MIN_COUNT = 10
_SIDES: dict[Side, tuple[str, ...]] = {
    "user": (
        "userid", "cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level", "shopping_level",
        "occupation", "new_user_class_level",
    ),
    "item": ("adgroup_id", "cate_id", "campaign_id", "customer", "brand"),
    "context": ("pid", "btag"),
}  # fmt: skip
_HISTORIES = {"cate_his": "cate_id", "brand_his": "brand", "btag_his": "btag"}
_LAYOUTS = (
    Layout(files=("train.csv", "test.csv"), read=read_csv),
    Layout(files=("train.parquet", "test.parquet"), read=read_parquet),
)


def schema() -> Schema:
    """The benchmark's features; a history shares the table of what it holds."""
    return Schema(
        user="userid",
        item="adgroup_id",
        label="clk",
        features=(
            *(
                Categorical(name=name, side=side, min_count=_MIN_COUNT)
                for side, names in _SIDES.items()
                for name in names
            ),
            Numeric(name="price", side="item", transform="log"),
            *(Tokens(name=name, side="user", shares=of, max_length=50) for name, of in _HISTORIES.items()),
        ),
    )


def load(folder: str | Path, *, protocol: Protocol = "honest", check: bool = True) -> CtrData:
    """TaobaoAd_x1 from a folder.

    Args:
        folder: Where its train and test files are (csv or Parquet).
        protocol: Which rows are the validation rows; see `Protocol`.
        check: Compare files with their published MD5, where there is one.

    Raises:
        ConfigError: There is no such protocol.
        DataError: Files are missing or not the published ones.
    """
    layout, paths = find(folder, _LAYOUTS, "TaobaoAd_x1")
    checks = verify(paths, MD5, check=check)
    columns: Columns = {
        "clk": pl.Float32,
        **dict.fromkeys((name for names in _SIDES.values() for name in names), pl.String),
        "price": pl.Float64,
        **dict.fromkeys(_HISTORIES, pl.List),
    }
    train, test = (layout.read(path, columns) for path in paths)
    train, valid, note = validation(train, test, protocol)
    return CtrData(
        name="taobaoad_x1",
        train=train,
        valid=valid,
        test=test,
        schema=schema(),
        embedding_dim=32,
        acknowledgement=ACKNOWLEDGEMENT,
        notes=(note, *NOTES),
        checks=checks,
    )
