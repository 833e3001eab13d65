"""A small event table with one column of each kind, and a check that exactly one recfm error is raised."""

import polars as pl
import pytest

from recfm.schema import Categorical, Numeric, Schema, Tokens


def simple_schema(unit="s"):
    return Schema(
        user="user",
        item="item",
        time="time",
        label="label",
        time_unit=unit,
        features=(
            Categorical(name="item", side="item"),
            Numeric(name="price", side="item"),
            Tokens(name="tags", side="item"),
        ),
    )


def table(**columns):
    plain = {
        "user": [1, 2, 1],
        "item": ["a", "b", "a"],
        "time": [10, 20, 30],
        "label": [0, 1, 0],
        "price": [1.0, 2.0, 3.0],
        "tags": [["x"], [], ["y", "x"]],
    }
    return pl.DataFrame({name: pl.Series(name, values) for name, values in (plain | columns).items()})


def refused(error, act):
    """The message of the one recfm error that `act` raises: no other error before or around it."""
    with pytest.raises(error) as caught:
        act()
    assert type(caught.value) is error
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "\n" not in str(caught.value)
    return str(caught.value)
