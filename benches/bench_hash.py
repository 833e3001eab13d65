"""Hashing and vocabularies of a wide table, against what people use today.

The table: 13 integer columns and 13 columns of 8-character strings. Cardinalities as in click logs: from ten to half
a million values a column, a few of them common.
"""

import time
from typing import Any

import numpy as np
import polars as pl
from harness import QUICK, Results, copy_seconds, medians
from numpy.typing import NDArray

from recfm import _core
from recfm.data.encode import Encoder
from recfm.schema import Categorical, Schema

ROWS = 100_000 if QUICK else 1_000_000
COLUMNS = 13
BUCKETS = 2**20


def table() -> pl.DataFrame:
    """ROWS x 26, the same on every run."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for place in range(COLUMNS):
        values = int(10 * 50_000 ** (place / (COLUMNS - 1)))
        # Squaring a uniform number makes low ranks common.
        ranks = (rng.random(ROWS) ** 2 * values).astype(np.int64)
        columns[f"int{place}"] = ranks * 2_654_435_761 % 2**40
        texts = np.array([f"{i * 2_654_435_761 % 2**32:08x}" for i in range(values)])
        columns[f"str{place}"] = texts[(rng.random(ROWS) ** 2 * values).astype(np.int64)]
    return pl.DataFrame(columns)


def hashing(frame: pl.DataFrame, results: Results) -> None:
    """To 2^20 buckets as int32, the form that an embedding table takes."""
    columns = frame.get_columns()
    hashers = [_core.Hasher(name=column.name, buckets=BUCKETS) for column in columns]
    out = np.empty((ROWS, len(columns)), np.int32)
    bucketed = (pl.all().hash(1) % BUCKETS).cast(pl.Int32)
    seconds = medians(
        {
            "ours": lambda: _core.encode_ids(columns, hashers, out),
            "polars": lambda: frame.select(bucketed),
            "polars-matrix": lambda: frame.select(bucketed).to_numpy(),
            "polars-raw": lambda: frame.select(pl.all().hash(1)),
        }
    )
    read = sum(12 if column.dtype == pl.Int64 else 16 for column in columns) * ROWS
    rows = {name: ROWS / value for name, value in seconds.items()}
    shared: dict[str, Any] = {"ours": rows["ours"], "unit": "rows/s"}
    results.add("hash.columns.polars", peer=rows["polars"], target=2.0, note="hash, buckets, int32", **shared)
    results.add("hash.columns.polars-matrix", peer=rows["polars-matrix"], target=None, **shared)
    results.add(
        "hash.columns.polars-raw",
        peer=rows["polars-raw"],
        target=None,
        note="64-bit hashes, no buckets",
        **shared,
    )
    results.add("hash.columns.memcpy", peer=ROWS / copy_seconds(read), target=None, **shared)
    for name, run, part in slow_peers(frame):
        start = time.perf_counter()
        run()
        results.add(f"hash.columns.{name}", peer=part / (time.perf_counter() - start), target=None, **shared)


def slow_peers(frame: pl.DataFrame) -> list[tuple[str, Any, int]]:
    """Peers that take seconds: once each, on as many rows as said; their rate is what counts."""
    import duckdb
    import mmh3
    import pandas as pd
    from sklearn.feature_extraction import FeatureHasher

    names = frame.columns
    arrow = frame.to_arrow()
    part = frame.head(ROWS // 20)
    pandas_frame = part.to_pandas()

    def by_duckdb() -> None:
        asked = ", ".join(f"(hash({name}) % {BUCKETS})::INTEGER AS {name}" for name in names)
        duckdb.from_arrow(arrow).project(asked).to_arrow_table()

    def by_mmh3() -> None:
        for column in part.iter_columns():
            [mmh3.hash(str(value), 1) % BUCKETS for value in column]

    def by_pandas() -> None:
        for name in names:
            pd.util.hash_array(pandas_frame[name].to_numpy(), categorize=False)

    def by_sklearn() -> None:
        rows = (
            [f"{name}={value}" for name, value in zip(names, row, strict=True)] for row in part.iter_rows()
        )
        FeatureHasher(BUCKETS, input_type="string").transform(rows)

    return [
        ("duckdb", by_duckdb, len(frame)),
        ("pandas", by_pandas, len(part)),
        ("mmh3", by_mmh3, len(part)),
        ("sklearn", by_sklearn, len(part)),
    ]


def vocabularies(frame: pl.DataFrame, results: Results) -> None:
    """Fit and encode, ids by falling count; Polars' rank gives dense ids by value."""
    columns = frame.get_columns()
    out = np.empty((ROWS, len(columns)), np.int32)

    def ours() -> NDArray[np.int32]:
        vocabs = [_core.Vocab.fit(column, name=column.name) for column in columns]
        _core.encode_ids(columns, vocabs, out)
        return out

    def categories() -> pl.DataFrame:
        strings = pl.col(pl.String).cast(pl.Categorical).to_physical()
        return frame.select(strings, pl.col(pl.Int64).rank("dense"))

    seconds = medians(
        {"ours": ours, "polars": lambda: frame.select(pl.all().rank("dense")), "categories": categories}
    )
    rows = {name: ROWS / value for name, value in seconds.items()}
    shared: dict[str, Any] = {"ours": rows["ours"], "unit": "rows/s"}
    results.add("hash.vocab.polars", peer=rows["polars"], target=10.0, note="rank('dense')", **shared)
    results.add("hash.vocab.polars-categorical", peer=rows["categories"], target=None, **shared)
    distinct = [len(_core.Vocab.fit(column, name=column.name)) - 2 for column in columns]
    for column, count in zip(columns, distinct, strict=True):
        if count != column.n_unique():
            raise SystemExit(f"{column.name}: {count} values, Polars counts {column.n_unique()}")
    results.note(distinct_values=distinct)


def tables(frame: pl.DataFrame, results: Results) -> None:
    """Checks, fit and transform of the whole table through the Python API: what a user waits for."""
    keyed = frame.with_columns(user="int12", item="int11", time=pl.int_range(pl.len()), label=pl.lit(1))
    features = tuple(Categorical(name=name, side="item") for name in frame.columns)
    schema = Schema(user="user", item="item", time="time", label="label", features=features)
    seconds = medians({"ours": lambda: Encoder(schema).fit(keyed).transform(keyed)})
    # FuxiCTR 2.3 takes 3.8 s for 288,609 rows x 10 fields on this kind of machine: it cannot run beside us on
    # today's Polars, so this is no ratio.
    results.note(encoder_fit_transform_rows_per_second=ROWS / seconds["ours"])


def main() -> None:
    results = Results("hash")
    frame = table()
    results.note(rows=ROWS, columns=len(frame.columns), buckets=BUCKETS)
    hashing(frame, results)
    vocabularies(frame, results)
    tables(frame, results)
    results.write()


if __name__ == "__main__":
    main()
