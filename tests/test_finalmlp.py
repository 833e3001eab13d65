"""FinalMLP: the whole formula in NumPy loops, what each gate reads, its fusion, and which settings it refuses."""

import numpy as np
import pytest
import torch

from model_helpers import LAYOUT, VECTORS, changed, make_batch
from recfm.errors import ConfigError, SchemaError
from recfm.models.finalmlp import FinalMLP, FinalMLPConfig
from recfm.models.layers import embedding_parameters
from recfm.models.zoo import build_model
from zoo_helpers import array, dense, double, flat_layout, relu

SIZES = {"dim": 3, "hidden1": (7, 6), "hidden2": (4,), "gate_hidden": (5,), "heads": 2}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def streams(model, x):
    for mlp in (model.mlp1, model.mlp2):
        hidden = x[0 if mlp is model.mlp1 else 1]
        for block in mlp:
            hidden = relu(dense(hidden, block[0]))
        yield hidden


def gate(module, context):
    hidden = relu(dense(context, module.mlp.hidden_0[0]))
    return 2 / (1 + np.exp(-dense(hidden, module.mlp.out)))


def fused(head, first, second):
    value = dense(first, head.first)[0] + dense(second, head.second)[0]
    heads, a, b = head.product.shape
    for k in range(heads):
        for i in range(a):
            for j in range(b):
                value += first[k * a + i] * array(head.product)[k, i, j] * second[k * b + j]
    return value


@pytest.mark.parametrize("sequences", [[], [VECTORS]], ids=["plain", "history"])
def test_the_logit_is_the_formula_of_the_paper(sequences):
    model = double(
        FinalMLP(
            LAYOUT, FinalMLPConfig(**SIZES, gate1=("user", "place"), gate2=("item",)), sequences=sequences
        )
    )
    batch = make_batch(6, past=sequences[0] if sequences else None, dtype=torch.float64)
    rows = model.embedding(batch)
    past = [array(history(batch, rows, model.embedding)) for history in model.histories]
    first_table, second_table = array(model.gate1.context.weight), array(model.gate2.context.weight)
    for b, logit in enumerate(array(model(batch))):
        item, user, _, place = batch.ids[b].tolist()
        x = np.concatenate([array(rows)[b].ravel(), *(part[b] for part in past)])
        g1 = gate(model.gate1, np.concatenate([first_table[user], first_table[5 + place]]))
        g2 = gate(model.gate2, second_table[item])
        assert logit == pytest.approx(fused(model.head, *streams(model, [g1 * x, g2 * x])), abs=1e-10)


def test_without_context_a_gate_is_the_same_for_all_rows():
    model = double(FinalMLP(LAYOUT, FinalMLPConfig(**SIZES)))
    torch.nn.init.normal_(model.gate1.constant)
    batch = make_batch(4, dtype=torch.float64)
    g1, g2 = (gate(module, array(module.constant)[0]) for module in (model.gate1, model.gate2))
    for row, logit in zip(array(model.embedding(batch)), array(model(batch)), strict=True):
        x = row.ravel()
        assert logit == pytest.approx(fused(model.head, *streams(model, [g1 * x, g2 * x])), abs=1e-10)


def test_without_gates_both_streams_read_the_same():
    model = double(FinalMLP(LAYOUT, FinalMLPConfig(**SIZES, gates=False)))
    batch = make_batch(4, dtype=torch.float64)
    for row, logit in zip(array(model.embedding(batch)), array(model(batch)), strict=True):
        assert logit == pytest.approx(fused(model.head, *streams(model, [row.ravel()] * 2)), abs=1e-10)


def test_a_gate_reads_nothing_but_its_features():
    model = FinalMLP(LAYOUT, FinalMLPConfig(**SIZES, gate1=("user",), gate2=("genres", "price")))
    torch.nn.init.normal_(model.gate1.context.weight)
    batch = make_batch(20)
    other = make_batch(20, seed=1)
    with_user = changed(other, ids=torch.where(torch.arange(4) == 1, batch.ids, other.ids))
    assert torch.equal(model.gate1(batch), model.gate1(with_user))
    assert not torch.equal(model.gate1(batch), model.gate1(other))
    moved = changed(batch, numeric=other.numeric, tokens=other.tokens)
    assert torch.equal(model.gate1(batch), model.gate1(moved))
    hidden = changed(
        other, tokens=batch.tokens, numeric=torch.cat([batch.numeric[:, :1], other.numeric[:, 1:]], 1)
    )
    assert torch.equal(model.gate2(batch), model.gate2(hidden))


def test_the_benchmark_run_on_movielens_has_as_many_parameters():
    rows = {"user_id": 16977, "item_id": 23606, "tag_id": 49659}  # as the run's log names them
    config = {
        "dim": 10, "hidden1": [400], "hidden2": [800], "dropout1": 0.4, "dropout2": 0.2, "batch_norm1": True,
        "batch_norm2": True, "heads": 10, "gate_hidden": [800],
    }  # fmt: skip
    model = build_model("finalmlp", flat_layout(rows), config, viewer="vm")
    assert sum(p.numel() for p in model.parameters()) == 1_040_902


def test_a_second_head_reads_the_same_streams():
    model, batch = FinalMLP(LAYOUT, FinalMLPConfig(**SIZES)), make_batch(6)
    hidden = model.backbone(batch)
    assert hidden.shape == (6, 10)
    assert model.make_head()(hidden).shape == (6, 1)


def test_every_parameter_learns():
    model = FinalMLP(LAYOUT, FinalMLPConfig(**SIZES, gate2=("item", "place")), sequences=[VECTORS])
    for table in embedding_parameters(model):
        torch.nn.init.normal_(table)
    torch.nn.init.normal_(
        model.gate1.constant
    )  # zero at first: the layer behind it learns from the second step
    model(make_batch(60, past=VECTORS)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_gate_of_a_hidden_feature_is_refused():
    with pytest.raises(SchemaError, match="secret"):
        FinalMLP(LAYOUT, FinalMLPConfig(gate1=("secret",)))
    FinalMLP(LAYOUT, FinalMLPConfig(gate1=("secret",)), viewer="fm")


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 0},
        {"hidden1": ()},
        {"hidden2": (0,)},
        {"dropout1": 1.0},
        {"heads": 0},
        {"heads": 3},
        {"gate_hidden": ()},
    ],
    ids=str,
)
def test_unusable_sizes_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FinalMLPConfig(**wrong)
