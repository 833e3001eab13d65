"""MaskNet: both kinds in NumPy loops, the parameters of a published run, and which settings it refuses."""

import numpy as np
import pytest
import torch

from model_helpers import LAYOUT, VECTORS, make_batch
from recfm.errors import ConfigError
from recfm.models.masknet import MaskNet, MaskNetConfig
from recfm.models.zoo import build_model
from zoo_helpers import (
    BEFORE_SOFTMAX,
    FRAPPE,
    array,
    dense,
    double,
    flat_layout,
    layer_norm,
    learns_everything,
    mlp_of,
    near,
    parameters,
    relu,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def block_of(block, v, hidden, norm):
    mask = dense(relu(dense(v, block.mask[0])), block.mask[2])
    value = array(block.hidden[0].weight) @ (mask * hidden)
    return relu(layer_norm(value, block.hidden[1].weight, block.hidden[1].bias) if norm else value)


def by_hand(model, v, rows, past):
    config, hidden = model.config, v
    if config.embedding_norm:
        normed = [layer_norm(row, model.scale[i], model.shift[i]) for i, row in enumerate(rows)]
        hidden = np.concatenate([*normed, past])
    if config.kind == "serial":
        for block in model.blocks:
            hidden = block_of(block, v, hidden, config.norm)
    else:
        side_by_side = np.concatenate([block_of(block, v, hidden, config.norm) for block in model.blocks])
        hidden = mlp_of(model.mlp, side_by_side)
    return dense(hidden, model.head)[0]


@pytest.mark.parametrize("kind", ["serial", "parallel"])
@pytest.mark.parametrize("norms", [True, False], ids=["norms", "plain"])
@pytest.mark.parametrize("sequences", [[], [VECTORS]], ids=["alone", "history"])
def test_the_logit_is_the_formula_of_the_paper(kind, norms, sequences):
    config = MaskNetConfig(
        dim=4,
        kind=kind,
        hidden=(6, 5),
        blocks=2,
        block_width=7,
        reduction=0.6,
        embedding_norm=norms,
        norm=norms,
    )
    model = double(MaskNet(LAYOUT, config, sequences=sequences))
    if norms:
        torch.nn.init.normal_(model.scale)
        torch.nn.init.normal_(model.shift)
    batch = make_batch(5, past=sequences[0] if sequences else None, dtype=torch.float64)
    rows = model.embedding(batch)
    pasts = [history(batch, rows, model.embedding) for history in model.histories]
    past = array(torch.cat([*pasts, rows.new_zeros(5, 0)], dim=1))
    for b, logit in enumerate(array(model(batch))):
        one = array(rows[b])
        assert logit == near(by_hand(model, np.concatenate([one.ravel(), past[b]]), one, past[b]))


def test_the_benchmark_runs_have_as_many_parameters():
    frappe = {"dim": 10, "kind": "serial", "hidden": [400] * 3, "norm": False, "dropout": 0.3}
    assert parameters(build_model("masknet", FRAPPE, frappe)) == 836_291
    movielens = flat_layout(
        {"user": 30_079, "item": 30_080, "tag": 30_080}
    )  # 90,239 rows in all, as its log has
    halved = frappe | {"reduction": 0.5, "dropout": 0.5}
    assert parameters(build_model("masknet", movielens, halved)) == 1_408_996


def test_the_parallel_settings_of_the_benchmark_can_be_said():
    config = {
        "dim": 10,
        "kind": "parallel",
        "hidden": [400] * 3,
        "blocks": 3,
        "block_width": 50,
        "dropout": 0.1,
    }
    model = build_model("masknet", FRAPPE, config)
    masks, blocks, norms = 2 * (100 * 100 + 100), 100 * 50 + 2 * 50, 2 * 10 * 10
    mlp = 150 * 400 + 400 + 2 * (400 * 400 + 400) + 401
    assert parameters(model) == 53_890 + norms + 3 * (masks + blocks) + mlp


@pytest.mark.parametrize("kind", ["serial", "parallel"])
def test_every_parameter_learns(kind):
    model = MaskNet(LAYOUT, MaskNetConfig(dim=4, kind=kind, hidden=(8,)), sequences=[VECTORS])
    assert learns_everything(model, make_batch(60, past=VECTORS), but=BEFORE_SOFTMAX) == []


def test_dropout_acts_in_training_only():
    model, batch = MaskNet(LAYOUT, MaskNetConfig(dropout=0.5)), make_batch(8)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


@pytest.mark.parametrize(
    "wrong",
    [{"dim": 0}, {"kind": "both"}, {"hidden": ()}, {"blocks": 0}, {"reduction": 0.0}, {"dropout": 1.0}],
    ids=str,
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MaskNetConfig(**wrong)
