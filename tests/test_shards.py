"""Shards of ranks and of DataLoader workers: disjoint, whole, as many on each, and functions of their number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import oracles
from batch_helpers import assert_same, three_histories
from recfm.data.batches import Batches
from recfm.data.dataset import BatchDataset
from recfm.data.encode import Encoder
from recfm.errors import DataError
from table_helpers import refused


@pytest.fixture(scope="module")
def encoded(make_events):
    frame, schema = make_events(300)
    return Encoder(schema).fit(frame[:150]).transform(frame)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), world_size=st.integers(1, 9), batch_size=st.integers(1, 40), shuffle=st.booleans())
def test_shards_are_disjoint_and_cover_the_epoch(encoded, data, world_size, batch_size, shuffle):
    n = data.draw(st.integers(world_size, 300))
    ranks = [
        Batches(
            encoded,
            np.arange(n),
            batch_size=batch_size,
            seed=2,
            shuffle=shuffle,
            rank=r,
            world_size=world_size,
        )
        for r in range(world_size)
    ]
    shards = [[batch.row.tolist() for batch in rank.epoch(1)] for rank in ranks]
    order = oracles.permuted(n, 2, 1) if shuffle else range(n)
    for rank, shard in enumerate(shards):
        cuts = oracles.shards(n, batch_size, world_size, rank)
        assert shard == [[order[position] for position in cut] for cut in cuts]
    assert {len(rank) for rank in ranks} == {len(shards[0])}
    assert all(batch for shard in shards for batch in shard)
    assert all(len(batch) == batch_size for shard in shards for batch in shard[:-1])
    assert sorted(row for shard in shards for batch in shard for row in batch) == list(range(n))


def test_one_rank_is_the_whole(encoded):
    def batches(**shard):
        return Batches(encoded, np.arange(250), batch_size=32, seed=9, **shard)

    for one, other in zip(batches().epoch(0), batches(rank=0, world_size=1).epoch(0), strict=True):
        assert_same(one, other)


def test_a_shard_asked_for_alone_is_that_of_the_epoch(encoded):
    batches = Batches(encoded, np.arange(250), batch_size=16, seed=9, rank=1, world_size=3)
    for k, batch in enumerate(batches.epoch(4)):
        assert_same(batches.batch(4, k), batch)
    for k, batch in enumerate(batches.epoch(4, start=2), start=2):
        assert_same(batches.batch(4, k), batch)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank is 2, but with world_size 2 ranks go from 0 to 1"),
        ({"rank": -1, "world_size": 2}, "rank is -1"),
        ({"world_size": 0}, "world_size is 0"),
        ({"world_size": 11}, "10 rows are fewer than 11 ranks"),
    ],
)
def test_shards_that_cannot_be_are_refused(encoded, shard, message):
    assert message in refused(DataError, lambda: Batches(encoded, np.arange(10), batch_size=4, **shard))


@pytest.fixture(scope="module")
def batches(encoded):
    return Batches(encoded, np.arange(300), batch_size=32, seed=3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_a_data_loader_yields_the_epoch_in_order(batches, workers):
    dataset = BatchDataset(batches, epoch=1)
    options = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, **options)
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        served = list(loader)
        assert len(served) == len(loader) == len(batches)
        for k, batch in enumerate(served):
            assert_same(batch, batches.batch(epoch, k))
    assert sorted(torch.cat([batch.row for batch in served]).tolist()) == list(range(300))


def test_histories_stay_in_their_process(encoded):
    dataset = BatchDataset(Batches(encoded, np.arange(9), batch_size=4, sequences=three_histories(encoded)))
    assert len(list(DataLoader(dataset, batch_size=None))) == 3
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert "sequence 'ids' cannot be sent to a DataLoader worker" in refused(DataError, lambda: iter(loader))
