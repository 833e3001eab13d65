"""AutoInt+: attention in NumPy loops, each optional part, a published run's parameters, refused settings."""

import numpy as np
import pytest
import torch

from model_helpers import LAYOUT, VECTORS, make_batch
from recfm.errors import ConfigError
from recfm.models.autoint import AutoInt, AutoIntConfig
from recfm.models.zoo import build_model
from zoo_helpers import (
    BEFORE_SOFTMAX,
    FRAPPE,
    array,
    dense,
    double,
    layer_norm,
    learns_everything,
    mlp_of,
    near,
    parameters,
    relu,
    softmax,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def attended(layer, rows, config):
    q, k, v = (rows @ array(part.weight).T for part in (layer.query, layer.key, layer.value))
    size = config.width // config.heads
    out = np.zeros((len(rows), config.width))
    for head in range(config.heads):
        own = slice(head * size, (head + 1) * size)
        for i in range(len(rows)):
            scores = np.array([q[i, own] @ k[j, own] for j in range(len(rows))])
            weights = softmax(scores / np.sqrt(size) if config.scale else scores)
            out[i, own] = sum(weights[j] * v[j, own] for j in range(len(rows)))
    if config.residual:
        out += rows if rows.shape[1] == config.width else rows @ array(layer.through.weight).T
    if config.norm:
        out = np.stack([layer_norm(row, layer.norm.weight, layer.norm.bias) for row in out])
    return relu(out)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"width": 4, "heads": 1},
        {"residual": False, "scale": False},
        {"norm": True, "wide": True},
        {"hidden": ()},
    ],
    ids=str,
)
def test_the_logit_is_the_formula_of_the_paper(settings):
    config = AutoIntConfig(**({"dim": 4, "layers": 2, "heads": 2, "width": 6, "hidden": (5, 3)} | settings))
    sequences = [VECTORS] if config.hidden else []
    model = double(AutoInt(LAYOUT, config, sequences=sequences))
    batch = make_batch(5, past=VECTORS if sequences else None, dtype=torch.float64)
    rows = model.embedding(batch)
    past = [array(history(batch, rows, model.embedding)) for history in model.histories]
    wide = array(model.first_order(batch)).sum(axis=(1, 2)) if config.wide else np.zeros(5)
    for b, logit in enumerate(array(model(batch))):
        x = array(rows[b])
        for layer in model.attention:
            x = attended(layer, x, config)
        value = wide[b] + dense(x.ravel(), model.head.maps[0])[0]
        if config.hidden:
            flat = np.concatenate([array(rows[b]).ravel(), *(part[b] for part in past)])
            value += dense(mlp_of(model.mlp, flat), model.head.maps[1])[0]
        assert logit == near(value)


def test_the_benchmark_run_has_as_many_parameters():
    config = {
        "dim": 10, "layers": 5, "width": 128, "heads": 1, "residual": False, "hidden": [400] * 3,
        "batch_norm": True, "dropout": 0.3,
    }  # fmt: skip
    unused = 10 * 128  # the log's 620,900 count a residual map that FuxiCTR 1.1 drew even where it used none
    assert parameters(build_model("autoint", FRAPPE, config)) == 620_900 - unused


def test_the_rows_have_no_order():
    """With the same weights, rows in another order give the same attention in that order."""
    layer = AutoInt(LAYOUT, AutoIntConfig(dim=4, width=6)).attention[0].double()
    rows, order = torch.randn(3, 5, 4, dtype=torch.float64), torch.randperm(5)
    torch.testing.assert_close(layer(rows[:, order]), layer(rows)[:, order])


def test_every_parameter_learns():
    model = AutoInt(LAYOUT, AutoIntConfig(dim=4, wide=True, norm=True), sequences=[VECTORS])
    assert learns_everything(model, make_batch(60, past=VECTORS), but=BEFORE_SOFTMAX) == []


def test_a_second_head_reads_the_same_wide_logit():
    model, batch = AutoInt(LAYOUT, AutoIntConfig(wide=True)), make_batch(6)
    hidden, head = model.backbone(batch), model.make_head()
    for linear in head.maps:
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    torch.testing.assert_close(head(hidden), hidden[:, -1:])


def test_dropout_acts_in_training_only():
    model, batch = AutoInt(LAYOUT, AutoIntConfig(dropout=0.5, hidden=())), make_batch(8)
    torch.nn.init.normal_(model.embedding.weight)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


def test_histories_need_the_mlp():
    with pytest.raises(ConfigError, match="hidden"):
        AutoInt(LAYOUT, AutoIntConfig(hidden=()), sequences=[VECTORS])


@pytest.mark.parametrize(
    "wrong",
    [{"dim": 0}, {"layers": 0}, {"heads": 3}, {"width": 0}, {"hidden": (0,)}, {"dropout": 1.0}],
    ids=str,
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AutoIntConfig(**wrong)
