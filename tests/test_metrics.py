"""Metrics: exact against pair counting, close to scikit-learn, and undefined out loud."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

import oracles
from recfm._core import auc, calibration, gauc, logloss, normalized_entropy
from recfm.errors import ConfigError, DataError, MetricError

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


WEIGHTINGS = ["impressions", "positives", "uniform"]
far_groups = st.sampled_from([-(2**63), -1, 0, 2**40, 2**63 - 1])


@settings(deadline=None, max_examples=200)
@given(rows=rows, weighting=st.sampled_from(WEIGHTINGS), far=st.lists(far_groups, min_size=5, max_size=5))
def test_gauc_counts_every_pair_of_every_group(rows, weighting, far):
    near, label, score = arrays(rows, np.int64, np.float32, np.float64)
    for group in (near, np.array(far)[near]):  # groups close together, and as far apart as they can be
        value, used, dropped = oracles.gauc(group.tolist(), label.tolist(), score.tolist(), weighting)
        if value is None:
            with pytest.raises(MetricError, match=f"none of the {dropped} groups has both labels"):
                gauc(group, label, score, weighting)
        else:
            assert gauc(group, label, score, weighting) == (pytest.approx(value, rel=1e-14), used, dropped)


def test_gauc_weights_groups_by_name():
    group = np.array([1, 1, 2, 2, 2, 3])
    label = np.array([0, 1, 1, 1, 0, 1], np.float32)
    score = np.array([0.1, 0.9, 0.5, 0.1, 0.2, 0.3])
    found = {name: gauc(group, label, score, name)[0] for name in WEIGHTINGS}
    assert found == {
        "impressions": (2 * 1 + 3 * 0.5) / 5,
        "positives": pytest.approx((1 * 1 + 2 * 0.5) / 3, abs=1e-16),
        "uniform": 0.75,
    }
    with pytest.raises(
        ConfigError, match="`weighting` is 'users', but it must be 'impressions', 'positives'"
    ):
        gauc(group, label, score, "users")


@settings(deadline=None)
@given(rows=rows, seed=st.integers(0, 99))
def test_the_order_of_rows_changes_no_bit(rows, seed):
    _, label, score = arrays(rows, np.int64, np.float32, np.float64)
    probability = np.abs(np.tanh(score))
    order = np.random.default_rng(seed).permutation(len(rows))
    assert logloss(label, probability) == logloss(label[order], probability[order])
    if 0 < label.sum() < len(label):
        assert auc(label, score) == auc(label[order], score[order])
        assert calibration(label, probability) == calibration(label[order], probability[order])


SCRIPT = """
import numpy as np
from recfm._core import auc, calibration, gauc, logloss
rng = np.random.default_rng(5)
n = 300_000
user, score = rng.integers(0, 20_000, n), rng.normal(size=n)
probability = rng.random(n)
label = (rng.random(n) < probability).astype(np.float32)
single = score.astype(np.float32).astype(np.float64)
keys = rng.integers(-2**63, 2**63 - 1, 20_000)[user]
print([auc(label, score), auc(label, single), gauc(user, label, single), gauc(user, label, score, "positives"),
       gauc(keys, label, probability), gauc(keys, label, score), logloss(label, probability),
       calibration(label, probability)])
"""


def test_threads_change_no_bit():
    found = set()
    for threads in ("1", "2", "5"):
        environment = os.environ | {"RECFM_NUM_THREADS": threads}
        found.add(subprocess.check_output([sys.executable, "-c", SCRIPT], env=environment, text=True))
    assert len(found) == 1


@settings(deadline=None)
@given(bets=bets)
def test_calibration_is_the_mean_prediction_over_the_mean_label(bets):
    label, probability = arrays(bets, np.float32, np.float64)
    if label.sum() == 0:
        with pytest.raises(MetricError, match="calibration is undefined: all"):
            calibration(label, probability)
    else:
        exact = sum(map(Fraction, probability.tolist())) / int(label.sum())
        assert calibration(label, probability) == float(exact)


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
        (calibration, ONES * 0, np.full(12, 0.5), "calibration is undefined: all 12 labels are 0"),
        (calibration, MIXED, np.array([0, 0, 2.0, 0]), "the probability of row 2 is 2"),
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


@pytest.mark.parametrize("metric", [auc, logloss, normalized_entropy, calibration])
def test_arrays_that_do_not_fit_are_named(metric):
    with pytest.raises(DataError, match=r"`label` has 4 rows but `.*` has 3"):
        metric(MIXED, np.zeros(3))
    with pytest.raises(DataError, match=r"`label` must be a C-contiguous float32 array.*found int64"):
        metric(np.array([0, 1]), np.zeros(2))
    with pytest.raises(DataError, match=r"must be a C-contiguous float64 array.*found float32"):
        metric(MIXED, MIXED)
    with pytest.raises(DataError, match="`group` has 3 rows but `label` has 4"):
        gauc(np.arange(3), MIXED, np.zeros(4))
