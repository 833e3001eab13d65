"""The encoded folder: what streaming writes is what memory holds, whole or absent, and never silent garbage."""

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recfm.data import folder as folder_module
from recfm.data.encode import Encoder
from recfm.data.folder import EncodedFolder, FolderWriter
from recfm.errors import DataError, RecfmError, SchemaError, StorageError
from recfm.new_folder import NewFolder, owner
from recfm.schema import Categorical, Numeric, Schema, Tokens

SCHEMA = Schema(
    user="user",
    item="item",
    time="time",
    label="label",
    features=(
        Categorical(name="user", side="user"),
        Categorical(name="item", side="item", min_count=2),
        Categorical(name="shop", side="item", buckets=50),
        Numeric(name="price", side="item"),
        Numeric(name="size", side="item", transform="log"),
        Numeric(name="age", side="user", transform="quantile", buckets=5),
        Tokens(name="genres", side="item", max_length=2),
        Tokens(name="tags", side="item", buckets=20),
    ),
)
ARRAYS = ("ids", "numeric", "user", "item", "time", "label")
BLOCK = 128


def events(rows, seed=0):
    rng = np.random.default_rng(seed)
    some = pl.Series(rng.random(rows) < 0.1)
    lists = [rng.integers(0, 9, k).tolist() for k in rng.integers(0, 5, rows)]
    frame = pl.DataFrame(
        {
            "user": rng.integers(0, 40, rows),
            "item": [f"item-{i}" for i in rng.integers(0, 90, rows)],
            "time": np.sort(rng.integers(0, 10_000, rows)),
            "label": rng.integers(0, 2, rows),
            "shop": [f"shop {i}" for i in rng.integers(0, 30, rows)],
            "price": rng.normal(1e9, 1e-2, rows),
            "size": rng.lognormal(3, 2, rows),
            "age": rng.integers(0, 90, rows).astype(float),
            "genres": lists,
            "tags": [[str(i) for i in row] for row in lists],
        }
    )
    nulled = ["shop", "price", "age", "genres"]
    return frame.with_columns(pl.when(~some).then(pl.col(nulled)))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(folder_module, "BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(folder_module, "FILE_BLOCKS", 3)


def assert_same(left, right):
    assert left.layout == right.layout
    for name in ARRAYS:
        a, b = getattr(left, name), getattr(right, name)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes(), name
    assert left.tokens.keys() == right.tokens.keys()
    for name, (values, offsets) in left.tokens.items():
        assert values.tolist() == right.tokens[name][0].tolist()
        assert offsets.tolist() == right.tokens[name][1].tolist()


@pytest.fixture(scope="module")
def whole():
    frame = events(1000)
    encoder = Encoder(SCHEMA).fit(frame.head(700))
    return frame, encoder, encoder.transform(frame)


@pytest.mark.parametrize("memory", ["16MiB", "2GiB"])
def test_streaming_writes_what_memory_holds(tmp_path, whole, memory, monkeypatch):
    monkeypatch.setattr("recfm.data.encode._PIECE", (100, 100 if memory == "16MiB" else 2**20))
    frame, _, expected = whole
    path = tmp_path / "events.parquet"
    frame.write_parquet(path, row_group_size=90)
    frame.head(700).write_parquet(tmp_path / "train.parquet", row_group_size=33)
    seen = []
    encoder = Encoder(SCHEMA).fit(tmp_path / "train.parquet", memory=memory)
    found = encoder.encode(path, tmp_path / "out", memory=memory, on_rows=lambda *at: seen.append(at))
    assert len(found) == 1000
    assert found.num_blocks == 8
    assert seen[-1] == ("encode", 1000, 1000)
    assert_same(found.read(), expected)
    assert_same(EncodedFolder(tmp_path / "out").read(), expected)


def test_blocks_are_read_in_the_order_asked_for(tmp_path, whole):
    frame, encoder, expected = whole
    found = encoder.encode(frame, tmp_path / "out")
    rows = np.concatenate([np.arange(896, 1000), np.arange(128), np.arange(384, 512)])
    part = found.read([7, 0, 3])
    for name in ARRAYS:
        assert (getattr(part, name) == getattr(expected, name)[rows]).all()
    for name, (values, offsets) in part.tokens.items():
        all_values, all_offsets = expected.tokens[name]
        lists = [values[a:b].tolist() for a, b in pairwise(offsets)]
        assert lists == [all_values[all_offsets[r] : all_offsets[r + 1]].tolist() for r in rows]
    assert (found.column("time", [1]) == expected.time[128:256]).all()
    for bad in ([8], [-1]):
        with pytest.raises(DataError, match="there is no block"):
            found.read(bad)
    with pytest.raises(DataError, match="column is 'ids'"):
        found.column("ids")


def test_polars_opens_the_files_as_they_are(tmp_path, whole):
    frame, encoder, expected = whole
    found = encoder.encode(frame, tmp_path / "out").scan().collect()
    assert (found["ids"].to_numpy() == expected.ids).all()
    assert (found["user"].to_numpy() == expected.user).all()
    values, offsets = expected.tokens["tags"]
    assert found["tokens.tags"].list.len().to_list() == np.diff(offsets).tolist()
    assert found["tokens.tags"].explode().drop_nulls().to_list() == values.tolist()


def test_a_saved_encoder_transforms_unseen_rows_as_the_fitted_one(tmp_path, whole):
    frame, encoder, _ = whole
    saved = encoder.encode(frame, tmp_path / "out").encoder
    unseen = events(300, seed=9)
    assert_same(saved.transform(unseen), encoder.transform(unseen))


def test_encoders_and_folders_travel_to_other_processes(tmp_path, whole):
    frame, encoder, expected = whole
    assert_same(pickle.loads(pickle.dumps(encoder)).transform(frame), expected)
    assert pickle.loads(pickle.dumps(Encoder(SCHEMA))).schema == SCHEMA
    folder = encoder.encode(frame, tmp_path / "out")
    assert_same(pickle.loads(pickle.dumps(folder)).read(), expected)


def test_features_named_strangely_are_saved_too(tmp_path):
    names = ["a/b", "..", "ü" * 90, "a b", "a_b"]
    schema = Schema(
        user="user", item="item", time="time", label="label",
        features=tuple(Categorical(name=name, side="item") for name in names),
    )  # fmt: skip
    frame = events(20).with_columns(pl.Series(name, [f"{name}{i % 3}" for i in range(20)]) for name in names)
    encoder = Encoder(schema).fit(frame)
    assert_same(encoder.encode(frame, tmp_path / "out").encoder.transform(frame), encoder.transform(frame))


def test_an_existing_folder_is_left_alone(tmp_path, whole):
    frame, encoder, expected = whole
    encoder.encode(frame, tmp_path / "out")
    with pytest.raises(StorageError, match="exists already"):
        encoder.encode(frame.head(5), tmp_path / "out")
    assert_same(EncodedFolder(tmp_path / "out").read(), expected)


def test_a_bad_row_far_in_is_named_by_its_place_in_the_table_and_leaves_nothing(tmp_path, whole, monkeypatch):
    monkeypatch.setattr("recfm.data.encode._PIECE", (100, 100))
    frame, encoder, _ = whole
    bad = frame.with_columns(label=pl.when(pl.arange(pl.len()) == 777).then(3).otherwise("label"))
    with pytest.raises(DataError, match=r"label.* holds 3 in row 777"):
        encoder.encode(bad, tmp_path / "out")
    with pytest.raises(DataError, match=r"label.* holds 3 in row 777"):
        Encoder(SCHEMA).fit(bad)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="no rows"):
        encoder.encode(frame.head(0), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_kinds_that_change_between_pieces_are_refused(tmp_path):
    fitting = Encoder(SCHEMA).fit(events(50))
    with pytest.raises(SchemaError, match=r"item.*str.*|item.*int"):
        fitting.transform(events(50).with_columns(item=pl.lit(1)))


def test_a_vocabulary_beyond_the_budget_names_its_feature():
    rows = 700_000
    frame = events(10)[[0] * rows].with_columns(item=pl.int_range(rows).cast(pl.String) + "x" * 10)
    with pytest.raises(DataError, match=r"'item' alone has [\d,]+ distinct values.*hash it"):
        Encoder(SCHEMA).fit(frame, memory="16MiB")


def test_every_damaged_byte_is_detected_or_harmless(tmp_path, whole):
    frame, encoder, _ = whole
    encoder.encode(frame, tmp_path / "out")
    expected = EncodedFolder(tmp_path / "out").read()
    rng = random.Random(0)
    detected = 0
    for file in sorted((tmp_path / "out").iterdir()):
        content = file.read_bytes()
        for at in rng.sample(range(len(content)), min(len(content), 60)):
            damaged = bytearray(content)
            damaged[at] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            try:
                found = EncodedFolder(tmp_path / "out").read()
            except RecfmError:
                detected += 1
            else:
                assert_same(found, expected)
        file.write_bytes(content)
    assert detected > 300
    assert_same(EncodedFolder(tmp_path / "out").read(), expected)


def test_missing_and_short_files_are_named_when_opening(tmp_path, whole):
    frame, encoder, _ = whole
    encoder.encode(frame, tmp_path / "out")
    for name in [path.name for path in (tmp_path / "out").iterdir()]:
        for cut in (None, -1, 0):
            shutil.copytree(tmp_path / "out", tmp_path / "copy")
            path = tmp_path / "copy" / name
            content = path.read_bytes()
            path.unlink() if cut is None else path.write_bytes(content[:cut])
            with pytest.raises(StorageError, match="copy"):
                EncodedFolder(tmp_path / "copy")
            shutil.rmtree(tmp_path / "copy")


def test_a_full_disk_leaves_nothing(tmp_path, whole, monkeypatch):
    frame, encoder, _ = whole

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match="no space left"):
        encoder.encode(frame, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


ENCODE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_encoded_folder as t
t.folder_module.BLOCK_ROWS, t.folder_module.FILE_BLOCKS = t.BLOCK, 3
frame = t.events(20_000)
encoder = t.Encoder(t.SCHEMA).fit(frame)
print("ready", flush=True)
for k in range(1000):
    encoder.encode(frame, Path({out!r}) / str(k))
"""


def test_killed_while_encoding_there_are_only_whole_folders(tmp_path):
    frame = events(20_000)
    expected = Encoder(SCHEMA).fit(frame).transform(frame)
    out = tmp_path / "out"
    out.mkdir()
    rng = random.Random(1)
    for kill in range(4):
        for old in out.iterdir():
            shutil.rmtree(old)
        script = ENCODE.format(tests=str(Path(__file__).parent), out=str(out))
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.0, 0.5))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        finished = [path for path in out.iterdir() if not path.name.startswith(".")]
        for path in finished:
            assert_same(EncodedFolder(path).read(), expected)
        # The next run clears away what the killed one left of the same folder.
        left = [path for path in out.iterdir() if path.name.startswith(".")]
        assert len(left) <= 1, kill
        for path in left:
            target = out / path.name[1:].split(".")[0]
            with FolderWriter(target, Encoder(SCHEMA).fit(frame.head(100))):
                assert not path.exists()


def test_a_running_writer_is_not_cleared_away(tmp_path, whole):
    _, encoder, _ = whole
    mine = tmp_path / f".out.{owner()}.tmp"
    other = tmp_path / ".out.another-host-1.tmp"
    parent = tmp_path / f".out.{owner().rpartition('-')[0]}-{os.getppid()}.tmp"
    other.mkdir()
    parent.mkdir()
    with FolderWriter(tmp_path / "out", encoder):
        assert mine.exists()
        assert other.exists()
        assert parent.exists()
    assert not mine.exists()


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "~there-is-nobody-of-this-name/\0"])
def test_a_folder_that_cannot_be_is_refused(tmp_path, whole, name):
    frame, encoder, _ = whole
    with pytest.raises(StorageError):
        encoder.encode(frame, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_link_to_nowhere_is_left_alone(tmp_path, whole):
    frame, encoder, _ = whole
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="exists already"):
        encoder.encode(frame, link)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_names_that_look_like_patterns_and_homes_are_paths(tmp_path, whole, monkeypatch):
    frame, encoder, _ = whole
    monkeypatch.setenv("HOME", str(tmp_path))
    assert encoder.encode(frame, "~/a[b]**c").folder == tmp_path / "a[b]**c"
    assert len(EncodedFolder("~/a[b]**c")) == len(frame)


def test_what_a_killed_process_of_our_own_number_left_is_cleared_away(tmp_path, whole):
    frame, encoder, _ = whole
    left = NewFolder(tmp_path / "out").temporary  # as in a container that starts again
    left.mkdir()
    (left / "events-00000.arrow").write_bytes(b"half")
    encoder.encode(frame, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with FolderWriter(tmp_path / "new", encoder), pytest.raises(StorageError, match="cannot create"):
        encoder.encode(frame, tmp_path / "new")
