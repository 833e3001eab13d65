"""The autoencoder behind z: its range, its running statistics, and that scoring changes nothing in it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.history.compress import Autoencoder, RunningStandardise


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(before, after):
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


# ---- standardising ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.sampled_from([0.02, 0.3]), st.integers(0, 999))
def test_statistics_are_exponential_averages_over_batches(sizes, momentum, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(3.0, 2.0, (n, 4)) for n in sizes]
    module = RunningStandardise(4, momentum=momentum).double()
    for batch in batches:
        out = module(torch.tensor(batch))
    share = np.array([(1 - momentum) ** (len(sizes) - k) for k in range(1, len(sizes) + 1)])
    share /= share.sum()
    mean = sum(s * b.mean(0) for s, b in zip(share, batches, strict=True))
    square = sum(s * (b**2).mean(0) for s, b in zip(share, batches, strict=True))
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-4))
    expected = np.clip((batches[-1] - mean) / deviation, -10, 10)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-5.0, 0.1), (1000.0, 0.5), (1e4, 300.0)])
def test_a_stationary_unit_comes_out_with_mean_zero_and_deviation_one(mean, deviation):
    module = RunningStandardise(2)
    for _ in range(300):
        module(mean + deviation * torch.randn(64, 2))
    module.eval()
    out = module(mean + deviation * torch.randn(20_000, 2))
    assert out.mean(dim=0).tolist() == pytest.approx([0, 0], abs=0.05)
    assert out.std(dim=0).tolist() == pytest.approx([1, 1], rel=0.05)


def test_constant_units_become_zero_and_stay_finite_when_they_fire():
    module = RunningStandardise(3)
    for _ in range(5):
        out = module(torch.tensor([0.0, 7.0, -1e6]).repeat(8, 1))
    assert torch.equal(out, torch.zeros(8, 3))
    module.eval()
    fired = module(torch.tensor([[1e8, 7.5, 0.0]]))
    assert fired.isfinite().all()
    assert fired.abs().max() <= 10


def test_a_batch_of_one_row_trains_and_scores():
    autoencoder = Autoencoder(4, 2, hidden=8)
    for _ in range(3):
        loss = autoencoder.loss(torch.randn(1, 4))
        loss.backward()
        assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in autoencoder.parameters())
    autoencoder.eval()
    assert autoencoder(torch.randn(1, 4)).isfinite().all()


def test_statistics_travel_with_the_weights():
    first, second = Autoencoder(4, 2), Autoencoder(4, 2)
    first.loss(5 + torch.randn(64, 4))
    second.load_state_dict(first.state_dict())
    x = torch.randn(9, 4)
    assert torch.equal(first.eval()(x), second.eval()(x))


# ---- z ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 5), st.floats(1e-3, 1e12), st.booleans(), st.integers(0, 99))
def test_z_has_d_columns_in_minus_one_to_one(rows, dim, scale, training, seed):
    torch.manual_seed(seed)
    autoencoder = Autoencoder(6, dim, hidden=8).train(training)
    z = autoencoder(scale * torch.randn(rows, 6))
    assert z.shape == (rows, dim)
    assert z.abs().max() <= 1


def test_z_is_the_tanh_of_the_encoder_on_standardised_activations():
    autoencoder = Autoencoder(5, 3, hidden=8).eval()
    with torch.no_grad():
        autoencoder.standardise.mean.copy_(torch.arange(5.0))
        autoencoder.standardise.variance.fill_(4.0)
    e = torch.randn(7, 5)
    first, _, second, _ = autoencoder.encoder
    hidden = (((e - torch.arange(5.0)) / 2) @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(autoencoder(e), (hidden @ second.weight.T + second.bias).tanh())


def test_the_loss_is_the_mean_squared_error_of_what_was_standardised():
    autoencoder = Autoencoder(5, 3, hidden=8).eval()
    e = 0.01 * torch.randn(7, 5)
    target, z = autoencoder.standardise(e), autoencoder(e)
    error = (autoencoder.decoder(z) - target).square().sum() / (7 * 5)
    torch.testing.assert_close(autoencoder.loss(e), error)


def test_scoring_changes_nothing():
    autoencoder = Autoencoder(4, 2)
    for _ in range(3):
        autoencoder.loss(torch.randn(32, 4))
    autoencoder.eval()
    before, x = state(autoencoder), 50 + torch.randn(16, 4)
    z = autoencoder(x)
    autoencoder.loss(x)
    assert same(before, state(autoencoder))
    assert torch.equal(autoencoder(x), z)
    torch.testing.assert_close(autoencoder(x[:3]), z[:3])


def test_training_and_scoring_see_the_same_map():
    autoencoder = Autoencoder(4, 2)
    x = torch.randn(32, 4)
    trained = autoencoder(x)
    autoencoder.eval()
    torch.testing.assert_close(autoencoder(x), trained)


def test_no_gradient_leaves_through_the_activations():
    autoencoder = Autoencoder(4, 2)
    e = torch.randn(8, 4, requires_grad=True)
    (autoencoder.loss(e) + autoencoder(e).sum()).backward()
    assert e.grad is None


def test_training_learns_to_rebuild_what_has_structure():
    autoencoder = Autoencoder(12, 2, hidden=16)
    mix = torch.randn(2, 12)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = autoencoder.loss(torch.randn(64, 2) @ mix)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[:10])
