"""Encoding equals a plain Python loop: ids from the training rows alone, hashes that never change, numbers."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from recfm import _core
from recfm.data.encode import Encoder
from recfm.errors import DataError, SchemaError
from recfm.schema import Categorical, Numeric, Schema, Tokens

GOLDEN = json.loads((Path(__file__).parent / "assets" / "hash.json").read_text())
FURTHEST = 1e4
words = st.none() | st.sampled_from(["", "a", "b", "ä", "🙂", "zz"])
numbers = (
    st.none()
    | st.sampled_from([math.nan, math.inf, -math.inf])
    | st.integers(-4000, 4000).map(lambda i: i / 8)
)
rows = st.lists(
    st.tuples(
        words, st.none() | st.integers(-3, 9), st.none() | st.lists(words, max_size=3), numbers, numbers
    ),
    min_size=2,
    max_size=25,
)


def encoder_of(*features, **keys):
    return Encoder(Schema(user="user", item="item", time="time", label="label", features=features, **keys))


def with_keys(columns):
    """A frame of these columns with key columns beside them."""
    n = len(next(iter(columns.values())))
    keys = {"user": range(n), "item": range(n), "time": range(n), "label": [i % 2 for i in range(n)]}
    return pl.DataFrame({**{k: list(v) for k, v in keys.items()}, **columns})


def standardised(train, values, transform):
    """Numbers as the schema documents them: null and NaN are 0, the rest in deviations from the train mean."""

    def shape(x):
        return x if transform == "standard" or math.isinf(x) else math.copysign(math.log1p(abs(x)), x)

    known = [shape(x) for x in train if x is not None and math.isfinite(x)]
    mean = math.fsum(known) / len(known) if known else 0.0
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in known) / len(known)) if known else 1.0
    if not known or min(known) == max(known):
        deviation = 1.0
    return [
        0.0 if x is None or math.isnan(x) else min(max((shape(x) - mean) / deviation, -FURTHEST), FURTHEST)
        for x in values
    ]


@settings(deadline=None, max_examples=150)
@given(rows=rows, cut=st.integers(1, 24), min_count=st.integers(1, 3))
def test_every_column_is_that_of_the_oracle(rows, cut, min_count):
    word, number, tags, price, size = (list(column) for column in zip(*rows, strict=True))
    frame = with_keys(
        {
            "word": pl.Series(word, dtype=pl.String),
            "number": pl.Series(number, dtype=pl.Int16),
            "hashed": pl.Series(word, dtype=pl.String),
            "tags": pl.Series(tags, dtype=pl.List(pl.String)),
            "price": pl.Series(price, dtype=pl.Float64),
            "size": pl.Series(size, dtype=pl.Float64),
        }
    )
    encoder = encoder_of(
        Numeric(name="price", side="item"),
        Categorical(name="word", side="item", min_count=min_count),
        Tokens(name="tags", side="item", min_count=min_count),
        Categorical(name="hashed", side="item", buckets=50),
        Numeric(name="size", side="item", transform="log"),
        Categorical(name="number", side="context"),
    )
    encoded = encoder.fit(frame[:cut]).transform(frame)

    def ids(values, least):
        return oracles.encode(oracles.vocab_order(values[:cut], least), values)

    hashed = _core.Hasher(name="hashed", buckets=50).encode(frame["hashed"]).tolist()
    assert encoded.ids.dtype == np.int32
    assert encoded.ids.T.tolist() == [ids(word, min_count), hashed, ids(number, 1)]
    order = oracles.vocab_order(oracles.jagged(tags[:cut])[0], min_count)
    elements, offsets = oracles.jagged(tags)
    values, bounds = encoded.tokens["tags"]
    assert (values.tolist(), bounds.tolist()) == (oracles.encode(order, elements), offsets)
    expected = [standardised(price[:cut], price, "standard"), standardised(size[:cut], size, "log")]
    assert encoded.numeric.dtype == np.float32
    np.testing.assert_allclose(encoded.numeric.T, expected, rtol=1e-4, atol=1e-5)

    layout = encoded.layout
    assert [column.name for column in layout.categorical] == ["word", "hashed", "number"]
    assert [column.name for column in layout.numeric] == ["price", "size"]
    tables = zip([*layout.categorical, *layout.tokens], [*encoded.ids.T, values], strict=True)
    assert all(used.min(initial=1) > 0 and used.max(initial=0) < column.rows for column, used in tables)
    assert layout.categorical[0].rows == 2 + len(oracles.vocab_order(word[:cut], min_count))


@pytest.mark.parametrize("case", GOLDEN["ids"], ids=lambda case: f"{case['name']}-{case['buckets']}")
def test_hashed_ids_are_the_frozen_ones(case):
    frame = with_keys({"n": case["values"]}).drop("user").with_row_index("user")
    name = "n" if case["name"] in frame.columns else case["name"]
    if name == "n":  # the feature is a key column, which has no nulls
        frame = frame.with_columns(pl.Series(case["name"], case["values"])).drop_nulls()
    else:
        frame = frame.rename({"n": name})
    encoder = encoder_of(Categorical(name=case["name"], side="item", buckets=case["buckets"]))
    encoded = encoder.fit(frame).transform(frame)
    frozen = dict(zip(case["values"], case["ids"], strict=True))
    assert encoded.ids[:, 0].tolist() == [frozen[value] for value in frame[case["name"]]]
    assert encoded.layout.categorical[0].rows == case["buckets"]


@settings(deadline=None, max_examples=60)
@given(rows=rows, cut=st.integers(1, 24), one=st.integers(0, 24))
def test_a_row_is_encoded_the_same_alone_and_among_others(rows, cut, one):
    word, _, tags, price, _ = (list(column) for column in zip(*rows, strict=True))
    frame = with_keys(
        {
            "word": pl.Series(word, dtype=pl.String),
            "tags": pl.Series(tags, dtype=pl.List(pl.String)),
            "price": pl.Series(price, dtype=pl.Float64),
        }
    )
    encoder = encoder_of(
        Categorical(name="word", side="item"),
        Tokens(name="tags", side="item"),
        Numeric(name="price", side="item"),
    ).fit(frame[:cut])
    one %= len(rows)
    whole, alone = encoder.transform(frame), encoder.transform(frame[one : one + 1])
    assert (whole.ids[one] == alone.ids[0]).all()
    np.testing.assert_array_equal(whole.numeric[one], alone.numeric[0])
    values, bounds = whole.tokens["tags"]
    assert values[bounds[one] : bounds[one + 1]].tolist() == alone.tokens["tags"][0].tolist()
    assert (whole.user[one], whole.time[one], whole.label[one]) == (
        alone.user[0],
        alone.time[0],
        alone.label[0],
    )


# ---- types of columns ------------------------------------------------------------------------------------------

COLOURS = ["red", "blue", None, "red", "green", "blue", "red"]


@pytest.mark.parametrize("buckets", [None, 20])
@pytest.mark.parametrize(
    "dtype", [pl.Categorical, pl.Enum(["green", "blue", "unused", "red"])], ids=["cat", "enum"]
)
def test_categories_are_their_strings(dtype, buckets):
    plain = with_keys({"colour": COLOURS})
    cast = plain.with_columns(pl.col("colour").cast(dtype))
    encoder = encoder_of(Categorical(name="colour", side="item", buckets=buckets)).fit(plain[:5])
    expected = encoder.transform(plain).ids.tolist()
    assert encoder.transform(cast).ids.tolist() == expected
    fitted_on_cast = encoder_of(Categorical(name="colour", side="item", buckets=buckets)).fit(cast[:5])
    assert fitted_on_cast.transform(plain).ids.tolist() == expected
    if buckets is None:
        assert expected == [[i] for i in oracles.encode(oracles.vocab_order(COLOURS[:5]), COLOURS)]


@pytest.mark.parametrize(
    "dtype", [pl.Int8, pl.UInt8, pl.Int32, pl.UInt32, pl.Int64, pl.UInt64, pl.Boolean], ids=str
)
def test_integers_of_any_width_and_booleans_are_numbers(dtype):
    values = [1, 0, 1, None, 1]
    frame = with_keys({"flag": pl.Series(values).cast(dtype)})
    encoder = encoder_of(Categorical(name="flag", side="item")).fit(frame)
    assert encoder.transform(frame).ids[:, 0].tolist() == [2, 3, 2, 1, 2]


@pytest.mark.parametrize(
    "dtype", [pl.String, pl.Categorical, pl.Enum(["ann", "bob"])], ids=["str", "cat", "enum"]
)
def test_string_keys_are_the_same_everywhere(dtype):
    frame = with_keys({"x": [1, 2, 3]}).with_columns(
        user=pl.Series(["bob", "ann", "bob"], dtype=dtype), item=pl.Series(["ann", "ann", "bob"], dtype=dtype)
    )
    encoder = encoder_of(Categorical(name="x", side="item")).fit(frame)
    encoded = encoder.transform(frame)
    assert encoded.user.dtype == np.int64
    assert encoded.user[0] == encoded.user[2] != encoded.user[1]
    assert encoded.item[2] == encoded.user[0]  # one person is one key in whatever column
    assert encoder.transform(frame[2:]).user.tolist() == encoded.user[2:].tolist()


def test_integer_keys_are_themselves():
    frame = with_keys({"x": [1, 2]}).with_columns(
        user=pl.Series([-5, 2**62]), item=pl.Series([7, 7], dtype=pl.UInt8)
    )
    encoded = encoder_of(Categorical(name="x", side="item")).fit(frame).transform(frame)
    assert (encoded.user.tolist(), encoded.item.tolist()) == ([-5, 2**62], [7, 7])


# ---- refusals --------------------------------------------------------------------------------------------------


def test_an_encoder_that_was_not_fitted_says_so(make_events):
    frame, schema = make_events(20)
    with pytest.raises(DataError, match="has not been fitted"):
        Encoder(schema).transform(frame)


@pytest.mark.parametrize(("fitted", "given"), [([1, 2], ["1", "2"]), (["1", "2"], [1, 2])])
def test_a_column_that_changed_its_type_is_refused(fitted, given):
    encoder = encoder_of(Categorical(name="x", side="item")).fit(with_keys({"x": fitted}))
    with pytest.raises(SchemaError, match="'x' holds"):
        encoder.transform(with_keys({"x": given}))


def test_fitting_again_forgets_the_first_fit():
    encoder = encoder_of(Categorical(name="x", side="item"), Numeric(name="y", side="item"))
    first, second = (
        with_keys({"x": ["a", "b"], "y": [1.0, 2.0]}),
        with_keys({"x": ["c", "d"], "y": [5.0, 9.0]}),
    )
    again = encoder.fit(first).fit(second).transform(second)
    fresh = encoder_of(*encoder.schema.features).fit(second).transform(second)
    assert again.ids.tolist() == fresh.ids.tolist()
    assert again.numeric.tolist() == fresh.numeric.tolist()


def test_a_past_event_shows_its_ids_and_its_label(make_events):
    frame, schema = make_events(50)
    encoded = Encoder(schema).fit(frame).transform(frame)
    shown = encoded.history_ids(("movie_id", "user_id"), labels=True)
    columns = [encoded.ids[:, encoded.layout.position(name)] for name in ("movie_id", "user_id")]
    assert shown.dtype == np.int32
    assert shown.T.tolist() == [*(c.tolist() for c in columns), (frame["liked"] + 1).to_list()]
    with pytest.raises(SchemaError, match="no categorical feature 'genres'"):
        encoded.history_ids(("genres",), labels=False)


def test_a_fit_that_fails_leaves_the_last_one():
    encoder = encoder_of(Categorical(name="x", side="item"), Categorical(name="y", side="item"))
    good = with_keys({"x": ["a", "b", "b"], "y": [1, 2, 2]})
    expected = encoder.fit(good).transform(good).ids.tolist()
    bad = with_keys({"x": ["c", "c", "b"], "y": pl.Series([1, 2, 2**63], dtype=pl.UInt64)})
    with pytest.raises(DataError, match="'y'"):
        encoder.fit(bad)
    assert encoder.transform(good).ids.tolist() == expected
