"""The row-wise kernels: parity with one row at a time in NumPy, the same bytes for any number of threads."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from recfm import _core
from recfm.errors import DataError

UNHURRIED = settings(deadline=None, max_examples=60)


@st.composite
def uses(draw):
    """A table and the gradient of a batch that reads some rows often and others never."""
    n, dim = draw(st.integers(1, 30)), draw(st.sampled_from([1, 2, 7, 8, 16, 19]))
    rows = np.array(draw(st.lists(st.integers(0, n - 1), max_size=60)), np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    scale = draw(st.sampled_from([1e-4, 1.0, 100.0]))
    weight, grads = rng.normal(size=(n, dim)), scale * rng.normal(size=(len(rows), dim))
    return rng, weight.astype(np.float32), rows, grads.astype(np.float32)


@UNHURRIED
@given(uses(), st.sampled_from([0.0, 0.3]))
def test_adagrad_is_that_of_one_row_at_a_time(given_uses, l2):
    rng, weight, rows, grads = given_uses
    state = rng.random(len(weight)).astype(np.float32)
    before = weight.copy(), state.copy()
    expected = oracles.rowwise_adagrad(weight, state, rows, grads, lr=0.1, l2=l2)
    _core.rowwise_adagrad(weight, state, rows, grads, lr=0.1, eps=1e-8, l2=l2)
    np.testing.assert_allclose(weight, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state, expected[1], rtol=1e-4)
    untouched = np.setdiff1d(np.arange(len(weight)), rows)
    np.testing.assert_array_equal(weight[untouched], before[0][untouched])
    np.testing.assert_array_equal(state[untouched], before[1][untouched])


@UNHURRIED
@given(uses(), st.sampled_from([0.0, 0.3]), st.integers(1, 1000))
def test_adam_is_that_of_one_row_at_a_time(given_uses, l2, step):
    rng, weight, rows, grads = given_uses
    first = rng.normal(size=weight.shape).astype(np.float32)
    second = rng.random(weight.shape).astype(np.float32) + 0.1
    tables = weight, first, second
    before = [table.copy() for table in tables]
    options = {"lr": 0.1, "step": step, "l2": l2}
    expected = oracles.adam_rows(*tables, rows, grads, **options)
    _core.adam_rows(*tables, rows, grads, betas=(0.9, 0.999), eps=1e-8, **options)
    untouched = np.setdiff1d(np.arange(len(weight)), rows)
    for table, wanted, old in zip(tables, expected, before, strict=True):
        np.testing.assert_allclose(table, wanted, rtol=2e-4, atol=1e-4)
        np.testing.assert_array_equal(table[untouched], old[untouched])


@UNHURRIED
@given(st.data(), st.integers(0, 20), st.sampled_from([1, 3, 16]))
def test_lookups_are_those_of_numpy(data, examples, dim):
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    starts = np.cumsum([0, *sizes])
    weight = np.arange(starts[-1] * dim, dtype=np.float32).reshape(-1, dim)
    columns = data.draw(st.permutations(range(len(sizes) + 1)))[: len(sizes)]
    rng = np.random.default_rng(examples)
    ids = np.full(
        (examples, len(sizes) + 1), 10**6, np.int32
    )  # the column that no feature reads may hold anything
    for column, size in zip(columns, sizes, strict=True):
        ids[:, column] = rng.integers(0, size, examples)
    features = [(f"f{i}", columns[i], int(starts[i]), sizes[i]) for i in range(len(sizes))]
    rows, out = np.empty((examples, len(sizes)), np.int64), np.empty((examples, len(sizes), dim), np.float32)
    _core.lookup_rows(weight, ids, features, rows, out)
    np.testing.assert_array_equal(rows, ids[:, columns] + starts[:-1])
    np.testing.assert_array_equal(out, weight[rows])


@pytest.mark.parametrize("bad", [4, -1, 2**31 - 1, -(2**31)])
def test_an_id_without_a_row_is_named_with_its_column(bad):
    ids = np.array([[0, 0], [0, 3], [0, bad]], np.int32)
    features = [("item", 0, 0, 5), ("user", 1, 5, 4)]
    out = np.empty((3, 2), np.int64), np.empty((3, 2, 2), np.float32)
    message = rf"column 'user' holds the id {bad} in row 2 of the batch, .* has 4 rows"
    with pytest.raises(DataError, match=message):
        _core.lookup_rows(np.zeros((9, 2), np.float32), ids, features, *out)
    with pytest.raises(
        DataError, match="feature 'user' reads column 1 of 2 and rows up to 9 of a table of 8"
    ):
        _core.lookup_rows(np.zeros((8, 2), np.float32), ids, features, *out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.array([0, 3])}, r"`rows\[1\]` is 3, but the table has 3 rows"),
        ({"rows": np.array([-1, 0])}, r"`rows\[0\]` is -1"),
        ({"rows": np.array([0])}, r"`grads` must be of shape \[1, 2\]"),
        ({"grads": np.zeros((2, 3), np.float32)}, r"`grads` must be of shape \[2, 2\]"),
        ({"state": np.zeros(2, np.float32)}, r"`state` must be of shape \[3\]"),
        ({"weight": np.zeros((3, 2))}, "`weight` must be a writable .*float32.*float64"),
        ({"weight": np.zeros((2, 3), np.float32).T}, "not C-contiguous"),
    ],
)
def test_arguments_that_do_not_fit_change_nothing(change, message):
    arguments = {
        "weight": np.ones((3, 2), np.float32),
        "state": np.zeros(3, np.float32),
        "rows": np.array([0, 1]),
        "grads": np.ones((2, 2), np.float32),
    } | change
    before = {name: array.copy() for name, array in arguments.items()}
    with pytest.raises(DataError, match=message):
        _core.rowwise_adagrad(**arguments, lr=0.1, eps=1e-8, l2=0.0)
    for name, array in arguments.items():
        np.testing.assert_array_equal(array, before[name])


@UNHURRIED
@given(st.integers(0, 70_000), st.sampled_from([0.02, 1.0]), st.integers(0, 2**62))
def test_first_values_are_those_of_the_oracle(length, std, seed):
    values = np.full(length, 9, np.float32)
    _core.fill_bell(values, std=std, seed=seed)
    head = min(length, 40)
    np.testing.assert_array_equal(values[:head], oracles.bell(head, std, seed))


def test_first_values_never_change():
    values = np.empty(40_000, np.float32)
    _core.fill_bell(values, std=0.02, seed=7)
    golden = [0.0093347225, 0.027095538, -0.011790505, 0.016879672, 0.011346498]
    np.testing.assert_array_equal(values[[0, 1, 2, 32_768, 39_999]], np.array(golden, np.float32))


DIGEST = """
import hashlib
import numpy as np
from recfm import _core

