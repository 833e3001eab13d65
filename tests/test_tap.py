"""Tap: any module's activations, joined and cut from the gradient, and no trace left behind."""

import pytest
import torch
from torch import nn

from model_helpers import LAYOUT, make_batch
from recfm.errors import ConfigError
from recfm.history.compress import Autoencoder
from recfm.history.tap import Tap
from recfm.models.wukong import Wukong, WukongConfig
from recfm.train.losses import FoundationLoss


class Stranger(nn.Module):
    """Nothing of recfm: nested names, a layer that may not run, a tuple, a scalar."""

    def __init__(self):
        super().__init__()
        self.tower = nn.ModuleDict(
            {"wide": nn.Linear(3, 5), "deep": nn.Sequential(nn.Linear(3, 4), nn.Tanh())}
        )
        self.rows = nn.Unflatten(1, (2, 2))
        self.gru = nn.GRU(3, 2, batch_first=True)
        self.squeeze = nn.Flatten(0)
        self.rare = nn.Linear(3, 2)
        self.total = Total()

    def forward(self, x, *, rarely=False):
        wide, deep = self.tower["wide"](x), self.tower["deep"](x)
        self.rows(deep)
        self.gru(x.unsqueeze(1))
        if rarely:
            self.rare(x)
        self.total(wide)
        return self.squeeze(wide[:, :1])


class Total(nn.Module):
    def forward(self, x):
        return x.sum()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Stranger()


X = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


def hooks(model):
    return [
        (name, hook)
        for name, module in model.named_modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


def test_a_layer_of_any_module(model):
    with Tap(model, ["tower.deep"]) as tap:
        model(X)
        torch.testing.assert_close(tap.activations(), model.tower["deep"](X).detach())


def test_several_layers_are_joined_in_the_order_given(model):
    layers = ["tower.wide", "rows", "tower.deep.0"]
    with Tap(model, layers) as tap:
        model(X)
        e = tap.activations()
    wide, deep = model.tower["wide"](X), model.tower["deep"](X)
    torch.testing.assert_close(e, torch.cat([wide, deep, model.tower["deep"][0](X)], dim=1).detach())
    assert e.shape == (6, 5 + 4 + 4)


def test_an_output_of_one_number_per_row_is_one_column(model):
    with Tap(model, ["squeeze", "tower.wide"]) as tap:
        logits = model(X)
        assert torch.equal(tap.activations()[:, 0], logits.detach())


@pytest.mark.parametrize("layer", ["gru", "total"], ids=["tuple", "scalar"])
def test_an_output_without_a_row_per_example_is_refused_by_name(model, layer):
    with Tap(model, [layer]), pytest.raises(ConfigError, match=f"'{layer}'"):
        model(X)


def test_an_unknown_layer_names_the_nearest(model):
    with pytest.raises(ConfigError, match=r"no layer 'tower.deap'.*tower\.deep"):
        Tap(model, ["tower.wide", "tower.deap"])
    assert hooks(model) == [], "a refused tap leaves no hook on the layers that it knew"


@pytest.mark.parametrize("layers", [[], "tower.wide", ["rows", "rows"], [""]], ids=str)
def test_unusable_lists_of_layers_are_refused(model, layers):
    with pytest.raises(ConfigError):
        Tap(model, layers)
    assert hooks(model) == []


def test_a_layer_that_did_not_run_is_named(model):
    tap = Tap(model, ["tower.wide", "rare"])
    with pytest.raises(ConfigError, match=r"'tower\.wide' did not run"):
        tap.activations()
    model(X)
    with pytest.raises(ConfigError, match="'rare' did not run"):
        tap.activations()
    model(X, rarely=True)
    assert tap.activations().shape == (6, 7)


def test_activations_of_an_earlier_pass_are_never_returned(model):
    tap = Tap(model, ["tower.wide", "rare"])
    model(X, rarely=True)
    model(X + 1)
    with pytest.raises(ConfigError, match="'rare' did not run"):
        tap.activations()


def test_each_pass_is_read_once(model):
    tap = Tap(model, ["rows"])
    model(X)
    tap.activations()
    with pytest.raises(ConfigError, match="did not run"):
        tap.activations()


def test_the_last_of_two_passes_counts(model):
    tap = Tap(model, ["tower.wide"])
    model(X)
    model(2 * X[:4])
    torch.testing.assert_close(tap.activations(), model.tower["wide"](2 * X[:4]).detach())


def test_leaving_removes_the_hooks_even_after_an_error(model):
    with Tap(model, ["rows", "tower.wide"]):
        assert len(hooks(model)) >= 2
    assert hooks(model) == []

    def fail():
        with Tap(model, ["rows"]):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert hooks(model) == []


def test_a_tapped_model_computes_and_learns_the_same(model):
    plain = model(X)
    plain.sum().backward()
    before = [p.grad.clone() for p in model.tower.parameters() if p.grad is not None]
    model.zero_grad()
    with Tap(model, ["tower.wide"]) as tap:
        tapped = model(X)
        assert torch.equal(tapped, plain)
        (tapped.sum() + tap.activations().square().sum()).backward()
    after = [p.grad for p in model.tower.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_activations_carry_no_gradient(model):
    with Tap(model, ["tower.wide"]) as tap:
        model(X)
        assert not tap.activations().requires_grad


def test_the_autoencoders_loss_never_reaches_the_fm():
    torch.manual_seed(0)
    fm = Wukong(LAYOUT, WukongConfig(dim=4, layers=1, hidden=(8,)))
    with Tap(fm, ["mlp.hidden_0", "embedding"]) as tap:
        fm(make_batch(2))
        autoencoder = Autoencoder(tap.activations().shape[1], 3, hidden=8)
        objective = FoundationLoss(fm, tap, autoencoder)
        batch = make_batch(16)
        on_label = nn.functional.binary_cross_entropy_with_logits(fm(batch), batch.label)
        expected = torch.autograd.grad(on_label, list(fm.parameters()))
        objective(batch).backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(fm.parameters(), expected, strict=True))
    assert all(p.grad.any() for p in autoencoder.parameters())
