"""DMIN (Xiao et al., CIKM 2020): self-attention refines past events, and each head tells another interest.

For the events S = [s_1; ...; s_L] of a behaviour and the candidate t (sections 3.2 and 3.3 of the paper):

    R   = LN(S + MHSA(S));  R = R + FFN(R)                       behaviour refiner
    H_k = LN(R + head_k(R) W_k);  H_k = H_k + FFN_k(H_k)         multi-interest extractor, one of each head k
    interest_k = sum_l softmax_l(MLP([q_l; H_kl; q_l - H_kl; q_l * H_kl])) H_kl,   q_l = W_q [t; p_l] + b

    loss += auxiliary * next_event_loss(R)

p_l is learned per place, counted from the newest event. An event attends to itself and to older ones only: else R
would know the next event that the auxiliary loss asks for. FFN has one hidden layer of 2 e ReLU units. (FuxiCTR
passes its mask as numbers, which torch adds to the scores of the refiner: there it hides nothing.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfm.config import check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.attention import (
    EventScores,
    SelfAttention,
    at_each_place,
    attend,
    masked_softmax,
    next_event_loss,
    sees_itself_and_older,
    weighted_sum,
)
from recfm.models.behaviour import Events
from recfm.models.behaviour_ranker import BehaviourConfig, BehaviourRanker
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP, Activation


@dataclass(kw_only=True, slots=True)
class DMINConfig(BehaviourConfig):
    """Sizes of a DMIN."""

    heads: int = 4
    """Of both attentions, and interests per behaviour; it must divide the width of an event."""
    refiner: bool = True
    """Refine the events before interests are extracted."""
    norm: bool = True
    """Layer norm after each attention."""
    position_dim: int = 8
    """Width of p_l; 0 for none."""
    attention_hidden: tuple[int, ...] = (80, 40)
    """Widths of the hidden layers that score an event against the candidate."""
    attention_act: Activation = "relu"
    attention_dropout: float = 0.0
    auxiliary: float = 0.0
    """Weight of the auxiliary loss."""
    auxiliary_hidden: tuple[int, ...] = (100, 50)
    """Widths of the hidden layers that the auxiliary loss scores with."""

    def __post_init__(self) -> None:
        BehaviourConfig.__post_init__(self)
        check_range(self, "heads", "attention_hidden", "auxiliary_hidden", low=1)
        check_range(self, "position_dim", low=0)
        check_range(self, "attention_dropout", low=0, high=0.99)
        check_range(self, "auxiliary", low=0, high=1e6)


class DMIN(BehaviourRanker):
    """Batch -> logits [B]."""

    config: DMINConfig

    def __init__(
        self,
        layout: Layout,
        config: DMINConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or DMINConfig()
        super().__init__(layout, config, viewer=viewer, sequences=sequences, history=history)
        for width in self.event_widths:
            if width % config.heads:
                raise ConfigError(
                    f"DMIN: heads is {config.heads}, which does not divide the width {width} of an event"
                )
        if config.refiner:
            self.refiners = nn.ModuleList(_Refiner(width, config) for width in self.event_widths)
        sizes = zip(self.event_widths, self.lengths, strict=True)
        self.extractors = nn.ModuleList(_Extractor(width, length, config) for width, length in sizes)
        if config.auxiliary:
            self.next_event = nn.ModuleList(
                MLP(2 * width, config.auxiliary_hidden, out=1) for width in self.event_widths
            )
        self.finish([config.heads * width for width in self.event_widths])

    def read(self, k: int, past: Events, batch: Batch) -> tuple[Tensor, Tensor | None]:
        sees_BLL = sees_itself_and_older(past.mask)
        refined_BLe = self.refiners[k](past.events, sees_BLL) if self.config.refiner else past.events
        interests = self.extractors[k](refined_BLe, past, sees_BLL)
        if not (self.training and self.config.auxiliary):
            return interests, None
        loss = next_event_loss(self.next_event[k], refined_BLe, past.events, past.mask)
        return interests, self.config.auxiliary * loss


class _Refiner(nn.Module):
    """[B, L, e] -> [B, L, e]."""

    def __init__(self, width: int, config: DMINConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(width, config.heads, dropout=config.attention_dropout)
        self.after = _After(width, config)

    def forward(self, events_BLe: Tensor, sees_BLL: Tensor) -> Tensor:
        return self.after(self.attention(events_BLe, sees_BLL), events_BLe)


class _After(nn.Module):
    """What follows an attention: both [B, L, e] -> [B, L, e]."""

    def __init__(self, width: int, config: DMINConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, found_BLe: Tensor, through_BLe: Tensor) -> Tensor:
        inner = self.norm(self.dropout(found_BLe) + through_BLe)
        return inner + self.feed(inner)


class _Extractor(nn.Module):
    """Refined events [B, L, e] -> one interest of each head, side by side [B, heads * e]."""

    def __init__(self, width: int, length: int, config: DMINConfig) -> None:
        super().__init__()
        self.heads, self.dropout, positions = config.heads, config.attention_dropout, config.position_dim
        self.inputs = nn.Linear(width, 3 * width, bias=False)
        self.outs = nn.ModuleList(
            nn.Linear(width // config.heads, width, bias=False) for _ in range(config.heads)
        )
        self.after = nn.ModuleList(_After(width, config) for _ in range(config.heads))
        self.scores = nn.ModuleList(
            EventScores(
                width, config.attention_hidden, act=config.attention_act, dropout=config.attention_dropout
            )
            for _ in range(config.heads)
        )
        if positions:
            self.positions = nn.Parameter(torch.zeros(config.heads, length, positions))
            self.queries = nn.ModuleList(nn.Linear(width + positions, width) for _ in range(config.heads))
        self.placed = positions > 0

    def forward(self, refined_BLe: Tensor, past: Events, sees_BLL: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        found = attend(self.inputs(refined_BLe), self.heads, sees_BLL, dropout).unbind(1)
        interests = []
        for k, head_BLh in enumerate(found):
            states_BLe = self.after[k](self.outs[k](head_BLh), refined_BLe)
            query = past.target
            if self.placed:
                query = self.queries[k](at_each_place(past.target, self.positions[k, : states_BLe.shape[1]]))
            weights_BL = masked_softmax(self.scores[k](query, states_BLe, past.mask), past.mask)
            interests.append(weighted_sum(weights_BL, states_BLe))
        return torch.cat(interests, dim=1)
