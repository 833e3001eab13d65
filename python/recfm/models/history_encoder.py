"""Pool a user's past events into one vector (LoopFM section 3.4; DIN for the attention).

The query of the attention is a projection of the *candidate item's* features. The current event's own z is never
used: it does not exist at serving time, and it would carry the answer.

Shape legend: B rows, L past events (newest first), d width of one event, h width of the encoder.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError, SchemaError
from recfm.layout import SequenceLayout
from recfm.models.attention import masked_softmax
from recfm.models.features import FeatureEmbedding
from recfm.models.layers import length_mask

Pooling = Literal["sum", "mean", "attention"]


@dataclass(kw_only=True, slots=True)
class HistoryEncoderConfig(Strict):
    """How past events become one vector."""

    pooling: Pooling = "attention"
    """sum and mean pool without a query; attention weighs each event against the candidate item."""
    width: int = 32
    """Width h of the encoder and of its output."""
    attention_hidden: int = 32
    """Hidden units of the attention's scoring MLP."""

    def __post_init__(self) -> None:
        if self.pooling not in ("sum", "mean", "attention"):
            raise ConfigError(f"history pooling is {self.pooling!r}: use sum, mean or attention")
        check_range(self, "width", "attention_hidden", low=1)


class HistoryEncoder(nn.Module):
    """A sequence of a batch -> [B, h]; the zero vector where the user has no past.

    Events are vectors (z of an embedding log), or ids that share the candidate's embedding tables, or only their
    count. Padded slots never reach the output, whatever they hold.

    Args:
        sequence: Which sequence of the batch, and what an event of it holds.
        embedding: The model's tables, for events made of ids.
        config: Pooling and widths.
    """

    def __init__(
        self, sequence: SequenceLayout, embedding: FeatureEmbedding, config: HistoryEncoderConfig
    ) -> None:
        super().__init__()
        self.sequence, self.config = sequence, config
        h = config.width
        if sequence.counts_only:
            self.event = nn.Linear(2, h)
            return
        if sequence.ids:
            self.label = nn.Embedding(3, embedding.dim) if sequence.labels else None
            width = embedding.dim * (len(sequence.ids) + sequence.labels)
        else:
            width = sequence.dim
        self.event = nn.Linear(width, h)
        if config.pooling == "attention":
            if embedding.item_width == 0:
                raise SchemaError(
                    "attention weighs past events against the candidate item, but the model sees no feature of side "
                    "'item': add one to the schema, or set pooling to 'sum' or 'mean'"
                )
            self.query = nn.Linear(embedding.item_width, h)
            self.position = nn.Parameter(torch.zeros(sequence.length, h))
            self.from_query = nn.Linear(h, config.attention_hidden)
            self.from_event = nn.Linear(h, config.attention_hidden, bias=False)
            self.from_product = nn.Linear(h, config.attention_hidden, bias=False)
            self.score = nn.Linear(config.attention_hidden, 1)

    @property
    def width(self) -> int:
        """Width h of the output."""
        return self.config.width

    def forward(self, batch: Batch, rows_Bnd: Tensor, embedding: FeatureEmbedding) -> Tensor:
        past = batch.sequences[self.sequence.name]
        known_B1 = (past.lengths > 0).unsqueeze(1)
        if self.sequence.counts_only:
            count_B = past.lengths.to(rows_Bnd.dtype)
            return self.event(torch.stack([count_B.log1p(), (count_B > 0).to(count_B)], dim=1)) * known_B1
        events_BLd = self._events(batch, embedding)
        longest = events_BLd.shape[1]
        mask_BL = length_mask(past.lengths, longest)
        events_BLh = self.event(events_BLd.masked_fill(~mask_BL.unsqueeze(2), 0.0))
        if self.config.pooling == "attention":
            events_BLh = events_BLh + self.position[:longest]
            weights_BL = self._attention(self.query(embedding.item_rows(rows_Bnd)), events_BLh, mask_BL)
        else:
            weights_BL = mask_BL.to(events_BLh.dtype)
            if self.config.pooling == "mean":
                weights_BL = weights_BL / past.lengths.clamp(min=1).unsqueeze(1)
        return torch.einsum("bl,blh->bh", weights_BL, events_BLh)

    def _events(self, batch: Batch, embedding: FeatureEmbedding) -> Tensor:
        """[B, L', d] with L' the longest history of the batch, so that short histories cost little."""
        past = batch.sequences[self.sequence.name]
        longest = max(1, int(past.lengths.max())) if len(past.lengths) else 1
        if past.vectors is not None:
            return past.vectors[:, :longest]
        assert past.ids is not None
        tables = [embedding.table(name) for name in self.sequence.ids]
        if self.label is not None:
            tables.append(self.label.weight)
        ids_BLF = past.ids[:, :longest]
        parts = [nn.functional.embedding(ids_BLF[..., i], table) for i, table in enumerate(tables)]
        return torch.cat(parts, dim=-1)

    def _attention(self, query_Bh: Tensor, events_BLh: Tensor, mask_BL: Tensor) -> Tensor:
        """DIN's scoring MLP on [q, s, q - s, q * s], softmax over the real entries: [B, L].

        Its first layer is linear, so it is W_q q + W_s s + W_p (q * s) with q - s folded into W_q and W_s: the same
        family of functions without building the [B, L, 4h] input.
        """
        hidden_BLa = self.from_event(events_BLh) + self.from_product(events_BLh * query_Bh.unsqueeze(1))
        hidden_BLa = (hidden_BLa + self.from_query(query_Bh).unsqueeze(1)).relu()
        return masked_softmax(self.score(hidden_BLa).squeeze(-1), mask_BL)
