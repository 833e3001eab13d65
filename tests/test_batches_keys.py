"""Sequences by other keys than the user, over indexes of several parts and from files: the same past everywhere."""

from itertools import pairwise

import numpy as np
import pytest

import oracles
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.errors import DataError
from recfm.history.index import HistoryIndex, PastEvents, joint_key

DAY = 86_400


@pytest.fixture
def encoded(make_events):
    frame, schema = make_events(300)
    return Encoder(schema).fit(frame).transform(frame)


def keys_by(encoded):
    return {
        "user": encoded.user,
        "item": encoded.item,
        "joint": joint_key(encoded.user % 5, encoded.item % 3),
    }


@pytest.mark.parametrize("name", ["user", "item", "joint"])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("jagged", [False, True])
def test_every_row_sees_the_past_of_its_key(encoded, name, parts, jagged):
    key, n = keys_by(encoded)[name], len(encoded)
    numbers = np.arange(n, dtype=np.int32)[:, None]
    bounds = [n * p // parts for p in range(parts + 1)]
    index = HistoryIndex(key[: bounds[1]], encoded.time[: bounds[1]], numbers[: bounds[1]])
    for first, last in pairwise(bounds[1:]):
        index.append(key[first:last], encoded.time[first:last], numbers[first:last])
    assert index.num_parts == parts
    past = PastEvents(index=index, length=4, key=key if name == "joint" else name, jagged=jagged)
    seen = 0
    for batch in Batches(encoded, batch_size=37, seed=1, sequences={"past": past}).epoch(0):
        found = batch.sequences["past"]
        for place, row in enumerate(batch.row.tolist()):
            expected = oracles.history(
                key.tolist(), encoded.time.tolist(), int(key[row]), int(encoded.time[row]), 4, 0
            )
            if jagged:
                events = found.values[found.offsets[place] : found.offsets[place + 1], 0]
            else:
                events = found.ids[place, : len(expected), 0]
                assert not found.ids[place, len(expected) :].any()
            assert events.tolist() == expected
            assert found.lengths[place] == len(expected)
            seen += len(expected)
    assert seen > 50


def test_counts_and_ages_work_over_parts(encoded):
    half = len(encoded) // 2
    index = HistoryIndex(encoded.user[:half], encoded.time[:half])
    index.append(encoded.user[half:], encoded.time[half:])
    whole = HistoryIndex(encoded.user, encoded.time)
    for age in (None, DAY):
        counts = [
            next(Batches(encoded, batch_size=len(encoded), shuffle=False, sequences={"past": past}).epoch(0))
            .sequences["past"]
            .lengths.tolist()
            for past in (
                PastEvents(index=index, counts_only=True, max_age=age),
                PastEvents(index=whole, counts_only=True, max_age=age),
            )
        ]
        assert counts[0] == counts[1]
        assert any(counts[0])


def test_keys_that_are_none_are_refused_at_once(encoded):
    index = HistoryIndex(encoded.user, encoded.time, np.zeros((len(encoded), 1), np.int32))
    joint = keys_by(encoded)["joint"]
    for bad in ("time", joint[:3], joint.astype(np.float64)):
        with pytest.raises(DataError, match="key is"):
            Batches(encoded, batch_size=5, sequences={"past": PastEvents(index=index, key=bad)})
