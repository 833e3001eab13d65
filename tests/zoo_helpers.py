"""Plain NumPy pieces and fixtures that the tests of several models share."""

import numpy as np
import pytest
import torch

from recfm.layout import Column, Layout
from recfm.models.layers import embedding_parameters


def array(tensor):
    return tensor.detach().numpy()


def double(model, *, std=1.0):
    """The model in float64 and evaluation mode, with tables far from zero."""
    for table in embedding_parameters(model.double()):
        torch.nn.init.normal_(table, std=std)
    return model.eval()


def dense(x, linear):
    """W x + b of one vector."""
    value = array(linear.weight) @ x
    return value if linear.bias is None else value + array(linear.bias)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + eps) * array(weight) + array(bias)


def mlp_of(module, x):
    """A ReLU MLP of one vector, layer by layer; `out`, where there is one, is plain."""
    for name, block in module.named_children():
        x = dense(x, block) if name == "out" else relu(dense(x, block[0]))
    return x


def near(expected):
    return pytest.approx(expected, rel=1e-9, abs=1e-9)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def network_parameters(model):
    """Parameters outside the embedding tables."""
    return parameters(model) - sum(table.numel() for table in embedding_parameters(model))


def flat_layout(rows):
    """A layout of categorical features only: the number of rows by name."""
    columns = tuple(Column(name=name, rows=n, side="context") for name, n in rows.items())
    return Layout(categorical=columns, tokens=(), numeric=())


FRAPPE = flat_layout({f"f{i}": 539 - (i == 9) for i in range(10)})
"""Ten features of 5,389 rows in all, as BARS's runs on Frappe_x1 with FuxiCTR 1.1 had."""


BEFORE_SOFTMAX = ("histories.0.score.bias",)
"""A constant added to every score of a softmax changes nothing: its gradient is 0 but for rounding."""


def learns_everything(model, batch, *, but=()):
    """Names of the parameters without a gradient after one backward pass, those of `but` left out."""
    for table in embedding_parameters(model):
        torch.nn.init.normal_(table)
    loss = model(batch).square().sum()
    more = model.auxiliary_loss() if hasattr(model, "auxiliary_loss") else None
    (loss if more is None else loss + more).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    return [name for name in silent if not name.startswith(tuple(but) or ("-",))]
