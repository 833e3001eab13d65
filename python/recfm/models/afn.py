"""AFN+ (Cheng et al., AAAI 2020, arXiv 1909.03276): products of features of learned order, beside an MLP.

Each logarithmic neuron j gives a product of all rows, each to a learned power (section 3.2):

    y_j   = exp(sum_i W_ji log max(|e_i|, eps)) = prod_i max(|e_i|, eps)^W_ji         element by element
    AFN   = u^T MLP_1(flatten([y_1; ...; y_N])) + b
    AFN+  = c_1 AFN + c_2 (v^T MLP_2([e'_1; ...; e'_n; history]) + b') + c_0          e': embeddings of its own

with batch norm over the rows' logarithms and over the products. eps = 1e-5 as in FuxiCTR (the paper: 1e-7).
`hidden = ()` leaves MLP_2 out. Histories enter MLP_2.

Shape legend: B rows, n embedding rows, d embedding dim, N logarithmic neurons, w width of the backbone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import FeatureEmbedding, Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP, Activation
from recfm.models.ranker import Ranker

LEAST = 1e-5
"""An embedding's entry counts as no smaller than this before its logarithm is taken."""


@dataclass(kw_only=True, slots=True)
class AFNConfig(Strict):
    """Sizes of an AFN+."""

    dim: int = 16
    """Embedding dimension d."""
    neurons: int = 64
    """N, logarithmic neurons."""
    product_hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers above the logarithmic neurons."""
    product_dropout: float = 0.0
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the other MLP's hidden layers; empty for AFN without one."""
    dropout: float = 0.0
    """In the other MLP."""
    batch_norm: bool = False
    """In both MLPs; the logarithmic neurons always have it."""
    act: Activation = "relu"

    def __post_init__(self) -> None:
        check_range(self, "dim", "neurons", "product_hidden", low=1)
        if self.hidden:
            check_range(self, "hidden", low=1)
        check_range(self, "product_dropout", "dropout", low=0, high=0.99)


class AFN(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: AFNConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or AFNConfig()
        if sequences and not config.hidden:
            raise ConfigError("AFN reads histories in its MLP: give `hidden`, or no sequences")
        super().__init__(layout, config.dim, viewer=viewer, sequences=sequences, history=history)
        self.config = config
        rows = len(self.embedding)
        self.log_norm = nn.BatchNorm1d(rows)
        self.powers = nn.Linear(rows, config.neurons, bias=False)  # W [N, n]
        self.product_norm = nn.BatchNorm1d(config.neurons)
        self.product_mlp = MLP(
            config.neurons * config.dim,
            config.product_hidden,
            dropout=config.product_dropout,
            batch_norm=config.batch_norm,
            act=config.act,
        )
        if config.hidden:
            self.second_embedding = FeatureEmbedding(layout, config.dim, viewer=viewer)
            self.mlp = MLP(
                self.flat_width,
                config.hidden,
                dropout=config.dropout,
                batch_norm=config.batch_norm,
                act=config.act,
            )
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        logs_Bnd = self.log_norm(rows_Bnd.abs().clamp(min=LEAST).log())
        products_BNd = self.product_norm(self.powers(logs_Bnd.transpose(1, 2)).transpose(1, 2).exp())
        parts = [self.product_mlp(products_BNd.flatten(1))]
        if self.config.hidden:
            flat = torch.cat([self.second_embedding(batch).flatten(1), pooled_Bh], dim=1)
            parts.append(self.mlp(flat))
        return torch.cat(parts, dim=1)

    def make_head(self) -> nn.Module:
        if self.config.hidden:
            return _Ensemble(self.config.product_hidden[-1], self.config.hidden[-1])
        return nn.Linear(self.config.product_hidden[-1], 1)


class _Ensemble(nn.Module):
    """[B, w] -> [B, 1]: a logit of each part, and a learned mixture of both."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.widths = [first, second]
        self.first, self.second = nn.Linear(first, 1), nn.Linear(second, 1)
        self.mix = nn.Linear(2, 1)

    def forward(self, hidden_Bw: Tensor) -> Tensor:
        first, second = torch.split(hidden_Bw, self.widths, dim=1)
        return self.mix(torch.cat([self.first(first), self.second(second)], dim=1))
