"""`evaluate` against scikit-learn, and what stands for a metric that does not exist."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from recfm.errors import ConfigError, DataError, MetricError
from recfm.train.metrics import evaluate


def example(n=400, users=30, *, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    label[:2] = 0, 1
    probability = np.clip(0.5 + 0.2 * (label - 0.5) + 0.3 * rng.normal(size=n), 0.001, 0.999)
    return label, probability.round(1).clip(0.1, 0.9) if ties else probability, rng.integers(0, users, n)


def by_user(label, probability, user):
    """AUC of every user with both labels, weighted by rows."""
    total, weight = 0.0, 0
    for key in np.unique(user):
        mine = user == key
        if 0 < label[mine].sum() < mine.sum():
            total += roc_auc_score(label[mine], probability[mine]) * mine.sum()
            weight += mine.sum()
    return total / weight


@settings(deadline=None, max_examples=50)
@given(st.integers(60, 300), st.integers(1, 10), st.booleans(), st.integers(0, 10_000))
def test_metrics_equal_scikit_learn(n, users, ties, seed):
    label, probability, user = example(n, users, seed=seed, ties=ties)
    found = evaluate(label, probability, user)
    loss, rate = log_loss(label, probability), label.mean()
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert found.auc == pytest.approx(roc_auc_score(label, probability), abs=1e-12)
    assert found.gauc == pytest.approx(by_user(label, probability, user), abs=1e-12)
    assert found.logloss == pytest.approx(loss, abs=1e-9)
    assert found.ne == pytest.approx(loss / entropy, abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500))
def test_the_base_rate_predictor_has_ne_one_and_auc_one_half(positives, negatives):
    label = np.array([1] * positives + [0] * negatives)
    found = evaluate(label, np.full(len(label), label.mean()), np.zeros(len(label)))
    assert found.ne == pytest.approx(1.0, abs=1e-9)
    assert found.auc == 0.5


def test_any_other_constant_is_worse_than_the_base_rate():
    label = np.array([1, 0, 0, 0])
    assert evaluate(label, np.full(4, 0.3), np.zeros(4)).ne > 1.001


def test_wrong_certainty_stays_finite():
    found = evaluate(np.array([0, 1]), np.array([1.0, 0.0]), np.zeros(2))
    assert (found.auc, found.gauc) == (0.0, 0.0)
    assert np.isfinite([found.logloss, found.ne]).all()


def test_gauc_is_missing_where_no_user_has_both_labels():
    label, probability, _ = example(100)
    found = evaluate(label, probability, np.arange(100))
    assert found.gauc is None
    assert found.auc == pytest.approx(roc_auc_score(label, probability))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64, bool])
def test_labels_may_have_any_dtype(dtype):
    label, probability, user = example()
    assert evaluate(label.astype(dtype), probability, user) == evaluate(label, probability, user)


def test_inputs_need_not_be_contiguous():
    label, probability, user = example()
    assert evaluate(label[::2], probability[::2], user[::2]) == evaluate(
        label[::2].copy(), probability[::2].copy(), user[::2].copy()
    )


def test_the_order_of_rows_says_nothing():
    label, probability, user = example(ties=True)
    order = np.random.default_rng(1).permutation(len(label))
    assert evaluate(label, probability, user) == evaluate(label[order], probability[order], user[order])


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1], [0, 1, 2], [0, 1, float("nan")]], ids=str)
def test_unusable_labels_are_refused(label):
    with pytest.raises(MetricError):
        evaluate(np.array(label), np.array([0.1, 0.2, 0.3]), np.zeros(3))


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1, float("inf")])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(MetricError):
        evaluate(np.array([0, 1, 1]), np.array([0.1, 0.2, value]), np.zeros(3))


def test_lengths_must_agree():
    with pytest.raises(DataError):
        evaluate(np.array([0, 1]), np.array([0.1, 0.2, 0.3]), np.zeros(2))


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (np.array([1.0, np.nan, 2.0]), "the user of row 1 is nan"),
        (np.array([1.0, 2.0, 0.5]), r"the user of row 2 is 0\.5"),
        (np.array([1.0, 2.0, 1e300]), r"the user of row 2 is 1e\+300"),
        (np.array(["a", "b", "c"]), "`user` has dtype <U1, but gAUC groups by integers"),
    ],
)
def test_users_that_are_no_integers_are_refused(user, message):
    with pytest.raises(MetricError, match=message):
        evaluate(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]), user)


def test_gauc_is_weighted_as_asked():
    label, probability, user = example()
    found = {
        evaluate(label, probability, user, weighting=w).gauc for w in ("impressions", "positives", "uniform")
    }
    assert len(found) == 3
    with pytest.raises(ConfigError, match="`weighting` is 'rows'"):
        evaluate(label, probability, user, weighting="rows")
