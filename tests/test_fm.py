"""FM: the logit against all pairs in NumPy, the pairwise term alone, and what it is made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_helpers import LABELLED, LAYOUT, VECTORS, make_batch
from recfm.models.fm import FM, FMConfig
from recfm.models.interactions import pairwise_interactions
from recfm.models.zoo import build_model
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


def all_pairs(rows):
    return sum(float(np.dot(rows[i], rows[j])) for i in range(len(rows)) for j in range(i))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 5), st.integers(0, 999))
def test_the_pairwise_term_equals_a_loop_over_pairs(examples, rows, dim, seed):
    x = torch.randn(examples, rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = array(pairwise_interactions(x))[:, 0]
    np.testing.assert_allclose(found, [all_pairs(e) for e in x.numpy()], rtol=1e-9, atol=1e-12)


def test_one_row_interacts_with_nothing():
    assert pairwise_interactions(torch.randn(5, 1, 4).double()).abs().max() < 1e-12


@pytest.mark.parametrize("past", [None, VECTORS, LABELLED], ids=["plain", "vectors", "ids"])
def test_the_logit_is_bias_plus_first_order_plus_all_pairs(past):
    model, batch = model_and_batch("fm", past=past, dim=4)
    found, rows = array(model(batch)), rows_by_hand(model.embedding, batch)
    for b in range(len(batch)):
        pooled = pooled_by_hand(model, batch, b)
        logit = float(array(model.head.bias)[0]) + first_order_by_hand(model.first_order, batch, b, pooled)
        logit += all_pairs(rows[b] + history_row_by_hand(model.history_row, pooled))
        assert found[b] == pytest.approx(logit, rel=1e-9)


def test_every_number_is_a_field_of_its_own():
    model = FM(LAYOUT, viewer="fm")
    assert len(model.embedding) == 4 + 2 + 3
    batch = make_batch(4)
    doubled = make_batch(4)
    doubled.numeric[:, 0] *= 2
    torch.testing.assert_close(model.embedding(doubled)[:, 6], 2 * model.embedding(batch)[:, 6])


def test_without_history_there_are_no_weights_for_one():
    shapes = {name: tuple(p.shape) for name, p in FM(LAYOUT, FMConfig(dim=4)).named_parameters()}
    table = 7 + 5 + 4 + 6  # what the vertical model sees: item, user, place and genres; price and age
    assert shapes == {
        "embedding.weight": (table, 4),
        "embedding.numeric.weight": (2, 4),
        "first_order.features.weight": (table, 1),
        "first_order.features.numeric.weight": (2, 1),
        "head.bias": (1,),
    }


def test_a_constant_added_to_the_logit_is_the_bias_alone():
    model, batch = FM(LAYOUT), make_batch(5)
    assert not model.head.bias.any()
    before = model(batch)
    torch.nn.init.constant_(model.head.bias, 3.0)
    torch.testing.assert_close(model(batch), before + 3.0)


def test_fm_keeps_what_every_model_keeps():
    check_every_parameter_learns("fm", dim=4)
    check_one_row_at_a_time("fm", dim=4)
    check_a_second_head_attaches("fm", dim=4)
    assert isinstance(build_model("fm", LAYOUT), FM)


def test_unusable_sizes_are_refused():
    check_refused(FMConfig, {"dim": 0})
