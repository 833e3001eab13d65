"""Periods: disjoint, complete, strictly later one after the other even where times are tied."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recfm.errors import DataError
from recfm.periods import PeriodConfig, split_by_time

NAMES = ("fm", "fm_validation", "vm", "vm_validation", "test")


def split(time, label=None, **shares):
    time = np.asarray(time, np.int64)
    if label is None:  # both classes in every period of two rows or more
        label = np.zeros(len(time))
        label[np.argsort(time, kind="stable")[::2]] = 1
    return split_by_time(time, np.asarray(label, np.float32), PeriodConfig(**shares))


@st.composite
def shares(draw):
    fm = draw(st.floats(0.05, 0.9))
    return {"fm": fm, "vm": draw(st.floats(0.01, 0.99 - fm)), "validation": draw(st.floats(0.01, 0.9))}


def oracle(time, shares):
    """The rows of each period, cut at the first time that belongs to the later side."""
    ordered, fm, vm = sorted(time), shares["fm"], shares["vm"]
    kept = 1 - shares["validation"]
    edges = [ordered[int(len(time) * share)] for share in (fm * kept, fm, fm + vm * kept, fm + vm)]
    bounds = [-math.inf, *edges, math.inf]
    return [[i for i, t in enumerate(time) if low <= t < high] for low, high in pairwise(bounds)]


@settings(deadline=None, max_examples=200)
@given(
    counts=st.dictionaries(st.integers(-20, 60), st.integers(2, 9), min_size=1, max_size=40),
    shares=shares(),
    data=st.data(),
)
def test_later_periods_are_strictly_later(counts, shares, data):
    # Each time has events of both labels, so that a period of one class is not what is refused.
    events = data.draw(st.permutations([(t, i % 2) for t, n in counts.items() for i in range(n)]))
    time, label = np.array(events).T
    expected = oracle(time.tolist(), shares)
    if not all(expected):
        with pytest.raises(DataError, match="period is empty"):
            split(time, label, **shares)
        return
    periods = split(time, label, **shares)
    parts = [getattr(periods, name) for name in NAMES]
    assert [part.tolist() for part in parts] == expected
    assert all(part.dtype == np.int64 for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(time)))
    for earlier, later in pairwise(parts):
        assert time[earlier].max() < time[later].min()
    assert periods.logged.tolist() == np.concatenate(parts[2:]).tolist()
    trained = np.concatenate(parts[:2])
    assert periods.fm_trained(time) == (time[trained].min(), time[trained].max())
    assert (time[periods.logged] > periods.fm_trained(time)[1]).all()


@settings(deadline=None, max_examples=50)
@given(n=st.integers(500, 2000), shares=shares(), seed=st.integers(0, 99))
def test_without_ties_the_shares_are_kept(n, shares, seed):
    fm, vm, validation = shares["fm"], shares["vm"], shares["validation"]
    expected = [fm * (1 - validation), fm * validation, vm * (1 - validation), vm * validation, 1 - fm - vm]
    assume(min(expected) * n >= 4)
    periods = split(np.random.default_rng(seed).permutation(n), **shares)
    for name, share in zip(NAMES, expected, strict=True):
        assert abs(len(getattr(periods, name)) - share * n) <= 1


@settings(deadline=None, max_examples=50)
@given(time=st.lists(st.integers(0, 400), min_size=60, max_size=100), data=st.data())
def test_the_order_of_the_rows_does_not_matter(time, data):
    order = data.draw(st.permutations(range(len(time))))
    label = [t % 2 for t in time]
    try:
        straight = split(time, label)
    except DataError:
        assume(False)
    shuffled = split([time[i] for i in order], [label[i] for i in order])
    for name in NAMES:
        assert sorted(order[i] for i in getattr(shuffled, name)) == getattr(straight, name).tolist()


def test_the_events_of_one_moment_stay_together():
    time = [0] * 30 + [1] * 40 + [2] * 30 + [3] * 40 + [4] * 60
    periods = split(time, fm=0.4, vm=0.4, validation=0.5)
    assert [sorted({time[i] for i in getattr(periods, name)}) for name in NAMES] == [[0], [1], [2], [3], [4]]


def test_extreme_times_do_not_wrap():
    ends = [-(2**63), -(2**62), 0, 2**62, 2**63 - 1]
    periods = split(sorted(ends * 10), fm=0.4, vm=0.4, validation=0.5)
    assert [len(getattr(periods, name)) for name in NAMES] == [10] * 5


@pytest.mark.parametrize(
    ("time", "shares", "period"),
    [
        ([7] * 50, {}, "fm"),
        ([1, 2, 3], {}, "validation"),
        ([1] * 95 + [2, 3, 4, 5, 6], {}, "fm"),
        (range(101), {"validation": 1e-9}, "fm_validation"),
        (range(100), {"fm": 0.5, "vm": 0.001}, "vm"),
        ([0] * 10 + [1] * 10 + [2] * 10 + [3] * 70, {"fm": 0.4, "vm": 0.4, "validation": 0.5}, "vm"),
    ],
)
def test_an_empty_period_is_named(time, shares, period):
    with pytest.raises(
        DataError, match=f"{period}.* period is empty: {len(time)} events at .* distinct times"
    ):
        split(time, **shares)


@pytest.mark.parametrize("period", ["fm_validation", "vm_validation", "test"])
@pytest.mark.parametrize("value", [0, 1])
def test_an_evaluated_period_of_one_class_is_named(period, value):
    time = np.arange(200)
    label = time % 2
    label[getattr(split(time), period)] = value
    with pytest.raises(DataError, match=f"labels of the {period} period are {value}"):
        split(time, label)


def test_a_training_period_of_one_class_is_allowed():
    time = np.arange(200)
    label = time % 2
    label[split(time).vm] = 1
    assert split(time, label).vm.tolist() == split(time).vm.tolist()


def test_no_events_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="0 times"):
        split([])
    with pytest.raises(DataError, match="label"):
        split(range(100), [0.0, 1.0])


def test_the_description_counts_rows_times_and_base_rates():
    time, label = np.arange(100) * 86_400_000_000, np.arange(100) % 2
    described = split(time, label).describe(time, label.astype(np.float32))
    assert list(described) == list(NAMES)
    assert described["fm"] == {
        "rows": 45,
        "from": "1970-01-01T00:00:00.000000",
        "to": "1970-02-14T00:00:00.000000",
        "base_rate": pytest.approx(22 / 45),
    }
    assert sum(period["rows"] for period in described.values()) == 100
