"""Batches of shuffled rows: every row once, no state, and bytes that never change."""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from recfm._core import batch_rows
from recfm.errors import DataError

GOLDEN = json.loads((Path(__file__).parent / "assets" / "batch_rows.json").read_text())


def epoch_rows(n, batch_size, **order):
    batches = -(-n // batch_size)
    return np.concatenate([batch_rows(n, batch_size, index=i, shuffle=True, **order) for i in range(batches)])


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"n={case['arguments']['n']}")
def test_frozen_batches_never_change(case):
    assert batch_rows(**case["arguments"]).tolist() == case["rows"]


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 300) | st.sampled_from([4095, 4096, 4097, 9001]),
    batch_size=st.integers(1, 400),
    seed=st.integers(-(2**63), 2**63 - 1),
    epoch=st.integers(0, 2**40),
)
def test_an_epoch_is_the_oracles_permutation_in_batches(n, batch_size, seed, epoch):
    rows = epoch_rows(n, batch_size, seed=seed, epoch=epoch)
    assert rows.dtype == np.int64
    assert rows.tolist() == oracles.permuted(n, seed, epoch)
    assert sorted(rows.tolist()) == list(range(n))


def test_without_shuffling_rows_come_in_order():
    batches = [batch_rows(10, 4, seed=1, epoch=1, index=i, shuffle=False).tolist() for i in range(3)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_every_order_of_three_rows_is_equally_likely():
    counts = dict.fromkeys(permutations(range(3)), 0)
    for seed in range(1200):
        counts[tuple(epoch_rows(3, 3, seed=seed, epoch=seed % 7).tolist())] += 1
    # Five degrees of freedom: above 20.5 in one of a thousand fair draws; the seeds are fixed.
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 20.5


def test_neighbours_and_epochs_are_unrelated():
    n = 20_000
    first, second = (epoch_rows(n, n, seed=5, epoch=epoch) for epoch in (0, 1))
    noise = 4 / np.sqrt(n)
    assert abs(np.corrcoef(first, np.arange(n))[0, 1]) < noise
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < noise
    assert abs(np.corrcoef(first, second)[0, 1]) < noise
    assert (first == second).sum() < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 3}, "batch 3 is out of range: 10 rows in batches of 4 make 3 batches"),
        ({"index": -1}, "batch -1 is out of range"),
        ({"n": 0, "index": 0}, "0 rows in batches of 4 make 0 batches"),
        ({"n": -1}, "`n` is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_outside_the_epoch_are_refused(change, message, shuffle):
    arguments = {"n": 10, "batch_size": 4, "seed": 0, "epoch": 0, "index": 0, "shuffle": shuffle} | change
    with pytest.raises(DataError, match=message):
        batch_rows(**arguments)
