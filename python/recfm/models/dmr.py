"""DMR (Lyu et al., AAAI 2020): how well user and candidate match, as features of the ranking.

For the events s_1 ... s_L of a behaviour, places p_l counted from the newest event, and the candidate t (sections 3.2
and 3.3 of the paper), with score(q, s) = MLP([q; s; q - s; q * s]):

    user-to-item:  u = relu(U sum_l softmax_l(score(relu(P p_l + c), s_l)) s_l + d),   match = <u, t'>
    item-to-item:  a_l = score(relu(Q [t; p_l] + b), s_l),   interest = sum_l softmax_l(a_l) s_l,   match' = sum_l a_l

t' is the candidate in tables of its own. The final MLP reads the interest and both matches; without events all are 0.
The auxiliary loss asks u for the newest event when u is made of the older ones, against another user's newest event:

    loss += auxiliary * mean over users of 2 events or more: -log sigmoid(<u, s'_1>) - log sigmoid(-<u, s'_other>)

`other` is the user half the batch further on, so that no chance is involved. The paper draws negatives from all items
and scores with tanh units of one layer; the MLP is FuxiCTR's, whose default leaves match' out.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recfm.config import check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.attention import EventScores, at_each_place, masked_softmax, weighted_sum
from recfm.models.behaviour import Behaviour, Events
from recfm.models.behaviour_ranker import BehaviourConfig, BehaviourRanker
from recfm.models.columns import showing
from recfm.models.features import FeatureEmbedding, Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import Activation


@dataclass(kw_only=True, slots=True)
class DMRConfig(BehaviourConfig):
    """Sizes of a DMR."""

    user_to_item: bool = True
    """Let the final MLP read the match of user and candidate."""
    item_to_item: bool = True
    """Let the final MLP read the sum of the unnormalised attention."""
    position_dim: int = 8
    """Width of p_l."""
    attention_hidden: tuple[int, ...] = (80, 40)
    """Widths of the hidden layers that score an event."""
    attention_act: Activation = "relu"
    attention_dropout: float = 0.0
    auxiliary: float = 0.0
    """Weight of the auxiliary loss, of the user-to-item part."""

    def __post_init__(self) -> None:
        BehaviourConfig.__post_init__(self)
        check_range(self, "position_dim", "attention_hidden", low=1)
        check_range(self, "attention_dropout", low=0, high=0.99)
        check_range(self, "auxiliary", low=0, high=1e6)
        if self.auxiliary and not self.user_to_item:
            raise ConfigError(
                "DMRConfig: auxiliary is a loss of the user-to-item part: set user_to_item, or leave it 0"
            )


class DMR(BehaviourRanker):
    """Batch -> logits [B]."""

    config: DMRConfig

    def __init__(
        self,
        layout: Layout,
        config: DMRConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or DMRConfig()
        super().__init__(layout, config, viewer=viewer, sequences=sequences, history=history)
        sizes = list(zip(self.event_widths, self.lengths, strict=True))
        self.items = nn.ModuleList(_Attention(width, width, length, config) for width, length in sizes)
        if config.user_to_item:
            self.users = nn.ModuleList(_Attention(width, 0, length, config) for width, length in sizes)
            self.user_outs = nn.ModuleList(nn.Linear(width, width) for width, _ in sizes)
            self._second_tables(layout)
        matches = config.user_to_item + config.item_to_item
        self.finish([width + matches for width in self.event_widths])

    def _second_tables(self, layout: Layout) -> None:
        """Tables of the candidate's features for the match, and the newest event in them."""
        named = {name for b in self.behaviours if isinstance(b, Behaviour) for name in b.names}
        if any(b.of_vectors for b in self.behaviours if isinstance(b, Behaviour)):
            named |= {column.name for column in self.embedding.columns if column.side == "item"}
        self.match_embedding = FeatureEmbedding(showing(layout, named), self.config.dim, viewer="vm")
        plain = [  # what is matched is the item, not how the user liked it
            dataclasses.replace(source, labels=False) if isinstance(source, SequenceLayout) else source
            for source in self.sources
        ]
        self.newest = nn.ModuleList(Behaviour(source, self.match_embedding, 1) for source in plain)

    def read(self, k: int, past: Events, batch: Batch) -> tuple[Tensor, Tensor | None]:
        scores_BL = self.items[k](past.target, past)
        parts = [weighted_sum(masked_softmax(scores_BL, past.mask), past.events)]
        if self.config.item_to_item:
            parts.append(scores_BL.sum(dim=1, keepdim=True))
        if not self.config.user_to_item:
            return torch.cat(parts, dim=1), None
        matched = self.newest[k](batch, self.match_embedding(batch), self.match_embedding)
        user_scores_BL = self.users[k](past.target[:, :0], past)
        user_Be = self._user(k, user_scores_BL, past.events, past.mask)
        parts.append((user_Be * matched.target).sum(dim=1, keepdim=True))
        if not (self.training and self.config.auxiliary):
            return torch.cat(parts, dim=1), None
        older_BL = past.mask.clone()
        older_BL[:, 0] = False
        earlier_Be = self._user(k, user_scores_BL, past.events, older_BL)
        loss = _match_loss(earlier_Be, matched.events[:, 0], older_BL.any(dim=1))
        return torch.cat(parts, dim=1), self.config.auxiliary * loss

    def _user(self, k: int, scores_BL: Tensor, events_BLe: Tensor, mask_BL: Tensor) -> Tensor:
        pooled_Be = weighted_sum(masked_softmax(scores_BL, mask_BL), events_BLe)
        return functional.relu(self.user_outs[k](pooled_Be)) * mask_BL.any(dim=1, keepdim=True)


class _Attention(nn.Module):
    """What asks [B, a] (the candidate, or nothing) and events [B, L, e] -> scores [B, L], 0 where padded."""

    def __init__(self, width: int, asks: int, length: int, config: DMRConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(length, config.position_dim))
        self.query = nn.Linear(asks + config.position_dim, width)
        self.scores = EventScores(
            width, config.attention_hidden, act=config.attention_act, dropout=config.attention_dropout
        )

    def forward(self, asks_Ba: Tensor, past: Events) -> Tensor:
        placed = at_each_place(asks_Ba, self.positions[: past.mask.shape[1]])
        return self.scores(functional.relu(self.query(placed)), past.events, past.mask)


def _match_loss(user_Be: Tensor, newest_Be: Tensor, known_B: Tensor) -> Tensor:
    user_Ue, newest_Ue = user_Be[known_B], newest_Be[known_B]
    if len(user_Ue) < 2:
        return user_Be.sum() * 0.0
    other_Ue = newest_Ue.roll(len(newest_Ue) // 2, 0)
    yes, no = (user_Ue * newest_Ue).sum(dim=1), (user_Ue * other_Ue).sum(dim=1)
    return functional.softplus(-yes).mean() + functional.softplus(no).mean()
