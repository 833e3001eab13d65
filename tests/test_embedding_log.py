"""The embedding log: what goes in comes out, only its own FM writes to it, and every bad row is refused."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.errors import DataError, LeakError, LogError
from recfm.history.log import EmbeddingLog

FM, OTHER = "a" * 64, "b" * 64
TRAINED = (0, 1000)
COLUMNS = {"user": np.int64, "time": np.int64, "event": np.int64, "score": np.float32}


def create(folder, dim=3, dtype="f32", **change):
    return EmbeddingLog.create(
        folder, **({"fm": FM, "dim": dim, "trained": TRAINED, "dtype": dtype} | change)
    )


def rows(events, dim=3, **change):
    """Columns for `append` that are a function of the event ids alone."""
    event = np.asarray(list(events), np.int64)
    column = {
        "user": event % 7 - 3,
        "time": 1001 + event % 11,
        "event": event,
        "score": ((event % 13) / 12).astype(np.float32),
        "z": np.sin(event[:, None] + np.arange(dim)).astype(np.float32),
    }
    return column | change


def contents(folder):
    """Every file of a log but its lock, as bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def assert_holds(log, events, dtype=np.float32):
    """The log has exactly the rows of these events, in this order."""
    read, expected = log.read(), rows(events, log.dim)
    assert len(log) == len(read) == len(expected["event"])
    for name, kind in COLUMNS.items():
        assert getattr(read, name).dtype == kind
        assert getattr(read, name).tolist() == expected[name].tolist()
    assert read.z.dtype == dtype
    assert read.z.shape == (len(expected["event"]), log.dim)
    assert (read.z == expected["z"].astype(dtype)).all()


@pytest.mark.parametrize(("dtype", "kind"), [("f32", np.float32), ("f16", np.float16)])
@settings(deadline=None, max_examples=15)
@given(
    dim=st.integers(1, 5),
    batches=st.lists(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=9), max_size=5),
)
def test_what_was_appended_is_read(tmp_path_factory, dtype, kind, dim, batches):
    folder, events = tmp_path_factory.mktemp("log"), []
    log = create(folder, dim, dtype)
    assert_holds(log, [], kind)
    for batch in batches:
        new = [event for event in dict.fromkeys(batch) if event not in events]
        if new:
            log.append(**rows(new, dim))
            events += new
    for reader in (log, EmbeddingLog.open(folder), EmbeddingLog.open(str(folder), fm=FM)):
        assert_holds(reader, events, kind)
        assert (reader.fm, reader.dim, reader.trained) == (FM, dim, TRAINED)
    assert EmbeddingLog.open(folder).nbytes == sum(p.stat().st_size for p in folder.glob("segment-*"))


def test_half_precision_is_smaller(tmp_path):
    sizes = {}
    for dtype in ("f32", "f16"):
        log = create(tmp_path / dtype, 32, dtype)
        log.append(**rows(range(100), 32))
        sizes[dtype] = log.nbytes
    assert sizes["f32"] - sizes["f16"] == pytest.approx(100 * 32 * 2, abs=100)


def test_extreme_keys_survive(tmp_path):
    log = create(tmp_path, 1)
    ends = np.array([-(2**63), 2**63 - 1])
    z = np.array([[-1.0], [1.0]], np.float32)
    log.append(user=ends, time=np.full(2, 2**63 - 1), event=ends, score=np.array([0, 1], np.float32), z=z)
    read = EmbeddingLog.open(tmp_path).read()
    assert read.user.tolist() == read.event.tolist() == ends.tolist()
    assert read.time.tolist() == [2**63 - 1] * 2
    assert (read.score.tolist(), read.z.tolist()) == ([0, 1], [[-1], [1]])


def test_float64_and_views_are_stored_as_the_log_stores_them(tmp_path):
    log, given_rows = create(tmp_path), rows(range(20))
    log.append(
        **given_rows
        | {"z": given_rows["z"].astype(np.float64), "score": given_rows["score"].astype(np.float64)}
    )
    twice = {name: np.repeat(values, 2, axis=0)[::2] for name, values in rows(range(20, 30)).items()}
    log.append(**twice)
    assert_holds(log, range(30))


