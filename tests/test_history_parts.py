"""An index in parts, in memory and on disk, answers as one index over all events would."""

import itertools

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm import _core
from recfm.errors import DataError, StorageError
from recfm.history import build
from recfm.history.index import HistoryIndex
from recfm.history.quantize import STORED, dequantize, quantize

PART = "part-000000.safetensors"
parts_of_events = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-4, 9), st.booleans()), max_size=15), max_size=4
)


def log(n=3000, seed=0, users=40):
    rng = np.random.default_rng(seed)
    return rng.integers(0, users, n), rng.integers(0, 500, n), rng.uniform(-1, 1, (n, 3)).astype(np.float32)


def seen(index, user, time, length=5, dim=3, **options):
    """What each query sees, [B, L, d]."""
    start, stop = index.window(user, time, length=length, **options)
    out = np.full((len(user), length, dim), 9, np.float32)
    index.gather(start, stop, out)
    return out


@settings(deadline=None, max_examples=150)
@given(
    parts=parts_of_events,
    length=st.integers(0, 5),
    delay=st.sampled_from([0, 2e-6]),
    max_age=st.sampled_from([None, 5e-6]),
)
def test_appended_parts_answer_as_one_index(parts, length, delay, max_age):
    whole = [np.array([e[i] for part in parts for e in part], np.int64) for i in range(3)]
    values = np.arange(1, len(whole[0]) + 1, dtype=np.float32)[:, None]
    one = HistoryIndex(whole[0], whole[1], values, keep=whole[2].astype(bool))
    grown, first = HistoryIndex(*(np.zeros(0, np.int64),) * 2, values[:0]), 0
    for part in parts:
        user, time, keep = (np.array([e[i] for e in part], np.int64) for i in range(3))
        grown.append(user, time, values[first : first + len(part)], keep=keep.astype(bool))
        first += len(part)
    assert (grown.num_parts, len(grown)) == (len(parts) + 1, len(one))
    queries = [np.array(q) for q in zip(*itertools.product(range(5), range(-4, 12)), strict=True)]
    options = {"length": length, "delay": delay, "max_age": max_age}
    expected = seen(one, *queries, dim=1, **options)
    np.testing.assert_array_equal(seen(grown, *queries, dim=1, **options), expected)
    start, stop = grown.window(*queries, **options)
    if parts:
        assert start.shape == stop.shape == (len(queries[0]), len(parts) + 1)
        counted = np.subtract(*one.window(*queries, **options)[::-1])
        assert (stop - start).sum(axis=1).tolist() == counted.tolist()
    grown.compact()
    assert grown.num_parts == 1
    np.testing.assert_array_equal(seen(grown, *queries, dim=1, **options), expected)


def test_a_saved_index_answers_as_it_did(tmp_path):
    user, time, values = log()
    index = HistoryIndex(user, time, values)
    index.save(tmp_path / "index")
    opened = HistoryIndex.open(tmp_path / "index", values=values)
    assert (len(opened), opened.num_parts, opened.nbytes) == (len(index), 1, index.nbytes)
    np.testing.assert_array_equal(seen(opened, user, time), seen(index, user, time))
    for a, b in zip(opened.windows_of_events(length=9), index.windows_of_events(length=9), strict=True):
        np.testing.assert_array_equal(a, b)
    tensors = safetensors.numpy.load_file(tmp_path / "index" / PART)
    assert set(tensors) == {"times", "rows", "users", "offsets", "slots", "checks"}
    assert tensors["rows"].tolist() == index._parts[0].rows().tolist()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_small_indexes_are_saved(tmp_path, n):
    user, time, values = log(n)
    HistoryIndex(user, time).save(tmp_path)
    queries = np.repeat(np.arange(40), 2), np.tile([0, 600], 40)
    opened = HistoryIndex.open(tmp_path, values=values)
    np.testing.assert_array_equal(seen(opened, *queries), seen(HistoryIndex(user, time, values), *queries))


