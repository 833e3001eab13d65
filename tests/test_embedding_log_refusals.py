"""What an embedding log refuses: rows that its FM may have seen, other FMs, and values that are no embedding."""

import json

import numpy as np
import pytest

from log_helpers import FM, OTHER, TRAINED, assert_holds, contents, create, rows
from recfm.errors import DataError, LeakError, LogError
from recfm.history.log import EmbeddingLog


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
