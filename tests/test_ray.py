"""Ray Data: what a cluster encodes is what one machine encodes, whatever the blocks and workers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm import ray as recfm_ray
from recfm.data.encode import Encoder
from recfm.data.partitioned import PartitionedFolder, partition_of
from recfm.errors import ConfigError, DataError, SchemaError, StorageError
from recfm.history.index import HistoryIndex
from recfm.schema import Categorical, Numeric, Schema, Tokens
from table_helpers import refused

# Ray trips over its own deprecations when it fills in its defaults.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\."),
    # Ray leaves the log of a failed execution to the garbage collector.
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in.*ray-data:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings(r"ignore:unclosed file.*ray-data:ResourceWarning"),
]

SCHEMA = Schema(
    user="user",
    item="item",
    time="time",
    label="label",
    features=(
        Categorical(name="user", side="user"),
        Categorical(name="item", side="item", min_count=2),
        Categorical(name="id", side="item", buckets=50),
        Numeric(name="price", side="item"),
        Numeric(name="size", side="item", transform="log"),
        Numeric(name="age", side="user", transform="quantile", buckets=5),
        Tokens(name="genres", side="item", max_length=2),
        Tokens(name="tags", side="item", buckets=20),
    ),
)
# Keys without features of the kinds that make matrices and lists.
BARE = Schema(
    user="user",
    item="item",
    time="time",
    label="label",
    features=(Tokens(name="genres", side="item"),),
)
ROWS, PARTITIONS = 3000, 5
CUTS = [0, 1, 900, 900, 1100, 1400, ROWS]


def events(rows=ROWS, seed=0, *, strings=False):
    """Users of a few dozen events, many at the same second, in no order of time."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 70, rows) * 64
    lists = [rng.integers(0, 9, k).tolist() for k in rng.integers(0, 5, rows)]
    some = pl.Series(rng.random(rows) < 0.1)
    frame = pl.DataFrame(
        {
            "user": [f"u{u}" for u in user] if strings else user,
            "item": [f"item-{i}" for i in rng.integers(0, 90, rows)],
            "time": rng.integers(0, 300, rows),
            "label": rng.integers(0, 2, rows),
            "id": rng.integers(0, 30, rows),
            "price": rng.normal(1e9, 1e-2, rows),
            "size": rng.lognormal(3, 2, rows),
            "age": rng.integers(0, 90, rows).astype(float),
            "genres": lists,
            "tags": [[str(i) for i in row] for row in lists],
            "unused": rng.random(rows),
        }
    )
    return frame.with_columns(pl.when(~some).then(pl.col("id", "price", "age", "genres")))


