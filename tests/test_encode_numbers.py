"""Numbers of any kind become finite float32: constants, extremes, nulls and every dtype."""

import math

import numpy as np
import polars as pl
import pytest

from recfm.data.encode import Encoder
from recfm.schema import Numeric, Schema


def numeric(train, later, transform="standard", dtype=pl.Float64):
    features = (Numeric(name="x", side="item", transform=transform),)
    schema = Schema(user="user", item="item", time="time", label="label", features=features)
    before, after = (
        pl.DataFrame({"user": 1, "item": 1, "time": 1, "label": 1, "x": pl.Series(values, dtype=dtype)})
        for values in (train, later)
    )
    return Encoder(schema).fit(before).transform(after).numeric[:, 0].tolist()


@pytest.mark.parametrize("transform", ["standard", "log"])
@pytest.mark.parametrize("constant", [0.1, 1 / 3, 0.0, -7.7, 1e9 + 0.1, 1e-300, 3.3e200])
@pytest.mark.parametrize("n", [1, 3, 10])
def test_a_constant_column_is_zero(constant, n, transform):
    assert numeric([constant] * n, [constant, None, math.nan], transform) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("transform", ["standard", "log"])
@pytest.mark.parametrize(
    "train",
    [[0.0, 0.0], [0.1] * 3, [None, None], [math.nan, math.inf], [1e308, 1.7e308], [-1e308, 1e308], [0.0, 1e-200],
     [0.0, 5e-324], [1.0, 2.0]],
    ids=str,
)  # fmt: skip
def test_no_value_however_far_becomes_infinite(train, transform):
    later = [1e39, -1e300, math.inf, -math.inf, 1.7e308, 5e-324, 0.0, math.nan, None]
    found = numeric(train, later, transform)
    assert np.isfinite(found).all()
    assert np.isfinite(numeric(train, train, transform)).all()
    assert found[-2:] == [0.0, 0.0]
    assert (found[2], found[3]) == (max(found), min(found))


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Float32, pl.Boolean, pl.Decimal(10, 2)], ids=str)
def test_numbers_of_any_type_are_the_same(dtype):
    values = pl.Series([0, 1, 1, 1]).cast(dtype)
    assert numeric(values, values, dtype=None) == numeric([0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0])
