"""DMIN: refiner and extractor in NumPy loops, who sees whom, refused settings."""

import numpy as np
import pytest
import torch

from behaviour_helpers import batch_of, histories, make
from recfm.errors import ConfigError
from recfm.models.dmin import DMINConfig
from zoo_helpers import array, dense, layer_norm, mlp_of, near, relu, softmax

PAST = histories([3, 0, 6, 1])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def heads_of(linear, x, heads):
    """What each head finds for each event, [heads, L, e / heads]; newest first, an event sees itself and older ones."""
    size = x.shape[1] // heads
    parts = np.stack([dense(row, linear) for row in x])
    q, k, v = np.split(parts, 3, axis=1)
    found = np.zeros((heads, len(x), size))
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            older = range(i, len(x))
            weights = softmax(np.array([q[i, own] @ k[j, own] / np.sqrt(size) for j in older]))
            found[head, i] = sum(w * v[j, own] for j, w in zip(older, weights, strict=True))
    return found


def after(module, found, through, norm):
    inner = found + through
    if norm:
        inner = np.stack([layer_norm(row, module.norm.weight, module.norm.bias) for row in inner])
    return inner + np.stack([dense(relu(dense(row, module.feed[0])), module.feed[2]) for row in inner])


def interests_of(model, events, target):
    config, extractor = model.config, model.extractors[0]
    refined = events
    if config.refiner:
        refiner = model.refiners[0]
        side_by_side = np.concatenate(heads_of(refiner.attention.inputs, events, config.heads), axis=1)
        found = np.stack([dense(row, refiner.attention.out) for row in side_by_side])
        refined = after(refiner.after, found, events, config.norm)
    interests = []
    for k, head in enumerate(heads_of(extractor.inputs, refined, config.heads)):
        found = np.stack([dense(row, extractor.outs[k]) for row in head])
        states = after(extractor.after[k], found, refined, config.norm)
        scores = []
        for place, state in enumerate(states):
            query = target
            if config.position_dim:
                query = dense(
                    np.concatenate([target, array(extractor.positions)[k, place]]), extractor.queries[k]
                )
            pair = np.concatenate([query, state, query - state, query * state])
            scores.append(mlp_of(extractor.scores[k].mlp, pair)[0])
        interests.append(softmax(np.array(scores)) @ states)
    return np.concatenate(interests)


@pytest.mark.parametrize(
    "settings", [{}, {"refiner": False}, {"norm": False, "heads": 4}, {"position_dim": 0}], ids=str
)
def test_the_logit_is_the_formula_of_the_paper(settings):
    model = make("dmin", std=0.5, **settings).double()
    batch = batch_of(PAST, dtype=torch.float64)
    item, cate, user = (array(model.embedding.table(name)) for name in ("item", "cate", "user"))
    for b, logit in enumerate(array(model(batch))):
        i, c, u = batch.ids[b].tolist()
        target, interests = np.concatenate([item[i], cate[c]]), np.zeros(8 * model.config.heads)
        if len(PAST[b]):
            events = np.stack([np.concatenate([item[x], cate[y]]) for x, y in PAST[b]])
            interests = interests_of(model, events, target)
        hidden = mlp_of(model.mlp, np.concatenate([item[i], cate[c], user[u], interests]))
        assert logit == near(dense(hidden, model.head)[0])


def test_no_refined_event_knows_a_newer_one():
    """Else the auxiliary loss, which asks it for the next event, would be answered by looking."""
    model = make("dmin")
    batch = batch_of(histories([6]))
    seen = []
    model.refiners[0].register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    model(batch)
    batch.sequences["past"].ids[0, 2, 0] = batch.sequences["past"].ids[0, 2, 0] % 8 + 1
    model(batch)
    same = [torch.equal(one, other) for one, other in zip(*seen, strict=True)]
    assert same == [False, False, False, True, True, True]


def test_heads_must_divide_an_event():
    with pytest.raises(ConfigError, match="heads is 3, which does not divide the width 8"):
        make("dmin", heads=3)


@pytest.mark.parametrize(
    "wrong",
    [{"heads": 0}, {"position_dim": -1}, {"attention_hidden": ()}, {"auxiliary": -0.5}, {"dropout": 1.0}],
    ids=str,
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DMINConfig(**wrong)