@pytest.fixture(scope="module")
def ray():
    """A cluster of two workers on this machine."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'recfm[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        import ray.data

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()


@pytest.fixture(scope="module")
def encoder():
    return Encoder(SCHEMA).fit(events())


@pytest.fixture(scope="module")
def folder(ray, encoder, tmp_path_factory):
    """The table of `events()`, encoded from uneven blocks."""
    folder = tmp_path_factory.mktemp("ray") / "encoded"
    recfm_ray.encode(dataset(ray, events()), encoder, folder, partitions=PARTITIONS)
    return folder


def dataset(ray, frame, cuts=CUTS):
    return ray.data.from_arrow([frame[a:b].to_arrow() for a, b in pairwise(cuts)])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lists_of(jagged):
    values, offsets = jagged
    return [values[start:stop].tolist() for start, stop in pairwise(offsets)]


def assert_same_rows(part, whole, rows):
    for name in ("ids", "numeric", "user", "item", "time", "label"):
        found, expected = getattr(part, name), getattr(whole, name)[rows]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
        assert found.tobytes() == expected.tobytes(), name
    for name, jagged in whole.tokens.items():
        lists = lists_of(jagged)
        assert lists_of(part.tokens[name]) == [lists[row] for row in rows], name


def past(index, user, moment, length=6):
    start, stop = index.window(user, moment, length=length, delay=3.0)
    out = np.zeros((len(user), length, index.values.shape[1]), np.int32)
    index.gather(start, stop, out)
    return out


def assert_same_table(table, frame, encoder):
    """Every event and every past is that of one machine."""
    whole = encoder.transform(frame)
    ids = np.column_stack([whole.item.astype(np.int32), np.arange(len(frame), dtype=np.int32)])
    pasts = past(HistoryIndex(whole.user, whole.time, ids), whole.user, whole.time)
    home = partition_of(whole.user, table.num_parts)
    assert len(table) == len(frame)
    for number, part in enumerate(table.parts):
        rows = np.flatnonzero(home == number)
        assert_same_rows(part.read(), whole, rows)
        if len(rows):
            index = table.history(number).with_values(np.ascontiguousarray(ids[rows]))
            assert (past(index, whole.user[rows], whole.time[rows]) == pasts[rows]).all()
    assert pasts.any()


@pytest.mark.parametrize("strings", [False, True])
def test_fit_is_that_of_one_machine(ray, strings):
    frame = events(strings=strings)
    assert recfm_ray.fit(dataset(ray, frame), SCHEMA).files() == Encoder(SCHEMA).fit(frame).files()


def test_events_and_histories_are_those_of_one_machine(folder, encoder):
    assert_same_table(PartitionedFolder(folder), events(), encoder)


def test_the_bytes_do_not_depend_on_blocks_or_scheduling(ray, folder, encoder, tmp_path):
    def slow_first(block):
        time.sleep(1.0 if block.num_rows == 1 else 0.0)  # the first block is done last
        return block

    data = dataset(ray, events(), [0, 1, *range(400, ROWS, 400), ROWS])
    slow = data.map_batches(slow_first, batch_size=None, batch_format="pyarrow")
    recfm_ray.encode(slow, encoder, tmp_path / "again", partitions=PARTITIONS)
    assert contents(tmp_path / "again") == contents(folder)


def test_blocks_of_the_same_rows_keep_their_places(ray, encoder, tmp_path):
    same = events(100)
    frame = pl.concat([same, same, events(50, seed=1), same])
    cuts = [0, 100, 200, 250, 350]
    table = recfm_ray.encode(dataset(ray, frame, cuts), encoder, tmp_path / "out", partitions=2)
    assert_same_table(table, frame, encoder)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), blocks=st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_rows_in_any_order_come_back_in_the_order_of_the_table(seed, blocks):
    """Each number names what a block holds: block b has b + 1 rows, and the partition has all but its first."""
    pa = pytest.importorskip("pyarrow")
    starts = np.cumsum([0, *(block + 1 for block in blocks)])[:-1]
    copies = [blocks[:place].count(block) for place, block in enumerate(blocks)]
    known = pl.DataFrame(
        {"block": blocks, "start": starts, "copy": copies}, schema_overrides={"block": pl.Int64}
    )
    rows = [(block, row) for block in blocks for row in range(1, block + 1)]
    mixed = np.random.default_rng(seed).permutation(len(rows))
    table = pa.table({name: [rows[i][k] for i in mixed] for k, name in enumerate(("block", "row"))})
    if rows:
        order = recfm_ray._order(table, known)
        assert [rows[mixed[i]] for i in order] == rows
        elsewhere = known.with_columns(block=pl.col("block") + 9)
        assert "deterministic" in refused(DataError, lambda: recfm_ray._order(table, elsewhere))


def test_files_are_read_in_order_and_empty_parts_are_parts(ray, tmp_path):
    frame = events(strings=True).filter(pl.col("user").is_in(["u0", "u64", "u128"]))
    frame = frame.select(BARE.columns())
    (tmp_path / "log").mkdir()
    for number in range(3):
        frame[number * 40 : (number + 1) * 40].write_parquet(tmp_path / "log" / f"{number}.parquet")
    frame = frame[:120]
    encoder = recfm_ray.fit(ray.data.read_parquet(str(tmp_path / "log")), BARE)
    table = recfm_ray.encode(
        ray.data.read_parquet(str(tmp_path / "log")), encoder, tmp_path / "out", partitions=12
    )
    assert encoder.files() == Encoder(BARE).fit(tmp_path / "log").files()
    assert_same_table(table, frame, encoder)
    empty = next(number for number, part in enumerate(table.parts) if len(part) == 0)
    assert len(table.history(empty)) == 0
    assert table.part_of("u64") == next(
        number for number, part in enumerate(table.parts) if frame_has(part, encoder, frame, "u64")
    )
    assert "integers" not in refused(DataError, lambda: table.part_of(64))


def frame_has(part, encoder, frame, user):
    key = encoder.transform(frame.filter(user=user)).user[0]
    return key in part.column("user")


def test_a_user_is_found_in_its_part(folder):
    table = PartitionedFolder(folder)
    for user in (0, 64, 69 * 64):
        homes = [number for number, part in enumerate(table.parts) if user in part.column("user")]
        assert homes == [table.part_of(user)]
    assert 0 <= table.part_of(-1) < PARTITIONS
    assert table.part_of(np.int64(64)) == table.part_of(64)
    for bad in ("0", 1.0, True, None, 2**63, -(2**63) - 1):
        assert repr(bad) in refused(DataError, lambda bad=bad: table.part_of(bad))
    assert "5" in refused(DataError, lambda: table.part(PARTITIONS))


BAD_ROW = 1234
BAD = {
    "label": pl.when(pl.int_range(pl.len()) == BAD_ROW).then(7).otherwise("label").alias("label"),
    "null key": pl.when(pl.int_range(pl.len()) != BAD_ROW).then("user").alias("user"),
    "dtype": pl.col("price").cast(pl.String),
    "key": pl.col("user").cast(pl.Float64),
    "infinite": pl.col("time").cast(pl.Int64) + 2**62,
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_rows_are_refused_as_on_one_machine(ray, encoder, tmp_path, bad):
    frame = events().with_columns(BAD[bad])
    data = dataset(ray, frame)
    if bad != "infinite":  # fitting does not read the time
        error = DataError if bad in ("label", "null key") else SchemaError
        expected = refused(error, lambda: Encoder(SCHEMA).fit(frame))
        message = refused(error, lambda: recfm_ray.fit(data, SCHEMA))
        assert message == expected or f"row {BAD_ROW}" in message
    error = SchemaError if bad in ("dtype", "key") else DataError
    expected = refused(error, lambda: encoder.transform(frame))
    assert refused(error, lambda: recfm_ray.encode(data, encoder, tmp_path / "out", partitions=2)) == expected
    assert list(tmp_path.iterdir()) == []


def test_lists_of_one_length_that_ray_calls_tensors(ray):
    frame = events(30).select(BARE.columns()).with_columns(genres=pl.lit([3, 1, 3]))

    def tensors(block):
        return block | {"genres": np.tile([3, 1, 3], (len(block["user"]), 1))}

    data = dataset(ray, frame, [0, 30]).map_batches(tensors, batch_format="numpy")
    assert "list" not in str(data.schema().types[frame.columns.index("genres")])
    assert recfm_ray.fit(data, BARE).files() == Encoder(BARE).fit(frame).files()


def test_a_missing_column_is_named_with_the_nearest(ray, encoder, tmp_path):
    data = dataset(ray, events(50).rename({"price": "prise"}), [0, 20, 50])
    assert "did you mean 'prise'" in refused(SchemaError, lambda: recfm_ray.fit(data, SCHEMA))
    out = tmp_path / "out"
    message = refused(SchemaError, lambda: recfm_ray.encode(data, encoder, out, partitions=2))
    assert "did you mean 'prise'" in message


def test_users_of_two_kinds_are_refused(ray, tmp_path):
    frames = [events(50, strings=strings).select(BARE.columns()) for strings in (False, True)]
    data = ray.data.from_arrow([frame.to_arrow() for frame in frames])
    encoder = Encoder(BARE).fit(frames[0])
    message = refused(SchemaError, lambda: recfm_ray.encode(data, encoder, tmp_path / "out", partitions=2))
    assert "'user'" in message


def test_a_table_without_rows_is_refused(ray, encoder, tmp_path):
    data = dataset(ray, events(50), [0, 50]).map_batches(
        lambda table: table[:0], batch_size=None, batch_format="pyarrow"
    )
    assert "no rows" in refused(DataError, lambda: recfm_ray.fit(data, SCHEMA))
    out = tmp_path / "out"
    assert "no rows" in refused(DataError, lambda: recfm_ray.encode(data, encoder, out, partitions=2))


def test_a_disk_that_refuses_a_worker_is_named_and_a_rerun_is_clean(ray, folder, encoder, tmp_path):
    def block(table):
        (temporary,) = tmp_path.glob(".out.*.tmp")
        (temporary / "history-00003").touch()  # where a folder must be made
        return table

    data = dataset(ray, events())
    blocked = data.map_batches(block, batch_size=None, batch_format="pyarrow")
    out = tmp_path / "out"
    message = refused(StorageError, lambda: recfm_ray.encode(blocked, encoder, out, partitions=PARTITIONS))
    assert "history-00003" in message
    assert list(tmp_path.iterdir()) == []
    recfm_ray.encode(data, encoder, out, partitions=PARTITIONS)
    assert contents(out) == contents(folder)


def test_rows_that_ray_loses_are_missed(ray, encoder, tmp_path, monkeypatch):
    def lossy(dataset, *columns):
        found = list(rows_of(dataset, *columns))
        return found[:-1] if columns[0] == "part" else found

    rows_of = recfm_ray._rows_of
    monkeypatch.setattr(recfm_ray, "_rows_of", lossy)
    data = dataset(ray, events(100), [0, 100])
    out = tmp_path / "out"
    assert "lost" in refused(DataError, lambda: recfm_ray.encode(data, encoder, out, partitions=2))
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
import polars as pl, ray
from recfm import ray as recfm_ray
from recfm.data.encode import Encoder
from test_ray import SCHEMA, events

def hang(table):
    time.sleep(600)
    return table

ray.init(address=sys.argv[1], log_to_driver=False)
data = ray.data.from_arrow(events().to_arrow()).map_batches(hang, batch_format="pyarrow")
recfm_ray.encode(data, Encoder(SCHEMA).fit(events()), sys.argv[2], partitions=2)
"""


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_the_next_one_minds(ray, folder, encoder, tmp_path):
    out = tmp_path / "out"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    address = ray.get_runtime_context().gcs_address
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, address, str(out)], env=os.environ | {"PYTHONPATH": path}
    )
    try:
        end = time.monotonic() + 120
        while not list(tmp_path.glob(".out.*.tmp")):
            assert run.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not out.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".tmp")
    recfm_ray.encode(dataset(ray, events()), encoder, out, partitions=PARTITIONS)
    assert list(tmp_path.iterdir()) == [out]
    assert contents(out) == contents(folder)


