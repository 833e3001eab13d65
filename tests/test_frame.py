"""The door for event tables: each bad input gives one recfm error with the column, the value and what to do."""

import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.data.encode import Encoder
from recfm.data.frame import check_frame, event_time
from recfm.errors import DataError, SchemaError
from table_helpers import refused, simple_schema, table

FACTOR = {"s": 1_000_000, "ms": 1_000, "us": 1}


def column(values, dtype):
    return pl.Series(values, dtype=dtype)


NULLS = [None, None, None]
BAD = {
    "missing user": (lambda: table().drop("user"), SchemaError, ["'user' is missing", "item, time, label"]),
    "missing feature": (lambda: table().drop("tags"), SchemaError, ["'tags' is missing"]),
    "misspelt column": (
        lambda: table().rename({"price": "prize"}),
        SchemaError,
        ["'price' is missing", "did you mean 'prize'"],
    ),
    "no columns": (pl.DataFrame, SchemaError, ["'user' is missing"]),
    "no rows": (lambda: table()[:0], DataError, ["no rows"]),
    "float user": (
        lambda: table(user=[1.0, 2.0, 1.0]),
        SchemaError,
        ["'user'", "Float64", "integers or strings"],
    ),
    "boolean item": (lambda: table(item=[True, False, True]), SchemaError, ["'item'", "Boolean", "strings"]),
    "list item": (lambda: table(item=[["a"], ["b"], ["a"]]), SchemaError, ["'item'", "List(String)"]),
    "object user": (lambda: table(user=column([{}, {}, {}], pl.Object)), SchemaError, ["'user'", "Object"]),
    "128-bit user": (lambda: table(user=column([1, 2, 3], pl.Int128)), SchemaError, ["'user'", "Int128"]),
    "null column as user": (lambda: table(user=NULLS), SchemaError, ["'user'", "Null"]),
    "float time": (lambda: table(time=[1.0, 2.0, 3.0]), SchemaError, ["'time'", "Float64", "Datetime"]),
    "text time": (lambda: table(time=["1", "2", "3"]), SchemaError, ["'time'", "String", "time_unit"]),
    "duration time": (
        lambda: table(time=column([1, 2, 3], pl.Duration("us"))),
        SchemaError,
        ["'time'", "Duration"],
    ),
    "clock time": (lambda: table(time=column([1, 2, 3], pl.Time)), SchemaError, ["'time'", "dtype Time"]),
    "text label": (lambda: table(label=["0", "1", "0"]), SchemaError, ["'label'", "String", "0 and 1"]),
    "text price": (lambda: table(price=["1", "2", "3"]), SchemaError, ["'price'", "String", "numbers"]),
    "single tags": (lambda: table(tags=["x", "y", "x"]), SchemaError, ["'tags'", "String", "list"]),
    "float tags": (lambda: table(tags=[[1.5], [], [2.5]]), SchemaError, ["'tags'", "List(Float64)"]),
    "null user": (lambda: table(user=[1, 2, None]), DataError, ["'user'", "1 nulls", "row 2", "drop"]),
    "null item": (lambda: table(item=[None, "b", None]), DataError, ["'item'", "2 nulls", "row 0", "drop"]),
    "null time": (lambda: table(time=[1, None, 3]), DataError, ["'time'", "1 nulls", "row 1", "drop"]),
    "null label": (lambda: table(label=[1, None, None]), DataError, ["'label'", "2 nulls", "row 1", "drop"]),
    "label of 2": (
        lambda: table(label=[0, 2, 3]),
        DataError,
        ["'label'", "holds 2 ", "row 1", "2 rows", "binarise"],
    ),
    "label of -1": (
        lambda: table(label=[0, 1, -1]),
        DataError,
        ["'label'", "holds -1 ", "row 2", "binarise"],
    ),
    "label of 0.5": (lambda: table(label=[0.5, 1.0, 0.0]), DataError, ["'label'", "holds 0.5 ", "row 0"]),
    "NaN label": (
        lambda: table(label=[0.0, 1.0, float("nan")]),
        DataError,
        ["'label'", "holds nan ", "row 2"],
    ),
    "infinite label": (
        lambda: table(label=[0.0, float("inf"), 1.0]),
        DataError,
        ["'label'", "holds inf ", "row 1"],
    ),
    "unsigned user too large": (
        lambda: table(user=column([1, 2**63, 2], pl.UInt64)),
        DataError,
        ["'user'", str(2**63), "strings"],
    ),
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "-"))
def test_a_bad_table_is_refused_when_encoded(case):
    make, error, words = BAD[case]
    message = refused(error, lambda: Encoder(simple_schema()).fit(make()).transform(make()))
    assert not [word for word in words if word not in message], message
    fitted = Encoder(simple_schema()).fit(table())
    assert refused(error, lambda: fitted.transform(make())) == message


