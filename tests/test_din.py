"""DIN: its attention in NumPy loops, its agreement with the history encoder, a published run's parameters."""

import numpy as np
import pytest
import torch

from behaviour_helpers import PLAIN, TOKENS, VECTORS, batch_of, histories, make
from model_helpers import LAYOUT, make_batch
from recfm.errors import ConfigError
from recfm.layout import Column, Layout, SequenceLayout
from recfm.models.attention import EventScores
from recfm.models.din import DIN, DINConfig
from recfm.models.history_encoder import HistoryEncoder, HistoryEncoderConfig
from recfm.models.zoo import build_model
from zoo_helpers import array, dense, flat_layout, mlp_of, near, network_parameters, softmax

PAST = histories([3, 0, 6, 1])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def scored(module, q, s):
    """DIN's scores of the events s [L, e] for queries q [L, e]."""
    out = []
    for one, event in zip(q, s, strict=True):
        out.append(mlp_of(module.mlp, np.concatenate([one, event, one - event, one * event]))[0])
    return np.array(out)


@pytest.mark.parametrize("softmaxed", [True, False], ids=["softmax", "plain"])
def test_the_logit_is_the_formula_of_the_paper(softmaxed):
    model = make("din", softmax=softmaxed, attention_act="relu", attention_hidden=(5, 3)).double()
    batch = batch_of(PAST, dtype=torch.float64)
    item, cate, user = (array(model.embedding.table(name)) for name in ("item", "cate", "user"))
    for b, logit in enumerate(array(model(batch))):
        i, c, u = batch.ids[b].tolist()
        target, interest = np.concatenate([item[i], cate[c]]), np.zeros(8)
        if len(PAST[b]):
            events = np.stack([np.concatenate([item[x], cate[y]]) for x, y in PAST[b]])
            weights = scored(model.scores[0], [target] * len(events), events)
            for weight, event in zip(softmax(weights) if softmaxed else weights, events, strict=True):
                interest += weight * event
        hidden = mlp_of(model.mlp, np.concatenate([item[i], cate[c], user[u], interest]))
        assert logit == near(dense(hidden, model.head)[0])


def test_vectors_are_projected_and_so_is_the_candidate():
    model = make("din", sequences=(VECTORS,), softmax=False, attention_act="relu").double()
    batch = batch_of(PAST, form="vectors", dtype=torch.float64)
    rows, behaviour = array(model.embedding(batch)), model.behaviours[0]
    interest, _ = model.read(0, behaviour(batch, model.embedding(batch), model.embedding), batch)
    for b in range(len(PAST)):
        target = dense(rows[b, :2].ravel(), behaviour.target)
        events = [
            dense(v, behaviour.event) for v in array(batch.sequences["past"].vectors[b])[: len(PAST[b])]
        ]
        weights = scored(model.scores[0], [target] * len(events), events)
        expected = sum((w * e for w, e in zip(weights, events, strict=True)), np.zeros(4))
        assert array(interest[b]) == near(expected)


def test_a_label_adds_its_vector_to_the_event():
    labelled = SequenceLayout(name="past", ids=("item",), labels=True, length=4)
    model = DIN(PLAIN, DINConfig(dim=3), sequences=[labelled]).double()
    torch.nn.init.normal_(model.embedding.weight)
    batch = batch_of([np.array([[2, 1], [5, 1]])], form="labelled", dtype=torch.float64)
    batch.sequences["past"].ids = torch.tensor([[[2, 1], [5, 2]]], dtype=torch.int32)
    behaviour = model.behaviours[0]
    found = behaviour(batch, model.embedding(batch), model.embedding).events[0]
    item, label = model.embedding.table("item"), behaviour.label.weight
    assert array(found) == near(array(torch.stack([item[2] + label[1], item[5] + label[2]])))


