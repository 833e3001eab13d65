"""Logs that store z in fewer bits, and the index beside a log's segments."""

import json

import numpy as np
import pytest
import safetensors

from log_helpers import create, rows
from recfm.errors import DataError, StorageError
from recfm.history.log import EmbeddingLog
from recfm.history.quantize import STORED, dequantize, quantize

NAMES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "int8": "I8", "int4": "U8"}
CODEBOOK = np.tanh(np.linspace(-2, 2, 16)).astype(np.float32)


def seen(index, log_rows, dim, length=4):
    start, stop = index.window(log_rows.user, log_rows.time, length=length)
    out = np.empty((len(log_rows), length, dim), np.float32)
    index.gather(start, stop, out)
    return out


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("dim", [1, 5, 8])
def test_a_log_reads_what_it_stored(tmp_path, dtype, dim):
    log = create(tmp_path, dim, dtype)
    for first in (0, 30, 60):
        log.append(**rows(range(first, first + 30), dim))
    whole = rows(range(90), dim)
    read = EmbeddingLog.open(tmp_path).read()
    expected = dequantize(quantize(whole["z"], dtype))
    assert (log.dtype, read.z.dtype) == (dtype, np.float16 if dtype == "f16" else np.float32)
    np.testing.assert_array_equal(read.z.astype(np.float32), expected)
    np.testing.assert_array_equal(
        seen(read.history(), read, dim), seen(type(read.history())(read.user, read.time, expected), read, dim)
    )
    with safetensors.safe_open(tmp_path / "segment-000001.safetensors", "np") as file:
        assert file.get_slice("z").get_dtype() == NAMES[dtype]
        assert file.metadata()["dtype"] == dtype


def test_a_codebook_is_kept(tmp_path):
    log = create(tmp_path, 5, "int4", codebook=CODEBOOK)
    log.append(**rows(range(20), 5))
    read = EmbeddingLog.open(tmp_path).read()
    np.testing.assert_array_equal(
        read.z, dequantize(quantize(rows(range(20), 5)["z"], "int4", codebook=CODEBOOK))
    )
    index = EmbeddingLog.open(tmp_path).index()
    np.testing.assert_array_equal(seen(index, read, 5), seen(read.history(), read, 5))
    with pytest.raises(DataError, match="a codebook is for int4"):
        create(tmp_path / "other", 5, "int8", codebook=CODEBOOK)


@pytest.mark.parametrize("dtype", STORED)
def test_the_index_of_a_log_grows_with_it(tmp_path, dtype):
    log, parts = create(tmp_path, 3, dtype), {}
    assert len(log.index()) == 0
    for count in (1, 2, 3):
        log.append(**rows(range(40 * count - 40, 40 * count)))
        index = EmbeddingLog.open(tmp_path).index()
        assert (index.num_parts, len(index), index.values.shape) == (count, 40 * count, (40 * count, 3))
        read = log.read()
        np.testing.assert_array_equal(seen(index, read, 3), seen(read.history(), read, 3))
        for name, content in parts.items():
            assert (tmp_path / "index" / name).read_bytes() == content
        parts = {path.name: path.read_bytes() for path in (tmp_path / "index").glob("part-*")}
        assert len(parts) == count
    assert seen(EmbeddingLog.open(tmp_path).index(), read, 3).any()


def test_an_index_of_another_log_is_refused(tmp_path):
    for name, first in (("a", 0), ("b", 5)):
        log = create(tmp_path / name)
        log.append(**rows(range(first, first + 10)))
        log.index()
    (tmp_path / "a" / "index").rename(tmp_path / "kept")
    (tmp_path / "b" / "index").rename(tmp_path / "a" / "index")
    with pytest.raises(StorageError, match="is of another log: delete that folder"):
        EmbeddingLog.open(tmp_path / "a").index()


def test_a_log_of_an_earlier_recfm_has_an_index_too(tmp_path):
    """Segments without checksums of their blocks are read into memory."""
    log = create(tmp_path)
    log.append(**rows(range(20)))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["checksum"]
    for segment in manifest["segments"]:
        del segment["checks"], segment["blocks"]
    from recfm.storage import LOG, write_manifest

    write_manifest(tmp_path, manifest, LOG)
    old = EmbeddingLog.open(tmp_path)
    read = old.read()
    np.testing.assert_array_equal(seen(old.index(), read, 3), seen(read.history(), read, 3))
