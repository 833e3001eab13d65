"""DeepFM: the pairwise term against all pairs, the whole formula, and its head."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_helpers import LAYOUT, VECTORS, make_batch
from recfm.errors import ConfigError
from recfm.models.deepfm import DeepFM, DeepFMConfig, pairwise_interactions


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def all_pairs(rows):
    return sum((rows[i] @ rows[j] for i in range(len(rows)) for j in range(i)), torch.zeros(()).to(rows))


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 5), st.integers(0, 999))
def test_the_pairwise_term_equals_a_loop_over_pairs(examples, rows, dim, seed):
    x = torch.randn(examples, rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pairs = torch.stack([all_pairs(example) for example in x]).unsqueeze(1)
    torch.testing.assert_close(pairwise_interactions(x), pairs, rtol=1e-9, atol=1e-12)


def test_one_row_interacts_with_nothing():
    assert pairwise_interactions(torch.randn(5, 1, 4).double()).abs().max() < 1e-12


@pytest.mark.parametrize("sequences", [[], [VECTORS]], ids=["plain", "history"])
def test_the_logit_is_first_order_plus_pairs_plus_deep(sequences):
    model = DeepFM(LAYOUT, DeepFMConfig(dim=4, hidden=(8, 6)), sequences=sequences).double()
    for table in (model.embedding, model.first_order):
        torch.nn.init.normal_(table.weight)
    batch = make_batch(7, past=sequences[0] if sequences else None, dtype=torch.float64)
    rows, first = model.embedding(batch), model.first_order(batch)
    assert first.shape == (7, len(model.embedding), 1)
    for b, logit in enumerate(model(batch)):
        inputs = [
            rows[b].flatten(),
            *(history(batch, rows, model.embedding)[b] for history in model.histories),
        ]
        hidden = torch.cat(inputs)
        for block in model.mlp:
            hidden = (block[0].weight @ hidden + block[0].bias).clamp(min=0)
        deep = model.head.deep.weight[0] @ hidden + model.head.deep.bias[0]
        torch.testing.assert_close(logit, sum(first[b, :, 0]) + all_pairs(rows[b]) + deep)


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


def test_every_parameter_learns():
    model = DeepFM(LAYOUT, DeepFMConfig(dim=4, hidden=(8,)), sequences=[VECTORS])
    torch.nn.init.normal_(model.embedding.weight)
    model(make_batch(60, past=VECTORS)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"hidden": ()}, {"hidden": (0,)}, {"dropout": 2.0}], ids=str)
def test_unusable_sizes_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DeepFMConfig(**wrong)
