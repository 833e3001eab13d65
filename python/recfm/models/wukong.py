"""Wukong (Zhang et al., ICML 2024, arXiv 2403.02545): stacked factorization machines; recfm's foundation model.

Each interaction layer, with FMB and LCB side by side on the same input (section 3 of the paper):

    FM(X)   = X (X^T Y)                                       optimised FM, Y a learned projection [n, k]
    FMB(X)  = reshape(MLP(LN(flatten(FM(X)))), n_F rows)
    LCB(X)  = W_L X                                           n_L rows, adds no interaction
    X'      = LN(concat(FMB(X), LCB(X)) + R(X))               R: identity, or a row-wise linear map if n changes

so layer i holds interactions of order 1 to 2^i. A final MLP on the flattened rows gives the logit. Where the
paper is silent (biases, initialisation, LN axis): no bias in LCB and R, Y and W_L of variance 1/n, LN over d.

Y is static unless `attentive_rows` is set: then it is made from the input itself (section 3.3), by a linear map to so
many rows and an MLP.

Shape legend: B rows, n embedding rows, d embedding dim, k FM rank, n_F / n_L rows out of FMB / LCB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import Viewer
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
    attentive_rows: int = 0
    """Rows that the input is compressed to before an MLP makes Y of it; 0 for a static Y."""
    attentive_hidden: tuple[int, ...] = (64,)
    """Hidden widths of the MLP that makes an attentive Y."""
    dropout: float = 0.0
    """In the final MLP."""
    fm_dropout: float = 0.0
    """In the FM blocks' MLPs."""
    batch_norm: bool = False
    """Normalise the hidden layers of all MLPs over the batch."""

    def __post_init__(self) -> None:
        sizes = ("dim", "layers", "fm_rows", "linear_rows", "rank", "fm_hidden", "hidden", "history_rows")
        check_range(self, *sizes, "attentive_hidden", low=1)
        check_range(self, "attentive_rows", low=0)
        check_range(self, "dropout", "fm_dropout", low=0, high=0.99)


PRESETS: dict[str, dict[str, Any]] = {
    "xs": {"layers": 1, "fm_rows": 4, "linear_rows": 4, "rank": 4, "fm_hidden": (32,), "hidden": (32,)},
    "s": {"layers": 2, "fm_rows": 8, "linear_rows": 8, "rank": 8, "fm_hidden": (64,), "hidden": (64,)},
    "m": {"layers": 2, "fm_rows": 16, "linear_rows": 16, "rank": 16, "fm_hidden": (128,), "hidden": (128,)},
    "l": {"layers": 3, "fm_rows": 16, "linear_rows": 16, "rank": 16, "fm_hidden": (256,), "hidden": (256,)},
    "xl": {"layers": 4, "fm_rows": 24, "linear_rows": 24, "rank": 24, "fm_hidden": (512,), "hidden": (512,)},
    "criteo": {
        "dim": 128,
        "layers": 2,
        "fm_rows": 8,
        "linear_rows": 8,
        "rank": 24,
        "fm_hidden": (2048, 2048, 2048),
        "hidden": (2048,),
    },
}
"""Sizes that grow as the paper's section 5 advises: first the layers, then rows, rank and MLPs together. "criteo" is
the best public guess of the paper's Criteo model, whose exact sizes are not published."""


def _row_map(inputs: int, outputs: int) -> nn.Parameter:
    """A linear map over rows [outputs, inputs] that keeps the variance of what it mixes."""
    return nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))


class AttentiveProjection(nn.Module):
    """Y^T of each example from its own rows: [B, n, d] -> [B, k, n]."""

    def __init__(self, rows: int, config: WukongConfig) -> None:
        super().__init__()
        self.compress = _row_map(rows, config.attentive_rows)
        out = config.rank * rows
        self.mlp = MLP(config.attentive_rows * config.dim, config.attentive_hidden, out=out)
        self.rank = config.rank

    def forward(self, x_Bnd: Tensor) -> Tensor:
        return self.mlp((self.compress @ x_Bnd).flatten(1)).view(len(x_Bnd), self.rank, -1)


class WukongLayer(nn.Module):
    """[B, n, d] -> [B, n_F + n_L, d]."""

    def __init__(self, rows: int, config: WukongConfig) -> None:
        super().__init__()
        self.fm_rows, self.dim = config.fm_rows, config.dim
        if config.attentive_rows:
            self.attentive = AttentiveProjection(rows, config)
        else:
            self.projection = _row_map(rows, config.rank)  # Y^T [k, n]
        self.is_attentive = config.attentive_rows > 0
        self.norm_fm = nn.LayerNorm(rows * config.rank)
        self.mlp = MLP(
            rows * config.rank,
            config.fm_hidden,
            out=config.fm_rows * config.dim,
            dropout=config.fm_dropout,
            batch_norm=config.batch_norm,
        )
        self.compress = _row_map(rows, config.linear_rows)  # W_L [n_L, n]
        out = config.fm_rows + config.linear_rows
        self.residual = _row_map(rows, out) if rows != out else None
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x_Bnd: Tensor) -> Tensor:
        y_nk = self.attentive(x_Bnd).transpose(1, 2) if self.is_attentive else self.projection.T
        interactions_Bnk = x_Bnd @ (x_Bnd.transpose(1, 2) @ y_nk)  # X^T Y first: O(n k d)
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
        self.mlp = MLP(out * config.dim, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm)
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        x_Bnd, pooled_Bh = self.embed(batch)
        if self.histories:
            extra = self.history_rows(pooled_Bh).view(len(x_Bnd), -1, self.config.dim)
            x_Bnd = torch.cat([x_Bnd, extra], dim=1)
        return self.mlp(self.layers(x_Bnd).flatten(1))  # [B, w]

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.hidden[-1], 1)
