"""FmFM: the logit against a loop over pairs in NumPy, and FM as the case of identities."""

import numpy as np
import pytest
import torch

from model_helpers import LABELLED, LAYOUT, VECTORS, make_batch
from recfm.layout import Column, Layout
from recfm.models.fm import FM, FMConfig
from recfm.models.fmfm import FieldPairs, FmFM, FmFMConfig
from zoo_checks import (
    array,
    check_a_second_head_attaches,
    check_every_parameter_learns,
    check_one_row_at_a_time,
    check_refused,
    first_order_by_hand,
    history_row_by_hand,
    model_and_batch,
    pooled_by_hand,
    rows_by_hand,
)

KINDS = ["matrix", "vector"]


def pairs_by_hand(pairs, rows):
    """sum_{i<j} e_i^T M_ij e_j, the pairs counted off one by one."""
    weight, total, pair = array(pairs.weight), 0.0, 0
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            between = weight[pair] if pairs.matrix else np.diag(weight[pair])
            total += rows[i] @ between @ rows[j]
            pair += 1
    return total


@pytest.mark.parametrize("past", [None, VECTORS, LABELLED], ids=["plain", "vectors", "ids"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_logit_is_bias_plus_first_order_plus_weighted_pairs(kind, past):
    model, batch = model_and_batch("fmfm", past=past, dim=3, pairs=kind)
    found, rows = array(model(batch)), rows_by_hand(model.embedding, batch)
    for b in range(len(batch)):
        pooled = pooled_by_hand(model, batch, b)
        fields = rows[b] + history_row_by_hand(model.history_row, pooled)
        logit = float(array(model.head.bias)[0]) + first_order_by_hand(model.first_order, batch, b, pooled)
        assert found[b] == pytest.approx(logit + pairs_by_hand(model.pairs, fields), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_with_identities_it_is_the_factorization_machine(kind):
    model, fm = FmFM(LAYOUT, FmFMConfig(dim=4, pairs=kind)), FM(LAYOUT, FMConfig(dim=4))
    fm.load_state_dict({k: v for k, v in model.state_dict().items() if k != "pairs.weight"})
    with torch.no_grad():
        model.pairs.weight.copy_(torch.eye(4) if kind == "matrix" else torch.tensor(1.0))
    batch = make_batch(9)
    torch.testing.assert_close(model(batch), fm(batch))


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_field_has_no_pairs(kind):
    lone = Layout(categorical=(Column(name="item", rows=5, side="item"),), tokens=(), numeric=())
    model = FmFM(lone, FmFMConfig(dim=4, pairs=kind))
    batch = make_batch(6, layout=lone)
    torch.testing.assert_close(model(batch), model.first_order(batch, torch.zeros(6, 0)).squeeze(1))


def test_the_pairs_keep_the_scale_of_the_rows():
    torch.manual_seed(0)
    x = torch.randn(500, 2, 32)
    for matrix in (True, False):
        assert 0.5 < FieldPairs(2, 32, matrix=matrix)(x).std().item() / 32**0.5 < 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_fmfm_keeps_what_every_model_keeps(kind):
    check_every_parameter_learns("fmfm", dim=4, pairs=kind)
    check_one_row_at_a_time("fmfm", dim=4, pairs=kind)
    check_a_second_head_attaches("fmfm", dim=4, pairs=kind)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"pairs": "scalar"}], ids=str)
def test_unusable_sizes_are_refused(wrong):
    check_refused(FmFMConfig, wrong)
