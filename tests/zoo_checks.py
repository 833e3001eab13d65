"""Checks that every ranking model must pass, and its inputs computed again in NumPy, one number at a time."""

import copy

import numpy as np
import pytest
import torch

from model_helpers import LAYOUT, VECTORS, make_batch
from recfm.errors import ConfigError
from recfm.layout import Column, Layout
from recfm.models.zoo import build_model
from recfm.train.losses import DistilledLoss

# Ten categorical features with the 5,389 embedding rows of Frappe_x1 as the public benchmark encodes it.
FRAPPE = Layout(
    categorical=tuple(
        Column(name=f"field_{i}", rows=5389 - 9 * 10 if i == 0 else 10, side="context") for i in range(10)
    ),
    tokens=(),
    numeric=(),
)
# Criteo with the 204,184,585 embedding rows of the Wukong paper's parameter counts: to be built on the meta device.
CRITEO = Layout(
    categorical=tuple(
        Column(name=f"C{i}", rows=204_184_585 - 25 * 10 if i == 0 else 10, side="context") for i in range(26)
    ),
    tokens=(),
    numeric=tuple(Column(name=f"I{i}", rows=0, side="context") for i in range(13)),
)


def array(tensor):
    """Float64 numbers of a tensor, without its graph."""
    return tensor.detach().double().numpy()


def model_and_batch(name, rows=6, *, past=VECTORS, layout=LAYOUT, **settings):
    """A float64 model in eval mode whose weights are all far from zero, and a batch for it."""
    torch.manual_seed(0)
    model = build_model(name, layout, settings, sequences=[past] if past else []).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model, make_batch(rows, past=past, layout=layout, dtype=torch.float64)


def rows_by_hand(embedding, batch):
    """[B][n] vectors of d: each id's row, the mean of a list's rows, and what the numbers give."""
    weight, layout, out = array(embedding.weight), embedding.layout, []
    for b in range(len(batch)):
        rows = []
        for column in embedding.seen.categorical:
            found = int(batch.ids[b, layout.position(column.name)])
            rows.append(weight[embedding.starts[column.table] + found])
        for column in embedding.seen.tokens:
            jagged = batch.tokens[column.name]
            ids = jagged.values[jagged.offsets[b] : jagged.offsets[b + 1]].tolist()
            found = [weight[embedding.starts[column.table] + i] for i in ids]
            rows.append(sum(found) / len(found) if found else np.zeros(embedding.dim))
        numbers = numbers_by_hand(embedding, batch, b)
        if embedding.numeric_rows == 1 and isinstance(embedding.numeric, torch.nn.Sequential):
            rows.append(affine_relu(embedding.numeric, numbers))
        elif embedding.numeric_rows:
            rows += [x * vector for x, vector in zip(numbers, array(embedding.numeric.weight), strict=True)]
        out.append(rows)
    return out


def numbers_by_hand(embedding, batch, b):
    """The numbers of row b that the model may see."""
    seen = {column.name for column in embedding.seen.numeric}
    return np.array(
        [float(x) for c, x in zip(embedding.layout.numeric, batch.numeric[b], strict=True) if c.name in seen]
    )


def affine_relu(layers, x):
    """Linear maps, batch norms of one example in eval mode, and ReLUs, in the order of the modules inside."""
    for layer in layers.modules():
        if isinstance(layer, torch.nn.Linear):
            x = np.array([sum(w * v for w, v in zip(row, x, strict=True)) for row in array(layer.weight)])
            x = x + (array(layer.bias) if layer.bias is not None else 0.0)
        elif isinstance(layer, torch.nn.BatchNorm1d):
            spread = np.sqrt(array(layer.running_var) + layer.eps)
            x = (x - array(layer.running_mean)) / spread * array(layer.weight) + array(layer.bias)
        elif isinstance(layer, torch.nn.ReLU):
            x = np.maximum(x, 0.0)
    return x


def pooled_by_hand(model, batch, b):
    """The pooled histories of row b, side by side; the encoder has tests of its own."""
    rows = model.embedding(batch)
    return np.concatenate(
        [np.zeros(0), *(array(h(batch, rows, model.embedding)[b]) for h in model.histories)]
    )


def flat_by_hand(rows, pooled):
    """All of a row's inputs side by side."""
    return np.concatenate([*rows, pooled])


def first_order_by_hand(first_order, batch, b, pooled):
    """sum_i w_i x_i of row b."""
    total = sum(float(row[0]) for row in rows_by_hand(first_order.features, batch)[b])
    if first_order.history is not None:
        total += sum(w * x for w, x in zip(array(first_order.history.weight)[0], pooled, strict=True))
    return total


def history_row_by_hand(history_row, pooled):
    """[] or [the pooled histories as a row]."""
    return [] if history_row.project is None else [affine_relu(history_row.project, pooled)]


def check_every_parameter_learns(name, **settings):
    """A batch in which every feature and history occurs moves every parameter."""
    model, batch = model_and_batch(name, 60, **settings)
    model(batch).square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant before the softmax of the history's attention cancels out: what gradient it has is rounding.
    assert [n for n in still if n != "histories.0.score.bias"] == []


def check_one_row_at_a_time(name, **settings):
    """In eval mode a row's logit does not depend on its neighbours, and a batch may be a single row."""
    for sequence in (VECTORS, None):
        model, batch = model_and_batch(name, 1, past=sequence, **settings)
        logit = model(batch)
        assert logit.shape == (1,)
        assert logit.isfinite().all()
    model, batch = model_and_batch(name, 8, past=None, **settings)
    swapped = copy.deepcopy(batch)
    swapped.ids[1:] = 1
    assert torch.isclose(model(batch)[0], model(swapped)[0])
    assert not torch.allclose(model(batch)[1:], model(swapped)[1:])


def check_dropout_and_batch_norm(name, **settings):
    """Both act in training only; batch norm moves its statistics then, and makes training see the batch."""
    model, batch = model_and_batch(name, 16, dropout=0.5, **settings)
    model.train()
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))
    plain = sum(isinstance(m, torch.nn.BatchNorm1d) for m in model.modules())
    model, batch = model_and_batch(name, 16, batch_norm=True, **settings)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert plain == 0
    assert norms
    before = model(batch)
    model.train()
    assert not torch.allclose(model(batch), before)
    assert all(norm.num_batches_tracked == 1 for norm in norms)


def check_a_second_head_attaches(name, **settings):
    """Distillation adds a head to the same backbone, and both heads learn."""
    model, batch = model_and_batch(name, 16, **settings)
    loss = DistilledLoss(model).double()
    loss(batch).backward()
    for head in (model.head, loss.distill_head):
        assert all(p.grad is not None and p.grad.any() for p in head.parameters())


def check_refused(config, wrong):
    """A setting out of range is one error that names it."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        config(**wrong)
