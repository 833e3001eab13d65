"""Lookups in a fused table whose gradient names the rows that were read, and never is as large as the table.

The gradient is an uncoalesced sparse COO tensor in `weight.grad`, as `nn.Embedding(sparse=True)` leaves it: several
lookups, accumulation over batches and `zero_grad` are PyTorch's own, and `recfm.train.sparse` sums what belongs to
one row.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from recfm import _core

Read = tuple[str, int, int, int]
"""What one feature reads: name, column of the ids, first row and number of rows of its table."""


def in_rust(weight: Tensor) -> bool:
    """Whether the Rust kernels can work on a table: float32, contiguous, in main memory."""
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def sparse_lookup(weight: Tensor, ids: Tensor, reads: Sequence[Read]) -> Tensor:
    """Rows of a fused table [n, d] for int32 ids [B, C]: float [B, len(reads), d], with a sparse gradient.

    Raises:
        DataError: An id is not in the table of its feature. Only tables on the CPU in float32 are checked; elsewhere
            an id may read a row of the next feature, or PyTorch stops.
    """
    if in_rust(weight):
        return _Lookup.apply(weight, ids, list(reads))
    columns = torch.tensor([column for _, column, _, _ in reads], device=ids.device)
    starts = torch.tensor([start for _, _, start, _ in reads], device=ids.device)
    return functional.embedding(ids.index_select(1, columns) + starts, weight, sparse=True)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, reads: list[Read]) -> Tensor:
        rows = torch.empty(len(ids), len(reads), dtype=torch.int64)
        out = torch.empty(*rows.shape, weight.shape[1])
        ids = ids.to(torch.int32).contiguous()
        _core.lookup_rows(weight.detach().numpy(), ids.numpy(), reads, rows.numpy(), out.numpy())
        ctx.rows, ctx.size = rows, len(weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # A constructor of sparse tensors would check and sort; this is what nn.Embedding's own backward calls.
        padding, by_frequency = -1, False
        backward = torch.ops.aten.embedding_sparse_backward
        return backward(grad, ctx.rows, ctx.size, padding, by_frequency), None, None
