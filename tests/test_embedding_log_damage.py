"""A damaged embedding log says so: truncation, flipped bits, missing and foreign files, leftovers."""

import numpy as np
import pytest

from log_helpers import OTHER, assert_holds, contents, create, rows
from recfm.errors import LogError
from recfm.history.log import EmbeddingLog

SEGMENT, MANIFEST = "segment-000000.safetensors", "manifest.json"


@pytest.fixture
def folder(tmp_path):
    """A log of two segments."""
    log = create(tmp_path / "log")
    log.append(**rows(range(10)))
    log.append(**rows(range(10, 20)))
    return log.folder


def is_refused(folder):
    """Whether the log says that it is damaged; if it does not, it must be whole."""
    try:
        log = EmbeddingLog.open(folder)
        log.read()
    except LogError as error:
        assert error.__context__ is None or error.__suppress_context__  # noqa: PT017 - or it is whole
        return True
    assert_holds(log, range(20))
    return False


def test_a_truncated_segment_is_refused(folder):
    path = folder / SEGMENT
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    n = len(content)
    for length in [
        0,
        1,
        7,
        8,
        9,
        header // 2,
        header - 1,
        header,
        header + 1,
        (header + n) // 2,
        n - 1,
        n + 1,
    ]:
        path.write_bytes((content + b"\0")[:length])
        assert is_refused(folder), length


def test_a_truncated_manifest_is_refused(folder):
    path = folder / MANIFEST
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert is_refused(folder), length


@pytest.mark.parametrize("name", [SEGMENT, "segment-000001.safetensors", MANIFEST])
def test_flipped_bits_are_detected_or_harmless(folder, name):
    content, rng = (folder / name).read_bytes(), np.random.default_rng(0)
    refused = 0
    for position, bit in zip(rng.integers(0, len(content), 200), rng.integers(0, 8, 200), strict=True):
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        (folder / name).write_bytes(damaged)
        refused += is_refused(folder)
    assert refused == 200 if name != MANIFEST else refused > 100
    (folder / name).write_bytes(content)
    assert not is_refused(folder)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"checksum": 1}']
)
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / MANIFEST).write_bytes(content)
    assert is_refused(folder)


def test_a_missing_segment_is_named(folder):
    (folder / SEGMENT).unlink()
    with pytest.raises(LogError, match=rf"{SEGMENT}' is missing"):
        EmbeddingLog.open(folder)


def test_segments_in_each_others_place_are_refused(folder, tmp_path):
    one, two = folder / SEGMENT, folder / "segment-000001.safetensors"
    assert one.stat().st_size == two.stat().st_size
    one.rename(tmp_path / "one")
    two.rename(one)
    (tmp_path / "one").rename(two)
    assert is_refused(folder)


def test_a_segment_of_another_fm_is_refused(folder, tmp_path):
    other = create(tmp_path / "other", fm=OTHER)
    other.append(**rows(range(10)))
    (folder / SEGMENT).write_bytes((other.folder / SEGMENT).read_bytes())
    assert is_refused(folder)


def test_a_segment_that_vanishes_after_opening_is_refused(folder):
    log = EmbeddingLog.open(folder)
    (folder / SEGMENT).unlink()
    (folder / SEGMENT).mkdir()
    with pytest.raises(LogError, match=SEGMENT):
        log.read()


def test_nothing_is_appended_to_a_damaged_log(folder):
    log = EmbeddingLog.open(folder)
    content = bytearray((folder / SEGMENT).read_bytes())
    content[-1] ^= 1
    (folder / SEGMENT).write_bytes(content)
    before = contents(folder)
    with pytest.raises(LogError, match="checksum"):
        log.append(**rows([20]))
    assert contents(folder) == before


def test_what_a_killed_append_leaves_behind_is_harmless(folder):
    (folder / f".{MANIFEST}.123.tmp").write_bytes(b"{half a mani")
    (folder / ".segment-000002.safetensors.123.tmp").write_bytes(b"half a segment")
    (folder / "segment-000002.safetensors").write_bytes(b"never committed")
    log = EmbeddingLog.open(folder)
    assert_holds(log, range(20))
    log.append(**rows(range(20, 25)))
    assert_holds(EmbeddingLog.open(folder), range(25))