rng = np.random.default_rng(0)
n, dim, uses = 3000, 16, 50_000
weight, first, second, grads = (rng.random((k, dim), np.float32) for k in (n, n, n, uses))
state, rows = np.zeros(n, np.float32), (n ** rng.random(uses)).astype(np.int64) - 1
_core.rowwise_adagrad(weight, state, rows, grads, lr=0.1, eps=1e-8, l2=0.01)
_core.adam_rows(weight, first, second, rows, grads, lr=0.1, betas=(0.9, 0.99), eps=1e-8, l2=0.0, step=3)
bell = np.empty(100_000, np.float32)
_core.fill_bell(bell, std=0.1, seed=5)
ids = rng.integers(0, n, (5000, 3)).astype(np.int32)
found, out = np.empty((5000, 2), np.int64), np.empty((5000, 2, dim), np.float32)
_core.lookup_rows(weight, ids, [("a", 2, 0, n), ("b", 0, 0, n)], found, out)
digest = hashlib.sha256()
for result in (weight, state, first, second, bell, found, out):
    digest.update(result.tobytes())
print(_core.num_threads(), digest.hexdigest())
"""


def test_the_bytes_do_not_depend_on_the_number_of_threads():
    runs = [
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env=os.environ | {"RECFM_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            timeout=120,
        )
        for threads in ("1", "2", "8")
    ]
    assert [finished.stderr for finished in runs] == ["", "", ""]
    threads, digests = zip(*(finished.stdout.split() for finished in runs), strict=True)
    assert threads == ("1", "2", "8")
    assert len(set(digests)) == 1
