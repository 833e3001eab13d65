"""Parameters and FLOPs of any model that maps a Batch to a tensor, measured on a batch of a few rows.

Convention, for one example:

    multiply_adds    of all matrix products, convolutions and attentions of the forward pass
    forward_flops    2 x multiply_adds
    training_flops   forward and backward: 3 x forward_flops, less the input gradient of layers that data feeds (a layer
                     on raw numbers needs none); embedding rows are learned, so layers on them do need theirs

Lookups, element-wise maps, norms, poolings and the optimiser are not counted. This is what papers print: the Wukong
paper's DLRM on Criteo has 771,712 multiply-adds, thus 6 x 771,712 - 2 x 13 x 512 = 4.62 MFLOP.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from recfm.data.batch import Batch
from recfm.errors import ConfigError, DataError
from recfm.models.layers import embedding_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleCost:
    """Of one module with everything in it. A parameter that two modules share counts in each."""

    dense_parameters: int
    embedding_parameters: int
    multiply_adds: float
    """Of the forward pass, for one example."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What `count` found; operations are for one example of the batch it saw."""

    dense_parameters: int
    embedding_parameters: int
    multiply_adds: float
    """Of the forward pass."""
    training_flops: float
    """Of the forward and the backward pass."""
    modules: dict[str, ModuleCost]
    """By the names of `model.named_modules()`; "" is the whole model."""

    @property
    def parameters(self) -> int:
        """All parameters, each once."""
        return self.dense_parameters + self.embedding_parameters

    @property
    def forward_flops(self) -> float:
        """Of the forward pass: two for each multiply-add."""
        return 2 * self.multiply_adds

    def table(self, depth: int = 2) -> str:
        """A line for each module that has parameters or does work, down to `depth` names below the model."""
        heads = ("module", "dense", "embedding", "multiply-adds")
        lines = [
            (
                name or "(all)",
                f"{m.dense_parameters:,}",
                f"{m.embedding_parameters:,}",
                f"{m.multiply_adds:,.0f}",
            )
            for name, m in self.modules.items()
            if (not name or name.count(".") < depth)
            and (m.dense_parameters or m.embedding_parameters or m.multiply_adds)
        ]
        name_width, *widths = (max(map(len, column)) for column in zip(heads, *lines, strict=True))
        return "\n".join(
            "  ".join(
                [line[0].ljust(name_width), *(c.rjust(w) for c, w in zip(line[1:], widths, strict=True))]
            )
            for line in (heads, *lines)
        )


def count(model: nn.Module, batch: Batch) -> Cost:
    """Count parameters and measure the operations of one forward and backward pass.

    Nothing about the model changes: it runs in eval mode, gradients are computed but not stored, and no gradient of
    an embedding table is made, so tables of any size cost nothing. On `torch.device("meta")` not even memory for
    the weights is needed. Parts that run in training only (auxiliary losses) are not seen. Histories that the model
    trims to the longest of the batch cost what they do in this batch.

    Args:
        model: Maps the batch to one tensor (logits or a loss); on the batch's device.
        batch: Of one row or more; 2 to 64 are plenty.

    Raises:
        DataError: The batch has no rows.
        ConfigError: The model does not give a tensor.
    """
    if not len(batch):
        raise DataError("the batch has no rows: operations are counted per example, give one row or more")
    tables = {id(parameter) for parameter in embedding_parameters(model)}
    with _unchanged(model), torch.enable_grad(), _Lookups(model) as lookups:
        with FlopCounterMode(display=False, custom_mapping=_VECTOR_PRODUCTS) as forward:
            output = model(batch)
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"{type(model).__name__} gives a {type(output).__name__}, not a tensor: wrap it"
            )
        dense = [p for p in model.parameters() if p.requires_grad and id(p) not in tables]
        wanted = [*dense, *lookups.rows]
        with FlopCounterMode(display=False, custom_mapping=_VECTOR_PRODUCTS) as backward:
            if wanted and output.requires_grad:
                torch.autograd.grad(output.sum(), wanted, allow_unused=True)
    modules = _modules(model, tables, forward.get_flop_counts(), len(batch))
    return Cost(
        dense_parameters=modules[""].dense_parameters,
        embedding_parameters=modules[""].embedding_parameters,
        multiply_adds=modules[""].multiply_adds,
        training_flops=(forward.get_total_flops() + backward.get_total_flops()) / len(batch),
        modules=modules,
    )


class _Lookups(TorchFunctionMode):
    """Keeps the rows that lookups give, so that the backward pass can end there and not in the tables."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.rows: list[Tensor] = []
        # Modules that look rows up in a way of their own are heard when they are done.
        own = (module for module in model.modules() if getattr(module, "is_embedding_table", False))
        self._handles = [module.register_forward_hook(lambda _m, _i, out: self._keep(out)) for module in own]

    def _keep(self, out: Any) -> None:
        if isinstance(out, Tensor) and out.requires_grad:
            self.rows.append(out)

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (functional.embedding, functional.embedding_bag):
            self._keep(out)
        return out


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Eval mode, a generator of its own, and recurrent layers as the matrix products that they are made of."""
    training = {module: module.training for module in model.modules()}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        with warnings.catch_warnings():  # older cards' warnings about TF32 say nothing here
            warnings.simplefilter("ignore")
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        model.eval()
        try:
            yield
        finally:
            for module, mode in training.items():
                module.training = mode
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stack.close()


def _modules(
    model: nn.Module, tables: set[int], flops: dict[str, dict[Any, int]], rows: int
) -> dict[str, ModuleCost]:
    """The counter names a module by its path below the model's class; one that never ran itself is its children."""
    root = type(model).__name__

    def multiply_adds(name: str, module: nn.Module) -> float:
        key = f"{root}.{name}" if name else "Global"
        if key in flops:
            return sum(flops[key].values()) / 2 / rows
        prefix = f"{name}." if name else ""
        return sum((multiply_adds(prefix + child, part) for child, part in module.named_children()), 0.0)

    out = {}
    for name, module in model.named_modules():
        sizes = [(id(p) in tables, p.numel()) for p in module.parameters()]
        out[name] = ModuleCost(
            dense_parameters=sum(size for is_table, size in sizes if not is_table),
            embedding_parameters=sum(size for is_table, size in sizes if is_table),
            multiply_adds=multiply_adds(name, module),
        )
    return out


def _matrix_vector(matrix: Any, vector: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(matrix)


def _added_matrix_vector(
    _bias: Any, matrix: Any, vector: Any, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return 2 * prod(matrix)


# Products with a single vector, which the counter leaves out.
_VECTOR_PRODUCTS: dict[Any, Any] = {
    torch.ops.aten.mv: _matrix_vector,
    torch.ops.aten.dot: _matrix_vector,
    torch.ops.aten.addmv: _added_matrix_vector,
}