@pytest.mark.parametrize("partitions", [0, -1, 1.5, True, "4", 100_001])
def test_partitions_are_a_number(ray, encoder, tmp_path, partitions):
    data = dataset(ray, events(10), [0, 10])
    message = refused(
        ConfigError, lambda: recfm_ray.encode(data, encoder, tmp_path / "out", partitions=partitions)
    )
    assert repr(partitions) in message


def test_what_is_there_is_not_touched(ray, folder, encoder):
    before = contents(folder)
    data = dataset(ray, events(10), [0, 10])
    assert "exists" in refused(StorageError, lambda: recfm_ray.encode(data, encoder, folder, partitions=2))
    assert contents(folder) == before


def test_an_encoder_must_be_fitted_and_a_dataset_be_one(ray, tmp_path):
    data = dataset(ray, events(10), [0, 10])
    unfitted = Encoder(SCHEMA)
    assert "fit" in refused(DataError, lambda: recfm_ray.encode(data, unfitted, tmp_path / "o", partitions=2))
    assert "DataFrame" in refused(ConfigError, lambda: recfm_ray.fit(events(10), SCHEMA))


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    message = refused(ConfigError, lambda: recfm_ray.fit(events(10), SCHEMA))
    assert "pip install 'recfm[ray]'" in message


