"""One small log with past events in both forms, and a model of each kind that reads it."""

import numpy as np
import torch

from recfm.data.batch import Batch, Jagged, Sequence
from recfm.layout import Column, Layout, SequenceLayout
from recfm.models.zoo import build_model

CANDIDATE = (
    Column(name="item", rows=9, side="item"),
    Column(name="cate", rows=5, side="item"),
    Column(name="user", rows=4, side="user"),
)
HISTORIES = (
    Column(name="items", rows=9, side="user", shares="item"),
    Column(name="cates", rows=5, side="user", shares="cate"),
)
PLAIN = Layout(categorical=CANDIDATE, tokens=(), numeric=())
TOKENS = Layout(categorical=CANDIDATE, tokens=HISTORIES, numeric=())
IDS = SequenceLayout(name="past", ids=("item", "cate"), length=6)
LABELLED = SequenceLayout(name="past", ids=("item", "cate"), labels=True, length=6)
VECTORS = SequenceLayout(name="past", dim=3, length=6)

SETTINGS = {
    "din": {"attention_hidden": (5,), "softmax": True},
    "dien": {"attention": "din", "attention_hidden": (5,), "auxiliary": 0.5, "auxiliary_hidden": (6,)},
    "dmin": {"heads": 2, "attention_hidden": (5,), "auxiliary": 0.5, "auxiliary_hidden": (6,)},
    "dmr": {"attention_hidden": (5,), "auxiliary": 0.5},
    "bst": {"heads": 2},
}
KINDS = sorted(SETTINGS)


def make(kind, *, layout=PLAIN, sequences=(IDS,), std=1.0, viewer="vm", **changes):
    """A model with weights far from zero, those that start at zero too; the same for the same shapes."""
    settings = {"dim": 4, "hidden": (8,), "length": 6} | SETTINGS[kind] | changes
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    model = build_model(kind, layout, plain, viewer=viewer, sequences=sequences)
    generator = torch.Generator().manual_seed(7)
    for _, parameter in sorted(model.named_parameters(), key=lambda pair: pair[0]):
        scale = std if parameter.dim() > 1 else 0.3
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def histories(lengths, *, seed=0):
    """One list of (item, cate) per row, newest first."""
    rng = np.random.default_rng(seed)
    return [np.stack([rng.integers(1, 9, n), rng.integers(1, 5, n)], axis=1) for n in lengths]


def batch_of(past, *, seed=1, form="ids", length=6, garbage=None, dtype=torch.float32):
    """A batch of rows with these past events, as padded ids, as token features or as padded vectors."""
    rng = np.random.default_rng(seed)
    rows = len(past)
    ids = np.stack([rng.integers(1, column.rows, rows) for column in CANDIDATE], axis=1)
    batch = Batch(
        ids=torch.tensor(ids, dtype=torch.int32),
        numeric=torch.zeros(rows, 0, dtype=dtype),
        label=torch.tensor(rng.integers(0, 2, rows), dtype=dtype),
        user=torch.arange(rows),
        time=torch.arange(rows),
        row=torch.arange(rows),
        teacher=torch.full((rows,), 0.3, dtype=dtype),
    )
    counts = np.array([len(one) for one in past])
    if form == "tokens":
        offsets = torch.tensor(np.concatenate([[0], np.cumsum(counts)]))
        oldest_first = np.concatenate([one[::-1] for one in past])
        for i, column in enumerate(HISTORIES):
            values = torch.tensor(oldest_first[:, i], dtype=torch.int32)
            batch.tokens[column.name] = Jagged(values=values, offsets=offsets)
        return batch
    width = {"ids": 2, "labelled": 3, "vectors": 3}[form]
    padded = np.full((rows, length, width), 0.0 if garbage is None else garbage)
    for b, one in enumerate(past):
        if form == "vectors":
            padded[b, : len(one)] = np.sin((one @ [1.0, 7.0])[:, None] * np.arange(1, 4))
        else:
            padded[b, : len(one), :2] = one[:length]
            if form == "labelled":
                padded[b, : len(one), 2] = 1 + one.sum(axis=1) % 2
    lengths = torch.tensor(counts)
    if form == "vectors":
        batch.sequences["past"] = Sequence(lengths=lengths, vectors=torch.tensor(padded, dtype=dtype))
    else:
        batch.sequences["past"] = Sequence(lengths=lengths, ids=torch.tensor(padded).to(torch.int32))
    return batch


def layout_of(form):
    """(layout, sequences) that a model of a form of batch is built with."""
    return {
        "ids": (PLAIN, (IDS,)),
        "labelled": (PLAIN, (LABELLED,)),
        "vectors": (PLAIN, (VECTORS,)),
        "tokens": (TOKENS, ()),
    }[form]
