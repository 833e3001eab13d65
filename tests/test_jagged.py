"""Jagged histories and the order of torchrec's KeyedJaggedTensor."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch

from batch_helpers import three_histories
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.kjt import kjt_parts
from recfm.errors import DataError, RecfmError
from recfm.layout import SequenceLayout
from table_helpers import refused

WATCHED = SequenceLayout(name="ids", ids=("movie_id",), labels=True, length=5)


@pytest.fixture(scope="module")
def encoded(make_events):
    frame, schema = make_events(300)
    return Encoder(schema).fit(frame[:150]).transform(frame)


def both(encoded, **options):
    """The same batches with padded and with jagged histories."""
    padded = three_histories(encoded, **options)
    jagged = {name: dataclasses.replace(past, jagged=True) for name, past in padded.items()}
    return (
        Batches(encoded, np.arange(300), batch_size=64, seed=1, sequences=sequences)
        for sequences in (padded, jagged)
    )


@pytest.mark.parametrize("options", [{}, {"delay": 7200.0}, {"delay": 9e9}, {"length": 1}])
def test_a_jagged_history_is_the_padded_one_without_padding(encoded, options):
    for one, other in zip(*(batches.epoch(2) for batches in both(encoded, **options)), strict=True):
        for name in ("ids", "vectors"):
            padded, jagged = one.sequences[name], other.sequences[name]
            content = padded.ids if name == "ids" else padded.vectors
            real = torch.arange(content.shape[1]) < padded.lengths[:, None]
            assert torch.equal(jagged.values, content[real])
            assert jagged.values.dtype == content.dtype
            assert torch.equal(jagged.lengths, padded.lengths)
            assert torch.equal(jagged.offsets.diff(), padded.lengths)
            assert jagged.offsets[0] == 0
            assert jagged.ids is None
            assert jagged.vectors is None
        assert torch.equal(one.sequences["count"].lengths, other.sequences["count"].lengths)


def test_keys_values_and_lengths_are_key_by_key(encoded):
    _, jagged = both(encoded)
    batch = jagged.batch(0, 1)
    keys, values, lengths = kjt_parts(batch, jagged.layout, [WATCHED])
    assert keys == ["user_id", "movie_id", "hour", "occupation", "genres", "ids.movie_id", "ids.label"]
    wanted, counts = [], []
    for column in range(4):
        wanted += batch.ids[:, column].tolist()
        counts += [1] * len(batch)
    wanted += batch.tokens["genres"].values.tolist()
    counts += batch.tokens["genres"].offsets.diff().tolist()
    for column in range(2):
        wanted += batch.sequences["ids"].values[:, column].tolist()
        counts += batch.sequences["ids"].lengths.tolist()
    assert values.tolist() == wanted
    assert lengths.tolist() == counts
    assert (values.dtype, lengths.dtype) == (torch.int32, torch.int64)


def test_torchrec_is_given_the_parts(encoded, monkeypatch):
    _, jagged = both(encoded)
    batch = jagged.batch(0, 0)
    module = types.ModuleType("torchrec.sparse.jagged_tensor")
    module.KeyedJaggedTensor = lambda **parts: parts
    for name in ("torchrec", "torchrec.sparse"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    given = batch.to_kjt(jagged.layout, [WATCHED])
    keys, values, lengths = kjt_parts(batch, jagged.layout, [WATCHED])
    assert given["keys"] == keys
    assert torch.equal(given["values"], values)
    assert torch.equal(given["lengths"], lengths)


def test_without_torchrec_the_error_says_so(encoded, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchrec", None)
    _, jagged = both(encoded)
    message = refused(RecfmError, lambda: jagged.batch(0, 0).to_kjt(jagged.layout))
    assert message.startswith("torchrec is not installed")


def test_what_has_no_ids_to_give_is_refused(encoded):
    padded, jagged = both(encoded)
    message = refused(DataError, lambda: kjt_parts(padded.batch(0, 0), padded.layout, [WATCHED]))
    assert "sequence 'ids' has no jagged movie_id, label here" in message
    batch = jagged.batch(0, 0)
    other = dataclasses.replace(WATCHED, name="watched")
    assert "sequence 'watched'" in refused(DataError, lambda: kjt_parts(batch, jagged.layout, [other]))
    layout = dataclasses.replace(jagged.layout, tokens=())
    assert "give `batches.layout`" in refused(DataError, lambda: kjt_parts(batch, layout))
