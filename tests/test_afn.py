"""AFN+: products to learned powers in NumPy, batch norm, a published run's parameters, refused settings."""

import numpy as np
import pytest
import torch

from model_helpers import LAYOUT, VECTORS, make_batch
from recfm.errors import ConfigError
from recfm.models.afn import AFN, AFNConfig
from recfm.models.zoo import build_model
from zoo_helpers import (
    BEFORE_SOFTMAX,
    FRAPPE,
    array,
    dense,
    double,
    learns_everything,
    mlp_of,
    near,
    parameters,
)

SIZES = {"dim": 3, "neurons": 4, "product_hidden": (5,), "hidden": (6, 5)}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(norm):
    """A batch norm with statistics of its own."""
    torch.nn.init.normal_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)


def normed(x, norm, i):
    mean, var = array(norm.running_mean)[i], array(norm.running_var)[i]
    return (x - mean) / np.sqrt(var + 1e-5) * array(norm.weight)[i] + array(norm.bias)[i]


@pytest.mark.parametrize("plus", [True, False], ids=["afn+", "afn"])
def test_the_logit_is_the_formula_of_the_paper(plus):
    sequences = [VECTORS] if plus else []
    config = AFNConfig(**(SIZES if plus else SIZES | {"hidden": ()}))
    model = double(AFN(LAYOUT, config, sequences=sequences))
    randomised(model.log_norm)
    randomised(model.product_norm)
    batch = make_batch(5, past=VECTORS if plus else None, dtype=torch.float64)
    rows = model.embedding(batch)
    past = [array(history(batch, rows, model.embedding)) for history in model.histories]
    powers = array(model.powers.weight)
    for b, logit in enumerate(array(model(batch))):
        logs = [normed(np.log(np.abs(row)), model.log_norm, i) for i, row in enumerate(array(rows[b]))]
        products = [
            normed(np.prod([np.exp(log) ** power for log, power in zip(logs, own, strict=True)], axis=0),
                   model.product_norm, j)
            for j, own in enumerate(powers)
        ]  # fmt: skip
        hidden = mlp_of(model.product_mlp, np.concatenate(products))
        if plus:
            flat = np.concatenate([array(model.second_embedding(batch)[b]).ravel(), *(p[b] for p in past)])
            logits = [
                dense(hidden, model.head.first)[0],
                dense(mlp_of(model.mlp, flat), model.head.second)[0],
            ]
            assert logit == near(dense(np.array(logits), model.head.mix)[0])
        else:
            assert logit == near(dense(hidden, model.head)[0])


def test_a_neuron_of_powers_one_and_zero_is_a_plain_product():
    model = double(AFN(LAYOUT, AFNConfig(**SIZES)))
    torch.nn.init.zeros_(model.powers.weight)
    with torch.no_grad():
        model.powers.weight[0, :2] = 1.0
    seen = {}
    model.product_norm.register_forward_pre_hook(lambda module, inputs: seen.update(products=inputs[0]))
    batch = make_batch(4, dtype=torch.float64)
    model(batch)
    rows = model.embedding(batch)
    product = (rows[:, 0] * rows[:, 1]).abs() / (
        1 + 1e-5
    )  # two fresh batch norms divide each by root(1 + 1e-5)
    torch.testing.assert_close(seen["products"][:, 0], product, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(seen["products"][:, 1:], torch.ones(4, 3, 3, dtype=torch.float64))


def test_an_embedding_of_zeros_gives_no_infinity():
    model = AFN(LAYOUT, AFNConfig(**SIZES))
    torch.nn.init.zeros_(model.embedding.weight)
    loss = model(make_batch(6)).sum()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_benchmark_run_has_as_many_parameters():
    config = {
        "dim": 10, "neurons": 1000, "product_hidden": [400], "product_dropout": 0.4, "hidden": [400] * 3,
        "dropout": 0.2,
    }  # fmt: skip
    assert parameters(build_model("afn", FRAPPE, config)) == 4_482_205


def test_every_parameter_learns():
    model = AFN(LAYOUT, AFNConfig(**SIZES), sequences=[VECTORS])
    assert learns_everything(model, make_batch(60, past=VECTORS), but=BEFORE_SOFTMAX) == []


def test_histories_need_the_mlp():
    with pytest.raises(ConfigError, match="hidden"):
        AFN(LAYOUT, AFNConfig(hidden=()), sequences=[VECTORS])


@pytest.mark.parametrize(
    "wrong",
    [{"dim": 0}, {"neurons": 0}, {"product_hidden": ()}, {"hidden": (0,)}, {"product_dropout": 1.0}],
    ids=str,
)
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AFNConfig(**wrong)
