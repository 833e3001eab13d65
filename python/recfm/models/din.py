"""DIN (Zhou et al., KDD 2018, arXiv 1706.06978): past events weighed by how close each is to the candidate.

For the events s_1 ... s_L of a behaviour and the candidate t (section 4.3):

    a_l      = MLP([t; s_l; t - s_l; t * s_l])                 a scalar; optionally softmax over l
    interest = sum_l a_l s_l

The paper takes no softmax, so that the interest's size says how much of the past agrees; its activation is Dice.
The order of the events does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from recfm.config import check_range
from recfm.data.batch import Batch
from recfm.layout import Layout, SequenceLayout
from recfm.models.attention import EventScores, masked_softmax, weighted_sum
from recfm.models.behaviour import Events
from recfm.models.behaviour_ranker import BehaviourConfig, BehaviourRanker
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import Activation


@dataclass(kw_only=True, slots=True)
class DINConfig(BehaviourConfig):
    """Sizes of a DIN."""

    attention_hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers that score an event."""
    attention_act: Activation = "dice"
    attention_dropout: float = 0.0
    softmax: bool = False
    """Make each user's weights sum to one."""

    def __post_init__(self) -> None:
        BehaviourConfig.__post_init__(self)
        check_range(self, "attention_hidden", low=1)
        check_range(self, "attention_dropout", low=0, high=0.99)


class DIN(BehaviourRanker):
    """Batch -> logits [B]."""

    config: DINConfig

    def __init__(
        self,
        layout: Layout,
        config: DINConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or DINConfig()
        super().__init__(layout, config, viewer=viewer, sequences=sequences, history=history)
        self.scores = nn.ModuleList(
            EventScores(
                width, config.attention_hidden, act=config.attention_act, dropout=config.attention_dropout
            )
            for width in self.event_widths
        )
        self.finish(self.event_widths)

    def read(self, k: int, past: Events, batch: Batch) -> tuple[Tensor, Tensor | None]:
        weights_BL = self.scores[k](past.target, past.events, past.mask)
        if self.config.softmax:
            weights_BL = masked_softmax(weights_BL, past.mask)
        return weighted_sum(weights_BL, past.events), None
