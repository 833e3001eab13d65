"""Histories to join, and batches compared tensor by tensor."""

import dataclasses
import time
import weakref

import numpy as np
import torch

from recfm import _core
from recfm.history.index import HistoryIndex, PastEvents


def three_histories(encoded, length=5, delay=0.0):
    """Raw ids, vectors in half precision and counts, all over the whole table."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(encoded), 3)).astype(np.float16)
    values = {"ids": encoded.history_ids(("movie_id",), labels=True), "vectors": vectors, "count": None}
    return {
        name: PastEvents(
            index=HistoryIndex(encoded.user, encoded.time, value),
            length=length,
            delay=delay,
            counts_only=value is None,
        )
        for name, value in values.items()
    }


def tensors(value, prefix=""):
    """Every tensor of a batch by its path."""
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: t for name, v in value.items() for k, t in tensors(v, f"{prefix}.{name}").items()}
    return {} if value is None else {prefix: value}


def assert_same(one, other):
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


class FakeFolder:
    """A table in memory that is read like one on disk; it counts what it hands out and what is still held."""

    def __init__(self, encoded, block_rows, delay=0.0):
        self._encoded, self.block_rows, self._delay = encoded, block_rows, delay
        self.schema, self.layout = encoded.schema, encoded.layout
        self.nbytes = nbytes(encoded)
        self.num_blocks = -(-len(encoded) // block_rows)
        self.reads, self.held, self.most_held = [], [], 0

    def __len__(self):
        return len(self._encoded)

    def read(self, blocks):
        assert all(0 <= block < self.num_blocks for block in blocks)
        self.reads.append(tuple(blocks))
        time.sleep(self._delay)
        size, n = self.block_rows, len(self)
        rows = [np.arange(block * size, min(n, block * size + size)) for block in blocks]
        table = take_encoded(self._encoded, np.concatenate([np.zeros(0, np.int64), *rows]))
        self.held.append(weakref.ref(table))
        alive = [found for found in (ref() for ref in self.held) if found is not None]
        self.most_held = max(self.most_held, sum(len(found) for found in alive))
        return table


def take_encoded(encoded, rows):
    """These rows of an encoded table as a table."""
    columns = {
        name: getattr(encoded, name)[rows] for name in ("ids", "numeric", "user", "item", "time", "label")
    }
    tokens = {name: _core.take_lists(*lists, rows) for name, lists in encoded.tokens.items()}
    return dataclasses.replace(encoded, tokens=tokens, **columns)


def nbytes(encoded):
    """Bytes of an encoded table in memory."""
    lists = [array for pair in encoded.tokens.values() for array in pair]
    arrays = [encoded.ids, encoded.numeric, encoded.user, encoded.item, encoded.time, encoded.label, *lists]
    return sum(array.nbytes for array in arrays)
