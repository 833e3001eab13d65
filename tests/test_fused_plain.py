"""When fused layers must be the plain torch modules that they hold, and what torch may do to them."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recfm.history.tap import Tap
from recfm.models import fused
from recfm.models.fused import HiddenBlock, SmallLayerNorm
from recfm.models.layers import MLP


class Calls:
    """How often the kernels ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for name in ("hidden_forward", "small_norm_forward"):
            monkeypatch.setattr(fused._core, name, self.counted(getattr(fused._core, name)))

    def counted(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            self.count += 1
            return kernel(*args, **named)

        return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def usual(norm: nn.Module | None = None, rate: float = 0.0) -> HiddenBlock:
    torch.manual_seed(1)
    return HiddenBlock(nn.Linear(5, 8), norm or nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(rate))


def frozen() -> HiddenBlock:
    block = usual()
    block[1].eval()
    return block


def resting_dropout() -> HiddenBlock:
    block = usual(rate=0.5)
    block[3].eval()
    return block


UNUSUAL = {
    "momentum is None": lambda: usual(nn.BatchNorm1d(8, momentum=None)),
    "nothing tracked": lambda: usual(nn.BatchNorm1d(8, track_running_stats=False)),
    "no affine": lambda: usual(nn.BatchNorm1d(8, affine=False)),
    "frozen norm": frozen,
    "resting dropout": resting_dropout,
    "drops all": lambda: usual(rate=1.0),
    "another norm": lambda: usual(nn.LayerNorm(8)),
    "another activation": lambda: HiddenBlock(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU()),
    "ReLU first": lambda: HiddenBlock(nn.Linear(5, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(0.0)),
    "dropout before ReLU": lambda: HiddenBlock(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.0), nn.ReLU()
    ),
    "two ReLUs": lambda: HiddenBlock(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.ReLU()),
    "ReLU alone": lambda: HiddenBlock(nn.Linear(5, 8), nn.ReLU()),
    "linear alone": lambda: HiddenBlock(nn.Linear(5, 8)),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_blocks_are_plain_torch(case: str, calls: Calls) -> None:
    ours = UNUSUAL[case]()
    theirs = nn.Sequential(*copy.deepcopy(list(ours)))
    x = torch.randn(16, 5)
    for _ in range(2):
        assert torch.equal(ours(x), theirs(x))
    assert calls.count == 0
    for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(mine, other)


def test_the_usual_blocks_are_fused(calls: Calls) -> None:
    x = torch.randn(16, 5)
    for block in (
        usual(),
        usual(rate=0.5),
        HiddenBlock(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU()),
        HiddenBlock(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5)),
    ):
        block(x)
    SmallLayerNorm(5)(x)
    assert calls.count == 5


@pytest.mark.parametrize("layer", ["hidden_0.1", "hidden_0.2", "hidden_0.3"])
def test_a_tap_on_an_inner_module_fires_in_training(layer: str, calls: Calls) -> None:
    model = MLP(5, [8], batch_norm=True, dropout=0.25).train()
    x = torch.randn(16, 5)
    with Tap(model, [layer]) as tap:
        y = model(x)
        seen = tap.activations()
    if layer != "hidden_0.1":
        assert torch.equal((seen > 0) | (y == 0), torch.ones_like(y, dtype=torch.bool))
    assert seen.shape == (16, 8)
    assert calls.count == 0
    model(x)
    assert calls.count == 1


@pytest.mark.parametrize("layer", ["hidden_0", "hidden_0.0"])
def test_a_tap_around_the_kernel_leaves_it(layer: str, calls: Calls) -> None:
    model = MLP(5, [8], batch_norm=True).train()
    with Tap(model, [layer]) as tap:
        y = model(torch.randn(16, 5))
        seen = tap.activations()
    assert calls.count == 1
    assert seen.shape == y.shape
    assert torch.equal(seen, y) == (layer == "hidden_0")


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_pre_hook",
        "register_forward_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
@pytest.mark.parametrize("inner", [1, 2, 3])
def test_hooks_fire(register: str, inner: int, calls: Calls) -> None:
    block, fired = usual(rate=0.5), []
    handle = getattr(block[inner], register)(lambda *_: fired.append(1))
    block(torch.randn(16, 5)).sum().backward()
    assert fired == [1]
    assert calls.count == 0
    handle.remove()
    block(torch.randn(16, 5))
    assert calls.count == 1


def test_hooks_on_all_modules_fire(calls: Calls) -> None:
    seen: list[str] = []
    hook = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(type(m).__name__))
    try:
        usual()(torch.randn(16, 5))
    finally:
        hook.remove()
    assert seen == ["Linear", "BatchNorm1d", "ReLU", "Dropout", "HiddenBlock"]
    assert calls.count == 0


def test_hooks_on_a_small_norm_fire_beside_the_kernel(calls: Calls) -> None:
    norm, fired = SmallLayerNorm(4), []
    norm.register_forward_pre_hook(lambda *_: fired.append("before"))
    norm.register_forward_hook(lambda *_: fired.append("after"))
    norm.register_full_backward_hook(lambda *_: fired.append("back"))
    norm(torch.randn(3, 4, requires_grad=True)).sum().backward()
    assert fired == ["before", "after", "back"]
    assert calls.count == 1


