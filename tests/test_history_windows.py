"""Windows of the events themselves, by age, of some events only, and by other keys."""

import signal
import time as clock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from recfm import _core
from recfm.errors import DataError
from recfm.history.index import MICROSECONDS, HistoryIndex, PastEvents, joint_key

users = st.integers(0, 3)
times = st.integers(-6, 12)
events = st.lists(st.tuples(users, times, st.booleans()), max_size=40)
lengths = st.integers(0, 6)
delays = st.integers(0, 5)
ages = st.none() | st.integers(0, 9)


def columns(rows):
    user, time, keep = (np.array([row[i] for row in rows], np.int64) for i in range(3))
    return user, time, keep.astype(bool)


@settings(deadline=None, max_examples=300)
@given(events=events, masked=st.booleans(), length=lengths, delay=delays, max_age=ages)
def test_windows_match_the_oracle_by_age_and_filter(events, masked, length, delay, max_age):
    user, time, keep = columns(events)
    if not masked:
        keep[:] = True
    index = _core.HistoryIndex(user, time, keep if masked else None)
    rows = index.rows()
    assert rows.tolist() == sorted(np.flatnonzero(keep), key=lambda i: (user[i], time[i], i))
    assert index.table == len(user)
    start, stop = index.window(user, time, length=length, delay=delay, max_age=max_age)
    for i in range(len(user)):
        expected = oracles.history(
            user.tolist(), time.tolist(), user[i], time[i], length, delay, max_age=max_age, keep=keep
        )
        assert rows[start[i] : stop[i]][::-1].tolist() == expected
    walked = index.windows_of_events(length=length, delay=delay, max_age=max_age)
    for found, searched in zip(walked, (start[keep], stop[keep]), strict=True):
        assert found.tolist() == searched.tolist()


@pytest.mark.parametrize(
    "kind", ["in order", "shuffled", "hashed ids", "one outlier", "one user", "one time"]
)
def test_large_tables_of_any_kind_are_sorted(kind):
    n = 150_000
    rng = np.random.default_rng(len(kind))
    user, time = (
        np.minimum(rng.integers(0, 4000, n), rng.integers(0, 4000, n)),
        np.sort(rng.integers(0, 10**14, n)),
    )
    if kind == "shuffled":
        time = rng.permutation(time)
    if kind == "hashed ids":
        user = (user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)
    if kind == "one outlier":
        user[17] = 2**62
    if kind == "one user":
        user[:], time = 5, rng.permutation(time)
    if kind == "one time":
        time[:] = 5
    index = _core.HistoryIndex(user, time)
    assert (index.rows() == np.lexsort((time, user))).all()
    walked = index.windows_of_events(length=50, delay=0)
    searched = index.window(user, time, length=50, delay=0)
    assert all((a == b).all() for a, b in zip(walked, searched, strict=True))


@settings(deadline=None)
@given(time=st.sampled_from([-(2**63), 0, 2**63 - 1]), age=st.sampled_from([0, 1, 2**63 - 1]))
def test_extreme_ages_do_not_wrap(time, age):
    moments = np.array([-(2**63), -1, 0, 1, 2**63 - 1])
    index = _core.HistoryIndex(np.zeros(5, np.int64), moments)
    start, stop = index.window(np.array([0]), np.array([time]), length=9, delay=0, max_age=age)
    oldest = max(time - age, -(2**63))
    assert stop[0] - start[0] == sum(oldest <= int(moment) < time for moment in moments)


def test_seconds_become_microseconds():
    time = np.array([0, 5, 10]) * MICROSECONDS
    index = HistoryIndex(np.zeros(3, np.int64), time)
    now = (np.array([0]), np.array([10 * MICROSECONDS]))
    for past, expected in (
        ({"max_age": 5}, (1, 2)),
        ({"max_age": 4.999999}, (2, 2)),
        ({"max_age": 30, "delay": 6.0}, (0, 1)),
        ({}, (0, 2)),
    ):
        start, stop = PastEvents(index=index, **past).window(*now)
        assert (start[0], stop[0]) == expected
    with pytest.raises(DataError, match="max_age is -1 seconds"):
        index.window(*now, max_age=-1)
    with pytest.raises(DataError, match="max_age is nan seconds"):
        index.windows_of_events(max_age=float("nan"))


def test_masked_events_keep_their_place_in_the_values():
    user, time = np.zeros(4, np.int64), np.arange(4)
    values = np.arange(4, dtype=np.int32)[:, None]
    index = HistoryIndex(user, time, values, keep=np.array([True, False, True, False]))
    out = np.empty((1, 3, 1), np.int32)
    index.gather(*index.window(np.array([0]), np.array([9]), length=3), out)
    assert out[0, :, 0].tolist() == [2, 0, 0]
    assert len(index) == 2
    with pytest.raises(DataError, match="`keep` has 3 rows but `user` has 4"):
        HistoryIndex(user, time, keep=np.ones(3, bool))
    with pytest.raises(DataError, match="`keep` must be a C-contiguous bool array"):
        HistoryIndex(user, time, keep=np.ones(4, np.int64))


def test_joint_keys_are_golden():
    left, right = np.array([0, 1, -1, 2**62]), np.array([0, 1, 7, -(2**63)])
    golden = [-3411922682318255768, 7829500774778939558, -168736227686911735, -5137170605868580122]
    assert joint_key(left, right).tolist() == golden
    assert joint_key(right, left).tolist() != golden
    assert len(set(joint_key(left).tolist())) == 4
    with pytest.raises(DataError, match="at least one column"):
        joint_key()
    with pytest.raises(DataError, match="has 3 rows but"):
        joint_key(left, right[:3])
    with pytest.raises(DataError, match="must be a C-contiguous int64"):
        joint_key(left.astype(np.int32))


def test_a_joint_key_is_xxh3_of_the_little_endian_integers():
    xxhash = pytest.importorskip("xxhash")
    left, right = np.array([3, -4]), np.array([5, 2**40])
    for i, key in enumerate(joint_key(left, right)):
        joined = int(left[i]).to_bytes(8, "little", signed=True) + int(right[i]).to_bytes(
            8, "little", signed=True
        )
        assert int(key) % 2**64 == xxhash.xxh3_64_intdigest(joined)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_a_long_build_listens_to_ctrl_c():
    rng = np.random.default_rng(0)
    user, time = rng.integers(0, 2**40, 6_000_000), rng.integers(0, 2**40, 6_000_000)
    begin = clock.monotonic()
    whole = _core.HistoryIndex(user, time).rows()
    full = clock.monotonic() - begin

    class Pressed(Exception):
        pass

    def press(*_):
        raise Pressed

    before = signal.signal(signal.SIGALRM, press)
    took = []
    try:
        for _ in range(5):
            begin = clock.monotonic()
            signal.setitimer(signal.ITIMER_REAL, full / 50)
            with pytest.raises(Pressed):
                _core.HistoryIndex(user, time)
            took.append(clock.monotonic() - begin)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert min(took) < full / 2, "the work went on although Ctrl-C was pressed"
    assert (_core.HistoryIndex(user, time).rows() == whole).all()
