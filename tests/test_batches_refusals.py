"""What batches and histories refuse: rows that are none, missing teachers, times and values that do not fit."""

import numpy as np
import pytest

import oracles
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.errors import DataError
from recfm.history.index import HistoryIndex, PastEvents


@pytest.fixture(scope="module")
def encoded(make_events):
    frame, schema = make_events(300)
    return Encoder(schema).fit(frame[:150]).transform(frame)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([], np.int64), "no rows"),
        ([], "rows"),
        (np.array([0, 300]), r"300\b"),
        (np.array([5, -1]), r"-1\b"),
        (np.array([True, False]), "bool"),
        (np.array([0.0, 1.5]), "float64"),
        (np.array([[0, 1]]), r"\(1, 2\)"),
    ],
    ids=["empty", "empty-list", "too-large", "negative", "mask", "float", "2d"],
)
def test_rows_that_are_none_are_refused(encoded, rows, message):
    with pytest.raises(DataError, match=message):
        Batches(encoded, rows, batch_size=4)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_a_row_at_least(encoded, batch_size):
    with pytest.raises(DataError, match=f"batch_size is {batch_size}"):
        Batches(encoded, np.arange(5), batch_size=batch_size)


@pytest.mark.parametrize("change", [{"seed": 2**63}, {"seed": -1}, {"batch_size": 2.5}])
def test_settings_that_the_core_cannot_hold_are_refused(encoded, change):
    with pytest.raises(DataError, match=next(iter(change))):
        Batches(encoded, np.arange(10), **{"batch_size": 4} | change).batch(0, 0)


@pytest.mark.parametrize("k", [-1, 3])
def test_a_batch_outside_the_epoch_is_refused(encoded, k):
    with pytest.raises(DataError, match=f"batch {k} is out of range"):
        Batches(encoded, np.arange(10), batch_size=4).batch(0, k)


@pytest.mark.parametrize("epoch", [-1, 2**63])
def test_an_epoch_that_the_core_cannot_hold_is_refused(encoded, epoch):
    with pytest.raises(DataError, match=f"epoch is {epoch}"):
        Batches(encoded, np.arange(10), batch_size=4).batch(epoch, 0)


def test_a_row_without_teacher_is_refused(encoded):
    teacher = np.full(len(encoded), np.nan, np.float32)
    teacher[:10] = 0.5
    assert (
        Batches(encoded, np.arange(10), batch_size=4, teacher=teacher).batch(0, 0).teacher.tolist()
        == [0.5] * 4
    )
    with pytest.raises(DataError, match="2 of 12 rows have no FM score"):
        Batches(encoded, np.arange(12), batch_size=4, teacher=teacher)
    for shape in (10, 1000, (len(encoded), 1)):
        with pytest.raises(DataError, match="teacher"):
            Batches(encoded, np.arange(5), batch_size=4, teacher=np.full(shape, 0.5, np.float32))


def test_an_index_without_values_only_counts(encoded):
    index = HistoryIndex(encoded.user, encoded.time)
    with pytest.raises(DataError, match="'past'"):
        Batches(encoded, np.arange(5), batch_size=4, sequences={"past": PastEvents(index=index)})


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_delay_that_is_no_time_is_refused(encoded, delay):
    past = PastEvents(index=HistoryIndex(encoded.user, encoded.time), delay=delay, counts_only=True)
    with pytest.raises(DataError, match="delay"):
        Batches(encoded, np.arange(5), batch_size=4, sequences={"past": past})


@pytest.mark.parametrize("length", [-1, 2**63, 1.5])
def test_a_length_that_is_no_count_is_refused(encoded, length):
    with pytest.raises(DataError, match="length"):
        HistoryIndex(encoded.user, encoded.time).window(encoded.user, encoded.time, length=length)


@pytest.mark.parametrize(
    ("user", "time", "values"),
    [
        (np.zeros(2, np.int64), np.zeros(2), None),
        (np.zeros(2), np.zeros(2, np.int64), None),
        (np.zeros(2, np.int64), np.zeros(3, np.int64), None),
        (np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros((3, 1), np.float32)),
        (np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.float32)),
        (np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros((2, 1), np.float64)),
        (np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros((2, 1), np.int64)),
    ],
)
def test_events_that_do_not_fit_together_are_refused(user, time, values):
    with pytest.raises(DataError):
        HistoryIndex(user, time, values)


@pytest.mark.parametrize("delay", [1e-6, 0.1, 0.5, 0.999999, 1.5])
def test_a_delay_may_be_a_fraction_of_a_second(delay):
    time = np.arange(0, 3_000_000, 100_000)
    query = np.concatenate([time, time + 1])
    index = HistoryIndex(np.zeros_like(time), time)
    start, stop = index.window(np.zeros_like(query), query, length=None, delay=delay)
    seen = [
        len(oracles.history([0] * len(time), time.tolist(), 0, t, 99, round(delay * 1e6)))
        for t in query.tolist()
    ]
    assert (stop - start).tolist() == seen


@pytest.mark.parametrize("start", [-1, 10**6])
def test_an_epoch_begins_at_one_of_its_batches(encoded, start):
    with pytest.raises(DataError, match=f"start is {start}: an epoch has"):
        list(Batches(encoded, batch_size=2).epoch(0, start=start))


def test_a_padded_sequence_has_a_length(encoded):
    index = HistoryIndex(encoded.user, encoded.time, encoded.ids)
    with pytest.raises(DataError, match="sequence 'past' has length None"):
        Batches(encoded, batch_size=2, sequences={"past": PastEvents(index=index, length=None)})
    whole = PastEvents(index=index, length=None, jagged=True)
    assert Batches(encoded, batch_size=2, sequences={"past": whole}).batch(0, 0).sequences[
        "past"
    ].lengths.shape == (2,)
