"""BST (Chen et al., DLP-KDD 2019, arXiv 1905.06874): a transformer over past events and the candidate.

For the events s_1 ... s_L of a behaviour, newest first, and the candidate s_0 = t (section 2.2 of the paper):

    x_l = [s_l; p_l]                                      p_l: learned per place, from a sinusoid at first
    y   = LN(x + MHSA(x)),   x' = LN(y + W_2 leaky_relu(W_1 y + b_1) + b_2)           in each layer
    interest = x'_0 ("target"), the mean or sum of all x'_l, or all of them side by side ("concat")

The place is how many events ago, 0 for the candidate: the paper takes the time between. All real events see each
other; without events the interest is of the candidate alone. FuxiCTR's benchmark runs leave out residual and norm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recfm.config import check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.attention import SelfAttention
from recfm.models.behaviour import Events
from recfm.models.behaviour_ranker import BehaviourConfig, BehaviourRanker
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig


@dataclass(kw_only=True, slots=True)
class BSTConfig(BehaviourConfig):
    """Sizes of a BST."""

    layers: int = 1
    """Transformer layers."""
    heads: int = 2
    """Of each layer; it must divide the width of an event and its position together."""
    positions: bool = True
    """Append a learned position of width `dim` to every event; without it their order does not matter."""
    pooling: Literal["target", "mean", "sum", "concat"] = "mean"
    attention_dropout: float = 0.0
    residual: bool = True
    norm: bool = True

    def __post_init__(self) -> None:
        BehaviourConfig.__post_init__(self)
        check_range(self, "layers", "heads", low=1)
        check_range(self, "attention_dropout", low=0, high=0.99)
        if self.pooling not in ("target", "mean", "sum", "concat"):
            raise ConfigError(f"BSTConfig: pooling is {self.pooling!r}: use target, mean, sum or concat")


class BST(BehaviourRanker):
    """Batch -> logits [B]."""

    config: BSTConfig

    def __init__(
        self,
        layout: Layout,
        config: BSTConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or BSTConfig()
        super().__init__(layout, config, viewer=viewer, sequences=sequences, history=history)
        widths = [width + config.dim * config.positions for width in self.event_widths]
        for width in widths:
            if width % config.heads:
                raise ConfigError(
                    f"BST: heads is {config.heads}, which does not divide the width {width} of an event"
                )
        if config.positions:
            self.positions = nn.ParameterList(
                nn.Parameter(sinusoids(length + 1, config.dim)) for length in self.lengths
            )
        self.encoders = nn.ModuleList(_Encoder(width, config) for width in widths)
        slots = [length + 1 if config.pooling == "concat" else 1 for length in self.lengths]
        self.finish([width * many for width, many in zip(widths, slots, strict=True)])

    def read(self, k: int, past: Events, batch: Batch) -> tuple[Tensor, Tensor | None]:
        x_BSe = torch.cat([past.target.unsqueeze(1), past.events], dim=1)  # S = 1 + L
        mask_BS = functional.pad(past.mask, (1, 0), value=True)
        if self.config.positions:
            places_Sp = self.positions[k][: x_BSe.shape[1]]
            x_BSe = torch.cat([x_BSe, places_Sp.expand(len(x_BSe), -1, -1)], dim=2)
        x_BSe = self.encoders[k](x_BSe, mask_BS.unsqueeze(1))
        if self.config.pooling == "target":
            return x_BSe[:, 0], None
        real_BSe = x_BSe.masked_fill(~mask_BS.unsqueeze(2), 0.0)
        if self.config.pooling == "concat":
            missing = self.lengths[k] + 1 - real_BSe.shape[1]
            return functional.pad(real_BSe, (0, 0, 0, missing)).flatten(1), None
        total_Be = real_BSe.sum(dim=1)
        return (
            total_Be / mask_BS.sum(dim=1, keepdim=True) if self.config.pooling == "mean" else total_Be
        ), None


class _Encoder(nn.Module):
    """[B, S, e] -> [B, S, e], layer upon layer."""

    def __init__(self, width: int, config: BSTConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, config) for _ in range(config.layers))

    def forward(self, x_BSe: Tensor, mask_B1S: Tensor) -> Tensor:
        for layer in self.layers:
            x_BSe = layer(x_BSe, mask_B1S)
        return x_BSe


class _Layer(nn.Module):
    """[B, S, e] -> [B, S, e]."""

    def __init__(self, width: int, config: BSTConfig) -> None:
        super().__init__()
        self.residual = config.residual
        self.attention = SelfAttention(width, config.heads, dropout=config.attention_dropout)
        self.feed = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width))
        self.dropout = nn.Dropout(config.dropout)
        self.norm1 = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if config.norm else nn.Identity()

    def forward(self, x_BSe: Tensor, mask_B1S: Tensor) -> Tensor:
        inner = self.dropout(self.attention(x_BSe, mask_B1S))
        inner = self.norm1(inner + x_BSe if self.residual else inner)
        out = self.dropout(self.feed(inner))
        return self.norm2(out + inner if self.residual else out)


def sinusoids(places: int, width: int) -> Tensor:
    """[places, width]: sines in the even columns, cosines in the odd ones, ever slower to the right."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(places).unsqueeze(1) * rates
    found = torch.empty(places, width)
    found[:, 0::2] = angles.sin()
    found[:, 1::2] = angles.cos()[:, : width // 2]
    return found
