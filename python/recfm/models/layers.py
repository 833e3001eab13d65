"""Small layers that several models share."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from recfm.errors import ConfigError
from recfm.models.fused import HiddenBlock

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "sigmoid", "tanh", "dice"]


class Dice(nn.Module):
    """DIN's activation: p(x) * x + (1 - p(x)) * alpha * x, p the sigmoid of x standardised over the batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-9, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.norm(x.reshape(-1, x.shape[-1])).view_as(x).sigmoid()
        return x * (gate + (1 - gate) * self.alpha)


def activation(name: Activation, width: int) -> nn.Module:
    """A module of that name for inputs [..., width].

    Raises:
        ConfigError: There is no such activation.
    """
    plain: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
    }
    if name == "dice":
        return Dice(width)
    if name not in plain:
        raise ConfigError(f"activation is {name!r}: use {', '.join([*plain, 'dice'])}")
    return plain[name]()


class MLP(nn.Sequential):
    """Linear(-batch norm)-activation(-dropout) blocks `hidden_0`, `hidden_1`, ..., so that a `Tap` can name them.

    Shapes: [B, in] -> [B, widths[-1]]; with `out` a last plain linear map to [B, out].

    Args:
        inputs: Width of the input.
        widths: Width of each hidden layer.
        out: Width of a last linear map; none if left out.
        dropout: After each activation; one rate for all layers.
        batch_norm: Normalise before each activation.
        act: The activation.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        *,
        out: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        act: Activation = "relu",
    ) -> None:
        super().__init__()
        for i, width in enumerate(widths):
            block: list[nn.Module] = [nn.Linear(inputs, width)]
            if batch_norm:
                block.append(nn.BatchNorm1d(width))
            block.append(activation(act, width))
            if dropout:
                block.append(nn.Dropout(dropout))
            self.add_module(f"hidden_{i}", HiddenBlock(*block))
            inputs = width
        if out is not None:
            self.add_module("out", nn.Linear(inputs, out))


def initialise(
    model: nn.Module,
    *,
    linear: Literal["torch", "xavier_normal"] = "torch",
    embedding_std: float | None = None,
) -> None:
    """Draw a model's weights again the way a benchmark's protocol asks for.

    Args:
        model: Any module.
        linear: "torch" leaves linear maps as they are; "xavier_normal" draws their weights anew, biases 0.
        embedding_std: Standard deviation of all embedding tables; None leaves them.

    Raises:
        ConfigError: No such way.
    """
    if linear not in ("torch", "xavier_normal"):
        raise ConfigError(f"linear init is {linear!r}: use torch or xavier_normal")
    for module in model.modules():
        if linear == "xavier_normal" and isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if embedding_std is not None:
        for parameter in embedding_parameters(model):
            nn.init.normal_(parameter, std=embedding_std)


def embedding_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Every embedding table of a model, each once: what L2 on embeddings and sparse optimisers work on."""
    found = {
        id(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) or getattr(module, "is_embedding_table", False)
    }
    return list(found.values())  # type: ignore[arg-type]


def length_mask(lengths: Tensor, length: int) -> Tensor:
    """bool [B, L]: True where a padded sequence holds a real entry. `lengths` is int [B]."""
    return lengths.new_ones(length).cumsum(0).unsqueeze(0) <= lengths.unsqueeze(1)