@pytest.mark.parametrize(
    "norm",
    [
        lambda: SmallLayerNorm(4, elementwise_affine=False),
        lambda: SmallLayerNorm(4, bias=False),
        lambda: SmallLayerNorm((3, 4)),
        lambda: SmallLayerNorm(4).double(),
    ],
)
def test_unusual_small_norms_are_plain_torch(norm: Callable[[], SmallLayerNorm], calls: Calls) -> None:
    ours = norm()
    plain = nn.LayerNorm(ours.normalized_shape, elementwise_affine=ours.elementwise_affine)
    dtype = next((p.dtype for p in ours.parameters()), torch.float32)
    x = torch.randn(2, 3, 4, dtype=dtype)
    assert torch.equal(ours(x), plain.to(dtype)(x))
    assert calls.count == 0


def test_input_of_the_wrong_width_is_torch_s_own_error() -> None:
    with pytest.raises(RuntimeError, match=r"normalized_shape=\[4\]"):
        SmallLayerNorm(4)(torch.randn(3, 5))
    with pytest.raises(RuntimeError, match="8"):
        HiddenBlock(nn.Linear(5, 8), nn.BatchNorm1d(9), nn.ReLU())(torch.randn(3, 5))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_rows_that_are_few_or_scattered(rate: float) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        usual(rate=rate)(torch.randn(1, 5))  # as torch does
    bare = HiddenBlock(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(rate))
    assert bare(torch.randn(1, 5)).shape == (1, 8)
    assert bare(torch.randn(0, 5)).shape == (0, 8)
    assert bare(torch.randn(5)).shape == (8,)
    for shape in [(0, 4), (1, 4), (4,), (2, 0, 4)]:
        x = torch.randn(shape, requires_grad=True)
        y = SmallLayerNorm(4)(x)
        y.sum().backward()
        assert y.shape == shape
        assert x.grad is not None

    block, x = usual(rate=rate), torch.randn(5, 40, requires_grad=True)
    weight = torch.randn(8, 40)
    torch.manual_seed(2)
    (block(x.T) * weight.T).sum().backward()  # strides turned round both ways
    scattered, x.grad = x.grad, None
    torch.manual_seed(2)
    (block(x.T.contiguous()) * weight.T.contiguous()).sum().backward()
    torch.testing.assert_close(scattered, x.grad)
    y = torch.randn(4, 40, requires_grad=True)
    (SmallLayerNorm(4)(y.T) * weight[:4].T).sum().backward()
    expected, given = y.grad, y.T.detach().contiguous().requires_grad_()
    (SmallLayerNorm(4)(given) * weight[:4].T.contiguous()).sum().backward()
    assert torch.equal(expected.T, given.grad)


def both() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(usual(), SmallLayerNorm(8), nn.Linear(8, 1))


def test_copies_and_states_are_those_of_plain_modules() -> None:
    model, x = both(), torch.randn(16, 5)
    model(x)
    plain = nn.Sequential(nn.Sequential(*copy.deepcopy(list(model[0]))), nn.LayerNorm(8), nn.Linear(8, 1))
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    held = io.BytesIO()
    torch.save(model, held)
    held.seek(0)
    for other in (copy.deepcopy(model), torch.load(held, weights_only=False)):
        expected = both()
        expected.load_state_dict(model.state_dict())
        assert torch.equal(other(x), expected(x))
        assert torch.equal(other.eval()(x), expected.eval()(x))
    torch.testing.assert_close(plain(x), model(x))


def test_compiled_and_functional_forms_are_plain_torch(calls: Calls) -> None:
    model, x = both(), torch.randn(16, 5)
    expected = copy.deepcopy(model)(x)
    calls.count = 0
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return torch.func.functional_call(model, parameters | buffers, x).sum()

    gradient = torch.func.grad(loss)(dict(model.named_parameters()))
    assert gradient["2.weight"].isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).isfinite().all()
    assert calls.count == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_mode_without_gradients_moves_the_averages(mode: Callable[[], Any]) -> None:
    ours, x = usual(), torch.randn(16, 5)
    theirs = nn.Sequential(*copy.deepcopy(list(ours)))
    with mode():
        torch.testing.assert_close(ours(x), theirs(x))
    for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, other)


def test_a_second_derivative_is_refused_in_words() -> None:
    for module, width in ((usual(), 5), (SmallLayerNorm(4), 4)):
        x = torch.randn(16, width, requires_grad=True)
        (first,) = torch.autograd.grad((module(x) ** 2).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_block_draws_its_mask_again(reentrant: bool) -> None:
    block, x = usual(rate=0.5), torch.randn(64, 5, requires_grad=True)
    torch.manual_seed(5)
    (block(x) ** 2).sum().backward()
    expected, x.grad = x.grad, None
    torch.manual_seed(5)
    (checkpoint(block, x, use_reentrant=reentrant) ** 2).sum().backward()
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_broken_numbers_are_not_hidden(broken: float) -> None:
    x = torch.randn(100, 5)
    x[70, 2] = broken
    assert usual()(x).isnan().any(0).all()
    if broken != broken:
        assert HiddenBlock(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5))(x)[70].isnan().all()
    y = SmallLayerNorm(5)(x)
    assert y[70].isnan().all()
    assert y[:70].isfinite().all()
    assert y[71:].isfinite().all()

    gradient = torch.ones(100, 5)
    gradient[3, 1] = broken
    z = torch.randn(100, 5, requires_grad=True)
    SmallLayerNorm(5)(z).backward(gradient)
    assert not z.grad[3].isfinite().any()
    assert z.grad[4:].isfinite().all()
