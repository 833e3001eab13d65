"""Optimisers for embedding tables that touch only the rows of a batch.

    RowwiseAdagrad    s_r += mean_d(g_r^2);  w_r -= lr * g_r / (sqrt(s_r) + eps)           one number s_r for each row
    RowAdam           m_r += (1 - beta1) (g_r - m_r);  v_r += (1 - beta2) (g_r^2 - v_r)
                      w_r -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m_r / (sqrt(v_r) + eps)

g_r is the sum of the gradients of row r in the batch (plus l2 * w_r), r runs over the batch's rows only, and t counts
all steps, as in `torch.optim.SparseAdam`. A row that no batch reads keeps its weights and its state, so L2 and the
decay of Adam's moments act on a row only when it is read: dense Adam is another optimiser.

On the CPU in float32 a Rust kernel does it in place, the same bytes for any number of threads; elsewhere PyTorch's
own operations do. Sparse gradients are not clipped: clip the other parameters (`row_optimizer` returns them). Row-wise
AdaGrad bounds its own steps: a row's first step has the length lr * sqrt(d) for any gradient, later ones at most that.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

from recfm import _core
from recfm.errors import ConfigError
from recfm.models.embedding import in_rust
from recfm.models.features import FeatureEmbedding


class _RowOptimizer(torch.optim.Optimizer):
    """Walks the parameters that have a gradient; a subclass updates one."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every row that the gradients name.

        Raises:
            ConfigError: A gradient is dense.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.layout != torch.sparse_coo or p.dim() != 2:
                    raise ConfigError(
                        f"{type(self).__name__} updates embedding tables with sparse gradients, but a parameter of "
                        f"shape {list(p.shape)} has a dense one: give it to another optimiser, or build its "
                        "FeatureEmbedding with sparse=True"
                    )
                self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError


class RowwiseAdagrad(_RowOptimizer):
    """AdaGrad with one accumulator for each row: `state[p]["sum"]`, float [n], 1/d of the table's memory.

    Args:
        params: Tables [n, d] with sparse gradients, or groups of them.
        lr: Learning rate.
        eps: Added to the root.
        l2: Coupled L2 of the rows of a batch.

    Raises:
        ConfigError: A setting is negative.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, *, eps: float = 1e-8, l2: float = 0.0
    ) -> None:
        _check_settings(lr=lr, eps=eps, l2=l2)
        super().__init__(params, {"lr": lr, "eps": eps, "row_l2": l2})

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["sum"] = _zeros(p, len(p))
        lr, eps, l2 = float(group["lr"]), group["eps"], group["row_l2"]
        if in_rust(p):
            rows, values = _uses(grad)
            table, sums = p.detach().numpy(), state["sum"].numpy()
            _core.rowwise_adagrad(table, sums, rows.numpy(), values.numpy(), lr=lr, eps=eps, l2=l2)
            return
        rows, g = _summed(p, grad, l2)
        sums = state["sum"].index_add_(0, rows, g.square().mean(dim=1)).index_select(0, rows)
        p.index_add_(0, rows, g * (sums.sqrt() + eps).reciprocal().unsqueeze(1), alpha=-lr)


class RowAdam(_RowOptimizer):
    """Adam on the rows of a batch; `state[p]` holds `step` (int64), `exp_avg` and `exp_avg_sq`, both as the table.

    Args:
        params: Tables [n, d] with sparse gradients, or groups of them.
        lr: Learning rate.
        betas: Decays of the moments.
        eps: Added to the root.
        l2: Coupled L2 of the rows of a batch.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        l2: float = 0.0,
    ) -> None:
        _check_settings(lr=lr, eps=eps, l2=l2)
        if not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"betas is {betas}: both must lie in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "row_l2": l2})

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["exp_avg"], state["exp_avg_sq"] = _zeros(p, *p.shape), _zeros(p, *p.shape)
        state["step"] += 1
        first, second, step = state["exp_avg"], state["exp_avg_sq"], int(state["step"])
        lr, eps, l2 = float(group["lr"]), group["eps"], group["row_l2"]
        beta1, beta2 = group["betas"]
        if in_rust(p):
            rows, values = _uses(grad)
            tables = (p.detach().numpy(), first.numpy(), second.numpy())
            _core.adam_rows(
                *tables, rows.numpy(), values.numpy(), lr=lr, betas=(beta1, beta2), eps=eps, l2=l2, step=step
            )
            return
        rows, g = _summed(p, grad, l2)
        m = torch.lerp(first.index_select(0, rows), g, 1 - beta1)
        v = torch.lerp(second.index_select(0, rows), g.square(), 1 - beta2)
        first.index_copy_(0, rows, m)
        second.index_copy_(0, rows, v)
        rate = lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        p.index_add_(0, rows, m / (v.sqrt() + eps), alpha=-rate)


