"""Histories never see the future: parity with a loop, and what may change without being noticed."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from recfm._core import HistoryIndex
from recfm.errors import DataError

FAR = [-(2**63), 2**63 - 1]
users = st.integers(0, 3)
times = st.integers(-6, 12)
events = st.lists(st.tuples(users, times), max_size=40)
lengths = st.integers(0, 6)
delays = st.integers(0, 5)


def columns(rows, width):
    """Columns of a list of tuples of integers."""
    return [np.array([row[i] for row in rows], np.int64) for i in range(width)]


def past(log, queries, length, delay, dtype=np.int32):
    """The contents that `queries` see of a log of (user, time, content): newest first, 0 behind."""
    user, time, content = columns(log, 3)
    index = HistoryIndex(user, time)
    start, stop = index.window(*columns(queries, 2), length=length, delay=delay)
    out = np.full((len(queries), length, 1), -1, np.int32 if dtype == np.int32 else np.float32)
    index.gather(start, stop, content.astype(dtype)[:, None], out)
    return out[:, :, 0].astype(int).tolist()


@settings(deadline=None, max_examples=200)
@given(
    events=events,
    queries=st.lists(st.tuples(st.integers(-1, 4), times), max_size=10),
    length=lengths,
    delay=delays,
)
def test_windows_match_the_oracle(events, queries, length, delay):
    user, time = columns(events, 2)
    index = HistoryIndex(user, time)
    start, stop = index.window(*columns(queries, 2), length=length, delay=delay)
    rows = index.rows()
    assert rows.tolist() == sorted(range(len(events)), key=lambda i: (*events[i], i))
    assert (len(index), index.num_users) == (len(events), len(set(user.tolist())))
    for i, (u, t) in enumerate(queries):
        expected = oracles.history(user.tolist(), time.tolist(), u, t, length, delay)
        assert rows[start[i] : stop[i]][::-1].tolist() == expected


@settings(deadline=None)
@given(
    events=st.lists(st.tuples(st.sampled_from([*FAR, 0]), st.sampled_from([*FAR, 0, 1])), max_size=12),
    time=st.sampled_from([*FAR, 0, 2]),
    delay=st.sampled_from([0, 1, 2**63 - 1]),
)
def test_extreme_keys_neither_wrap_nor_match(events, time, delay):
    user, when = columns(events, 2)
    start, stop = HistoryIndex(user, when).window(
        np.array(FAR), np.array([time, time]), length=2**63 - 1, delay=delay
    )
    for i, u in enumerate(FAR):
        moment = max(time - delay, -(2**63))
        assert stop[i] - start[i] == sum(e == u and t < moment for e, t in events)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), events=events, user=users, time=times, length=lengths, delay=delays)
def test_nothing_at_or_after_the_moment_is_seen(data, events, user, time, length, delay):
    """Delete, move, relabel, reassign and add events at or after `time - delay`: the past stays as it was."""
    moment = time - delay
    log = [(u, t, i + 1) for i, (u, t) in enumerate(events)]
    before = past(log, [(user, time)], length, delay)

    later = st.integers(moment, moment + 8)
    other_future = []
    for event in log:
        if event[1] < moment:
            other_future.append(event)
            continue
        fate = data.draw(st.sampled_from(["delete", "keep", "change"]))
        if fate == "keep":
            other_future.append(event)
        elif fate == "change":
            other_future.append((data.draw(users), data.draw(later), 1000 + data.draw(st.integers(0, 9))))
    for addition in data.draw(st.lists(st.tuples(users, later, st.integers(2000, 2009)), max_size=6)):
        other_future.insert(data.draw(st.integers(0, len(other_future))), addition)

    assert past(other_future, [(user, time)], length, delay) == before


@settings(deadline=None, max_examples=200)
@given(
    events=events,
    queries=st.lists(st.tuples(users, times), min_size=1, max_size=8),
    length=lengths,
    delay=delays,
)
def test_every_event_is_strictly_before_and_the_users_own(events, queries, length, delay):
    log = [(u, t, i + 1) for i, (u, t) in enumerate(events)]
    for (user, time), contents in zip(queries, past(log, queries, length, delay), strict=True):
        seen = [log[content - 1] for content in contents if content != 0]
        assert all(u == user and t < time - delay for u, t, _ in seen)
        assert [t for _, t, _ in seen] == sorted((t for _, t, _ in seen), reverse=True)
        assert contents == [content for _, _, content in seen] + [0] * (length - len(seen))


@settings(deadline=None)
@given(
    data=st.data(),
    events=st.lists(st.tuples(users, times), max_size=30, unique=True),
    length=lengths,
    delay=delays,
)
def test_the_order_of_the_rows_does_not_matter(data, events, length, delay):
    log = [(u, t, i + 1) for i, (u, t) in enumerate(events)]
    queries = [(u, t) for u in range(4) for t in range(-6, 14, 3)]
    shuffled = data.draw(st.permutations(log))
    assert past(shuffled, queries, length, delay) == past(log, queries, length, delay)


def test_events_of_one_moment_go_by_position():
    assert past([(1, 5, 10), (1, 5, 20), (1, 4, 30)], [(1, 6)], 2, 0) == [[20, 10]]
    assert past([(1, 5, 20), (1, 4, 30), (1, 5, 10)], [(1, 6)], 2, 0) == [[10, 20]]


def random_log(n=2000):
    rng = np.random.default_rng(3)
    return pl.DataFrame(
        {"user": rng.integers(0, 40, n), "time": rng.integers(0, 300, n), "event": np.arange(1, n + 1)}
    )


def test_the_latest_event_is_that_of_polars_join_asof():
    delay = 7
    log = random_log().unique(["user", "time"], keep="last", maintain_order=True).sort("time")
    rng = np.random.default_rng(4)
    queries = pl.DataFrame({"user": rng.integers(0, 45, 500), "time": rng.integers(0, 320, 500)})
    joined = (
        queries.with_row_index()
        .with_columns(moment=pl.col("time") - delay)
        .sort("moment")
        .join_asof(
            log.rename({"time": "event_time"}),
            left_on="moment",
            right_on="event_time",
            by="user",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .sort("index")
    )
    seen = past(log.rows(), queries.rows(), 1, delay)
    assert [row[0] for row in seen] == joined["event"].fill_null(0).to_list()
    assert 0 < joined["event"].null_count() < 250


def test_whole_windows_are_those_of_a_polars_join():
    length, delay = 5, 11
    log = random_log(600)
    rng = np.random.default_rng(5)
    queries = pl.DataFrame({"user": rng.integers(0, 45, 200), "time": rng.integers(0, 320, 200)})
    joined = (
        queries.with_row_index()
        .join(log.rename({"time": "event_time"}), on="user")
        .filter(pl.col("event_time") < pl.col("time") - delay)
        .sort("index", "event_time", "event", descending=[False, True, True])
        .group_by("index", maintain_order=True)
        .head(length)
    )
    expected = [[0] * length for _ in range(len(queries))]
    for index, events in joined.group_by("index", maintain_order=True).agg("event").rows():
        expected[index][: len(events)] = events
    assert past(log.rows(), queries.rows(), length, delay) == expected


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float16])
@settings(deadline=None, max_examples=30)
@given(events=events, length=st.integers(1, 5), width=st.integers(1, 3))
def test_gathered_rows_are_those_of_the_oracle(dtype, events, length, width):
    user, time = columns(events, 2)
    index = HistoryIndex(user, time)
    queries = [(u, t) for u in range(4) for t in (-3, 4, 13)]
    store = (np.arange(len(events) * width).reshape(-1, width) - 7).astype(dtype)
    out_dtype = np.int32 if dtype == np.int32 else np.float32
    out = np.full((len(queries), length, width), 99, out_dtype)
    index.gather(*index.window(*columns(queries, 2), length=length, delay=0), store, out)
    expected = np.zeros_like(out)
    for i, (u, t) in enumerate(queries):
        for j, event in enumerate(oracles.history(user.tolist(), time.tolist(), u, t, length, 0)):
            expected[i, j] = store[event]
    np.testing.assert_array_equal(out, expected)


def test_half_precision_bits_are_widened_exactly():
    every_half = np.arange(2**16, dtype=np.uint16)
    index = HistoryIndex(np.arange(2**16), np.zeros(2**16, np.int64))
    start, stop = index.window(np.arange(2**16), np.ones(2**16, np.int64), length=1, delay=0)
    from_bits = np.empty((2**16, 1, 1), np.float32)
    from_half = np.empty_like(from_bits)
    index.gather(start, stop, every_half[:, None], from_bits)
    index.gather(start, stop, every_half.view(np.float16)[:, None], from_half)
    np.testing.assert_array_equal(from_bits[:, 0, 0], every_half.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(from_bits, from_half)


def test_an_empty_index_and_empty_queries():
    empty = np.array([], np.int64)
    index = HistoryIndex(empty, empty)
    start, stop = index.window(np.array([1]), np.array([1]), length=3, delay=0)
    assert (start.tolist(), stop.tolist()) == ([0], [0])
    out = np.ones((1, 3, 2), np.float32)
    index.gather(start, stop, np.empty((0, 2), np.float32), out)
    assert not out.any()
    start, stop = index.window(empty, empty, length=3, delay=0)
    index.gather(start, stop, np.empty((0, 2), np.float32), np.empty((0, 3, 2), np.float32))


def two_events():
    index = HistoryIndex(np.array([1, 1]), np.array([1, 2]))
    return index, np.array([0]), np.array([2]), np.zeros((2, 4), np.float32), np.zeros((1, 2, 4), np.float32)


@pytest.mark.parametrize(("name", "value"), [("length", -1), ("delay", -1)])
def test_negative_settings_are_refused(name, value):
    index, *_ = two_events()
    with pytest.raises(DataError, match=f"`{name}` is -1"):
        index.window(np.array([1]), np.array([1]), **({"length": 1, "delay": 0} | {name: value}))


@pytest.mark.parametrize(
    ("user", "time", "message"),
    [
        (
            np.array([1], np.int32),
            np.array([1]),
            "`user` must be a C-contiguous int64 array.*found int32 of shape",
        ),
        (np.array([1]), np.array([1.0]), "`time` must be .*found float64 of shape"),
        (np.array([[1]]), np.array([1]), r"`user` must be .*1 dimension.*found int64 of shape \[1, 1\]"),
        (np.array([1, 2, 3])[::2], np.array([1, 2]), "`user` must be .*not C-contiguous"),
        (np.array([1], ">i8"), np.array([1]), "`user` must be .*found >i8"),
        (np.frombuffer(bytes(9), np.int64, 1, offset=1), np.array([1]), "`user` must be .*not aligned"),
        ([1], np.array([1]), "`user` must be .*found a list"),
        (np.array([1]), None, "`time` must be .*found a NoneType"),
        (np.array([1]), np.array([1, 2]), "`user` has 1 rows but `time` has 2"),
    ],
)
def test_arrays_of_another_kind_are_named(user, time, message):
    with pytest.raises(DataError, match=message):
        HistoryIndex(user, time)
    with pytest.raises(DataError, match=message):
        two_events()[0].window(user, time, length=1, delay=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"store": np.zeros((2, 4))}, "`store` must be a float32, int32, float16 .*found float64"),
        ({"store": np.zeros((3, 4), np.float32)}, "`store` has 3 rows but `index` has 2"),
        ({"store": np.zeros(2, np.float32)}, r"`store` must be .*2 dimension.*found float32 of shape \[2\]"),
        ({"store": np.zeros((4, 2), np.float32).T}, "`store` must be .*not C-contiguous"),
        ({"store": np.zeros((2, 4), np.int32)}, "`out` must be a writable C-contiguous int32 array.*float32"),
        ({"out": np.zeros((1, 2, 4))}, "`out` must be a writable C-contiguous float32 array.*float64"),
        ({"out": np.zeros((1, 2, 3), np.float32)}, r"`out` must be of shape \[1, 2, 4\].*\[1, 2, 3\]"),
        ({"out": np.zeros((2, 2, 4), np.float32)}, r"`out` must be of shape \[1, 2, 4\].*\[2, 2, 4\]"),
        (
            {"start": np.array([], np.int64), "out": np.zeros((0, 2, 4), np.float32)},
            "`start` has 0 rows but `stop` has 1",
        ),
        ({"out": np.zeros((1, 1, 4), np.float32)}, "window 0 has 2 events, but `out` has room for 1"),
        ({"out": np.zeros((4, 2, 1), np.float32).T}, "`out` must be .*not C-contiguous"),
        ({"stop": np.array([3])}, r"window 0 is \[0, 3\), which is no range of the 2 events"),
        ({"start": np.array([-1])}, r"window 0 is \[-1, 2\)"),
        ({"start": np.array([2]), "stop": np.array([1])}, r"window 0 is \[2, 1\)"),
        ({"start": np.array([0, 0])}, r"`out` must be of shape \[2, 2, 4\]"),
    ],
)
def test_gather_says_what_does_not_fit(change, message):
    index, start, stop, store, out = two_events()
    arguments = {"start": start, "stop": stop, "store": store, "out": out} | change
    with pytest.raises(DataError, match=message):
        index.gather(**arguments)


def test_gather_refuses_memory_that_it_may_not_write():
    index, start, stop, store, out = two_events()
    out.flags.writeable = False
    with pytest.raises(DataError, match=r"`out` must be a writable .*read-only"):
        index.gather(start, stop, store, out)
    shared = np.zeros((2, 4), np.float32)
    with pytest.raises(DataError, match="`out` must be memory that no other argument or call uses"):
        index.gather(start, stop, shared, shared[None])
