"""Batches: a function of (seed, epoch, k), every row once an epoch, and each row as a plain loop would fill it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from batch_helpers import assert_same, tensors, three_histories
from recfm.data.batch import Batch
from recfm.data.batches import Batches
from recfm.data.encode import Encoder


@pytest.fixture(scope="module")
def encoded(make_events):
    frame, schema = make_events(300)
    return Encoder(schema).fit(frame[:150]).transform(frame)


@settings(deadline=None, max_examples=25)
@given(
    data=st.data(),
    batch_size=st.integers(1, 130),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 9),
    shuffle=st.booleans(),
    length=st.integers(1, 6),
    delay=st.sampled_from([0.0, 0.5, 3600.0, 90_000.0]),
)
def test_every_row_is_that_of_the_oracle(encoded, data, batch_size, seed, epoch, shuffle, length, delay):
    served = data.draw(st.lists(st.integers(0, len(encoded) - 1), min_size=1, max_size=120, unique=True))
    pasts = three_histories(encoded, length, delay)
    teacher = np.random.default_rng(2).random(len(encoded), np.float32)
    batches = Batches(
        encoded,
        np.array(served),
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        sequences=pasts,
        teacher=teacher,
    )
    order = [served[i] for i in oracles.permuted(len(served), seed, epoch)] if shuffle else served
    user, time = encoded.user.tolist(), encoded.time.tolist()
    seen = []
    for batch in batches.epoch(epoch):
        assert len(batch) == min(batch_size, len(served) - len(seen))
        for b, row in enumerate(batch.row.tolist()):
            assert row == order[len(seen)]
            seen.append(row)
            assert batch.ids[b].tolist() == encoded.ids[row].tolist()
            assert batch.numeric[b].tolist() == encoded.numeric[row].tolist()
            assert (batch.label[b], batch.teacher[b]) == (encoded.label[row], teacher[row])
            assert (batch.user[b], batch.time[b]) == (user[row], time[row])
            values, bounds = encoded.tokens["genres"]
            genres = batch.tokens["genres"]
            found = genres.values[genres.offsets[b] : genres.offsets[b + 1]].tolist()
            assert found == values[bounds[row] : bounds[row + 1]].tolist()
            every = oracles.history(user, time, user[row], time[row], len(user), round(delay * 1e6))
            past = every[:length]
            assert batch.sequences["count"].lengths[b] == len(every)
            for name, kind in (("ids", "ids"), ("vectors", "vectors")):
                sequence = batch.sequences[name]
                content = getattr(sequence, kind)[b]
                assert sequence.lengths[b] == len(past)
                assert content[: len(past)].tolist() == pasts[name].index.values[past].tolist()
                assert not content[len(past) :].any()
    assert seen == order


def test_tensors_have_the_documented_types(encoded):
    teacher = np.full(len(encoded), 0.5)  # float64: served as float32 all the same
    batches = Batches(
        encoded, np.arange(40), batch_size=16, sequences=three_histories(encoded), teacher=teacher
    )
    batch = batches.batch(0, 0)
    assert {
        name: (t.dtype, tuple(t.shape)) for name, t in tensors(batch).items() if "values" not in name
    } == {
        ".ids": (torch.int32, (16, 4)),
        ".numeric": (torch.float32, (16, 2)),
        ".label": (torch.float32, (16,)),
        ".user": (torch.int64, (16,)),
        ".time": (torch.int64, (16,)),
        ".row": (torch.int64, (16,)),
        ".tokens.genres.offsets": (torch.int64, (17,)),
        ".sequences.ids.lengths": (torch.int64, (16,)),
        ".sequences.ids.ids": (torch.int32, (16, 5, 2)),
        ".sequences.vectors.lengths": (torch.int64, (16,)),
        ".sequences.vectors.vectors": (torch.float32, (16, 5, 3)),
        ".sequences.count.lengths": (torch.int64, (16,)),
        ".teacher": (torch.float32, (16,)),
    }
    assert batch.tokens["genres"].values.dtype == torch.int32
    assert Batches(encoded, np.arange(4), batch_size=4).batch(0, 0).teacher is None


def test_a_batch_asked_for_alone_is_that_of_the_epoch(encoded):
    def fresh():
        return Batches(
            encoded, np.arange(250), batch_size=32, seed=9, sequences=three_histories(encoded, delay=7200.0)
        )

    in_order = {(e, k): b for e in range(3) for k, b in enumerate(fresh().epoch(e))}
    assert len(in_order) == 3 * len(fresh()) == 3 * 8
    batches = fresh()
    for e, k in np.random.default_rng(0).permutation(list(in_order)).tolist():
        assert_same(batches.batch(e, k), in_order[e, k])


def test_a_batch_is_not_a_view_of_the_table(encoded):
    batches = Batches(
        encoded, np.arange(20), batch_size=20, shuffle=False, sequences=three_histories(encoded)
    )
    before = batches.batch(0, 0)
    for tensor in tensors(batches.batch(0, 0)).values():
        tensor.fill_(1)
    assert_same(batches.batch(0, 0), before)


def test_epochs_are_different_permutations_of_the_rows(encoded):
    rows = np.arange(30, 280)
    batches = Batches(encoded, rows, batch_size=64, seed=3)
    epochs = [torch.cat([batch.row for batch in batches.epoch(e)]).tolist() for e in range(4)]
    assert all(sorted(epoch) == rows.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = Batches(encoded, rows, batch_size=64, seed=4)
    assert torch.cat([batch.row for batch in other.epoch(0)]).tolist() != epochs[0]


def test_the_batch_size_changes_no_row(encoded):
    def contents(batch_size):
        batches = Batches(
            encoded, np.arange(90), batch_size=batch_size, seed=1, sequences=three_histories(encoded)
        )
        every = [tensors(batch) for batch in batches.epoch(2)]
        return {name: torch.cat([t[name] for t in every]) for name in every[0] if "offsets" not in name}

    one, other = contents(7), contents(1000)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_to_moves_every_tensor(encoded):
    teacher = np.full(len(encoded), 0.5, np.float32)
    batch = Batches(
        encoded, np.arange(9), batch_size=9, sequences=three_histories(encoded), teacher=teacher
    ).batch(0, 0)
    moved = batch.to("meta", non_blocking=True)
    assert isinstance(moved, Batch)
    assert {name: (t.dtype, t.shape) for name, t in tensors(moved).items()} == {
        name: (t.dtype, t.shape) for name, t in tensors(batch).items()
    }
    assert {t.device.type for t in tensors(moved).values()} == {"meta"}
    assert {t.device.type for t in tensors(batch).values()} == {"cpu"}
    assert_same(batch.to("cpu"), batch)


IMPORTS = """
import importlib, sys
for name in ("recfm", "recfm.schema", "recfm.config", "recfm.layout", "recfm.periods", "recfm.data.frame",
             "recfm.data.encode", "recfm.data.batch", "recfm.data.batches", "recfm.data.loader", "recfm.data.side",
             "recfm.data.pools", "recfm.history.index",
             "recfm.history.log"):
    importlib.import_module(name)
    assert "torch" not in sys.modules, name
print("ok")
"""


def test_importing_the_data_side_imports_no_torch():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60)
    assert done.stdout == "ok\n", done.stderr