ROW_OPTIMIZERS: dict[str, type[RowwiseAdagrad] | type[RowAdam]] = {
    "rowwise_adagrad": RowwiseAdagrad,
    "adam_rows": RowAdam,
}
"""Names for config files."""


def row_optimizer(
    name: str, model: nn.Module, *, lr: float, l2: float = 0.0
) -> tuple[RowwiseAdagrad | RowAdam, list[nn.Parameter]]:
    """Make every feature table of a model sparse and build the optimiser of them.

    Args:
        name: A key of `ROW_OPTIMIZERS`.
        model: Any module that holds `FeatureEmbedding`s.
        lr: Learning rate of the tables.
        l2: Coupled L2 of the rows of a batch.

    Returns:
        The optimiser of the tables, and all other parameters, in the order of `model.parameters()`.

    Raises:
        ConfigError: There is no such optimiser, the model has no feature table, or several processes train together:
            their sparse gradients are not exchanged.
    """
    if name not in ROW_OPTIMIZERS:
        raise ConfigError(
            f"embedding_optimizer is {name!r}: use {' or '.join(ROW_OPTIMIZERS)}, or leave it out for dense tables"
        )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if processes > 1:
            raise ConfigError(
                f"embedding_optimizer is {name!r}, but {processes} processes train together and sparse gradients are "
                "not exchanged between them: train in one process, or leave embedding_optimizer out"
            )
    embeddings = [
        module
        for module in model.modules()
        if isinstance(module, FeatureEmbedding) and module.weight.requires_grad
    ]
    if not embeddings:
        raise ConfigError(
            f"embedding_optimizer is {name!r}, but the model has no FeatureEmbedding to train with it"
        )
    for embedding in embeddings:
        embedding.sparse = True
    tables = list(dict.fromkeys(embedding.weight for embedding in embeddings))
    known = {id(table) for table in tables}
    rest = [p for p in model.parameters() if id(p) not in known]
    return ROW_OPTIMIZERS[name](tables, lr=lr, l2=l2), rest


def _check_settings(**settings: float) -> None:
    for name, value in settings.items():
        if not 0 <= value < float("inf"):
            raise ConfigError(f"{name} is {value}: give a number of 0 or more")


def _zeros(p: Tensor, *shape: int) -> Tensor:
    if not in_rust(p):
        return p.new_zeros(shape)
    zeros = torch.empty(shape)
    _core.fill_bell(zeros.view(-1).numpy(), std=0.0, seed=0)  # on huge pages, as the table is
    return zeros


def _uses(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [m] and gradients [m, d], a row as often as it was read."""
    return grad._indices().squeeze(0).contiguous(), grad._values().contiguous()


def _summed(p: Tensor, grad: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Each row once, and the sum of its gradients plus L2: the plain version of the Rust kernel's first half."""
    grad = grad.coalesce()
    rows, values = grad.indices().squeeze(0), grad.values()
    return rows, values + l2 * p.index_select(0, rows) if l2 else values
