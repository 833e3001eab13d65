"""A user's past events and the candidate, as vectors of one space: what every sequence model starts from.

A behaviour is either a sequence of the batch (`SequenceLayout`: ids of categorical features, or vectors), newest
first and padded at the end, or token features that share the vocabularies of categorical ones (`Column.shares`),
jagged and oldest first, as the reczoo data sets have them. Both come out newest first, so an event's place says how
long ago it was, however long the history is. Padded slots are zero, whatever they held.

Shape legend: B rows, L past events, F features of an event, d embedding dim, e width of an event, n embedding rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from recfm.data.batch import Batch
from recfm.errors import DataError, SchemaError
from recfm.layout import Column, Layout, SequenceLayout
from recfm.models.features import FeatureEmbedding
from recfm.models.layers import length_mask


@dataclass(kw_only=True)
class Events:
    """One behaviour of a batch.

    Attributes:
        events: [B, L, e], newest first, 0 where padded.
        target: [B, e], the candidate.
        mask: bool [B, L], where there is an event.
    """

    events: Tensor
    target: Tensor
    mask: Tensor


Source: TypeAlias = SequenceLayout | tuple[Column, ...]


class Behaviour(nn.Module):
    """Batch -> `Events`.

    Ids are looked up in the candidate's own tables, and e = F d; a past event's label, where the sequence has it, is
    one more vector added to the event. Vectors are projected to e = d, and so are the candidate's item features.

    Args:
        source: A sequence of the batch, or token features of which each shares a categorical feature's table.
        embedding: The tables that the events are looked up in.
        length: At most so many events are read, the newest.
    """

    def __init__(self, source: Source, embedding: FeatureEmbedding, length: int) -> None:
        super().__init__()
        self.sequence = source if isinstance(source, SequenceLayout) else None
        self.tokens = () if isinstance(source, SequenceLayout) else source
        self.names = self.sequence.ids if self.sequence else tuple(column.shares for column in self.tokens)
        self.length = min(length, self.sequence.length) if self.sequence else length
        self.of_vectors = not self.names
        if self.sequence and self.of_vectors:
            if embedding.item_width == 0:
                raise SchemaError(
                    f"sequence '{self.sequence.name}' holds vectors, which are weighed against the candidate item, but "
                    "the model sees no feature of side 'item': add one to the schema"
                )
            self.event = nn.Linear(self.sequence.dim, embedding.dim)
            self.target = nn.Linear(embedding.item_width, embedding.dim)
            self.width = embedding.dim
            return
        seen = [column.name for column in embedding.columns]
        for name in self.names:
            if name not in seen:
                raise SchemaError(
                    f"past events are of '{name}', which this model does not see in the candidate: "
                    "let it see that feature, or leave the sequence out"
                )
        self.places = [seen.index(name) for name in self.names]
        self.width = len(self.names) * embedding.dim
        labels = self.sequence is not None and self.sequence.labels
        self.label = nn.Embedding(3, self.width) if labels else None

    def forward(self, batch: Batch, rows_Bnd: Tensor, embedding: FeatureEmbedding) -> Events:
        values, mask_BL = self._past(batch)
        values = values.masked_fill(~mask_BL.unsqueeze(2), 0)  # before the look-up: padding may hold anything
        if self.of_vectors:
            events_BLe, target_Be = self.event(values), self.target(embedding.item_rows(rows_Bnd))
        else:
            events_BLe = embedding.lookup(self.names, values)
            if self.label is not None:
                events_BLe = events_BLe + self.label(values[..., len(self.names)])
            target_Be = rows_Bnd[:, self.places].flatten(1)
        events_BLe = events_BLe.masked_fill(~mask_BL.unsqueeze(2), 0.0)
        return Events(events=events_BLe, target=target_Be, mask=mask_BL)

    def _past(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Ids [B, L, F] or vectors [B, L, *] newest first, and where they are real; L is the batch's longest."""
        if self.sequence is None:
            return self._tokens(batch)
        past = batch.sequences[self.sequence.name]
        lengths_B = past.lengths.clamp(max=self.length)
        longest = _longest(lengths_B)
        mask_BL = length_mask(lengths_B, longest)
        if past.values is not None and past.offsets is not None:
            return _padded(past.values, past.offsets[:-1], 1, mask_BL), mask_BL
        padded = past.vectors if self.of_vectors else past.ids
        if padded is None:
            kind = "vectors" if self.of_vectors else "ids"
            raise DataError(
                f"sequence '{self.sequence.name}' of the batch has no {kind}: its layout says it has"
            )
        return padded[:, :longest], mask_BL

    def _tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        found = [batch.tokens[column.name] for column in self.tokens]
        offsets = found[0].offsets
        for column, jagged in zip(self.tokens[1:], found[1:], strict=True):
            if not torch.equal(jagged.offsets, offsets):
                raise DataError(
                    f"token features '{self.tokens[0].name}' and '{column.name}' are read as one behaviour, but differ "
                    "in length: log both for every event, or name them apart in the model's `behaviours`"
                )
        lengths_B = offsets.diff().clamp(max=self.length)
        mask_BL = length_mask(lengths_B, _longest(lengths_B))
        values = torch.stack([jagged.values for jagged in found], dim=1)
        return _padded(values, offsets[1:] - 1, -1, mask_BL), mask_BL


def _longest(lengths_B: Tensor) -> int:
    return max(1, int(lengths_B.max())) if len(lengths_B) else 1


def _padded(values: Tensor, first_B: Tensor, step: int, mask_BL: Tensor) -> Tensor:
    """[B, L, *] of jagged values [total, *], read from `first` on, forwards or backwards."""
    place_L = torch.arange(mask_BL.shape[1], device=values.device)
    index_BL = first_B.unsqueeze(1) + step * place_L
    beyond = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
    return beyond[index_BL.masked_fill(~mask_BL, len(values))]


def turned(x_BLe: Tensor, mask_BL: Tensor) -> Tensor:
    """The real entries in the opposite order of time, padding still last: oldest first of newest first, or back."""
    place_L = torch.arange(x_BLe.shape[1], device=x_BLe.device)
    index_BL = (mask_BL.sum(dim=1, keepdim=True) - 1 - place_L).clamp(min=0)
    return x_BLe.gather(1, index_BL.unsqueeze(2).expand_as(x_BLe)).masked_fill(~mask_BL.unsqueeze(2), 0.0)


def token_groups(seen: Layout, named: Sequence[Sequence[str]]) -> list[tuple[Column, ...]]:
    """The token features that are past events, those of one event together.

    Without names these are all that share a categorical feature's vocabulary, each put into the first group that has
    none of that feature yet: (click_history, cate_history), or (pos_items), (neg_items).

    Raises:
        SchemaError: A name is no token feature seen here, or shares no categorical feature seen here.
    """
    categorical = {column.name for column in seen.categorical}
    shared = {column.name: column for column in seen.tokens if column.shares in categorical}
    if named:
        for name in (name for group in named for name in group):
            if name not in shared:
                raise SchemaError(
                    f"behaviours names '{name}', which is no token feature that shares a categorical one's vocabulary "
                    f"(those are: {', '.join(shared) or 'none'})"
                )
        return [tuple(shared[name] for name in group) for group in named if group]
    groups: list[list[Column]] = []
    for column in shared.values():
        for group in groups:
            if all(other.shares != column.shares for other in group):
                group.append(column)
                break
        else:
            groups.append([column])
    return [tuple(group) for group in groups]