def test_the_scores_are_those_of_the_history_encoder():
    """Both are DIN's: the encoder folds q - s into its other maps."""
    past = SequenceLayout(name="past", dim=4, length=5)
    batch = make_batch(6, past=past, dtype=torch.float64)
    embedding = DIN(LAYOUT, DINConfig(dim=2), sequences=[past]).embedding.double()
    encoder = HistoryEncoder(past, embedding, HistoryEncoderConfig(width=4, attention_hidden=3)).double()
    scores = EventScores(4, (3,)).double()
    with torch.no_grad():
        torch.nn.init.eye_(encoder.event.weight)
        torch.nn.init.zeros_(encoder.event.bias)
        q, s, difference, product = scores.mlp.hidden_0[0].weight.split(4, dim=1)
        encoder.from_query.weight.copy_(q + difference)
        encoder.from_query.bias.copy_(scores.mlp.hidden_0[0].bias)
        encoder.from_event.weight.copy_(s - difference)
        encoder.from_product.weight.copy_(product)
        encoder.score.load_state_dict(scores.mlp.out.state_dict())
    rows = embedding(batch)
    query = encoder.query(embedding.item_rows(rows))
    events, mask = (
        batch.sequences["past"].vectors,
        torch.arange(5) < batch.sequences["past"].lengths.unsqueeze(1),
    )
    found, expected = scores(query, events, mask), encoder._attention(query, events, mask)
    for b in range(6):
        weights = softmax(array(found[b][mask[b]])) if mask[b].any() else np.zeros(0)
        assert array(expected[b][mask[b]]) == near(weights)


def test_dice_never_sees_padding():
    scores = EventScores(2, (3,), act="dice").train()
    events, mask = torch.randn(4, 5, 2), torch.arange(5) < torch.tensor([[2], [0], [1], [0]])
    query = torch.randn(4, 2)
    found = scores(query, events, mask)
    pairs = torch.stack([
        torch.cat([query[b], s, query[b] - s, query[b] * s])
        for b, s in ((0, events[0, 0]), (0, events[0, 1]), (2, events[2, 0]))
    ])  # fmt: skip
    torch.testing.assert_close(found[mask], scores.mlp(pairs).squeeze(1))
    assert not found[~mask].any()


@pytest.mark.parametrize("events", [0, 1])
def test_dice_trains_on_hardly_any_event(events):
    scores = EventScores(2, (3,), act="dice").train()
    mask = torch.arange(3) < torch.tensor([[events], [0]])
    found = scores(torch.randn(2, 2), torch.randn(2, 3, 2), mask)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad.isfinite().all() for p in scores.parameters())


def test_the_benchmark_run_on_taobao_has_as_many_parameters():
    features = [
        *(
            "adgroup_id",
            "age_level",
            "brand",
            "btag",
            "campaign_id",
            "cate_id",
            "cms_group_id",
            "cms_segid",
            "customer",
        ),
        *("gender", "new_user", "occupation", "pid", "price", "pvalue", "shopping", "userid"),
    ]
    past = {"cate_his": "cate_id", "brand_his": "brand", "btag_his": "btag"}
    layout = Layout(
        categorical=flat_layout(dict.fromkeys(features, 2)).categorical,
        tokens=tuple(Column(name=n, rows=2, side="user", shares=of) for n, of in past.items()),
        numeric=(),
    )
    config = {
        "dim": 32, "hidden": [512, 256, 128], "dropout": 0.1, "attention_hidden": [512, 256],
        "attention_act": "relu", "attention_dropout": 0.4, "softmax": False, "length": 50,
    }  # fmt: skip
    model = build_model("din", layout, config)
    rows, price = 1_295_075, 1  # of the log's 16 tables, and the price's one vector
    assert network_parameters(model) == 42_263_682 - 32 * (rows + price)


def test_dropout_of_the_attention_acts_in_training_only():
    model = make("din", layout=TOKENS, sequences=(), attention_dropout=0.5, attention_act="relu")
    batch = batch_of(histories([5, 4, 6, 3]), form="tokens")
    assert torch.equal(model(batch), model(batch))
    model.train()
    assert not torch.equal(model(batch), model(batch))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 0},
        {"length": 0},
        {"hidden": ()},
        {"attention_hidden": ()},
        {"attention_dropout": 1.0},
        {"dropout": -1.0},
    ],
    ids=str,
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DINConfig(**wrong)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ConfigError, match="dice"):
        DIN(PLAIN, DINConfig(attention_act="step"), sequences=[VECTORS])
