"""Schemas: equal after JSON, and refused with the name of what is wrong."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.errors import RecfmError, SchemaError
from recfm.schema import Categorical, History, Numeric, Schema, Tokens

PLAIN = {
    "user": "user_id",
    "item": "movie_id",
    "time": "timestamp",
    "label": "liked",
    "features": [{"kind": "categorical", "name": "movie_id", "side": "item"}],
}
MOVIE = Categorical(name="movie_id", side="item")
sides = st.sampled_from(["user", "item", "context"])
viewers = st.sampled_from(["both", "fm"])
counts = st.integers(1, 10**6)
buckets = st.none() | st.integers(3, 2**31 - 1)


def schema_of(*features, **keys):
    """A schema of these features over the usual keys."""
    return Schema(**({k: PLAIN[k] for k in ("user", "item", "time", "label")} | keys), features=features)


@st.composite
def schemas(draw):
    names = draw(st.lists(st.text(min_size=1, max_size=6), min_size=7, max_size=14, unique=True))
    *keys, first = names[:5]
    features = [Categorical(name=first, side=draw(sides))]
    for name in names[5:]:
        kind = draw(st.sampled_from([Categorical, Numeric, Tokens, History]))
        if kind is Numeric:
            extra = {"transform": draw(st.sampled_from(["standard", "log"]))}
        elif kind is History:
            known = [f for f in features if isinstance(f, Categorical)]
            of = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
            hidden = any(f.seen_by == "fm" for f in of)
            history = {
                "of": tuple(f.name for f in of),
                "length": draw(st.integers(1, 100_000)),
                "delay": draw(st.floats(0, 1e6)),
                "labels": draw(st.booleans()),
                "seen_by": "fm" if hidden else draw(viewers),
            }
            features.append(History(name=name, **history))
            continue
        else:
            extra = {"min_count": draw(counts), "buckets": draw(buckets)}
        features.append(kind(name=name, side=draw(sides), seen_by=draw(viewers), **extra))
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    order = draw(st.permutations(features))
    return Schema(
        user=keys[0], item=keys[1], time=keys[2], label=keys[3], features=tuple(order), time_unit=unit
    )


@settings(deadline=None, max_examples=60)
@given(schema=schemas())
def test_a_schema_is_equal_after_json(schema):
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert [type(f) for f in again.features] == [type(f) for f in schema.features]
    assert hash(again) == hash(schema)
    assert again.to_json() == schema.to_json()


@settings(deadline=None, max_examples=60)
@given(schema=schemas(), data=st.data())
def test_changing_any_value_changes_the_json(schema, data):
    field = data.draw(st.sampled_from(["user", "item", "time", "label"]))
    other = dataclasses.replace(schema, **{field: "something else"})
    assert Schema.from_json(other.to_json()) != schema


def test_lists_are_as_good_as_tuples():
    schema = schema_of(MOVIE, History(name="past", of=["movie_id"]))
    listed = Schema(
        **{k: PLAIN[k] for k in ("user", "item", "time", "label")}, features=list(schema.features)
    )
    assert listed == schema == Schema.from_json(listed.to_json())
    assert hash(listed) == hash(schema)


@pytest.mark.parametrize(("features", "message"), [(("movie_id",), "'movie_id'"), (MOVIE, "features")])
def test_features_that_are_none_are_refused(features, message):
    with pytest.raises(SchemaError, match=message):
        Schema(**{k: PLAIN[k] for k in ("user", "item", "time", "label")}, features=features)


def test_a_name_is_no_list_of_names():
    with pytest.raises(SchemaError, match="'movie_id'"):
        schema_of(MOVIE, History(name="past", of="movie_id"))


def test_the_json_of_a_schema_is_plain():
    fields = json.loads(schema_of(MOVIE).to_json())
    assert fields["user"] == "user_id"
    assert fields["features"][0] == {
        "kind": "categorical",
        "name": "movie_id",
        "side": "item",
        "min_count": 1,
        "buckets": None,
        "seen_by": "both",
    }


def test_columns_are_the_keys_then_the_features_without_histories_or_repeats():
    schema = schema_of(
        Numeric(name="year", side="item"),
        MOVIE,
        History(name="past", of=("movie_id",)),
        Tokens(name="g", side="item"),
    )
    assert schema.columns() == ["user_id", "movie_id", "timestamp", "liked", "year", "g"]
    assert schema.of_kind(Categorical) == (MOVIE,)
    assert [f.name for f in schema.of_kind(History)] == ["past"]


def test_a_schema_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        schema_of(MOVIE).user = "other"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([MOVIE, Numeric(name="movie_id", side="item")], "two features are named 'movie_id'"),
        ([MOVIE, History(name="movie_id", of=("movie_id",))], "two features are named 'movie_id'"),
        ([MOVIE, Numeric(name="liked", side="item")], "'liked' is the label"),
        ([], "no feature besides histories"),
        ([MOVIE, History(name="past", of=())], "'past' is of nothing"),
        ([MOVIE, History(name="past", of=("movie",))], r"'past' is of 'movie', which .*\(known: movie_id\)"),
        ([MOVIE, History(name="past", of=("liked",))], "'past' is of 'liked', which is no categorical"),
        (
            [MOVIE, Numeric(name="year", side="item"), History(name="past", of=("year",))],
            "'past' is of 'year', which is no categorical",
        ),
        (
            [MOVIE, History(name="past", of=("movie_id",)), History(name="more", of=("past",))],
            "'more' is of 'past', which is no categorical",
        ),
        (
            [Categorical(name="x", side="user", seen_by="fm"), History(name="past", of=("x",))],
            "'past' would show the VM feature 'x'",
        ),
    ],
)
def test_features_that_cannot_be_are_named(features, message):
    with pytest.raises(SchemaError, match=message):
        schema_of(*features)


def test_a_history_of_fm_features_is_fine_for_the_fm():
    hidden = Categorical(name="x", side="user", seen_by="fm")
    schema = schema_of(MOVIE, hidden, History(name="past", of=("x", "movie_id"), seen_by="fm"))
    assert schema.of_kind(History)[0].seen_by == "fm"


@pytest.mark.parametrize("delay", [-1.0, -1e-9, float("nan"), float("inf"), float("-inf"), 1e300])
def test_a_delay_that_is_no_time_is_refused(delay):
    with pytest.raises(SchemaError, match=r"'past'.*delay"):
        schema_of(MOVIE, History(name="past", of=("movie_id",), delay=delay))


@pytest.mark.parametrize("length", [0, -3, 100_001])
def test_a_history_without_room_is_refused(length):
    with pytest.raises(SchemaError, match=f"'past'.*length is {length}"):
        schema_of(MOVIE, History(name="past", of=("movie_id",), length=length))


@pytest.mark.parametrize("key", ["user", "item", "time"])
def test_the_label_is_no_key(key):
    with pytest.raises(SchemaError, match="liked"):
        schema_of(MOVIE, **{key: "liked"})


@pytest.mark.parametrize("feature", [Categorical, Tokens])
@pytest.mark.parametrize(
    ("setting", "value"), [("min_count", 0), ("min_count", -1), ("buckets", 2), ("buckets", -1)]
)
def test_table_sizes_out_of_range_are_refused(feature, setting, value):
    with pytest.raises(SchemaError, match=f"'tags'.*{setting} is {value}|{setting} is {value}.*'tags'"):
        schema_of(MOVIE, feature(name="tags", side="item", **{setting: value}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lable": "liked"}, "unknown key 'lable'.*did you mean 'label'"),
        ({"feature": []}, "unknown key 'feature'.*did you mean 'features'"),
        ({"features": [{**PLAIN["features"][0], "min_cuont": 1}]}, "min_cuont'.*did you mean.*min_count"),
        (
            {"features": [{**PLAIN["features"][0], "nothing_like_it": 1}]},
            "nothing_like_it.*known keys.*min_count",
        ),
        ({"user": 3}, "'user' is 3"),
        ({"label": None}, "'label' is None"),
        ({"time_unit": "minutes"}, "'time_unit' is 'minutes'.*'ms'"),
        ({"features": "movie_id"}, "'features' is 'movie_id'"),
        ({"features": ["movie_id"]}, "'features.0' is 'movie_id'"),
        ({"features": [{"name": "movie_id", "side": "item"}]}, "features.0.kind' is missing"),
        ({"features": [{"kind": "cat", "name": "x", "side": "item"}]}, "'features.0'.*'cat'.*'categorical'"),
        ({"features": [{"kind": "numeric", "side": "item"}]}, r"features.0.*name' is missing"),
        ({"features": [{"kind": "numeric", "name": "x", "side": "film"}]}, r"side' is 'film'.*'context'"),
        ({"features": [{**PLAIN["features"][0], "min_count": "2"}]}, "min_count' is '2'"),
        ({"features": [{**PLAIN["features"][0], "min_count": True}]}, "min_count' is True"),
        ({"features": [{**PLAIN["features"][0], "buckets": 2.5}]}, "buckets' is 2.5"),
        (
            {"features": [*PLAIN["features"], {"kind": "history", "name": "h", "of": "movie_id"}]},
            "of' is 'movie_id'",
        ),
        ({"features": PLAIN["features"] * 2}, "two features are named 'movie_id'"),
    ],
)
def test_values_that_are_no_schema_are_named(change, message):
    with pytest.raises(SchemaError, match=message):
        Schema.from_dict(PLAIN | change)
    with pytest.raises(SchemaError, match=message):
        Schema.from_json(json.dumps(PLAIN | change))


@pytest.mark.parametrize("key", ["label", "features"])
def test_a_missing_key_is_named(key):
    with pytest.raises(SchemaError, match=f"'{key}' is missing"):
        Schema.from_dict({k: v for k, v in PLAIN.items() if k != key})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "3", "[" * 100_000, '{"user": "u"}'])
def test_text_that_is_no_schema_is_refused(text):
    with pytest.raises(SchemaError, match="schema"):
        Schema.from_json(text)


@settings(deadline=None, max_examples=100)
@given(
    junk=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    key=st.sampled_from([*PLAIN, "time_unit"]),
)
def test_junk_under_any_key_is_a_schema_or_one_recfm_error(junk, key):
    try:
        schema = Schema.from_dict(PLAIN | {key: junk})
    except RecfmError as error:
        assert isinstance(error, SchemaError)  # noqa: PT017 - either outcome is right, nothing else is
    else:
        assert schema == Schema.from_json(schema.to_json())
