"""DLRM: interactions in NumPy, the order of the pairs, and two published parameter counts."""

import numpy as np
import pytest
import torch

from model_helpers import LABELLED, LAYOUT, VECTORS, make_batch
from recfm.errors import SchemaError
from recfm.layout import Column, Layout
from recfm.models.dlrm import DLRM, DLRMConfig, DotInteraction
from zoo_checks import (
    CRITEO,
    FRAPPE,
    affine_relu,
    array,
    check_a_second_head_attaches,
    check_dropout_and_batch_norm,
    check_every_parameter_learns,
    check_one_row_at_a_time,
    check_refused,
    history_row_by_hand,
    model_and_batch,
    numbers_by_hand,
    pooled_by_hand,
    rows_by_hand,
)

INTERACTIONS = ["dot", "cat", "sum"]


def interaction_by_hand(kind, rows, z):
    if kind == "cat":
        return np.concatenate(rows)
    if kind == "sum":
        return np.array([sum(row[k] for row in rows) for k in range(len(rows[0]))])
    return np.array([*z, *(sum(rows[i] * rows[j]) for i in range(len(rows)) for j in range(i))])


@pytest.mark.parametrize("past", [None, VECTORS, LABELLED], ids=["plain", "vectors", "ids"])
@pytest.mark.parametrize("kind", INTERACTIONS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_logit_is_the_top_mlp_of_the_interaction(kind, past, batch_norm):
    model, batch = model_and_batch(
        "dlrm", 4, past=past, dim=3, bottom=[5, 4], hidden=[6, 5], interaction=kind, batch_norm=batch_norm
    )
    found, rows = array(model(batch)), rows_by_hand(model.embedding, batch)
    for b in range(len(batch)):
        z = affine_relu(model.bottom, numbers_by_hand(model.embedding, batch, b))
        assert z.shape == (3,)
        assert (z >= 0).all(), "the bottom MLP ends in a ReLU"
        every = [z, *rows[b], *history_row_by_hand(model.history_row, pooled_by_hand(model, batch, b))]
        hidden = affine_relu(model.mlp, interaction_by_hand(kind, every, z))
        assert found[b] == pytest.approx(float(affine_relu(model.head, hidden)[0]), rel=1e-9)


def test_pairs_come_row_by_row_of_the_lower_triangle():
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    pairs = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    expected = torch.stack([torch.stack([e[i] @ e[j] for i, j in pairs]) for e in x])
    torch.testing.assert_close(DotInteraction(4)(x), expected)


@pytest.mark.parametrize("kind", INTERACTIONS)
def test_without_numbers_there_is_no_bottom(kind):
    model, batch = model_and_batch("dlrm", 4, past=None, layout=FRAPPE, dim=3, hidden=[6], interaction=kind)
    assert model.bottom is None
    found, rows = array(model(batch)), rows_by_hand(model.embedding, batch)
    for b in range(len(batch)):
        hidden = affine_relu(model.mlp, interaction_by_hand(kind, rows[b], []))
        assert found[b] == pytest.approx(float(affine_relu(model.head, hidden)[0]), rel=1e-9)


def test_a_row_of_the_wukong_papers_criteo_table_decodes_exactly():
    with torch.device("meta"):
        model = DLRM(CRITEO, DLRMConfig(dim=128, bottom=(512, 256), hidden=(512, 512)))
    assert model.mlp.hidden_0[0].in_features == 351 + 128
    assert sum(p.numel() for p in model.parameters()) == 26_136_307_201


def test_the_benchmarks_settings_give_its_number_of_parameters():
    config = DLRMConfig(dim=10, hidden=(400,) * 3, interaction="cat", dropout=0.4, batch_norm=True)
    model = DLRM(FRAPPE, config)
    assert sum(p.numel() for p in model.parameters()) == 417_891  # the log of BARS' DLRM_frappe_x1_006


@pytest.mark.parametrize("kind", INTERACTIONS)
def test_dlrm_keeps_what_every_model_keeps(kind):
    check_every_parameter_learns("dlrm", dim=4, bottom=[5], hidden=[8], interaction=kind)
    check_one_row_at_a_time("dlrm", dim=4, interaction=kind, batch_norm=True)
    check_dropout_and_batch_norm("dlrm", dim=4, interaction=kind)
    check_a_second_head_attaches("dlrm", dim=4, interaction=kind)


def test_the_bottom_may_be_a_single_map():
    model = DLRM(LAYOUT, DLRMConfig(dim=4, bottom=()))
    assert [tuple(p.shape) for p in model.bottom.parameters()] == [(4, 2), (4,)]
    assert model(make_batch(3)).shape == (3,)


def test_features_that_leave_nothing_to_multiply_are_refused():
    number, item = Column(name="price", rows=0, side="item"), Column(name="item", rows=5, side="item")
    with pytest.raises(SchemaError, match="at least one feature of ids"):
        DLRM(Layout(categorical=(), tokens=(), numeric=(number,)))
    lone = Layout(categorical=(item,), tokens=(), numeric=())
    with pytest.raises(SchemaError, match="no pair to multiply"):
        DLRM(lone)
    assert DLRM(lone, DLRMConfig(interaction="cat"))(make_batch(3, layout=lone)).shape == (3,)


@pytest.mark.parametrize(
    "wrong",
    [{"dim": 0}, {"bottom": (0,)}, {"hidden": ()}, {"interaction": "max"}, {"dropout": -0.5}],
    ids=str,
)
def test_unusable_sizes_are_refused(wrong):
    check_refused(DLRMConfig, wrong)