def test_an_opened_index_grows_on_disk(tmp_path):
    user, time, values = log()
    one = HistoryIndex(user, time, values)
    HistoryIndex(user[:1000], time[:1000]).save(tmp_path)
    grown = HistoryIndex.open(tmp_path, values=values[:1000])
    first = (tmp_path / PART).read_bytes()
    for start, stop in ((1000, 1700), (1700, 3000)):
        grown.append(user[start:stop], time[start:stop], values[start:stop])
    assert (tmp_path / PART).read_bytes() == first
    stores = [values[:1000], values[1000:1700], values[1700:]]
    for index in (
        grown,
        HistoryIndex.open(tmp_path, values=values),
        HistoryIndex.open(tmp_path, values=stores),
    ):
        assert index.num_parts == 3
        assert (index.values.shape, index.values.dtype) == ((3000, 3), np.float32)
        np.testing.assert_array_equal(seen(index, user, time), seen(one, user, time))
    grown.compact()
    assert [path.name for path in tmp_path.glob("part-*")] == ["part-000003.safetensors"]
    for index in (grown, HistoryIndex.open(tmp_path, values=values)):
        assert index.num_parts == 1
        np.testing.assert_array_equal(seen(index, user, time), seen(one, user, time))
    grown.append(user[:5], time[:5], values[:5])
    assert HistoryIndex.open(tmp_path).num_parts == 2


@pytest.mark.parametrize("dtype", STORED)
def test_parts_may_hold_quantised_values(dtype):
    user, time, values = log()
    stored = quantize(values, dtype)
    grown = HistoryIndex(user[:1000], time[:1000], stored.slice(0, 1000))
    grown.append(user[1000:], time[1000:], stored.slice(1000, 3000))
    one = HistoryIndex(user, time, dequantize(stored))
    np.testing.assert_array_equal(seen(grown, user, time), seen(one, user, time))
    grown.compact()
    np.testing.assert_array_equal(seen(grown, user, time), seen(one, user, time))


@pytest.mark.parametrize("passes", [1, 2, 5])
@pytest.mark.parametrize("kind", ["many users", "one user", "one moment"])
def test_an_external_build_writes_the_same_bytes(tmp_path, monkeypatch, passes, kind):
    user, time, _ = log(5000, seed=passes, users=1 if kind != "many users" else 60)
    if kind == "one moment":
        time[:] = 3
    monkeypatch.setattr(build, "_FIXED", 0)
    monkeypatch.setattr(build, "_BYTES_PER_EVENT", (64 << 20) * passes // 5000)
    started = []

    def chunks():
        started.append(1)
        for first in range(0, 5000, 700):
            yield user[first : first + 700], time[first : first + 700]

    built = HistoryIndex.build(tmp_path / "built", chunks, memory="64MiB")
    HistoryIndex(user, time).save(tmp_path / "saved")
    assert len(started) == passes + 1
    assert len(built) == 5000
    for path in (tmp_path / "saved").glob("[!.]*"):
        assert path.read_bytes() == (tmp_path / "built" / path.name).read_bytes(), path.name


def test_an_external_build_of_too_many_rows_makes_several_parts(tmp_path):
    user, time, _ = log(1000)
    chunks = lambda: iter([(user[:300], time[:300]), (user[300:], time[300:])])  # noqa: E731
    entries = list(build.write_parts(tmp_path, chunks, memory=2**30, max_rows=400))
    assert [entry["table"] for entry in entries] == [400, 400, 200]
    one = HistoryIndex(user[400:800], time[400:800])._parts[0]
    part = safetensors.numpy.load_file(tmp_path / "part-000001.safetensors")
    assert part["rows"].tolist() == one.rows().tolist()


def test_a_sample_of_a_long_table_splits_it_evenly(tmp_path, monkeypatch):
    user, time, _ = log(20_000)
    monkeypatch.setattr(build, "_SAMPLE", 64)
    monkeypatch.setattr(build, "_FIXED", 0)
    monkeypatch.setattr(build, "_BYTES_PER_EVENT", (64 << 20) // 5000)
    sizes = []
    collected = build._collected
    monkeypatch.setattr(
        build, "_collected", lambda *args: sizes.append(len((columns := collected(*args))[0])) or columns
    )
    chunks = lambda: iter([(user[:7001], time[:7001]), (user[7001:], time[7001:])])  # noqa: E731
    HistoryIndex.build(tmp_path / "built", chunks, memory="64MiB")
    HistoryIndex(user, time).save(tmp_path / "saved")
    assert (sum(sizes), len(sizes)) == (20_000, 4)
    assert max(sizes) < 7500
    assert (tmp_path / "built" / PART).read_bytes() == (tmp_path / "saved" / PART).read_bytes()


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        (
            [[(np.zeros(3), np.zeros(3, np.int64))]],
            "chunks must be pairs of 1-d int64 arrays: 'user' is array",
        ),
        ([[(np.zeros(3, np.int64), np.zeros(2, np.int64))]], "a chunk has 3 users but 2 times"),
        (
            [[(np.zeros(3, np.int64),) * 2], [(np.zeros(2, np.int64),) * 2]],
            "3 events in one pass and 2 in another",
        ),
    ],
)
def test_chunks_of_another_kind_are_named(tmp_path, passes, message):
    rounds = iter(passes)
    with pytest.raises(DataError, match=message):
        HistoryIndex.build(tmp_path, lambda: iter(next(rounds)))
    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize("memory", ["lots", "1MiB", 0, "-4GiB", "inf", "9" * 400, None])
