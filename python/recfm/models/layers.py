"""Small layers that several models share."""

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear-ReLU(-dropout) blocks named `hidden_0`, `hidden_1`, ..., so that a `Tap` can name them.

    Shapes: [B, in] -> [B, widths[-1]]; with `out` a last plain linear map to [B, out].
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], *, out: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        for i, width in enumerate(widths):
            block = [nn.Linear(inputs, width), nn.ReLU()]
            self.add_module(f"hidden_{i}", nn.Sequential(*block, *([nn.Dropout(dropout)] if dropout else [])))
            inputs = width
        if out is not None:
            self.add_module("out", nn.Linear(inputs, out))


def length_mask(lengths: Tensor, length: int) -> Tensor:
    """bool [B, L]: True where a padded sequence holds a real entry. `lengths` is int [B]."""
    return lengths.new_ones(length).cumsum(0).unsqueeze(0) <= lengths.unsqueeze(1)
