"""BST: a transformer layer in NumPy loops, its pooling, a published run's parameters, refused settings."""

import numpy as np
import pytest
import torch

from behaviour_helpers import batch_of, histories, make
from recfm.errors import ConfigError
from recfm.layout import Column, Layout
from recfm.models.bst import BSTConfig, sinusoids
from recfm.models.zoo import build_model
from zoo_helpers import array, dense, flat_layout, layer_norm, mlp_of, near, network_parameters, softmax

PAST = histories([3, 0, 6, 1])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def self_attended(module, x):
    """Multi-head self-attention over all rows of x [S, e]."""
    size = x.shape[1] // module.heads
    q, k, v = (
        np.stack(part) for part in zip(*(np.split(dense(row, module.inputs), 3) for row in x), strict=True)
    )
    found = np.zeros_like(x)
    for head in range(module.heads):
        own = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            weights = softmax(np.array([q[i, own] @ k[j, own] / np.sqrt(size) for j in range(len(x))]))
            found[i, own] = sum(w * v[j, own] for j, w in enumerate(weights))
    return np.stack([dense(row, module.out) for row in found])


def layer_of(module, x, config):
    inner = self_attended(module.attention, x) + (x if config.residual else 0)
    if config.norm:
        inner = np.stack([layer_norm(row, module.norm1.weight, module.norm1.bias) for row in inner])
    out = np.stack([dense(row, module.feed[0]) for row in inner])
    out = np.stack([dense(np.where(row > 0, row, 0.01 * row), module.feed[2]) for row in out])
    out += inner if config.residual else 0
    if config.norm:
        out = np.stack([layer_norm(row, module.norm2.weight, module.norm2.bias) for row in out])
    return out


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling": "mean"},
        {"pooling": "sum", "layers": 2},
        {"pooling": "target", "residual": False, "norm": False},
        {"pooling": "concat", "heads": 3},
        {"positions": False, "heads": 4},
    ],
    ids=str,
)
def test_the_logit_is_the_formula_of_the_paper(settings):
    model = make("bst", std=0.5, **settings).double()
    config, batch = model.config, batch_of(PAST, dtype=torch.float64)
    item, cate, user = (array(model.embedding.table(name)) for name in ("item", "cate", "user"))
    for b, logit in enumerate(array(model(batch))):
        i, c, u = batch.ids[b].tolist()
        x = np.stack([np.concatenate([item[p], cate[q]]) for p, q in [(i, c), *PAST[b]]])
        if config.positions:
            x = np.concatenate([x, array(model.positions[0])[: len(x)]], axis=1)
        for layer in model.encoders[0].layers:
            x = layer_of(layer, x, config)
        interest = {
            "mean": lambda x=x: x.mean(axis=0),
            "sum": lambda x=x: x.sum(axis=0),
            "target": lambda x=x: x[0],
            "concat": lambda x=x: np.concatenate([x, np.zeros((7 - len(x), x.shape[1]))]).ravel(),
        }[config.pooling]()
        hidden = mlp_of(model.mlp, np.concatenate([item[i], cate[c], user[u], interest]))
        assert logit == near(dense(hidden, model.head)[0])


def test_positions_start_as_sinusoids():
    found = array(sinusoids(4, 5))
    for place in range(4):
        for column in range(5):
            angle = place / 10_000 ** ((column - column % 2) / 5)
            assert found[place, column] == pytest.approx(
                np.cos(angle) if column % 2 else np.sin(angle), abs=1e-6
            )


def test_the_benchmark_run_on_kuaivideo_has_as_many_parameters():
    past = {"pos": "item", "neg": "item", "pos_emb": "item_emb", "neg_emb": "item_emb"}
    layout = Layout(
        categorical=flat_layout({"user": 2, "item": 2, "item_emb": 2}).categorical,
        tokens=tuple(Column(name=n, rows=2, side="user", shares=of) for n, of in past.items()),
        numeric=(),
    )
    config = {
        "dim": 64, "hidden": [1024, 512, 256], "dropout": 0.1, "attention_dropout": 0.1, "heads": 8,
        "pooling": "target", "residual": False, "norm": False, "length": 100,
    }  # fmt: skip
    tables, visual_maps = 64 * (10_002 + 632_406), 3 * 64 * 64
    assert network_parameters(build_model("bst", layout, config)) == 42_831_233 - tables - visual_maps


def test_heads_must_divide_an_event_and_its_position():
    with pytest.raises(ConfigError, match="heads is 5, which does not divide the width 12"):
        make("bst", heads=5)


@pytest.mark.parametrize(
    "wrong",
    [{"pooling": "max"}, {"layers": 0}, {"heads": 0}, {"attention_dropout": 1.0}, {"hidden": ()}],
    ids=str,
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BSTConfig(**wrong)