def test_importing_it_imports_neither_ray_nor_torch():
    script = "import sys, recfm.ray; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )


def drop(folder, name):
    shutil.rmtree(folder / name)


def swap(folder, name):
    """A part of the same number, of a run on other rows."""
    other = folder / name.replace("00002", "00001")
    shutil.rmtree(folder / name)
    shutil.copytree(other, folder / name)


def shorten(folder, name):
    (folder / name / "manifest.json").write_bytes(b"{}")


@pytest.mark.parametrize("name", ["part-00002", "history-00002"])
@pytest.mark.parametrize("damage", [drop, swap, shorten])
def test_a_part_that_is_missing_or_of_another_run_is_refused(folder, tmp_path, name, damage):
    shutil.copytree(folder, tmp_path / "copy")
    damage(tmp_path / "copy", name)
    message = refused(StorageError, lambda: PartitionedFolder(tmp_path / "copy"))
    assert name in message
    assert ("missing" if damage is drop else "another run") in message


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"format": "recfm-partitioned"}', b"\xff"])
def test_a_damaged_manifest_is_refused(folder, tmp_path, content):
    shutil.copytree(folder, tmp_path / "copy")
    manifest = tmp_path / "copy" / "manifest.json"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    assert "manifest.json" in refused(StorageError, lambda: PartitionedFolder(tmp_path / "copy"))


def test_every_byte_of_the_manifest_counts(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    manifest = tmp_path / "copy" / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(0, len(whole), 7):
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(StorageError, lambda: PartitionedFolder(tmp_path / "copy"))


def test_partitions_are_even_and_the_same_for_ever():
    users = np.arange(0, 64_000, 64)
    assert partition_of(users[:6], 5).tolist() == [1, 3, 4, 2, 0, 4]
    counts = np.bincount(partition_of(users, 10), minlength=10)
    assert counts.min() > 60
    assert counts.max() < 140