def test_a_memory_that_is_none_is_refused(tmp_path, memory):
    with pytest.raises(DataError, match="memory is"):
        HistoryIndex.build(tmp_path, lambda: iter([]), memory=memory)


def test_what_does_not_fit_an_index_is_refused(tmp_path):
    user, time, values = log(10)
    index = HistoryIndex(user, time, values)
    with pytest.raises(DataError, match="this history index has values"):
        index.append(user, time)
    with pytest.raises(DataError, match="stored as f16 of width 3 cannot follow f32 of width 3"):
        index.append(user, time, values.astype(np.float16))
    with pytest.raises(DataError, match="cannot follow f32 of width 3"):
        index.append(user, time, values[:, :2])
    with pytest.raises(DataError, match=r"expected \[10, d\]"):
        index.append(user, time, values[:4])
    assert index.num_parts == 1
    index.append(user, time, values)
    with pytest.raises(DataError, match="has 2 parts: compact it"):
        index.windows_of_events()
    index.save(tmp_path)
    with pytest.raises(StorageError, match="already holds a history index"):
        index.save(tmp_path)
    with pytest.raises(StorageError, match="already holds a history index"):
        HistoryIndex.build(tmp_path, lambda: iter([]))
    with pytest.raises(DataError, match="3 stores of values for 2 parts"):
        HistoryIndex.open(tmp_path, values=[values] * 3)
    with pytest.raises(DataError, match=r"expected \[20, d\]"):
        HistoryIndex.open(tmp_path, values=values)
    with pytest.raises(DataError, match="has no values"):
        HistoryIndex.open(tmp_path).append(user, time, values)


def test_two_writers_do_not_lose_each_others_parts(tmp_path):
    user, time, _ = log(10)
    HistoryIndex(user, time).save(tmp_path)
    first, second = HistoryIndex.open(tmp_path), HistoryIndex.open(tmp_path)
    first.append(user, time)
    with pytest.raises(StorageError, match="changed by another writer"):
        second.append(user, time)
    second = HistoryIndex.open(tmp_path)
    first.compact()
    with pytest.raises(StorageError, match="changed by another writer"):
        second.compact()
    assert len(HistoryIndex.open(tmp_path)) == 20


def test_columns_cannot_be_written():
    columns = _core.HistoryIndex(np.array([1]), np.array([1])).columns()
    assert not any(values.flags.writeable for values in columns.values())
