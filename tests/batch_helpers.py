"""Histories to join, and batches compared tensor by tensor."""

import dataclasses

import numpy as np
import torch

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
