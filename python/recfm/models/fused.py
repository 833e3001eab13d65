"""Layers whose plain torch form spends its time in memory or in random numbers, in Rust where that is faster.

On a CPU in float32 a training step of `HiddenBlock` makes batch norm, ReLU and dropout in one pass each way, and
`SmallLayerNorm` handles short rows eight at a time. Everywhere else (CUDA, other dtypes, autocast, torch.compile,
evaluation) they are the plain torch modules that they hold, with the same parameters under the same names. The
dropout mask comes from a seed drawn from torch's generator: `torch.manual_seed` and its saved state decide it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recfm import _core

_LONGEST = 64  # columns that SmallLayerNorm's kernel takes


class HiddenBlock(nn.Sequential):
    """Linear(-batch norm)-activation(-dropout), numbered from 0 as in a plain `nn.Sequential`.

    Shapes: [B, in] -> [B, out].
    """

    def forward(self, x: Tensor) -> Tensor:
        linear, *rest = self
        norm = next((m for m in rest if isinstance(m, nn.BatchNorm1d)), None)
        dropout = next((m for m in rest if isinstance(m, nn.Dropout)), None)
        plain = not any(isinstance(m, nn.ReLU) for m in rest) or (norm is None and dropout is None)
        if plain or not self.training or x.dim() != 2 or len(x) < 2 or not _fits(x):
            return super().forward(x)  # type: ignore[no-any-return]
        rate = dropout.p if dropout is not None else 0.0
        hidden = linear(x)
        if norm is None:
            return _Hidden.apply(hidden, None, None, 0.0, rate)[0]  # type: ignore[no-any-return]
        y, mean, variance = _Hidden.apply(hidden, norm.weight, norm.bias, norm.eps, rate)
        rows = len(x)
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)  # type: ignore[operator]
            norm.running_mean.lerp_(mean, norm.momentum)  # type: ignore[union-attr, arg-type]
            norm.running_var.lerp_(variance * (rows / (rows - 1)), norm.momentum)  # type: ignore[union-attr, arg-type]
        return y  # type: ignore[no-any-return]


class SmallLayerNorm(nn.LayerNorm):
    """Layer norm over a short last dimension. Shapes: [..., d] -> [..., d]."""

    def __init__(self, width: int) -> None:
        super().__init__(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.normalized_shape[0] > _LONGEST or x.numel() == 0 or not _fits(x):
            return super().forward(x)
        return _SmallNorm.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-any-return]


def _fits(x: Tensor) -> bool:
    """Whether the kernels take x and a gradient is asked for."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _Hidden(torch.autograd.Function):
    """Batch norm (unless gain is None), ReLU, dropout: [B, w] -> [B, w], mean [w], variance [w]."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float, rate: float
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x, y, seed = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format), 0
        if rate:
            seed = int(torch.randint(2**63 - 1, ()).item())
        norm = None if gain is None or shift is None else (_array(gain), _array(shift), eps)
        moments = _core.hidden_forward(_array(x), _array(y), norm=norm, rate=rate, seed=seed)
        ctx.eps, ctx.rate = eps, rate
        if moments is None:
            ctx.save_for_backward(x, y)
            return y, None, None
        mean, variance = map(torch.from_numpy, moments)
        ctx.save_for_backward(x, y, gain, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_y: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, y, *rest = ctx.saved_tensors
        norm = (*map(_array, rest), ctx.eps) if rest else None
        grad_x = torch.empty_like(x)
        arrays = (_array(x), _array(y), _array(grad_y.contiguous()), _array(grad_x))
        found = _core.hidden_backward(*arrays, norm=norm, rate=ctx.rate)
        gain, shift = (None, None) if found is None else map(torch.from_numpy, found)
        return grad_x, gain, shift, None, None


class _SmallNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        x = x.contiguous()
        y = torch.empty_like(x)
        rows = (_array(t.view(-1, len(gain))) for t in (x, y))
        _core.small_norm_forward(*rows, gain=_array(gain), shift=_array(shift), eps=eps)
        ctx.save_for_backward(x, gain)
        ctx.eps = eps
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, gain = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        rows = (_array(t.view(-1, len(gain))) for t in (x, grad_y.contiguous(), grad_x))
        found = _core.small_norm_backward(*rows, gain=_array(gain), eps=ctx.eps)
        return grad_x, *map(torch.from_numpy, found), None


def _array(tensor: Tensor) -> Any:
    """The tensor's own memory as a NumPy array."""
    return tensor.detach().numpy()
