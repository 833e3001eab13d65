"""xDeepFM: the CIN against four nested loops, its degree, the whole logit, and the benchmark's parameter count."""

import math

import numpy as np
import pytest
import torch

from model_helpers import LABELLED, LAYOUT, VECTORS, make_batch
from recfm.errors import ConfigError
from recfm.models.xdeepfm import CIN, XDeepFM, XDeepFMConfig
from zoo_checks import (
    FRAPPE,
    affine_relu,
    array,
    check_a_second_head_attaches,
    check_dropout_and_batch_norm,
    check_every_parameter_learns,
    check_one_row_at_a_time,
    check_refused,
    first_order_by_hand,
    flat_by_hand,
    model_and_batch,
    pooled_by_hand,
    rows_by_hand,
)


def cin_by_hand(cin, rows):
    """[sum of H_k] of one example: each row of each layer, one product and one dimension at a time."""
    base, x, out = np.stack(rows), np.stack(rows), []
    n, d = base.shape
    for layer in cin.layers:
        weight = array(layer.weight).reshape(-1, len(x), n)  # W[h][i][j]
        following = np.zeros((len(weight), d))
        for h in range(len(weight)):
            for i in range(len(x)):
                for j in range(n):
                    following[h] += weight[h][i][j] * x[i] * base[j]
        x = following
        out += [sum(row) for row in x]
    return np.array(out)


@pytest.mark.parametrize("past", [None, VECTORS, LABELLED], ids=["plain", "vectors", "ids"])
@pytest.mark.parametrize("cin", [[5], [4, 3, 2]], ids=str)
def test_the_logit_is_first_order_plus_cin_plus_deep(cin, past):
    model, batch = model_and_batch("xdeepfm", 4, past=past, dim=3, cin=cin, hidden=[6, 5], batch_norm=True)
    found, rows = array(model(batch)), rows_by_hand(model.embedding, batch)
    for b in range(len(batch)):
        pooled = pooled_by_hand(model, batch, b)
        deep = affine_relu(model.mlp, flat_by_hand(rows[b], pooled))
        hidden = np.concatenate([cin_by_hand(model.cin, rows[b]), deep])
        logit = float(affine_relu(model.head.deep, hidden)[0])
        assert found[b] == pytest.approx(
            logit + first_order_by_hand(model.first_order, batch, b, pooled), rel=1e-9
        )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_layer_k_is_a_polynomial_of_degree_k_plus_one(depth):
    torch.manual_seed(0)
    cin, x, order = CIN(4, [3] * depth).double(), torch.randn(2, 4, 5, dtype=torch.float64), depth + 1
    with torch.no_grad():
        last = [cin(s * x)[:, -3:] for s in range(order + 2)]
    # Homogeneous: scaling the rows by s scales layer k by s^(k + 1), so the difference of the next order vanishes.
    for s in range(order + 2):
        torch.testing.assert_close(last[s], s**order * last[1])
    difference = sum((-1) ** j * math.comb(order + 1, j) * value for j, value in enumerate(reversed(last)))
    assert difference.abs().max() < 1e-9 * max(value.abs().max() for value in last)


def test_without_an_mlp_it_is_the_cin_alone():
    model, batch = model_and_batch("xdeepfm", past=None, dim=3, cin=[4], hidden=[])
    rows = rows_by_hand(model.embedding, batch)
    for b, found in enumerate(array(model(batch))):
        logit = float(affine_relu(model.head.deep, cin_by_hand(model.cin, rows[b]))[0])
        expected = logit + first_order_by_hand(model.first_order, batch, b, np.zeros(0))
        assert found == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ConfigError, match="hidden is empty"):
        XDeepFM(LAYOUT, XDeepFMConfig(hidden=()), sequences=[VECTORS])


def test_the_history_enters_the_deep_part_only():
    config = XDeepFMConfig(dim=4, cin=(3, 2), hidden=(8,))
    model, batch = XDeepFM(LAYOUT, config, sequences=[VECTORS]), make_batch(6, past=VECTORS, lengths=[5] * 6)
    before = model.backbone(batch)
    batch.sequences["past"].vectors.mul_(3.0)
    after = model.backbone(batch)
    assert torch.equal(before[:, :5], after[:, :5])
    assert torch.equal(before[:, -1], after[:, -1])
    assert not torch.equal(before[:, 5:-1], after[:, 5:-1])


def test_the_benchmarks_settings_give_its_number_of_parameters_less_its_spare_biases():
    # The log of BARS' xDeepFM_frappe_x1_005 says 429,809. Its CIN has 64 biases and its output one, all of which the
    # bias of the head could stand for; the paper has none.
    config = XDeepFMConfig(dim=10, cin=(64,), hidden=(400, 400, 400), dropout=0.2, batch_norm=True)
    assert sum(p.numel() for p in XDeepFM(FRAPPE, config).parameters()) == 429_809 - 65


def test_xdeepfm_keeps_what_every_model_keeps():
    check_every_parameter_learns("xdeepfm", dim=4, cin=[3, 2], hidden=[8])
    check_one_row_at_a_time("xdeepfm", dim=4, batch_norm=True)
    check_dropout_and_batch_norm("xdeepfm", dim=4)
    check_a_second_head_attaches("xdeepfm", dim=4)


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"cin": ()}, {"cin": (3, 0)}, {"hidden": (0,)}, {"dropout": 1.0}], ids=str
)
def test_unusable_sizes_are_refused(wrong):
    check_refused(XDeepFMConfig, wrong)
