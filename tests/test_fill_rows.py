"""Whole batches in one call: NumPy's indexing by the permutation's rows is the oracle; bad arguments are named."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from recfm._core import fill_rows
from recfm.errors import DataError
from table_helpers import refused


@settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(1, 60) | st.just(5000), shuffle=st.booleans(), listed=st.booleans())
def test_columns_are_those_of_numpy(data, n, shuffle, listed):
    ranges = []
    for _ in range(data.draw(st.integers(0, 4))):
        first = data.draw(st.integers(0, n))
        ranges.append((first, data.draw(st.integers(0, n - first))))
    seed, epoch = data.draw(st.integers(-(2**63), 2**63 - 1)), data.draw(st.integers(0, 99))
    offset = 0 if listed else data.draw(st.integers(0, 9))
    served = np.random.default_rng(n).integers(0, n, n) if listed else None
    height = n + offset
    tables = [
        np.arange(height * 3, dtype=np.int32).reshape(height, 3),
        np.arange(height, dtype=np.float32),
        np.arange(height, dtype=np.int64) - 7,
        np.zeros((height, 0), np.float32),
    ]
    order = oracles.permuted(n, seed, epoch) if shuffle else range(n)
    wanted = [order[p] for first, count in ranges for p in range(first, first + count)]
    wanted = np.array([served[q] if listed else q + offset for q in wanted], np.int64)
    rows = np.empty(len(wanted), np.int64)
    outs = [np.empty((len(rows), *table.shape[1:]), table.dtype) for table in tables]
    fill_rows(
        n,
        ranges,
        rows,
        list(zip(tables, outs, strict=True)),
        served=served,
        offset=offset,
        seed=seed,
        epoch=epoch,
        shuffle=shuffle,
    )
    np.testing.assert_array_equal(rows, wanted)
    for table, out in zip(tables, outs, strict=True):
        np.testing.assert_array_equal(out, table[wanted])


PLAIN = {
    "n": 3,
    "ranges": [(0, 2)],
    "rows": np.zeros(2, np.int64),
    "columns": [(np.zeros((3, 2), np.int32), np.zeros((2, 2), np.int32))],
    "served": None,
    "offset": 0,
    "seed": 1,
    "epoch": 0,
    "shuffle": False,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": -1}, "`n` is -1"),
        ({"offset": -1}, "`offset` is -1"),
        ({"offset": 2}, "is 3, but the table has 3 rows"),
        ({"ranges": [(2, 2)]}, r"positions 2..2\+2 are no range of the 3 rows of the epoch"),
        ({"ranges": [(0, 1)]}, "`rows` has 2 rows but `ranges` has 1"),
        ({"served": np.array([0, 1])}, "`served` has 2 rows but `n` has 3"),
        ({"served": np.array([0, 9, 0])}, r"`rows\[1\]` is 9, but the table has 3 rows"),
        ({"served": np.zeros(3)}, "`served` must be .*int64"),
        ({"rows": np.zeros(2, np.int32)}, "`rows` must be .*int64"),
        ({"columns": [(np.zeros((3, 2)), np.zeros((2, 2)))]}, "`src` must be an int32, float32 or int64"),
        (
            {"columns": [(np.zeros((3, 2), np.int32), np.zeros((2, 3), np.int32))]},
            "`out` must be rows of shape",
        ),
        ({"columns": [(np.zeros(3, np.int32), np.zeros(3, np.int32))]}, "`out` has 3 rows but `rows` has 2"),
        ({"columns": [(np.zeros(3, np.int32), np.zeros(2, np.int64))]}, "`out` must be .*int32"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message):

    found = refused(DataError, lambda: fill_rows(**PLAIN | change))
    assert re.search(message, found), found
