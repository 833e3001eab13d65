"""MaskNet (Wang et al., DLP-KDD 2021, arXiv 2102.07619): layers whose inputs are masked by the embeddings.

With v = [e_1; ...; e_n; history] and v' the same with every e_i under its own layer norm (sections 3.2 to 3.5):

    mask(v)     = W_2 relu(W_1 v + b_1) + b_2            W_1 widens by `reduction`: the paper's r
    block(v, h) = relu(LN(W (mask(v) * h)))

    serial:    h_1 = block(v, v'), h_i = block(v, h_{i-1}), logit = w^T h_last + b
    parallel:  logit = w^T MLP([block_1(v, v'); ...; block_k(v, v')]) + b

Shape legend: B rows, n embedding rows, d embedding dim, x = n d + h width of the input, w last hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP, Activation, activation
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class MaskNetConfig(Strict):
    """Sizes of a MaskNet."""

    dim: int = 16
    """Embedding dimension d."""
    kind: Literal["serial", "parallel"] = "serial"
    hidden: tuple[int, ...] = (64, 32)
    """Width of each block of a serial MaskNet, or of each hidden layer after the blocks of a parallel one."""
    blocks: int = 3
    """Blocks of a parallel MaskNet."""
    block_width: int = 64
    """Width of each block of a parallel MaskNet."""
    reduction: float = 1.0
    """Hidden units of a mask, as a share of the width that it masks."""
    dropout: float = 0.0
    embedding_norm: bool = True
    """Normalise each embedding row before it is masked."""
    norm: bool = True
    """Layer norm inside each block."""
    act: Activation = "relu"

    def __post_init__(self) -> None:
        if self.kind not in ("serial", "parallel"):
            raise ConfigError(f"MaskNetConfig: kind is {self.kind!r}: use serial or parallel")
        check_range(self, "dim", "hidden", "blocks", "block_width", low=1)
        check_range(self, "reduction", low=1e-6, high=1e3)
        check_range(self, "dropout", low=0, high=0.99)


class MaskNet(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: MaskNetConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or MaskNetConfig()
        super().__init__(layout, config.dim, viewer=viewer, sequences=sequences, history=history)
        self.config = config
        rows, x = len(self.embedding), self.flat_width
        if config.embedding_norm:
            self.scale = nn.Parameter(torch.ones(rows, config.dim))
            self.shift = nn.Parameter(torch.zeros(rows, config.dim))
        if config.kind == "serial":
            widths = (x, *config.hidden)
            self.blocks = nn.ModuleList(_Block(x, inputs, out, config) for inputs, out in pairwise(widths))
        else:
            self.blocks = nn.ModuleList(
                _Block(x, x, config.block_width, config) for _ in range(config.blocks)
            )
            self.mlp = MLP(
                config.blocks * config.block_width, config.hidden, dropout=config.dropout, act=config.act
            )
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        v_Bx = hidden = torch.cat([rows_Bnd.flatten(1), pooled_Bh], dim=1)
        if self.config.embedding_norm:
            normed_Bnd = functional.layer_norm(rows_Bnd, (self.config.dim,)) * self.scale + self.shift
            hidden = torch.cat([normed_Bnd.flatten(1), pooled_Bh], dim=1)
        if self.config.kind == "parallel":
            return self.mlp(torch.cat([block(v_Bx, hidden) for block in self.blocks], dim=1))  # [B, w]
        for block in self.blocks:
            hidden = block(v_Bx, hidden)
        return hidden

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.hidden[-1], 1)


class _Block(nn.Module):
    """(v [B, x], h [B, inputs]) -> [B, out]."""

    def __init__(self, x: int, inputs: int, out: int, config: MaskNetConfig) -> None:
        super().__init__()
        between = max(1, int(inputs * config.reduction))
        self.mask = nn.Sequential(nn.Linear(x, between), nn.ReLU(), nn.Linear(between, inputs))
        layers: list[nn.Module] = [nn.Linear(inputs, out, bias=False)]
        if config.norm:
            layers.append(nn.LayerNorm(out))
        layers.append(activation(config.act, out))
        if config.dropout:
            layers.append(nn.Dropout(config.dropout))
        self.hidden = nn.Sequential(*layers)

    def forward(self, v_Bx: Tensor, hidden: Tensor) -> Tensor:
        return self.hidden(self.mask(v_Bx) * hidden)
