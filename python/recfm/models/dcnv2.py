"""DCN-V2 (Wang et al., WWW 2021, arXiv 2008.13535): cross layers that learn bounded-degree feature crosses.

    x_0 = [e_1; ...; e_n; history]
    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l                            section 3.2, full rank
    x_{l+1} = x_0 * (U_l V_l^T x_l + b_l) + x_l                      section 3.5, low rank r (no mixture of experts)

so x_l holds crosses of up to l + 1 features. The cross network stands below an MLP (stacked) or beside it (parallel,
section 3.4), or alone (cross); a linear map of what comes out is the logit.

Shape legend: B rows, D = n * d + h width of all inputs side by side, w last hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class DCNv2Config(Strict):
    """Sizes of a DCN-V2."""

    dim: int = 16
    """Embedding dimension d."""
    structure: Literal["parallel", "stacked", "cross"] = "parallel"
    """The MLP beside the cross network, on top of it, or none."""
    cross_layers: int = 3
    rank: int = 0
    """r of low-rank cross layers; 0 for full rank."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the MLP's hidden layers; not used by structure "cross"."""
    dropout: float = 0.0
    """In the MLP."""
    batch_norm: bool = False
    """Normalise each hidden layer of the MLP over the batch, before its activation."""
    bottom: tuple[int, ...] = ()
    """Hidden widths of the MLP that makes one row of all numbers; empty for one of width 2 d."""

    def __post_init__(self) -> None:
        if self.structure not in ("parallel", "stacked", "cross"):
            raise ConfigError(f"DCNv2Config: structure is {self.structure!r}: use parallel, stacked or cross")
        sizes = [name for name in ("hidden", "bottom") if name == "hidden" or self.bottom]
        check_range(self, "dim", "cross_layers", *sizes, low=1)
        check_range(self, "rank", low=0)
        check_range(self, "dropout", low=0, high=0.99)


class CrossNet(nn.Module):
    """[B, D] -> [B, D]: cross layers of full rank (rank 0) or low rank."""

    def __init__(self, width: int, layers: int, *, rank: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
            if rank
            else nn.Linear(width, width)
            for _ in range(layers)
        )

    def forward(self, x_BD: Tensor) -> Tensor:
        crossed = x_BD
        for layer in self.layers:
            crossed = torch.addcmul(crossed, x_BD, layer(crossed))
        return crossed


class DCNv2(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: DCNv2Config | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or DCNv2Config()
        super().__init__(
            layout,
            config.dim,
            viewer=viewer,
            sequences=sequences,
            history=history,
            numeric_hidden=config.bottom or None,
        )
        self.config = config
        self.cross = CrossNet(self.flat_width, config.cross_layers, rank=config.rank)
        self.mlp: MLP | None = None
        if config.structure != "cross":
            self.mlp = MLP(
                self.flat_width, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm
            )
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        flat_BD = torch.cat([rows_Bnd.flatten(1), pooled_Bh], dim=1)
        crossed_BD = self.cross(flat_BD)
        if self.mlp is None:
            return crossed_BD
        if self.config.structure == "stacked":
            return self.mlp(crossed_BD)  # [B, w]
        return torch.cat([crossed_BD, self.mlp(flat_BD)], dim=1)  # [B, D + w]

    def make_head(self) -> nn.Module:
        deep, crossed = self.config.hidden[-1], self.flat_width
        widths = {"cross": crossed, "stacked": deep, "parallel": crossed + deep}
        return nn.Linear(widths[self.config.structure], 1)