def test_the_history_of_a_log_is_its_vectors(tmp_path):
    log = create(tmp_path)
    log.append(**rows(range(50)))
    read = log.read()
    index = read.history()
    start, stop = index.window(read.user, read.time, length=4)
    out = np.empty((50, 4, 3), np.float32)
    index.gather(start, stop, out)
    for i in range(50):
        past = [j for j in range(50) if read.user[j] == read.user[i] and read.time[j] < read.time[i]]
        past = sorted(past, key=lambda j: (read.time[j], j), reverse=True)[:4]
        assert out[i, : len(past)].tolist() == read.z[past].tolist()
        assert not out[i, len(past) :].any()


# ---- commits ---------------------------------------------------------------------------------------------------


def test_rows_are_visible_only_after_their_commit(tmp_path, monkeypatch):
    log = create(tmp_path)
    log.append(**rows(range(5)))
    seen = []
    commit = EmbeddingLog._commit

    def look_first(self, manifest):
        assert (tmp_path / "segment-000001.safetensors").exists()
        seen.append(len(EmbeddingLog.open(tmp_path).read()))
        commit(self, manifest)

    monkeypatch.setattr(EmbeddingLog, "_commit", look_first)
    log.append(**rows(range(5, 9)))
    assert seen == [5]
    assert_holds(EmbeddingLog.open(tmp_path), range(9))


def test_a_reader_keeps_the_commit_that_it_opened(tmp_path):
    log = create(tmp_path)
    log.append(**rows(range(5)))
    reader = EmbeddingLog.open(tmp_path)
    log.append(**rows(range(5, 9)))
    assert_holds(reader, range(5))


def test_two_handles_never_lose_each_others_rows(tmp_path):
    first = create(tmp_path)
    second = EmbeddingLog.open(tmp_path)
    kept = []
    for i, handle in enumerate([second, first, first, second, first]):
        try:
            handle.append(**rows([10 * i, 10 * i + 1]))
        except LogError:  # to refuse a handle that is behind would be fine too
            continue
        kept += [10 * i, 10 * i + 1]
    assert kept
    assert_holds(EmbeddingLog.open(tmp_path), kept)


def test_an_event_logged_through_another_handle_is_known(tmp_path):
    first = create(tmp_path)
    second = EmbeddingLog.open(tmp_path)
    second.append(**rows([1, 2]))
    with pytest.raises((DataError, LogError), match="event 2 is logged already|open it again"):
        first.append(**rows([2, 3]))
    assert_holds(EmbeddingLog.open(tmp_path), [1, 2])


def test_many_writers_at_once_never_lose_a_row(tmp_path):
    create(tmp_path)

    def write(worker):
        kept = []
        for i in range(12):
            event = 100 * worker + i
            try:
                EmbeddingLog.open(tmp_path).append(**rows([event]))
            except LogError:
                continue
            kept.append(event)
        return kept

    with ThreadPoolExecutor(4) as pool:
        kept = [event for worker in pool.map(write, range(4)) for event in worker]
    assert kept
    read = EmbeddingLog.open(tmp_path).read()
    assert sorted(read.event.tolist()) == sorted(kept)


def test_appending_to_a_log_that_was_replaced_is_refused(tmp_path):
    log = create(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    create(tmp_path, fm=OTHER).append(**rows([1]))
    with pytest.raises(LogError):
        log.append(**rows([2]))
    assert_holds(EmbeddingLog.open(tmp_path, fm=OTHER), [1])


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path):
    log = create(tmp_path / "log")
    log.append(**rows(range(10)))
    return log


def assert_refused(log, error, message, **columns):
    """The append fails with this error, changes no byte, and the log works as if it had never been tried."""
    before = contents(log.folder)
    with pytest.raises(error, match=message) as caught:
        log.append(**columns)
    assert type(caught.value) is error
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert contents(log.folder) == before
    assert len(log) == 10
    log.append(**rows(range(10, 13)))
    assert_holds(EmbeddingLog.open(log.folder), range(13))


