"""AutoInt+ (Song et al., CIKM 2019, arXiv 1810.11921): self-attention between embedding rows, beside an MLP.

Each attention layer (section 4.4), with rows X [n, d] and heads h of width a / heads:

    A_h = softmax(X Q_h (X K_h)^T / sqrt(a / heads))       the scale is optional: the paper has none
    X'  = relu(concat_h(A_h X V_h) + X R)                  R: a map where the width changes, else identity

    logit = w^T flatten(X_last) + b  [ + u^T MLP([e_1; ...; e_n; history]) + c ]  [ + sum_i w_i ]

The MLP makes it AutoInt+; `hidden = ()` leaves it out. Histories enter the MLP.

Shape legend: B rows, n embedding rows, d embedding dim, a attention width, w width of the backbone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import FeatureEmbedding, Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP, Activation
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class AutoIntConfig(Strict):
    """Sizes of an AutoInt+."""

    dim: int = 16
    """Embedding dimension d."""
    layers: int = 2
    """Attention layers."""
    heads: int = 2
    """Of each attention layer; it must divide `width`."""
    width: int = 16
    """a, width of all heads of a layer together."""
    scale: bool = True
    """Divide the attention's scores by the root of a head's width."""
    residual: bool = True
    norm: bool = False
    """Layer norm before each attention layer's ReLU."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the MLP's hidden layers; empty for AutoInt without one."""
    act: Activation = "relu"
    """Of the MLP."""
    dropout: float = 0.0
    """In the MLP, and of the attention's weights."""
    batch_norm: bool = False
    """In the MLP."""
    wide: bool = False
    """Add a weight of each feature value's own."""

    def __post_init__(self) -> None:
        check_range(self, "dim", "layers", "heads", "width", low=1)
        if self.hidden:
            check_range(self, "hidden", low=1)
        check_range(self, "dropout", low=0, high=0.99)
        if self.width % self.heads:
            raise ConfigError(
                f"AutoIntConfig: heads is {self.heads}, which does not divide the width {self.width}"
            )


class AutoInt(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: AutoIntConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or AutoIntConfig()
        if sequences and not config.hidden:
            raise ConfigError("AutoInt reads histories in its MLP: give `hidden`, or no sequences")
        super().__init__(layout, config.dim, viewer=viewer, sequences=sequences, history=history)
        self.config = config
        widths = (config.dim, *(config.width for _ in range(config.layers)))
        self.attention = nn.Sequential(*(_Attention(inputs, config) for inputs in widths[:-1]))
        self.parts = [len(self.embedding) * config.width]
        if config.hidden:
            self.mlp = MLP(
                self.flat_width,
                config.hidden,
                dropout=config.dropout,
                batch_norm=config.batch_norm,
                act=config.act,
            )
            self.parts.append(config.hidden[-1])
        if config.wide:
            self.first_order = FeatureEmbedding(layout, 1, viewer=viewer)
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        parts = [self.attention(rows_Bnd).flatten(1)]
        if self.config.hidden:
            parts.append(self.mlp(torch.cat([rows_Bnd.flatten(1), pooled_Bh], dim=1)))
        if self.config.wide:
            parts.append(self.first_order(batch).sum(dim=1))
        return torch.cat(parts, dim=1)

    def make_head(self) -> nn.Module:
        return _Sum(self.parts)


class _Attention(nn.Module):
    """[B, n, inputs] -> [B, n, a]."""

    def __init__(self, inputs: int, config: AutoIntConfig) -> None:
        super().__init__()
        a = config.width
        self.heads, self.scale, self.dropout = config.heads, None if config.scale else 1.0, config.dropout
        self.query = nn.Linear(inputs, a, bias=False)
        self.key = nn.Linear(inputs, a, bias=False)
        self.value = nn.Linear(inputs, a, bias=False)
        self.through: nn.Module | None = None
        if config.residual:
            self.through = nn.Identity() if inputs == a else nn.Linear(inputs, a, bias=False)
        self.norm = nn.LayerNorm(a) if config.norm else nn.Identity()

    def forward(self, rows_Bnd: Tensor) -> Tensor:
        queries, keys, values = (  # each [B, heads, n, a / heads]
            part(rows_Bnd).view(*rows_Bnd.shape[:2], self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, dropout_p=self.dropout if self.training else 0.0, scale=self.scale
        )
        mixed_Bna = mixed.transpose(1, 2).flatten(2)
        if self.through is not None:
            mixed_Bna = mixed_Bna + self.through(rows_Bnd)
        return functional.relu(self.norm(mixed_Bna))


class _Sum(nn.Module):
    """[B, w] -> [B, 1]: a linear map of each part of that many columns; what columns are left are added as they are."""

    def __init__(self, parts: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(parts)
        self.maps = nn.ModuleList(nn.Linear(width, 1) for width in parts)

    def forward(self, hidden_Bw: Tensor) -> Tensor:
        left = hidden_Bw.shape[1] - sum(self.widths)
        *parts, wide = torch.split(hidden_Bw, [*self.widths, left], dim=1)
        logits = [linear(part) for linear, part in zip(self.maps, parts, strict=True)]
        return torch.stack(logits).sum(dim=0) + wide.sum(dim=1, keepdim=True)
