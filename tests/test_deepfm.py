"""DeepFM: the whole formula in NumPy, its head, and the benchmark's parameter count."""

import pytest
import torch

from model_helpers import LABELLED, LAYOUT, VECTORS, make_batch
from recfm.models.deepfm import DeepFM, DeepFMConfig
from test_fm import all_pairs
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


@pytest.mark.parametrize("past", [None, VECTORS, LABELLED], ids=["plain", "vectors", "ids"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_logit_is_first_order_plus_pairs_plus_deep(past, batch_norm):
    model, batch = model_and_batch("deepfm", past=past, dim=4, hidden=[8, 6], batch_norm=batch_norm)
    found, rows = array(model(batch)), rows_by_hand(model.embedding, batch)
    for b in range(len(batch)):
        pooled = pooled_by_hand(model, batch, b)
        deep = affine_relu(model.head.deep, affine_relu(model.mlp, flat_by_hand(rows[b], pooled)))
        wide = first_order_by_hand(model.first_order, batch, b, pooled) + all_pairs(rows[b])
        assert found[b] == pytest.approx(float(deep[0]) + wide, rel=1e-9)


def test_the_history_enters_the_deep_part_only():
    model = DeepFM(LAYOUT, DeepFMConfig(dim=4, hidden=(8,)), sequences=[VECTORS])
    batch = make_batch(6, past=VECTORS, lengths=[5] * 6)
    before = model.backbone(batch)
    batch.sequences["past"].vectors.mul_(3.0)
    after = model.backbone(batch)
    assert torch.equal(before[:, -1], after[:, -1])
    assert not torch.equal(before[:, :-1], after[:, :-1])


def test_a_second_head_reads_the_same_wide_logit():
    model, batch = DeepFM(LAYOUT), make_batch(6)
    hidden, head = model.backbone(batch), model.make_head()
    torch.nn.init.zeros_(head.deep.weight)
    torch.nn.init.zeros_(head.deep.bias)
    torch.testing.assert_close(head(hidden), hidden[:, -1:])


def test_the_benchmarks_settings_give_its_number_of_parameters():
    model = DeepFM(FRAPPE, DeepFMConfig(dim=10, hidden=(400, 400, 400), dropout=0.2, batch_norm=True))
    assert sum(p.numel() for p in model.parameters()) == 423_280  # the log of BARS' DeepFM_frappe_x1_001


def test_deepfm_keeps_what_every_model_keeps():
    check_every_parameter_learns("deepfm", dim=4, hidden=[8])
    check_one_row_at_a_time("deepfm", dim=4, batch_norm=True)
    check_dropout_and_batch_norm("deepfm", dim=4)
    check_a_second_head_attaches("deepfm", dim=4)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"hidden": ()}, {"hidden": (0,)}, {"dropout": 2.0}], ids=str)
def test_unusable_sizes_are_refused(wrong):
    check_refused(DeepFMConfig, wrong)
