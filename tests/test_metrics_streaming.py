"""Streamed and merged metrics are those of all rows at once, to the bit; and reliability against its oracle."""

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

import oracles
from recfm._core import Predictions, auc, calibration, gauc, logloss, normalized_entropy
from recfm.errors import ConfigError, DataError, MetricError
from recfm.train.metrics import StreamingMetrics, evaluate

# Few values make ties; float32 and float64 values make the rows widen in the middle of a stream.
probabilities = (
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 0.1, 0.25, 5e-324]) | st.floats(0, 1, width=32) | st.floats(0, 1)
)
rows = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from([0.0, 1.0]), probabilities), min_size=2, max_size=40
).filter(lambda rows: len({row[1] for row in rows}) == 2)


def arrays(rows):
    columns = zip(*rows, strict=True)
    user, label, probability = (
        np.array(column, dtype)
        for column, dtype in zip(columns, (np.int64, np.float32, np.float64), strict=True)
    )
    return label, probability, user


def streamed(label, probability, user=None):
    made = StreamingMetrics()
    made.update(label, probability, user)
    return made


def same(first, second):
    return [np.asarray(value).tolist() for value in first] == [np.asarray(value).tolist() for value in second]


@settings(deadline=None, max_examples=200)
@given(rows=rows, data=st.data())
def test_any_split_order_and_merge_gives_the_same_bits(rows, data):
    label, probability, user = arrays(rows)
    shuffled = arrays(data.draw(st.permutations(rows)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    parts = [
        streamed(*(column[start:stop] for column in shuffled))
        for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True)
    ]
    parts = data.draw(st.permutations([pickle.loads(pickle.dumps(part)) for part in parts]))
    whole = StreamingMetrics.merged(parts)
    assert len(whole) == len(rows)
    assert whole.compute() == evaluate(label, probability, user)
    assert whole.calibration() == calibration(label, probability)
    for by in ("width", "count"):
        found, expected = (
            made._rows.reliability(4, by) for made in (whole, streamed(label, probability, user))
        )
        assert same(found, expected)


@settings(deadline=None)
@given(rows=rows, weighting=st.sampled_from(["impressions", "positives", "uniform"]))
def test_streamed_metrics_are_the_plain_functions(rows, weighting):
    label, probability, user = arrays(rows)
    found = streamed(label, probability, user).compute(weighting=weighting)
    assert found.auc == auc(label, probability)
    assert (found.logloss, found.ne) == (logloss(label, probability), normalized_entropy(label, probability))
    if found.gauc is not None:
        assert found.gauc == gauc(user, label, probability, weighting)[0]


@settings(deadline=None, max_examples=200)
@given(rows=rows, bins=st.integers(1, 12), by=st.sampled_from(["width", "count"]))
def test_reliability_is_the_oracle(rows, bins, by):
    label, probability, _ = arrays(rows)
    number, count, positives, predicted, error = streamed(label, probability)._rows.reliability(bins, by)
    table, expected = oracles.reliability(label.tolist(), probability.tolist(), bins, by)
    assert list(zip(number, count, positives, predicted, strict=True)) == table
    assert error == pytest.approx(expected, rel=1e-15)


def test_reliability_is_scikit_learns_curve():
    rng = np.random.default_rng(0)
    probability = rng.random(20_000) ** 2
    label = (rng.random(20_000) < probability**1.2).astype(np.float32)
    for by, strategy in (("width", "uniform"), ("count", "quantile")):
        found = streamed(label, probability).reliability(10, by=by)
        observed, predicted = calibration_curve(label, probability, n_bins=10, strategy=strategy)
        np.testing.assert_allclose(found.observed, observed, rtol=1e-3)
        np.testing.assert_allclose(found.predicted, predicted, rtol=1e-3)
        assert found.rows.sum() == 20_000
        assert found.error == pytest.approx(
            np.average(abs(found.predicted - found.observed), weights=found.rows), rel=1e-12
        )
    assert found.rows.tolist() == [2000] * 10


def test_a_row_takes_what_is_promised():
    label, user = np.array([0.0, 1.0]), np.array([1, 2])
    assert streamed(label, np.array([0.25, 0.5])).nbytes == 2 * 4
    assert streamed(label, np.array([0.25, 0.5]), user).nbytes == 2 * 12
    assert streamed(label, np.array([0.25, 0.1]), user).nbytes == 2 * 16


def test_gauc_is_missing_without_users():
    found = streamed(np.array([0, 1]), np.array([0.1, 0.2])).compute()
    assert (found.auc, found.gauc) == (1.0, None)
    with pytest.raises(MetricError, match="gauc is undefined: the rows have no users; pass `user`"):
        streamed(np.array([0, 1]), np.array([0.1, 0.2]))._rows.gauc()


def test_users_come_always_or_never():
    label, probability, user = np.array([0, 1]), np.array([0.1, 0.2]), np.array([7, 7])
    without, with_users = streamed(label, probability), streamed(label, probability, user)
    for rows, more in ((without, with_users), (with_users, without)):
        with pytest.raises(MetricError, match="2 rows are here with users or without"):
            rows.merge(more)
    with pytest.raises(MetricError, match="pass `user` always or never"):
        without.update(label, probability, user)
    assert len(without) == len(with_users) == 2
    empty = StreamingMetrics()
    empty.merge(with_users)
    empty.merge(StreamingMetrics())
    assert empty.compute().gauc == 1.0


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([0, 2, 1], [0.1, 0.2, 0.3], "the label of row 1 is 2"),
        ([0, 1, 1], [0.1, 0.2, np.nan], "the probability of row 2 is NaN"),
        ([0, 1, 1], [0.1, -0.2, np.nan], r"the probability of row 1 is -0\.2"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_taken_in(label, probability, message):
    rows = streamed(np.array([0, 1]), np.array([0.5, 0.5]))
    with pytest.raises(MetricError, match=message):
        rows.update(np.array(label), np.array(probability))
    assert len(rows) == 2


def test_lengths_must_agree():
    with pytest.raises(DataError, match="`label` has 2 rows but `user` has 3"):
        streamed(np.array([0, 1]), np.array([0.5, 0.5]), np.array([1, 2, 3]))


def test_metrics_of_nothing_are_refused():
    empty = StreamingMetrics()
    for metric in (empty.compute, empty.calibration, empty.reliability):
        with pytest.raises(MetricError, match="is undefined: there are no rows"):
            metric()


@pytest.mark.parametrize("bins", [0, -1, 10_001])
def test_impossible_bins_are_refused(bins):
    rows = streamed(np.array([0, 1]), np.array([0.5, 0.5]))
    with pytest.raises(ConfigError, match=f"`bins` is {bins}, but it must lie between 1 and 10000"):
        rows.reliability(bins)
    with pytest.raises(ConfigError, match="`by` is 'rank', but it must be 'width' or 'count'"):
        rows.reliability(5, by="rank")


@settings(deadline=None)
@given(rows=rows, at=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.integers(0, 10_000))
def test_damage_is_detected_anywhere(rows, at, bit, cut):
    state = streamed(*arrays(rows)).state_dict()
    good = state["rows"]
    damaged = bytearray(good)
    damaged[at % len(good)] ^= 1 << bit
    restored = StreamingMetrics()
    for bad in (bytes(damaged), good[: cut % len(good)], good + b"\0"):
        with pytest.raises(DataError, match="no saved Predictions, or they are damaged"):
            restored.load_state_dict({"rows": bad})
    restored.load_state_dict(state)
    assert restored.state_dict() == state


def test_threads_may_update_and_merge_crosswise():
    first, second = Predictions(), Predictions()
    label, probability = np.array([0, 1], np.float32), np.array([0.2, 0.3])

    def work(mine, other):
        for _ in range(6):
            mine.update(label, probability)
            mine.merge(other)

    threads = [threading.Thread(target=work, args=pair) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    first.merge(first)
    assert len(first) % 4 == 0
    assert first.auc() == 1.0
