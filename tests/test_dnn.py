"""DNN: the formula, what its MLP reads, dropout, and which sizes it refuses."""

import pytest
import torch

from model_helpers import LABELLED, LAYOUT, VECTORS, make_batch
from recfm.errors import ConfigError
from recfm.models.dnn import DNN, DNNConfig
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP, length_mask


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_hand(model, batch):
    rows = model.embedding(batch)
    inputs = [rows[:, i] for i in range(rows.shape[1])]
    inputs += [history(batch, rows, model.embedding) for history in model.histories]
    hidden = torch.cat(inputs, dim=1)
    for name, block in model.mlp.named_children():
        assert name.startswith("hidden_")
        hidden = (hidden @ block[0].weight.T + block[0].bias).clamp(min=0)
    return (hidden @ model.head.weight.T + model.head.bias)[:, 0]


@pytest.mark.parametrize("sequences", [[], [VECTORS], [LABELLED]], ids=["plain", "vectors", "ids"])
def test_the_logit_is_an_mlp_over_all_embeddings_and_the_history(sequences):
    model = DNN(LAYOUT, DNNConfig(dim=4, hidden=(8, 6, 5)), sequences=sequences).double()
    batch = make_batch(8, past=sequences[0] if sequences else None, dtype=torch.float64)
    logits = model(batch)
    assert logits.shape == (8,)
    torch.testing.assert_close(logits, by_hand(model, batch))


def test_a_history_adds_its_width_and_nothing_where_it_is_empty():
    config = HistoryEncoderConfig(width=5)
    model = DNN(LAYOUT, DNNConfig(dim=4, hidden=(8,)), sequences=[VECTORS], history=config)
    plain = DNN(LAYOUT, DNNConfig(dim=4, hidden=(8,)))
    assert model.flat_width == plain.flat_width + 5
    with torch.no_grad():
        plain.embedding.load_state_dict(model.embedding.state_dict())
        plain.head.load_state_dict(model.head.state_dict())
        plain.mlp.hidden_0[0].weight.copy_(model.mlp.hidden_0[0].weight[:, : plain.flat_width])
        plain.mlp.hidden_0[0].bias.copy_(model.mlp.hidden_0[0].bias)
    batch = make_batch(6, past=VECTORS, lengths=[0, 1, 0, 5, 0, 2])
    close = torch.isclose(model(batch), plain(batch), rtol=0, atol=1e-7)
    assert close.tolist() == [True, False, True, False, True, False]


def test_without_sequences_the_history_config_draws_no_weights():
    torch.manual_seed(3)
    plain = DNN(LAYOUT)
    torch.manual_seed(3)
    other = DNN(LAYOUT, history=HistoryEncoderConfig(width=64))
    assert plain.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))


def test_dropout_acts_in_training_only():
    model, batch = DNN(LAYOUT, DNNConfig(dropout=0.5)), make_batch(8)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


def test_every_parameter_learns():
    model = DNN(LAYOUT, DNNConfig(dim=4, hidden=(8,)), sequences=[LABELLED])
    torch.nn.init.normal_(model.embedding.weight)
    model(make_batch(40, past=LABELLED)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_mlp_with_an_output_ends_in_a_plain_linear_map():
    mlp = MLP(3, (4, 5), out=2, dropout=0.0)
    assert [name for name, _ in mlp.named_children()] == ["hidden_0", "hidden_1", "out"]
    torch.nn.init.constant_(mlp.out.bias, -10.0)  # a ReLU behind it would show
    x = torch.randn(6, 3)
    hidden = x
    for block in (mlp.hidden_0, mlp.hidden_1):
        hidden = (hidden @ block[0].weight.T + block[0].bias).clamp(min=0)
    torch.testing.assert_close(mlp(x), hidden @ mlp.out.weight.T + mlp.out.bias)


def test_a_length_mask_marks_the_leading_entries():
    assert length_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"hidden": ()}, {"hidden": (4, 0)}, {"dropout": 1.0}, {"dropout": -0.1}], ids=str
)
def test_unusable_sizes_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DNNConfig(**wrong)
