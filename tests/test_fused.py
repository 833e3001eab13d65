"""Fused layers against the plain torch modules in float64."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recfm import _core
from recfm.errors import DataError
from recfm.models.fused import HiddenBlock, SmallLayerNorm


def block(width: int, *, norm: bool, rate: float) -> HiddenBlock:
    layers = [nn.Linear(5, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU(), nn.Dropout(rate)]
    return HiddenBlock(*layers)


def passed(module: nn.Module, x: Tensor, weight: Tensor) -> list[Tensor]:
    """Output, gradient of the input, gradients of the parameters, buffers."""
    x = x.clone().requires_grad_()
    y = module(x)
    (y * weight).sum().backward()
    parts = [y, x.grad, *(p.grad for p in module.parameters()), *module.buffers()]
    return [part.detach().double() for part in parts]


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 150), st.integers(1, 21), st.booleans(), st.integers(0, 10**6))
def test_hidden_block_matches_torch(rows: int, width: int, norm: bool, seed: int) -> None:
    torch.manual_seed(seed)
    ours = block(width, norm=norm, rate=0.0)
    if norm:
        nn.init.normal_(ours[1].weight)
        nn.init.normal_(ours[1].bias)
    theirs = nn.Sequential(*copy.deepcopy(list(ours))).double()
    x, weight = torch.randn(rows, 5) + 1, torch.randn(rows, width)
    # Two rows of nearly one value make the norm's derivative as large as it gets: 1 / sqrt(eps).
    for a, b in zip(passed(ours, x, weight), passed(theirs, x.double(), weight.double()), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3 * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("norm", [True, False])
def test_dropout_is_a_mask_times_the_plain_block(norm: bool) -> None:
    torch.manual_seed(1)
    dropped = block(64, norm=norm, rate=0.25)
    plain = nn.Sequential(*copy.deepcopy(list(dropped))[:-1]).double()
    x, weight = torch.randn(2048, 5), torch.randn(2048, 64)
    y = dropped(x).detach()
    whole = plain(x.double()).detach()
    seen = whole > 1e-4
    kept = (y > 0) & seen
    assert abs(float(kept.sum() / seen.sum()) - 0.75) < 0.01
    torch.testing.assert_close(y[kept].double(), whole[kept] / 0.75, rtol=1e-4, atol=1e-5)
    rates = kept.sum(0)[seen.sum(0) > 200] / seen.sum(0)[seen.sum(0) > 200]
    assert float(rates.std()) < 0.05  # no column is favoured

    # The gradient is that of the plain block under the same mask.
    torch.manual_seed(7)
    mine = passed(dropped, x, weight)
    mask = torch.where(mine[0] > 0, 1 / 0.75, 0.0)
    theirs = passed(plain, x.double(), weight.double() * mask)
    torch.testing.assert_close(mine[1], theirs[1], rtol=1e-3, atol=1e-3)


def test_torch_s_generator_decides_the_mask() -> None:
    layer, x = block(8, norm=True, rate=0.5), torch.randn(100, 5)
    torch.manual_seed(3)
    first, state, second = layer(x), torch.get_rng_state(), layer(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(second, layer(x))
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))


def test_evaluation_and_other_dtypes_are_plain_torch() -> None:
    layer, x = block(8, norm=True, rate=0.5), torch.randn(100, 5)
    layer(x)
    expected = nn.Sequential(*layer).eval()(x)
    assert torch.equal(layer.eval()(x), expected)
    assert layer.double().train()(x.double()).dtype == torch.float64


def test_a_broken_step_is_seen() -> None:
    x = torch.randn(10, 5)
    x[3, 2] = float("nan")
    assert block(4, norm=False, rate=0.2)(x)[3].isnan().any()
    assert block(4, norm=True, rate=0.0)(x).isnan().all()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(2, 64), st.integers(0, 10**6))
def test_small_layer_norm_matches_torch(rows: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    ours = SmallLayerNorm(width)
    nn.init.normal_(ours.weight)
    theirs = nn.LayerNorm(width).double()
    theirs.load_state_dict(ours.state_dict())
    x, weight = torch.randn(rows, 3, width) * 2 + 1, torch.randn(rows, 3, width)
    for a, b in zip(passed(ours, x, weight), passed(theirs, x.double(), weight.double()), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3 * max(1.0, float(b.abs().max())))


def test_arrays_that_do_not_fit_are_refused() -> None:
    x, y = torch.zeros(4, 3).numpy(), torch.zeros(4, 2).numpy()
    with pytest.raises(DataError, match="y"):
        _core.hidden_forward(x, y, norm=None, rate=0.0, seed=0)
    wide = torch.zeros(2, 65).numpy()
    with pytest.raises(DataError, match="64"):
        _core.small_norm_forward(wide, wide.copy(), gain=wide[0], shift=wide[0], eps=1e-5)


def test_threads_do_not_change_a_byte() -> None:
    script = """
import hashlib
import numpy as np
from recfm import _core
rng, digest = np.random.default_rng(1), hashlib.sha256()
def bell(*shape):
    return rng.normal(size=shape).astype(np.float32)
x, grad, gain, shift = bell(1500, 40), bell(1500, 40), bell(40), bell(40)
y, out = np.empty_like(x), np.empty_like(x)
mean, variance = _core.hidden_forward(x, y, norm=(gain, shift, 1e-5), rate=0.3, seed=5)
found = _core.hidden_backward(x, y, grad, out, norm=(gain, mean, variance, 1e-5), rate=0.3)
for array in (y, out, mean, variance, *found):
    digest.update(array.tobytes())
x, grad = x.reshape(-1, 10), grad.reshape(-1, 10)
y, out = np.empty_like(x), np.empty_like(x)
_core.small_norm_forward(x, y, gain=gain[:10], shift=shift[:10], eps=1e-5)
found = _core.small_norm_backward(x, grad, out, gain=gain[:10], eps=1e-5)
for array in (y, out, *found):
    digest.update(array.tobytes())
print(digest.hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"RECFM_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2", "8")
    }
    assert len(digests) == 1
