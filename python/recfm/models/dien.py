"""DIEN (Zhou et al., AAAI 2019, arXiv 1809.03672): interests that a GRU finds, and how they evolve to the candidate.

For the events s_1 ... s_L of a behaviour, oldest first, and the candidate t (sections 4.2 and 4.3):

    h_l  = GRU(s_l, h_{l-1})                                interest extractor
    a_l  = softmax_l(h_l W t)                               or t as it is ("dot"), or DIN's scores ("din")
    AUGRU: u_l = a_l sigmoid(U_u [h_l; h'_{l-1}]), r_l = sigmoid(U_r [h_l; h'_{l-1}])
           h'_l = (1 - u_l) h'_{l-1} + u_l tanh(V h_l + r_l (V' h'_{l-1}) + b)
    interest = h'_L, zero without events

    loss += auxiliary * next_event_loss(h)                  p(h, e) = sigmoid(MLP([h; e])), as in the authors' code

The GRU is torch's; the AUGRU, which torch lacks, is a loop over time. Padded steps leave its state as it is.
FuxiCTR wants the negatives of the auxiliary loss as features of the data; here they are of the same batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recfm.config import check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.attention import EventScores, masked_softmax, next_event_loss
from recfm.models.behaviour import Events, turned
from recfm.models.behaviour_ranker import BehaviourConfig, BehaviourRanker
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP, Activation


@dataclass(kw_only=True, slots=True)
class DIENConfig(BehaviourConfig):
    """Sizes of a DIEN."""

    attention: Literal["bilinear", "dot", "din"] = "bilinear"
    """How an interest is compared with the candidate."""
    attention_hidden: tuple[int, ...] = (64,)
    """Of "din": widths of the hidden layers that score an interest."""
    attention_act: Activation = "dice"
    attention_dropout: float = 0.0
    softmax: bool = True
    """Make each user's weights sum to one."""
    auxiliary: float = 0.0
    """Weight of the auxiliary loss; the authors took 1."""
    auxiliary_hidden: tuple[int, ...] = (100, 50)
    """Widths of the hidden layers that the auxiliary loss scores with."""

    def __post_init__(self) -> None:
        BehaviourConfig.__post_init__(self)
        if self.attention not in ("bilinear", "dot", "din"):
            raise ConfigError(f"DIENConfig: attention is {self.attention!r}: use bilinear, dot or din")
        check_range(self, "attention_hidden", "auxiliary_hidden", low=1)
        check_range(self, "attention_dropout", low=0, high=0.99)
        check_range(self, "auxiliary", low=0, high=1e6)


class DIEN(BehaviourRanker):
    """Batch -> logits [B]."""

    config: DIENConfig

    def __init__(
        self,
        layout: Layout,
        config: DIENConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or DIENConfig()
        super().__init__(layout, config, viewer=viewer, sequences=sequences, history=history)
        self.evolutions = nn.ModuleList(_Evolution(width, config) for width in self.event_widths)
        if config.auxiliary:
            self.next_event = nn.ModuleList(
                MLP(2 * width, config.auxiliary_hidden, out=1) for width in self.event_widths
            )
        self.finish(self.event_widths)

    def read(self, k: int, past: Events, batch: Batch) -> tuple[Tensor, Tensor | None]:
        interest_Be, states_BLe = self.evolutions[k](past)
        if not (self.training and self.config.auxiliary):
            return interest_Be, None
        newest_first = turned(states_BLe, past.mask)
        loss = next_event_loss(self.next_event[k], newest_first, past.events, past.mask)
        return interest_Be, self.config.auxiliary * loss


class _Evolution(nn.Module):
    """Events -> (the last state of the AUGRU [B, e], the GRU's states [B, L, e], oldest first)."""

    def __init__(self, width: int, config: DIENConfig) -> None:
        super().__init__()
        self.config = config
        self.extractor = nn.GRU(width, width, batch_first=True)
        if config.attention == "bilinear":
            self.compare = nn.Parameter(torch.eye(width))
        elif config.attention == "din":
            self.scores = EventScores(
                width, config.attention_hidden, act=config.attention_act, dropout=config.attention_dropout
            )
        self.from_interest = nn.Linear(width, 3 * width)
        self.from_state = nn.Linear(width, 3 * width)

    def forward(self, past: Events) -> tuple[Tensor, Tensor]:
        found_BLe, _ = self.extractor(turned(past.events, past.mask))
        states_BLe = found_BLe.masked_fill(~past.mask.unsqueeze(2), 0.0)
        weights_BL = self._weights(states_BLe, past)
        gates = self.from_interest(states_BLe).unbind(1)
        state_Be = states_BLe.new_zeros(states_BLe.shape[0], states_BLe.shape[2])
        for gates_B3e, weight_B1 in zip(gates, weights_BL.unsqueeze(2).unbind(1), strict=True):
            new_u, new_r, new_n = gates_B3e.chunk(3, dim=1)
            old_u, old_r, old_n = self.from_state(state_Be).chunk(3, dim=1)
            update = weight_B1 * (new_u + old_u).sigmoid()
            candidate = (new_n + (new_r + old_r).sigmoid() * old_n).tanh()
            state_Be = state_Be + update * (candidate - state_Be)  # weight 0, so no change, where padded
        return state_Be, states_BLe

    def _weights(self, states_BLe: Tensor, past: Events) -> Tensor:
        if self.config.attention == "din":
            scores_BL = self.scores(past.target, states_BLe, past.mask)
        else:
            compared = states_BLe @ self.compare if self.config.attention == "bilinear" else states_BLe
            scores_BL = torch.einsum("ble,be->bl", compared, past.target)
        return masked_softmax(scores_BL, past.mask) if self.config.softmax else scores_BL * past.mask
