"""Batches from disk: the oracle's order, the bytes of the table in memory, two pools held at most."""

import dataclasses
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from batch_helpers import FakeFolder, assert_same, nbytes, tensors, three_histories
from recfm.config import memory_bytes
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.loader import Loader
from recfm.data.side import SideEncoder
from recfm.errors import ConfigError, DataError
from recfm.schema import Numeric, Tokens
from table_helpers import refused


@pytest.fixture(scope="module")
def events(make_events):
    return make_events(300)


@pytest.fixture(scope="module")
def encoded(events):
    frame, schema = events
    return Encoder(schema).fit(frame[:150]).transform(frame)


def served(batches, epoch):
    return torch.cat([batch.row for batch in batches.epoch(epoch)]).tolist()


def block_bytes(encoded, block_rows):
    """What a block takes in memory on average."""
    return nbytes(encoded) / len(encoded) * block_rows


@settings(deadline=None, max_examples=80)
@given(
    data=st.data(),
    block_rows=st.integers(4, 120),
    per_pool=st.integers(1, 12),
    batch_size=st.integers(1, 150),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 9),
    shuffle=st.booleans(),
)
def test_the_order_is_that_of_the_oracle(
    encoded, data, block_rows, per_pool, batch_size, seed, epoch, shuffle
):
    first = data.draw(st.integers(0, 299))
    last = data.draw(st.integers(first + 1, 300))
    sample = block_bytes(encoded, block_rows)
    memory = int(2 * per_pool * (sample + 1))
    folder = FakeFolder(encoded, block_rows)
    batches = Batches(folder, (first, last), batch_size=batch_size, seed=seed, shuffle=shuffle, memory=memory)
    pools = batches._source.num_pools
    blocks = -(-last // block_rows) - first // block_rows
    assert pools == 1 or pools == -(-blocks // per_pool)
    rows = served(batches, epoch)
    assert rows == oracles.pooled(
        first, last, block_rows=block_rows, pools=pools, seed=seed, epoch=epoch, shuffle=shuffle
    )
    assert sorted(rows) == list(range(first, last))
    k = data.draw(st.integers(0, len(batches) - 1))
    alone = Batches(folder, (first, last), batch_size=batch_size, seed=seed, shuffle=shuffle, memory=memory)
    assert alone.batch(epoch, k).row.tolist() == rows[k * batch_size : (k + 1) * batch_size]


def everything(events, encoded, table, rows=None, **options):
    """Batches with histories, teacher and side tables."""
    frame, _ = events
    by_item = frame.unique("movie_id", maintain_order=True).rename({"year": "released", "genres": "kinds"})
    features = (Numeric(name="released", side="item"), Tokens(name="kinds", side="item"))
    side = SideEncoder(by="item", key="movie_id", features=features).fit(by_item).transform(by_item[:20])
    return Batches(
        table,
        rows,
        batch_size=32,
        seed=5,
        sequences=three_histories(encoded),
        teacher=np.random.default_rng(0).random(300, np.float32),
        sides=[side],
        **options,
    )


@pytest.mark.parametrize("rows", [None, (37, 290)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_table_that_fits_is_served_as_in_memory(events, encoded, rows, shuffle):
    ours = everything(events, encoded, FakeFolder(encoded, 64), rows, shuffle=shuffle)
    other = everything(events, encoded, encoded, rows, shuffle=shuffle)
    assert ours.layout == other.layout
    assert ours.rows.tolist() == other.rows.tolist()
    for epoch in (0, 1):
        for one, two in zip(ours.epoch(epoch), other.epoch(epoch), strict=True):
            assert_same(one, two)
    assert ours._table.reads == [(), (0, 1, 2, 3, 4)]  # the pool once for all epochs


def test_each_row_of_a_pooled_batch_is_that_of_the_table(events, encoded):
    memory = int(4 * block_bytes(encoded, 40) + 10)
    ours = everything(events, encoded, FakeFolder(encoded, 40), memory=memory)
    assert ours._source.num_pools == 4
    rows = np.array(served(ours, 3))
    plain = everything(events, encoded, encoded, rows, shuffle=False)
    for one, two in zip(ours.epoch(3), plain.epoch(0), strict=True):
        assert_same(one, two)


def test_two_pools_are_held_at_most_and_each_is_read_once(encoded):
    folder = FakeFolder(encoded, 20, delay=0.002)
    batches = Batches(folder, batch_size=7, seed=1, memory=int(4 * block_bytes(encoded, 20) + 10))
    pools = batches._source.num_pools
    assert pools == 8
    for epoch in range(3):
        assert sorted(served(batches, epoch)) == list(range(300))
    assert folder.most_held <= 2 * 2 * 20
    assert len(folder.reads) == 1 + 3 * pools + 1  # no block, three epochs, the first pool of a fourth
    assert sorted(block for read in folder.reads[1 : 1 + pools] for block in read) == list(range(15))


def test_resuming_reads_one_pool(encoded):
    options = {"batch_size": 16, "seed": 2, "memory": int(4 * block_bytes(encoded, 20) + 10)}
    whole = [tensors(batch) for batch in Batches(FakeFolder(encoded, 20), **options).epoch(1)]
    folder = FakeFolder(encoded, 20)
    loader = Loader(Batches(folder, **options), start=(1, 9))
    running = iter(loader)
    first = next(running)
    plan = loader.batches._source._plan(1)
    pool = int(np.searchsorted(plan.starts, 9 * 16, side="right")) - 1
    assert folder.reads[1] == tuple(plan.pools[pool])
    for k, batch in enumerate([first, *running], start=9):
        for name, tensor in tensors(batch).items():
            assert torch.equal(tensor, whole[k][name])


def test_shards_of_a_table_on_disk_cover_it(encoded):
    options = {"batch_size": 16, "seed": 2, "memory": int(4 * block_bytes(encoded, 20) + 10)}
    shards = [served(Batches(FakeFolder(encoded, 20), rank=r, world_size=3, **options), 1) for r in range(3)]
    assert sorted(row for shard in shards for row in shard) == list(range(300))


def test_the_last_epoch_has_none_behind_it(encoded):
    batches = Batches(
        FakeFolder(encoded, 100), batch_size=300, memory=int(2 * block_bytes(encoded, 100) + 10)
    )
    assert sorted(served(batches, 2**63 - 1)) == list(range(300))


FORKED = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import batch_helpers, conftest
from recfm.data.batches import Batches
from recfm.data.encode import Encoder

frame, schema = conftest._make_events(300)
encoded = Encoder(schema).fit(frame).transform(frame)
folder = batch_helpers.FakeFolder(encoded, 20, delay=0.5)
batches = Batches(folder, batch_size=16, memory=folder.nbytes // 2)
before = batches.batch(0, 0)  # the next pool is being read now
child = os.fork()
if child == 0:
    batch_helpers.assert_same(batches.batch(0, len(batches) - 1), batches.batch(0, len(batches) - 1))
    batch_helpers.assert_same(batches.batch(0, 0), before)
    os._exit(0)
for _ in range(300):
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, 9)
sys.exit("the child hangs")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_reads_for_itself():
    command = [sys.executable, "-W", "ignore", "-c", FORKED, os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_epochs_mix_other_blocks(encoded):
    batches = Batches(
        FakeFolder(encoded, 10), batch_size=50, seed=2, memory=int(20 * block_bytes(encoded, 10) + 90)
    )
    first, second = (set(served(batches, epoch)[:100]) for epoch in (0, 1))
    assert first != second


def test_a_pickled_table_serves_the_same(encoded):
    batches = Batches(FakeFolder(encoded, 20), batch_size=16, memory=int(4 * block_bytes(encoded, 20) + 10))
    batches._table.held.clear()
    again = pickle.loads(pickle.dumps(batches))
    for one, two in zip(again.epoch(1), batches.epoch(1), strict=True):
        assert_same(one, two)


class Damaged(FakeFolder):
    """A table whose block 7 cannot be read."""

    def read(self, blocks):
        if 7 in blocks:
            raise DataError("block 7 is damaged: its checksum does not match")
        return super().read(blocks)


def test_a_block_that_cannot_be_read_is_an_error_at_its_batch(encoded):
    memory = int(2 * block_bytes(encoded, 20) + 10)
    batches = Batches(Damaged(encoded, 20), batch_size=20, shuffle=False, memory=memory)
    for k in range(7):
        assert batches.batch(0, k).row.tolist() == list(range(20 * k, 20 * k + 20))
    for act in (lambda: batches.batch(0, 7), lambda: list(Loader(batches))):
        assert refused(DataError, act) == "block 7 is damaged: its checksum does not match"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((0, 301), "rows go from 0 to 301, but the table has 300 rows"),
        ((-1, 5), "rows go from -1"),
        ((5, 5), "the period is empty"),
        ((1, 2, 3), "give (first, last)"),
        (np.arange(5), "rows are a ndarray, but a table on disk is served by period"),
    ],
)
def test_what_is_no_period_is_refused(encoded, rows, message):
    folder = FakeFolder(encoded, 64)
    assert message in refused(DataError, lambda: Batches(folder, rows, batch_size=4))


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ("much", "memory is 'much': give a size such as '512MiB'"),
        ("-1MiB", "memory is '-1MiB'"),
        (0, "memory is 0"),
        ("1KiB", "memory is 1KiB, but two blocks of 64 rows take"),
    ],
)
def test_a_memory_that_holds_nothing_is_refused(encoded, memory, message):
    folder = FakeFolder(encoded, 64)
    assert message in refused(ConfigError, lambda: Batches(folder, batch_size=4, memory=memory))


def test_sizes_are_read_in_their_units():
    sizes = ["512MiB", "2 GB", "1.5kib", 7, "9"]
    assert [memory_bytes(size) for size in sizes] == [2**29, 2 * 10**9, 1536, 7, 9]


def test_a_table_on_disk_is_not_in_memory(encoded):
    batches = Batches(FakeFolder(encoded, 64), batch_size=4)
    assert "on disk" in refused(DataError, lambda: batches.encoded)
    bad = dataclasses.replace(encoded, label=encoded.label[:10])
    assert "`rows[" in refused(DataError, lambda: list(Batches(FakeFolderOf(bad), batch_size=300).epoch(0)))


class FakeFolderOf(FakeFolder):
    """A table whose columns differ in length, as no encoder makes it."""

    def __init__(self, encoded):
        super().__init__(encoded, 300)
        self.num_blocks, self._rows = 1, 300

    def __len__(self):
        return self._rows

    def read(self, blocks):
        return self._encoded


def test_a_state_of_other_pools_is_refused(encoded):
    folder = FakeFolder(encoded, 20)
    pools = Batches(folder, batch_size=7, memory=int(4 * block_bytes(encoded, 20) + 10))
    state = Loader(pools).state_dict()
    Loader(pools).load_state_dict(state)
    with pytest.raises(DataError, match="num_pools"):
        Loader(Batches(folder, batch_size=7)).load_state_dict(state)


def test_a_state_of_another_period_is_refused_and_one_of_the_same_rows_in_memory_is_not(encoded):
    folder = FakeFolder(encoded, 20)
    state = Loader(Batches(folder, (0, 100), batch_size=7)).state_dict()
    Loader(Batches(encoded, (0, 100), batch_size=7)).load_state_dict(state)
    with pytest.raises(DataError, match="rows_digest"):
        Loader(Batches(folder, (100, 200), batch_size=7)).load_state_dict(state)


def test_a_size_beyond_all_numbers_is_none():
    with pytest.raises(ConfigError, match="give a size"):
        memory_bytes("9" * 400)
