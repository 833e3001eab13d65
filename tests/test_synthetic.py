"""The synthetic log: its truth is what it says, and the same bytes come out on any number of threads."""

import numpy as np
import polars as pl
import pytest

from recfm.data.encode import Encoder
from recfm.datasets.synthetic import BLOCK_ROWS, SyntheticConfig, generate
from recfm.errors import ConfigError
from recfm.train.metrics import evaluate

SMALL = {"vocabulary": (30, 20, 12, 8), "terms": (4, 3, 2, 1), "latent": 2}


def small(rows=40_000, **changes):
    return SyntheticConfig(**({"rows": rows, "seed": 3} | SMALL | changes))


def logit(log):
    p = (log.probability - log.config.flip) / (1 - 2 * log.config.flip)
    return np.log(p / (1 - p))


def test_the_same_bytes_on_any_number_of_threads(monkeypatch):
    config = small(rows=BLOCK_ROWS + 5_000)
    logs = []
    for threads in ("1", "3"):
        monkeypatch.setenv("RECFM_NUM_THREADS", threads)
        logs.append(generate(config))
    assert logs[0].encoded.ids.tobytes() == logs[1].encoded.ids.tobytes()
    assert logs[0].probability.tobytes() == logs[1].probability.tobytes()
    assert logs[0].encoded.label.tobytes() == logs[1].encoded.label.tobytes()


def test_a_longer_log_begins_with_the_shorter_one_and_another_seed_is_another_log():
    short, longer, other = generate(small(2_000)), generate(small(3_000)), generate(small(2_000, seed=4))
    np.testing.assert_array_equal(short.encoded.ids, longer.encoded.ids[:2_000])
    np.testing.assert_array_equal(short.encoded.label, longer.encoded.label[:2_000])
    assert (short.encoded.ids != other.encoded.ids).mean() > 0.3


def test_the_logit_has_the_mean_and_the_deviation_asked_for():
    found = logit(generate(small(bias=-0.5, scale=1.5)))
    assert found.mean() == pytest.approx(-0.5, abs=0.05)
    assert found.std() == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_an_order_is_invisible_to_every_lower_one(order):
    """The mean logit given the ids of any order - 1 fields is the bias; given `order` fields it is not."""
    shares = tuple(float(i == order) for i in range(1, 5))
    terms = tuple(int(i == order) for i in range(1, 5))
    log = generate(
        small(rows=60_000, shares=shares, terms=terms, scale=1.0, vocabulary=(4, 4, 4, 4), bias=0.0)
    )
    frame = log.frame().with_columns(pl.Series("logit", logit(log)))
    fields = ["user", "item", "field_2", "field_3"]

    def explained(of):
        """Share of the logit's variance between the groups that these fields make."""
        means = frame.group_by(of).agg(pl.col("logit").mean(), pl.len())
        return float((means["logit"] ** 2 * means["len"]).sum() / len(frame))

    lower = (
        [[f for i, f in enumerate(fields) if i != out] for out in range(4)]
        if order == 4
        else [fields[i : i + order - 1] for i in range(4 - order + 2) if order > 1]
    )
    assert all(explained(of) < 0.02 for of in lower)
    assert explained(fields) == pytest.approx(1, abs=0.1)


def test_labels_are_drawn_from_the_probabilities():
    log = generate(small(60_000, flip=0.05))
    bin_of = np.clip((log.probability * 10).astype(int), 0, 9)
    for number in range(10):
        rows = bin_of == number
        if rows.sum() > 500:
            expected, noise = log.probability[rows].mean(), 0.5 / np.sqrt(rows.sum())
            assert log.encoded.label[rows].mean() == pytest.approx(expected, abs=5 * noise)
    assert log.probability.min() >= 0.05
    assert log.probability.max() <= 0.95


def test_ids_follow_the_zipf_law():
    log = generate(small(60_000, zipf=1.0))
    counts = np.bincount(log.encoded.ids[:, 0] - 2, minlength=30)
    law = 1 / np.arange(1, 31)
    np.testing.assert_allclose(counts / counts.sum(), law / law.sum(), atol=0.01)


def test_periods_follow_each_other_in_time_and_cover_all_rows():
    log = generate(small(1_000, train=0.6, valid=0.3))
    assert [len(log.train), len(log.valid), len(log.test)] == [600, 300, 100]
    assert (np.diff(log.encoded.time) > 0).all()
    np.testing.assert_array_equal(np.concatenate([log.train, log.valid, log.test]), np.arange(1_000))


def test_no_other_probabilities_beat_the_floor():
    log = generate(small(60_000))
    floor = log.floor(log.test)
    label, truth = log.encoded.label[log.test], log.probability[log.test]
    rng = np.random.default_rng(0)
    for worse in (truth**1.2, truth**0.8, np.clip(truth + rng.normal(0, 0.1, len(truth)), 0.01, 0.99)):
        assert evaluate(label, worse, log.encoded.user[log.test]).ne > floor.ne
    assert generate(small(60_000, flip=0.2)).floor(log.test).ne > floor.ne


def test_the_frame_encodes_to_the_same_events():
    log = generate(small(3_000))
    encoded = Encoder(log.encoded.schema).fit(log.frame()[log.train]).transform(log.frame())
    np.testing.assert_array_equal(encoded.label, log.encoded.label)
    np.testing.assert_array_equal(encoded.time, log.encoded.time)
    np.testing.assert_array_equal(encoded.user, log.encoded.user)
    assert [c.name for c in encoded.layout.categorical] == [c.name for c in log.encoded.layout.categorical]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 10}, "rows is 10"),
        ({"shares": (0.5, 0.2, 0.2, 0.2)}, "shares add up to 1.1"),
        ({"shares": (1.0,)}, "give one of each for every order"),
        ({"vocabulary": (30,)}, "give at least two"),
        ({"vocabulary": (30, 2, 12, 8)}, "vocabulary is"),
        ({"terms": (4, 7, 2, 1)}, "terms of order 2 is 7: there are 1 to 6"),
        ({"terms": (4, 3, 0, 1)}, "terms of order 3 is 0"),
        ({"train": 0.9, "valid": 0.1}, "leave no test rows"),
        ({"flip": 0.6}, "flip is 0.6"),
    ],
)
def test_a_log_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)
