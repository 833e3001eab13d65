"""Wukong (Zhang et al., ICML 2024, arXiv 2403.02545): stacked factorization machines; recfm's foundation model.

Each interaction layer, with FMB and LCB side by side on the same input (section 3 of the paper):

    FM(X)   = X (X^T Y)                                       optimised FM, Y a learned projection [n, k]
    FMB(X)  = reshape(MLP(LN(flatten(FM(X)))), n_F rows)
    LCB(X)  = W_L X                                           n_L rows, adds no interaction
    X'      = LN(concat(FMB(X), LCB(X)) + R(X))               R: identity, or a row-wise linear map if n changes

so layer i holds interactions of order 1 to 2^i. A final MLP on the flattened rows gives the logit. Where the
paper is silent (biases, initialisation, LN axis): no bias in LCB and R, Y and W_L of variance 1/n, LN over d.

Shape legend: B rows, n embedding rows, d embedding dim, k FM rank, n_F / n_L rows out of FMB / LCB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import Viewer
from recfm.models.fused import SmallLayerNorm
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class WukongConfig(Strict):
    """Sizes of a Wukong."""

    dim: int = 32
    """Embedding dimension d."""
    layers: int = 2
    """Interaction layers l."""
    fm_rows: int = 8
    """n_F, rows out of each FM block."""
    linear_rows: int = 8
    """n_L, rows out of each linear compression block."""
    rank: int = 8
    """k, rank of the FM's projection."""
    fm_hidden: tuple[int, ...] = (128,)
    """Hidden widths of the FM block's MLP."""
    hidden: tuple[int, ...] = (128, 64)
    """Hidden widths of the final MLP."""
    history_rows: int = 2
    """Rows that the pooled history enters as."""
    dropout: float = 0.0
    """In the final MLP."""

    def __post_init__(self) -> None:
        sizes = ("dim", "layers", "fm_rows", "linear_rows", "rank", "fm_hidden", "hidden", "history_rows")
        check_range(self, *sizes, low=1)
        check_range(self, "dropout", low=0, high=0.99)


def _row_map(inputs: int, outputs: int) -> nn.Parameter:
    """A linear map over rows [outputs, inputs] that keeps the variance of what it mixes."""
    return nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))


class WukongLayer(nn.Module):
    """[B, n, d] -> [B, n_F + n_L, d]."""

    def __init__(self, rows: int, config: WukongConfig) -> None:
        super().__init__()
        self.fm_rows, self.dim = config.fm_rows, config.dim
        self.projection = _row_map(rows, config.rank)  # Y^T [k, n]
        self.norm_fm = nn.LayerNorm(rows * config.rank)
        self.mlp = MLP(rows * config.rank, config.fm_hidden, out=config.fm_rows * config.dim)
        self.compress = _row_map(rows, config.linear_rows)  # W_L [n_L, n]
        out = config.fm_rows + config.linear_rows
        self.residual = _row_map(rows, out) if rows != out else None
        self.norm = SmallLayerNorm(config.dim)

    def forward(self, x_Bnd: Tensor) -> Tensor:
        interactions_Bnk = x_Bnd @ (x_Bnd.transpose(1, 2) @ self.projection.T)  # X^T Y first: O(n k d)
        fmb = self.mlp(self.norm_fm(interactions_Bnk.flatten(1))).view(-1, self.fm_rows, self.dim)
        lcb = self.compress @ x_Bnd
        residual = x_Bnd if self.residual is None else self.residual @ x_Bnd
        return self.norm(torch.cat([fmb, lcb], dim=1) + residual)


class Wukong(Ranker):
    """Batch -> logits [B].

    With `sequences` it also reads the user's history. As a foundation model that is the *labelled* raw-id history,
    which no vertical model sees: the pooled histories enter the interaction layers as `history_rows` more rows.
    """

    def __init__(
        self,
        layout: Layout,
        config: WukongConfig | None = None,
        *,
        viewer: Viewer = "fm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or WukongConfig()
        super().__init__(layout, config.dim, viewer=viewer, sequences=sequences, history=history)
        self.config = config
        rows = len(self.embedding)
        if self.histories:
            self.history_rows = nn.Linear(self.history_width, config.history_rows * config.dim)
            rows += config.history_rows
        out = config.fm_rows + config.linear_rows
        self.layers = nn.Sequential(
            *(WukongLayer(rows if i == 0 else out, config) for i in range(config.layers))
        )
        self.mlp = MLP(out * config.dim, config.hidden, dropout=config.dropout)
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        x_Bnd, pooled_Bh = self.embed(batch)
        if self.histories:
            extra = self.history_rows(pooled_Bh).view(len(x_Bnd), -1, self.config.dim)
            x_Bnd = torch.cat([x_Bnd, extra], dim=1)
        return self.mlp(self.layers(x_Bnd).flatten(1))  # [B, w]

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.hidden[-1], 1)
