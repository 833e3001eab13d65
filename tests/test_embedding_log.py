"""The embedding log: what goes in comes out, visible after its commit, whoever else is writing."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log_helpers import FM, OTHER, TRAINED, assert_holds, create, rows
from recfm.errors import DataError, LogError
from recfm.history.log import EmbeddingLog


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
    with pytest.raises((DataError, LogError), match=r"event 2 is logged already|open it again"):
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


def test_of_many_creators_at_once_one_wins(tmp_path):
    def make(worker):
        try:
            log = create(tmp_path / "log", fm=f"fm {worker}")
        except LogError:
            return None
        log.append(**rows([worker]))
        return worker

    with ThreadPoolExecutor(8) as pool:
        winners = [worker for worker in pool.map(make, range(8)) if worker is not None]
    assert len(winners) == 1
    assert_holds(EmbeddingLog.open(tmp_path / "log", fm=f"fm {winners[0]}"), winners)


def test_appending_to_a_log_that_was_replaced_is_refused(tmp_path):
    log = create(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    create(tmp_path, fm=OTHER).append(**rows([1]))
    with pytest.raises(LogError):
        log.append(**rows([2]))
    assert_holds(EmbeddingLog.open(tmp_path, fm=OTHER), [1])
