"""What is learned does not depend on pieces or workers, and quantile buckets are as equal as ties allow."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.data.encode import Encoder
from recfm.data.fit import Fitting
from recfm.errors import SchemaError
from recfm.schema import Categorical, Numeric, Schema, Tokens


def schema_of(*features):
    return Schema(user="user", item="item", time="time", label="label", features=features)


def with_keys(columns):
    rows = len(next(iter(columns.values())))
    keys = {"user": range(rows), "item": range(rows), "time": range(rows), "label": [0] * rows}
    return pl.DataFrame({**{name: list(values) for name, values in keys.items()}, **columns})


NUMBERS = st.lists(
    st.none() | st.floats(allow_nan=True, allow_infinity=True, width=64) | st.integers(-50, 50).map(float),
    min_size=1,
    max_size=60,
)


@settings(deadline=None)
@given(values=NUMBERS, cuts=st.lists(st.integers(0, 60), max_size=3), buckets=st.integers(2, 6))
def test_pieces_and_workers_learn_what_the_whole_learns(values, cuts, buckets):
    schema = schema_of(
        Numeric(name="a", side="item"),
        Numeric(name="b", side="item", transform="log"),
        Numeric(name="c", side="item", transform="quantile", buckets=buckets),
        Categorical(name="d", side="item", min_count=2),
        Tokens(name="e", side="item"),
    )
    ids = [None if value is None else str(value) for value in values]
    frame = with_keys(
        {
            **{name: pl.Series(values, dtype=pl.Float64) for name in "abc"},
            "d": pl.Series(ids, dtype=pl.String),
            "e": pl.Series([[v] for v in ids], dtype=pl.List(pl.String)),
        }
    )
    whole = Encoder(schema).fit(frame)
    merged = Fitting(schema)
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    for start, stop in pairwise(bounds):
        worker = Fitting(schema)
        worker.add(frame.slice(start, stop - start))
        merged.merge(worker.state())
    assert merged.rows == len(values)
    assert Encoder(schema, merged.finish()).files() == whole.files()


@settings(deadline=None)
@given(values=st.lists(st.integers(-300, 300), min_size=1, max_size=200), buckets=st.integers(2, 9))
def test_quantile_buckets_match_a_plain_count(values, buckets):
    feature = Numeric(name="x", side="item", transform="quantile", buckets=buckets)
    frame = with_keys({"x": values})
    encoder = Encoder(schema_of(feature, Categorical(name="item", side="item"))).fit(frame)
    ids = encoder.transform(frame).ids[:, encoder.layout.position("x")]
    # A boundary lies behind the value with which the share k / buckets of all rows is reached.
    ordered, n = sorted(values), len(values)
    last = {ordered[-(-k * n // buckets) - 1] for k in range(1, buckets)}
    edges = sorted(min(v for v in values if v > end) for end in last if end < max(values))
    assert ids.tolist() == [2 + sum(edge <= value for edge in edges) for value in values]
    assert encoder.layout.categorical[-1].rows == len(edges) + 3


def test_quantiles_of_many_numbers_are_nearly_equal_and_null_has_its_own_id():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.lognormal(0, 3, 50_000), -rng.lognormal(0, 3, 50_000)])
    feature = Numeric(name="x", side="item", transform="quantile", buckets=10)
    encoder = Encoder(schema_of(feature)).fit(with_keys({"x": values}))
    asked = with_keys({"x": [None, float("nan"), -np.inf, np.inf, *values]})
    ids = encoder.transform(asked).ids[:, 0]
    assert ids[:4].tolist() == [1, 1, 2, 11]
    counts = np.bincount(ids[4:])[2:]
    assert len(counts) == 10
    assert abs(counts - 10_000).max() < 40


def test_an_unknown_transform_is_refused():
    with pytest.raises(SchemaError, match="transform is 'minmax': use standard, log or quantile"):
        Numeric(name="x", side="item", transform="minmax")
    with pytest.raises(SchemaError, match="buckets is 1"):
        Numeric(name="x", side="item", transform="quantile", buckets=1)
    with pytest.raises(SchemaError, match="max_length is 0"):
        Tokens(name="x", side="item", max_length=0)
