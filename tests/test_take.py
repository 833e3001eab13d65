"""Row copies: NumPy's own indexing is the oracle; a row outside the table never reaches memory."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm._core import take_lists, take_rows
from recfm.errors import DataError


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.int64])
@settings(deadline=None, max_examples=40)
@given(data=st.data(), n=st.integers(1, 20), shape=st.sampled_from([(), (0,), (1,), (3,), (17,)]))
def test_rows_are_those_of_numpy(dtype, data, n, shape):
    src = np.arange(n * int(np.prod(shape))).reshape(n, *shape).astype(dtype)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=30)), np.int64)
    out = np.full((len(rows), *shape), -1, dtype)
    take_rows(src, rows, out)
    np.testing.assert_array_equal(out, src[rows])


def test_large_batches_are_those_of_numpy():
    rng = np.random.default_rng(0)
    src = rng.integers(0, 2**31, (50_000, 39)).astype(np.int32)
    rows = rng.integers(0, len(src), 8192)
    out = np.empty((8192, 39), np.int32)
    take_rows(src, rows, out)
    np.testing.assert_array_equal(out, src[rows])


@pytest.mark.parametrize("row", [-1, 3, 2**62, -(2**63)])
def test_a_row_outside_is_named_and_nothing_is_written(row):
    out = np.full(2, 9, np.int32)
    with pytest.raises(DataError, match=rf"`rows\[1\]` is {row}, but the table has 3 rows"):
        take_rows(np.arange(3, dtype=np.int32), np.array([0, row]), out)
    assert out.tolist() == [9, 9]


@pytest.mark.parametrize(
    ("src", "out", "message"),
    [
        (np.zeros((3, 2)), np.zeros((1, 2)), "`src` must be an int32, float32 or int64 array.*float64"),
        (
            np.zeros((3, 2), np.int32),
            np.zeros((1, 2), np.float32),
            "`out` must be a writable .*int32.*float32",
        ),
        (np.zeros((3, 2), np.int32), np.zeros((1, 3), np.int32), r"`out` must be of shape \[1, 2\]"),
        (np.zeros((3, 2), np.int32), np.zeros((2, 2), np.int32), r"`out` must be of shape \[1, 2\]"),
        (np.zeros((3, 2), np.int32), np.zeros(1, np.int32), "`out` must be .*2 dimension"),
        (np.zeros((2, 3), np.int32).T, np.zeros((1, 2), np.int32), "`src` must be .*not C-contiguous"),
        (np.zeros((1, 2, 3), np.int32), np.zeros((1, 2, 3), np.int32), r"`src` must be .*shape \[1, 2, 3\]"),
        ([[1]], np.zeros((1, 1), np.int32), "`src` must be .*found a list"),
    ],
)
def test_arrays_that_do_not_fit_are_named(src, out, message):
    with pytest.raises(DataError, match=message):
        take_rows(src, np.array([0]), out)


def test_overlapping_memory_is_refused():
    memory = np.arange(6, dtype=np.int32)
    with pytest.raises(DataError, match="`out` must be memory that no other argument"):
        take_rows(memory, np.array([1, 0]), memory[:2])


def test_read_only_sources_are_fine():
    src = np.arange(3, dtype=np.int64)
    src.flags.writeable = False
    out = np.empty(1, np.int64)
    take_rows(src, np.array([2]), out)
    assert out.tolist() == [2]


@settings(deadline=None)
@given(data=st.data(), lists=st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=1, max_size=12))
def test_lists_are_those_of_python(data, lists):
    offsets = np.cumsum([0] + [len(row) for row in lists])
    values = np.array([value for row in lists for value in row], np.int32)
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=20))
    taken, bounds = take_lists(values, offsets, np.array(rows, np.int64))
    assert (taken.dtype, bounds.dtype) == (np.int32, np.int64)
    assert bounds[0] == 0
    assert len(taken) == bounds[-1]
    assert [taken[a:b].tolist() for a, b in pairwise(bounds)] == [lists[row] for row in rows]


@pytest.mark.parametrize(
    ("offsets", "row", "message"),
    [
        ([0, 2], 1, r"`rows\[0\]` is 1, but the table has 1 rows"),
        ([0, 2], -1, r"`rows\[0\]` is -1"),
        ([0, 4], 0, r"`offsets` is not valid: list 0 is \[0, 4\) of 3 values"),
        ([2, 1], 0, r"list 0 is \[2, 1\)"),
        ([-1, 1], 0, r"list 0 is \[-1, 1\)"),
        ([], 0, "`offsets` is not valid: it is empty"),
    ],
)
def test_lists_that_are_not_there_are_refused(offsets, row, message):
    with pytest.raises(DataError, match=message):
        take_lists(np.array([1, 2, 3], np.int32), np.array(offsets, np.int64), np.array([row]))
