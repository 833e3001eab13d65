"""DIEN: GRU, attention and AUGRU step by step in NumPy, the auxiliary loss, a published run's parameters."""

import numpy as np
import pytest
import torch

from behaviour_helpers import batch_of, histories, make
from recfm.errors import ConfigError
from recfm.layout import Column, Layout
from recfm.models.behaviour import Events
from recfm.models.dien import DIENConfig
from recfm.models.zoo import build_model
from zoo_helpers import array, dense, flat_layout, mlp_of, near, network_parameters, sigmoid, softmax

PAST = histories([3, 0, 6, 1])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def gru(module, events):
    """The states of a GRU over events, oldest first."""
    wi, wh = array(module.weight_ih_l0), array(module.weight_hh_l0)
    bi, bh = array(module.bias_ih_l0), array(module.bias_hh_l0)
    state, states = np.zeros(wh.shape[1]), []
    for event in events:
        reset_in, update_in, new_in = np.split(wi @ event + bi, 3)
        reset_old, update_old, new_old = np.split(wh @ state + bh, 3)
        reset, update = sigmoid(reset_in + reset_old), sigmoid(update_in + update_old)
        state = (1 - update) * np.tanh(new_in + reset * new_old) + update * state
        states.append(state)
    return np.array(states)


def augru(module, states, weights):
    state = np.zeros(states.shape[1])
    for interest, weight in zip(states, weights, strict=True):
        new_u, new_r, new_n = np.split(dense(interest, module.from_interest), 3)
        old_u, old_r, old_n = np.split(dense(state, module.from_state), 3)
        update, reset = weight * sigmoid(new_u + old_u), sigmoid(new_r + old_r)
        state = (1 - update) * state + update * np.tanh(new_n + reset * old_n)
    return state


def weights_of(module, states, target, config):
    if config.attention == "din":
        pairs = [np.concatenate([target, h, target - h, target * h]) for h in states]
        scores = np.array([mlp_of(module.scores.mlp, pair)[0] for pair in pairs])
    elif config.attention == "bilinear":
        scores = np.array([h @ array(module.compare) @ target for h in states])
    else:
        scores = np.array([h @ target for h in states])
    return softmax(scores) if config.softmax else scores


@pytest.mark.parametrize("attention", ["bilinear", "dot", "din"])
@pytest.mark.parametrize("softmaxed", [True, False], ids=["softmax", "plain"])
def test_the_logit_is_the_formula_of_the_paper(attention, softmaxed):
    model = make(
        "dien", attention=attention, softmax=softmaxed, attention_act="relu", attention_hidden=(5, 3), std=0.5
    ).double()
    batch = batch_of(PAST, dtype=torch.float64)
    item, cate, user = (array(model.embedding.table(name)) for name in ("item", "cate", "user"))
    for b, logit in enumerate(array(model(batch))):
        i, c, u = batch.ids[b].tolist()
        target, interest = np.concatenate([item[i], cate[c]]), np.zeros(8)
        if len(PAST[b]):
            oldest_first = [np.concatenate([item[x], cate[y]]) for x, y in PAST[b][::-1]]
            evolution = model.evolutions[0]
            states = gru(evolution.extractor, oldest_first)
            interest = augru(evolution, states, weights_of(evolution, states, target, model.config))
        hidden = mlp_of(model.mlp, np.concatenate([item[i], cate[c], user[u], interest]))
        assert logit == near(dense(hidden, model.head)[0])


def test_the_auxiliary_loss_asks_each_state_for_the_event_after_it():
    model = make("dien", std=0.5).double().train()
    past = histories([3, 2, 1])
    batch = batch_of(past, dtype=torch.float64)
    item, cate = (array(model.embedding.table(name)) for name in ("item", "cate"))
    steps = []
    for one in past:
        events = [np.concatenate([item[x], cate[y]]) for x, y in one[::-1]]
        states = gru(model.evolutions[0].extractor, events)
        steps += [
            (states[k], events[k + 1]) for k in reversed(range(len(events) - 1))
        ]  # as batched: newest first
    assert len(steps) == 3
    total = 0.0
    for k, (state, after) in enumerate(steps):
        other = steps[(k - 1) % 3][1]  # 3 // 2 = 1 further on
        yes, no = (mlp_of(model.next_event[0], np.concatenate([state, one]))[0] for one in (after, other))
        total += -np.log(sigmoid(yes)) - np.log(1 - sigmoid(no))
    model(batch)
    assert model.auxiliary_loss().item() == near(0.5 * total / 3)


def test_with_all_the_weight_on_it_an_event_replaces_the_state_and_without_any_it_does_nothing():
    model = make("dien", attention="dot", softmax=True).double()
    evolution = model.evolutions[0]
    with torch.no_grad():  # an update gate that is open wherever the attention lets it be
        evolution.from_interest.bias[:8] = 1e4
        evolution.from_state.weight.zero_()
        evolution.from_state.bias.zero_()
    states = torch.randn(1, 2, 8, dtype=torch.float64)
    evolution.extractor = _Says(states)
    target = states[:, 1] * 1e4  # so the softmax picks the second state
    past = Events(events=states, target=target, mask=torch.ones(1, 2, dtype=torch.bool))
    found, _ = evolution(past)
    only_second = np.tanh(dense(array(states[0, 1]), evolution.from_interest)[16:])
    assert array(found[0]) == near(only_second)


class _Says(torch.nn.Module):
    def __init__(self, states):
        super().__init__()
        self.states = states

    def forward(self, events):
        return self.states, None


def test_the_benchmark_run_on_microvideo_has_as_many_parameters():
    past = {"clicked_items": "item_id", "clicked_categories": "cate_id"}
    layout = Layout(
        categorical=flat_layout({"user_id": 2, "item_id": 2, "cate_id": 2}).categorical,
        tokens=tuple(Column(name=n, rows=2, side="user", shares=of) for n, of in past.items()),
        numeric=(),
    )
    config = {
        "dim": 64, "hidden": [1024, 512, 256], "batch_norm": True, "dropout": 0.2, "attention": "din",
        "attention_hidden": [256, 128], "attention_act": "dice", "attention_dropout": 0.2,
    }  # fmt: skip
    tables, image_maps = 64 * (514 + 10_988), 2 * 64 * 64
    assert network_parameters(build_model("dien", layout, config)) == 2_095_874 - tables - image_maps


@pytest.mark.parametrize(
    "wrong",
    [
        {"attention": "cosine"},
        {"auxiliary": -1.0},
        {"auxiliary_hidden": ()},
        {"attention_hidden": (0,)},
        {"length": 0},
    ],
    ids=str,
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DIENConfig(**wrong)
