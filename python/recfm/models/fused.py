"""Layers whose plain torch form spends its time in memory or in random numbers, in Rust where that is faster.

On a CPU in float32 a training step of `HiddenBlock` makes batch norm, ReLU and dropout in one pass each way, and
`SmallLayerNorm` handles short rows eight at a time. Everywhere else (CUDA, other dtypes, autocast, torch.compile,
torch.func, evaluation, hooks on the modules within) they are the plain torch modules that they hold, with the same
parameters under the same names. The dropout mask comes from a seed drawn from torch's generator:
`torch.manual_seed` and its saved state decide it. A second derivative through the kernels is refused by torch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as torch_module

from recfm import _core

_LONGEST = 64  # columns that SmallLayerNorm's kernel takes


class HiddenBlock(nn.Sequential):
    """Linear(-batch norm)-activation(-dropout), numbered from 0 as in a plain `nn.Sequential`.

    Shapes: [B, in] -> [B, out].
    """

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self
        x = first(x)
        norm, dropout = None, None
        if _runs(x) and x.dim() == 2 and x.numel():
            norm, dropout = _known(rest)
        if (norm is None and dropout is None) or (norm is not None and not _ready(norm, x)):
            for module in rest:
                x = module(x)
            return x
        rate = 0.0 if dropout is None else dropout.p
        if norm is None:
            return _Hidden.apply(x, None, None, 0.0, rate)[0]
        y, mean, variance = _Hidden.apply(x, norm.weight, norm.bias, norm.eps, rate)
        with torch.no_grad():
            unbiased = variance * (len(x) / (len(x) - 1))
            for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
                if running is not None and norm.momentum is not None:
                    running.lerp_(new, norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
        return y


class SmallLayerNorm(nn.LayerNorm):
    """Layer norm that is fast over a short last dimension. Shapes: [..., d] -> [..., d]."""

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self._parameters.get("weight"), self._parameters.get("bias")
        fits = torch.is_grad_enabled() and _runs(x) and x.numel() and x.shape[-1:] == self.normalized_shape
        if not fits or x.shape[-1] > _LONGEST or not _plain(gain) or not _plain(shift):
            return super().forward(x)
        return _SmallNorm.apply(x, gain, shift, self.eps)


def _known(modules: list[nn.Module]) -> tuple[nn.BatchNorm1d | None, nn.Dropout | None]:
    """The norm and the dropout of [norm,] ReLU[, dropout] in training, nobody watching; none of any other list."""
    norm = modules[0] if modules and type(modules[0]) is nn.BatchNorm1d else None
    dropout = modules[-1] if modules and type(modules[-1]) is nn.Dropout else None
    within = modules[norm is not None : len(modules) - (dropout is not None)]
    fits = (
        [type(module) for module in within] == [nn.ReLU]
        and all(module.training for module in (norm, dropout) if module is not None)
        and not any(_watched(module) for module in modules)
        and (dropout is None or dropout.p < 1)
    )
    return (norm, dropout) if fits else (None, None)


def _watched(module: nn.Module) -> bool:
    """Whether hooks wait for a module to run."""
    kinds = ("forward_pre_hooks", "forward_hooks", "backward_pre_hooks", "backward_hooks")
    return any(getattr(module, f"_{kind}") or getattr(torch_module, f"_global_{kind}") for kind in kinds)


def _ready(norm: nn.BatchNorm1d, x: Tensor) -> bool:
    """Whether a norm in training is the kernel's: it learns gain and shift, and keeps a moving average."""
    return (
        x.shape[0] > 1
        and x.shape[1] == norm.num_features
        and _plain(norm._parameters.get("weight"))
        and _plain(norm._parameters.get("bias"))
        and norm.momentum is not None
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def _runs(x: Tensor) -> bool:
    """Whether the kernels may run on x here."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled("cpu")
        and _plain(x)
    )


def _plain(tensor: Tensor | None) -> bool:
    """Whether a tensor is float32 in the memory of this machine and no subclass that does more."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor is not None
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.layout == torch.strided
    )


class _Hidden(torch.autograd.Function):
    """Batch norm (unless gain is None), ReLU, dropout: [B, w] -> [B, w], mean [w], variance [w]."""

    @staticmethod
    def forward(
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
    @once_differentiable
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
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        rows = (_array(t.view(-1, len(gain))) for t in (x, y))
        _core.small_norm_forward(*rows, gain=_array(gain), shift=_array(shift), eps=eps)
        ctx.save_for_backward(x, gain)
        ctx.eps = eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, gain = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        rows = (_array(t.view(-1, len(gain))) for t in (x, grad_y.contiguous(), grad_x))
        found = _core.small_norm_backward(*rows, gain=_array(gain), eps=ctx.eps)
        return grad_x, *map(torch.from_numpy, found), None


def _array(tensor: Tensor) -> Any:
    """The tensor's own memory as a NumPy array; a copy where it is not in one piece."""
    return tensor.detach().contiguous().numpy()
