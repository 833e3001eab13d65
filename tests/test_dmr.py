"""DMR: both matches in NumPy loops, its second tables, the auxiliary loss, refused settings."""

import numpy as np
import pytest
import torch

from behaviour_helpers import VECTORS, batch_of, histories, make
from recfm.errors import ConfigError
from recfm.models.dmr import DMRConfig
from zoo_helpers import array, dense, mlp_of, near, relu, sigmoid, softmax

PAST = histories([3, 0, 6, 1])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def scores_of(module, asks, events):
    out = []
    for place, event in enumerate(events):
        query = relu(dense(np.concatenate([asks, array(module.positions)[place]]), module.query))
        pair = np.concatenate([query, event, query - event, query * event])
        out.append(mlp_of(module.scores.mlp, pair)[0])
    return np.array(out)


def user_of(model, scores, events):
    return relu(dense(softmax(scores) @ events, model.user_outs[0]))


def vectors(tables, ids):
    return np.stack(
        [np.concatenate([table[i] for table, i in zip(tables, pair, strict=True)]) for pair in ids]
    )


@pytest.mark.parametrize("user_to_item", [True, False], ids=["u2i", "no u2i"])
@pytest.mark.parametrize("item_to_item", [True, False], ids=["i2i", "no i2i"])
def test_the_logit_is_the_formula_of_the_paper(user_to_item, item_to_item):
    parts = {"user_to_item": user_to_item, "item_to_item": item_to_item}
    model = make("dmr", std=0.5, auxiliary=0.0, **parts).double()
    batch = batch_of(PAST, dtype=torch.float64)
    tables = [array(model.embedding.table(name)) for name in ("item", "cate")]
    user = array(model.embedding.table("user"))
    for b, logit in enumerate(array(model(batch))):
        i, c, u = batch.ids[b].tolist()
        [target] = vectors(tables, [(i, c)])
        interest, item_match, user_match = np.zeros(8), 0.0, 0.0
        if len(PAST[b]):
            events = vectors(tables, PAST[b])
            scores = scores_of(model.items[0], target, events)
            interest, item_match = softmax(scores) @ events, scores.sum()
            if user_to_item:
                second = [array(model.match_embedding.table(name)) for name in ("item", "cate")]
                found = user_of(model, scores_of(model.users[0], np.zeros(0), events), events)
                user_match = found @ vectors(second, [(i, c)])[0]
        matches = [item_match] * item_to_item + [user_match] * user_to_item
        hidden = mlp_of(model.mlp, np.concatenate([target, user[u], interest, matches]))
        assert logit == near(dense(hidden, model.head)[0])


def test_the_auxiliary_loss_asks_the_older_events_for_the_newest():
    model = make("dmr", std=0.5).double().train()
    past = histories([3, 1, 2, 0, 4])
    batch = batch_of(past, dtype=torch.float64)
    tables = [array(model.embedding.table(name)) for name in ("item", "cate")]
    second = [array(model.match_embedding.table(name)) for name in ("item", "cate")]
    users, newest = [], []
    for one in (one for one in past if len(one) > 1):
        events = vectors(tables, one)
        scores = scores_of(model.users[0], np.zeros(0), events)
        users.append(user_of(model, scores[1:], events[1:]))
        newest.append(vectors(second, one[:1])[0])
    total = 0.0
    for k, found in enumerate(users):
        total += -np.log(sigmoid(found @ newest[k])) - np.log(1 - sigmoid(found @ newest[(k - 1) % 3]))
    model(batch)
    assert model.auxiliary_loss().item() == near(0.5 * total / 3)


def test_the_second_tables_hold_only_what_the_past_is_of():
    assert [column.name for column in make("dmr").match_embedding.columns] == ["item", "cate"]
    of_vectors = make("dmr", sequences=(VECTORS,))
    assert [column.name for column in of_vectors.match_embedding.columns] == ["item", "cate"]
    assert not hasattr(make("dmr", user_to_item=False, auxiliary=0.0), "match_embedding")


@pytest.mark.parametrize(
    "wrong",
    [
        {"position_dim": 0},
        {"attention_hidden": (0,)},
        {"auxiliary": -1.0},
        {"attention_dropout": 2.0},
        {"auxiliary": 1.0, "user_to_item": False},
    ],
    ids=str,
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DMRConfig(**wrong)