NEW = rows([100, 101])
BIG = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 1.0001]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event": np.array([100, 100])}, "event 100 is logged already"),
        ({"event": np.array([100, 4])}, "event 4 is logged already"),
        ({"z": np.where(BIG > 1, np.nan, BIG)}, "'z' holds NaN or infinity"),
        ({"z": np.where(BIG > 1, np.inf, BIG)}, "'z' holds NaN or infinity"),
        ({"z": BIG}, r"'z' reaches 1\.0001"),
        ({"z": -BIG}, r"'z' reaches -1\.0001"),
        ({"z": BIG[:, :2]}, r"'z' has shape \(2, 2\): expected \(2, 3\)"),
        ({"z": BIG[:1] / 2}, r"'z' has shape \(1, 3\): expected \(2, 3\)"),
        ({"z": BIG[0]}, r"'z' .*\(3,\)"),
        ({"z": np.ones((2, 3), np.int64)}, "'z' is int64"),
        ({"z": [[0.5], [0.5, 0.5]]}, "'?z'?"),
        ({"z": None}, "'z'"),
        ({"score": np.array([0.5, np.nan], np.float32)}, "'score' holds NaN or infinity"),
        ({"score": np.array([0.5, 1.5], np.float32)}, r"'score' reaches 1\.5.*probability"),
        ({"score": np.array([-0.5, 0.5], np.float32)}, r"'score' reaches -0\.5.*probability"),
        ({"score": np.array([0.5, 1e40])}, "'score' reaches 1e.40"),
        ({"score": np.array([0.5], np.float32)}, r"'score' has shape \(1,\)"),
        ({"user": np.array([1])}, r"'user' has shape \(1,\): expected \(2,\)"),
        ({"user": np.array([1.0, 2.0])}, "'user' is float64"),
        ({"user": np.array(["a", "b"])}, "'user' is <U1"),
        ({"user": np.array([1, 2**63], np.uint64)}, f"'user' reaches {2**63}"),
        ({"time": np.array([2000.9, 2001.0])}, "'time' is float64"),
        ({"time": np.array(["2020-01-01", "2020-01-02"], "datetime64[us]")}, "'time' is datetime64"),
        ({"event": np.array([100.5, 101.5])}, "'event' is float64"),
        ({"event": np.array([True, False])}, "'event' is bool"),
        (rows([]), "no events to append"),
    ],
)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_rows_that_cannot_be_logged_are_refused(tmp_path, dtype, change, message):
    log = create(tmp_path, dtype=dtype)
    log.append(**rows(range(10)))
    before = contents(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        log.append(**NEW | change)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert contents(tmp_path) == before
    log.append(**rows(range(10, 13)))
    assert_holds(EmbeddingLog.open(tmp_path), range(13), np.float32 if dtype == "f32" else np.float16)


def test_another_fms_embeddings_are_refused(log):
    assert_refused(log, LogError, r"of FM bbbbbbbbbbbb, the log is of aaaaaaaaaaaa", **NEW, fm=OTHER)
    log.append(**NEW, fm=FM)
    with pytest.raises(LogError, match=r"is of FM aaaaaaaaaaaa, not bbbbbbbbbbbb"):
        EmbeddingLog.open(log.folder, fm=OTHER)


@pytest.mark.parametrize("time", [TRAINED[0] - 1, TRAINED[0], 500, TRAINED[1], -(2**63)])
def test_one_row_that_the_fm_may_have_seen_refuses_all(log, time):
    assert_refused(
        log, LeakError, r"1 of 2 events are not later.*event 101", **NEW | {"time": np.array([2000, time])}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fm": None}, "fm is None"),
        ({"fm": ""}, "fm is ''"),
        ({"dim": 0}, "dim is 0"),
        ({"dim": -1}, "dim is -1"),
        ({"dim": 2.5}, "dim is 2.5"),
        ({"dtype": "i8"}, "dtype is 'i8'"),
        ({"trained": (10, 0)}, r"trained is \(10, 0\)"),
        ({"trained": (0, float("nan"))}, "trained is"),
        ({"trained": (0, 2.5)}, "trained is"),
        ({"trained": None}, "trained is None"),
    ],
)
def test_a_log_of_nonsense_is_not_created(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        create(tmp_path / "log", **change)
    assert not (tmp_path / "log" / "manifest.json").exists()


def test_an_existing_log_is_not_overwritten(log):
    before = contents(log.folder)
    with pytest.raises(LogError, match="already holds an embedding log"):
        create(log.folder, fm=OTHER)
    assert contents(log.folder) == before


def test_there_is_no_log_in_an_empty_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(LogError, match="there is no embedding log"):
            EmbeddingLog.open(folder)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"version": 0}, {"version": "1"}, {"format": "another-log"}]
)
def test_a_manifest_of_another_version_is_named(log, change):
    path = log.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LogError, match="this recfm reads 'recfm-embedding-log' version 1") as caught:
        EmbeddingLog.open(log.folder)
    assert repr(next(iter(change.values()))) in str(caught.value)
