"""A damaged history index says so, or answers as it did: flipped bytes, truncated, missing and foreign files."""

import shutil

import numpy as np
import pytest

from log_helpers import create
from recfm.errors import LogError, RecfmError, StorageError
from recfm.history import tensors
from recfm.history.index import HistoryIndex
from recfm.history.log import EmbeddingLog

PART, MANIFEST = "part-000000.safetensors", "manifest.json"


@pytest.fixture
def saved(tmp_path):
    """A small index, and the answers that it gives."""
    user, time, values = events(60)
    HistoryIndex(user, time).save(tmp_path / "index")
    return tmp_path / "index", answers(HistoryIndex.open(tmp_path / "index", values=values))


def events(n, users=7):
    rng = np.random.default_rng(1)
    return rng.integers(0, users, n), rng.integers(0, 50, n), rng.uniform(-1, 1, (n, 2)).astype(np.float32)


def answers(index, n=60):
    user, time, _ = events(n)
    start, stop = index.window(user, time, length=4)
    out = np.empty((n, 4, 2), np.float32)
    index.gather(start, stop, out)
    walked = index.windows_of_events(length=4)
    return b"".join(x.tobytes() for x in (out, *walked))


def is_refused(folder, expected, name):
    """Whether the index says that it is damaged, naming the file; if it does not, it must answer as it did."""
    try:
        found = answers(HistoryIndex.open(folder, values=events(60)[2]))
    except RecfmError as error:
        problem = error
    else:
        assert found == expected
        return False
    assert type(problem) is StorageError
    assert name in str(problem)
    return True


def test_every_flipped_byte_of_a_part_is_detected(saved):
    folder, expected = saved
    content = (folder / PART).read_bytes()
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        (folder / PART).write_bytes(damaged)
        assert is_refused(folder, expected, PART), position
    (folder / PART).write_bytes(content)
    assert not is_refused(folder, expected, PART)


def test_every_flipped_byte_of_a_manifest_is_detected_or_harmless(saved):
    folder, expected = saved
    content = (folder / MANIFEST).read_bytes()
    refused = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        (folder / MANIFEST).write_bytes(damaged)
        refused += is_refused(folder, expected, MANIFEST)
    assert refused > len(content) / 2


@pytest.mark.parametrize("name", [PART, MANIFEST])
def test_truncated_and_missing_files_are_named_at_open(saved, name):
    folder, _ = saved
    content = (folder / name).read_bytes()
    for length in (0, 1, 7, 8, 9, len(content) // 2, len(content) - 9, len(content) - 1):
        (folder / name).write_bytes(content[:length])
        with pytest.raises(StorageError, match=name):
            HistoryIndex.open(folder)
    (folder / name).unlink()
    with pytest.raises(StorageError, match=name):
        HistoryIndex.open(folder)
    with pytest.raises(StorageError, match="there is no history index at"):
        HistoryIndex.open(folder / "nowhere")


def test_a_part_of_another_index_is_refused(saved, tmp_path):
    folder, expected = saved
    user, time, _ = events(60)
    HistoryIndex(user[::-1], time).save(tmp_path / "other")
    assert (tmp_path / "other" / PART).stat().st_size == (folder / PART).stat().st_size
    shutil.copy(tmp_path / "other" / PART, folder / PART)
    assert is_refused(folder, expected, PART)


def test_a_manifest_of_an_embedding_log_is_no_index(saved, tmp_path):
    folder, expected = saved
    create(tmp_path / "log")
    shutil.copy(tmp_path / "log" / MANIFEST, folder / MANIFEST)
    assert is_refused(folder, expected, MANIFEST)


# ---- several blocks --------------------------------------------------------------------------------------------


def flip(path, position):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 16]))


def test_a_damaged_block_is_met_only_by_those_who_need_it(tmp_path):
    n = 200_000
    user, time = np.arange(n) // 20, np.arange(n)
    HistoryIndex(user, time).save(tmp_path)
    flip(tmp_path / PART, 2 * tensors.BLOCK + 100)  # inside the times
    index = HistoryIndex.open(tmp_path)
    good, bad = np.array([1]), user[[(2 * tensors.BLOCK - 1024 + 100) // 8]]
    start, stop = index.window(good, np.array([n]), length=50)
    assert (start[0], stop[0]) == (20, 40)
    for _ in range(2):
        with pytest.raises(StorageError, match=rf"bytes 524288 to 786432 of '.*{PART}'"):
            index.window(bad, np.array([n]), length=50)
    with pytest.raises(StorageError, match="bytes 524288 to"):
        index.windows_of_events()
    with pytest.raises(StorageError, match="bytes 524288 to"):
        index.save(tmp_path / "copy")
    start, stop = index.window(good, np.array([n]), length=50)
    assert (start[0], stop[0]) == (20, 40)


def test_a_damaged_block_of_stored_vectors_is_named(tmp_path):
    log, n = create(tmp_path, 32), 5000
    event = np.arange(n)
    log.append(
        user=event // 20,
        time=event + 1001,
        event=event,
        score=np.zeros(n, np.float32),
        z=np.random.default_rng(0).uniform(-1, 1, (n, 32)).astype(np.float32),
    )
    segment = tmp_path / "segment-000000.safetensors"
    log.index()
    flip(segment, segment.stat().st_size - 4000)
    index = EmbeddingLog.open(tmp_path).index()
    out = np.empty((1, 20, 32), np.float32)
    index.gather(*index.window(np.array([0]), np.array([n + 2000]), length=20), out)
    assert (out[0] == log_rows(tmp_path, index, 0)).all()
    with pytest.raises(StorageError, match=r"bytes .* of '.*segment-000000.safetensors'"):
        index.gather(*index.window(np.array([249]), np.array([n + 2000]), length=20), out)
    flip(segment, segment.stat().st_size - 3)  # the table of checksums itself
    with pytest.raises(LogError, match=r"segment-000000.safetensors' does not match its checksum"):
        EmbeddingLog.open(tmp_path).index()


def log_rows(folder, index, user):
    """The vectors of a user as another reader of safetensors sees them, newest first."""
    import safetensors.numpy

    tensors = safetensors.numpy.load_file(folder / "segment-000000.safetensors")
    return tensors["z"][tensors["user"] == user][::-1]