@pytest.mark.parametrize(
    "case", [c for c in BAD if c != "unsigned user too large"], ids=lambda c: c.replace(" ", "-")
)
def test_the_check_alone_says_the_same(case):
    make, error, words = BAD[case]
    message = refused(error, lambda: check_frame(make(), simple_schema()))
    assert not [word for word in words if word not in message], message


@pytest.mark.parametrize(
    ("events", "found"),
    [(None, "NoneType"), ([1], "list"), ({"user": [1]}, "dict"), (table().lazy(), "LazyFrame"),
     (table()["user"], "Series"), (np.zeros((2, 2)), "ndarray")],
)  # fmt: skip
def test_what_is_no_frame_is_not_checked(events, found):
    message = refused(SchemaError, lambda: check_frame(events, simple_schema()))
    assert found in message
    assert "polars.DataFrame" in message


@pytest.mark.parametrize(
    ("events", "found"),
    [(None, "NoneType"), ([1], "list"), ({"user": [1]}, "dict"), (table()["user"], "the Arrow stream is"),
     (np.zeros((2, 2)), "ndarray")],
)  # fmt: skip
def test_what_is_no_table_is_not_fitted(events, found):
    message = refused(SchemaError, lambda: Encoder(simple_schema()).fit(events))
    assert found in message
    assert "table" in message or "Parquet" in message


@pytest.mark.parametrize(
    "label",
    [
        [0, 1, 0],
        [False, True, False],
        [0.0, 1.0, -0.0],
        column([0, 1, 0], pl.UInt8),
        column([0, 1, 0], pl.Int128),
    ],
    ids=["int", "bool", "float", "u8", "i128"],
)
def test_labels_of_any_number_type_are_the_same(label):
    encoded = Encoder(simple_schema()).fit(table(label=label)).transform(table(label=label))
    assert encoded.label.dtype == np.float32
    assert encoded.label.tolist() == [0.0, 1.0, 0.0]


# ---- times -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(data=st.data(), unit=st.sampled_from(["s", "ms", "us", "ns"]))
def test_integer_times_are_microseconds_of_their_unit(data, unit):
    limit = (2**63 - 1) // FACTOR.get(unit, 1)
    times = data.draw(st.lists(st.integers(-limit, limit), min_size=1, max_size=10))
    frame = (
        table().head(1).select(pl.all().repeat_by(len(times)).explode()).with_columns(time=pl.Series(times))
    )
    expected = [t // 1000 if unit == "ns" else t * FACTOR[unit] for t in times]
    found = event_time(frame, simple_schema(unit))
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_datetimes_carry_their_own_unit(unit, zone):
    moments = [datetime.datetime(1969, 12, 31, 23, 59, 59, 999000), datetime.datetime(2024, 2, 29)] * 2
    zero = datetime.datetime(1970, 1, 1)
    expected = [(moment - zero) // datetime.timedelta(microseconds=1) for moment in moments[:3]]
    time = pl.Series(moments[:3], dtype=pl.Datetime(unit))
    if zone:
        time = time.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    # The schema's unit is for integers only.
    assert event_time(table(time=time), simple_schema("s")).tolist() == expected


def test_dates_are_midnights():
    time = pl.Series([datetime.date(1970, 1, 2), datetime.date(1969, 12, 31), datetime.date(1970, 1, 1)])
    assert event_time(table(time=time), simple_schema()).tolist() == [86_400_000_000, -86_400_000_000, 0]


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        (column([1, 2, 2**63 // 10**6 + 1], pl.Int64), "s"),
        (column([1, -(2**63), 3], pl.Int64), "s"),
        (column([1, 2, 2**62], pl.Int64), "ms"),
        (column([1, 2, 2**63], pl.UInt64), "us"),
        (column([1, 2, 2**63], pl.UInt64), "ns"),
        (column([1, 2, 2**100], pl.Int128), "us"),
        (column([1, 2, 2**62], pl.Datetime("ms")), "s"),
    ],
    ids=["s", "s-negative", "ms", "unsigned", "unsigned-ns", "128-bit", "datetime"],
)
def test_a_time_beyond_64_bit_microseconds_is_refused(time, unit):
    for act in (
        lambda: event_time(table(time=time), simple_schema(unit)),
        lambda: Encoder(simple_schema(unit)).fit(table()).transform(table(time=time)),
    ):
        message = refused(DataError, act)
        assert "'time'" in message
