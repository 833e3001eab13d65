"""Metrics: exact against pair counting, close to scikit-learn, and undefined out loud."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

import oracles
from recfm._core import auc, gauc, logloss, normalized_entropy
from recfm.errors import DataError, MetricError

# Few distinct scores make many ties; the rest is every kind of float that has an order.
scores = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 5e-324, np.inf, -np.inf]) | st.floats(allow_nan=False)
rows = st.lists(st.tuples(st.integers(-2, 2), st.sampled_from([0.0, 1.0]), scores), min_size=1, max_size=40)
bets = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)),
    min_size=1,
    max_size=40,
)


def arrays(rows, *dtypes):
    return [np.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), dtypes, strict=True)]


@settings(deadline=None, max_examples=200)
@given(rows=rows)
def test_auc_counts_every_pair(rows):
    _, label, score = arrays(rows, np.int64, np.float32, np.float64)
    expected = oracles.auc(label.tolist(), score.tolist())
    if expected is None:
        with pytest.raises(
            MetricError, match=f"auc is undefined: all {len(rows)} labels are {int(label[0])}"
        ):
            auc(label, score)
    else:
        assert auc(label, score) == expected


@settings(deadline=None, max_examples=200)
@given(rows=rows)
def test_gauc_counts_every_pair_of_every_group(rows):
    group, label, score = arrays(rows, np.int64, np.float32, np.float64)
    value, used, dropped = oracles.gauc(group.tolist(), label.tolist(), score.tolist())
    if value is None:
        with pytest.raises(MetricError, match=f"none of the {dropped} groups has both labels"):
            gauc(group, label, score)
    else:
        assert gauc(group, label, score) == (pytest.approx(value, rel=1e-14), used, dropped)


def test_gauc_drops_groups_of_one_class_and_weighs_by_rows():
    group = np.array([1, 1, 2, 2, 2, 3])
    label = np.array([0, 1, 1, 0, 0, 1], np.float32)
    score = np.array([0.1, 0.9, 0.5, 0.7, 0.2, 0.3])
    assert gauc(group, label, score) == ((2 * 1.0 + 3 * 0.5) / 5, 2, 1)


@settings(deadline=None)
@given(bets=bets)
def test_losses_match_the_oracle(bets):
    label, probability = arrays(bets, np.float32, np.float64)
    loss = oracles.logloss(label.tolist(), probability.tolist())
    assert logloss(label, probability) == pytest.approx(loss, rel=1e-12)
    if 0 < label.sum() < len(label):
        expected = oracles.normalized_entropy(label.tolist(), probability.tolist())
        assert normalized_entropy(label, probability) == pytest.approx(expected, rel=1e-12)
    else:
        with pytest.raises(MetricError, match="normalized entropy is undefined: all"):
            normalized_entropy(label, probability)


def test_large_inputs_match_scikit_learn():
    rng = np.random.default_rng(0)
    n = 100_000
    probability = rng.random(n).round(3)
    label = (rng.random(n) < probability).astype(np.float32)
    assert auc(label, probability) == pytest.approx(roc_auc_score(label, probability), rel=1e-12)
    inside = probability.clip(1e-7, 1 - 1e-7)
    assert logloss(label, probability) == pytest.approx(log_loss(label, inside), rel=1e-12)
    group = rng.integers(0, 1000, n)
    each = [roc_auc_score(label[group == g], probability[group == g]) for g in range(1000)]
    expected = np.average(each, weights=np.bincount(group))
    assert gauc(group, label, probability) == (pytest.approx(expected, rel=1e-12), 1000, 0)


def test_the_base_rate_has_normalized_entropy_one():
    label = np.array([1, 0, 0, 0], np.float32)
    assert normalized_entropy(label, np.full(4, 0.25)) == pytest.approx(1, abs=1e-15)
    assert normalized_entropy(label, np.array([0.9, 0.1, 0.1, 0.1])) < 0.5


ONES = np.ones(12, np.float32)
MIXED = np.array([0, 1, 0, 1], np.float32)
EMPTY = np.array([], np.float32)


@pytest.mark.parametrize(
    ("metric", "label", "score", "message"),
    [
        (auc, ONES, np.zeros(12), "auc is undefined: all 12 labels are 1"),
        (auc, 0 * ONES, np.zeros(12), "auc is undefined: all 12 labels are 0"),
        (auc, EMPTY, np.array([]), "auc is undefined: there are no rows"),
        (auc, MIXED, np.array([0, 1, np.nan, 2]), "the score of row 2 is NaN"),
        (auc, MIXED / 2, np.zeros(4), r"the label of row 1 is 0\.5"),
        (auc, MIXED - 1, np.zeros(4), "the label of row 0 is -1"),
        (auc, np.array([0, np.nan], np.float32), np.zeros(2), "the label of row 1 is NaN"),
        (logloss, MIXED, np.array([0.1, 1.5, 0, 0]), r"the probability of row 1 is 1\.5"),
        (logloss, MIXED, np.array([0.1, 0.2, -1e-9, 0]), "the probability of row 2 is -"),
        (logloss, MIXED, np.array([np.nan, 0, 0, 0]), "the probability of row 0 is NaN"),
        (logloss, EMPTY, np.array([]), "logloss is undefined: there are no rows"),
        (logloss, MIXED * 2, np.zeros(4), "the label of row 1 is 2"),
        (normalized_entropy, ONES, np.full(12, 0.5), "normalized entropy is undefined: all 12 labels are 1"),
        (normalized_entropy, EMPTY, np.array([]), "normalized entropy is undefined: there are no rows"),
    ],
)
def test_undefined_metrics_say_why(metric, label, score, message):
    with pytest.raises(MetricError, match=message):
        metric(label, score)


def test_undefined_gauc_says_why():
    group = np.arange(4)
    with pytest.raises(MetricError, match="gauc is undefined: none of the 4 groups"):
        gauc(group, MIXED, np.zeros(4))
    with pytest.raises(MetricError, match="gauc is undefined: there are no rows"):
        gauc(group[:0], EMPTY, np.array([]))
    with pytest.raises(MetricError, match="the score of row 3 is NaN"):
        gauc(group, MIXED, np.array([0, 0, 0, np.nan]))


@pytest.mark.parametrize("metric", [auc, logloss, normalized_entropy])
def test_arrays_that_do_not_fit_are_named(metric):
    with pytest.raises(DataError, match=r"`label` has 4 rows but `.*` has 3"):
        metric(MIXED, np.zeros(3))
    with pytest.raises(DataError, match=r"`label` must be a C-contiguous float32 array.*found int64"):
        metric(np.array([0, 1]), np.zeros(2))
    with pytest.raises(DataError, match=r"must be a C-contiguous float64 array.*found float32"):
        metric(MIXED, MIXED)
    with pytest.raises(DataError, match="`group` has 3 rows but `label` has 4"):
        gauc(np.arange(3), MIXED, np.zeros(4))
