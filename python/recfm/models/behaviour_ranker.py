"""What the sequence models share: an MLP over the features and over what each of the user's behaviours says.

    logit = w^T MLP([e_1; ...; e_n; interest_1; ...; interest_k]) + b

A model says how one behaviour becomes an interest. Token features that are read as behaviours are not mean-pooled
into an embedding row besides, unless `pooled_too` asks for it. A counts-only sequence is read as other models read it.

Shape legend: B rows, n embedding rows, d embedding dim, e width of an event, r width of an interest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import SchemaError
from recfm.layout import Layout, SequenceLayout
from recfm.models.behaviour import Behaviour, Events, Source, token_groups
from recfm.models.columns import names_of, showing
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP, Activation
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class BehaviourConfig(Strict):
    """What every sequence model can be told."""

    dim: int = 16
    """Embedding dimension d."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the final MLP's hidden layers."""
    act: Activation = "relu"
    """Of the final MLP."""
    dropout: float = 0.0
    """In the final MLP, and wherever the model has dropout outside its attention."""
    batch_norm: bool = False
    """In the final MLP."""
    length: int = 100
    """Most events of a behaviour that are read, the newest."""
    behaviours: tuple[tuple[str, ...], ...] = ()
    """Token features that are past events, those of one event together; by default all that share a vocabulary."""
    pooled_too: bool = False
    """Mean-pool those token features into embedding rows besides."""
    sum_pooling: bool = False
    """The final MLP also reads each behaviour's sum, and its product with the candidate."""

    def __post_init__(self) -> None:
        check_range(self, "dim", "hidden", "length", low=1)
        check_range(self, "dropout", low=0, high=0.99)


class BehaviourRanker(Ranker):
    """Base of the sequence models.

    A subclass implements `read`, builds what that needs for each of `self.behaviours`, and calls `finish`.

    Raises:
        SchemaError: The model is given no sequence of events.
    """

    def __init__(
        self,
        layout: Layout,
        config: BehaviourConfig,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        seen = layout if viewer == "fm" else layout.seen_by_vm()
        groups = token_groups(seen, config.behaviours)
        given = [sequence for sequence in sequences if not sequence.counts_only]
        if not given and not groups:
            raise SchemaError(
                f"{type(self).__name__} reads a user's past events, and is given none: pass `sequences` (of ids or of "
                "vectors), or give it a token feature that shares a categorical feature's vocabulary"
            )
        past = set() if config.pooled_too else {column.name for group in groups for column in group}
        super().__init__(
            showing(layout, [name for name in names_of(seen) if name not in past]),
            config.dim,
            viewer="vm",
            sequences=[sequence for sequence in sequences if sequence.counts_only],
            history=history,
        )
        self.layout = layout  # of the batches, where the embedding's own hides what is not pooled
        self.config = config
        self.sources: list[Source] = [*given, *groups]
        self.behaviours = nn.ModuleList(
            Behaviour(source, self.embedding, config.length) for source in self.sources
        )
        self._auxiliary: Tensor | None = None

    def finish(self, widths: Sequence[int]) -> None:
        """Build the final MLP and the head, for interests of these widths."""
        config = self.config
        pooled = 2 * sum(self.event_widths) * config.sum_pooling
        self.mlp = MLP(
            self.flat_width + sum(widths) + pooled,
            config.hidden,
            dropout=config.dropout,
            batch_norm=config.batch_norm,
            act=config.act,
        )
        self.head = self.make_head()

    @property
    def event_widths(self) -> list[int]:
        """e of each behaviour."""
        return [behaviour.width for behaviour in self.behaviours if isinstance(behaviour, Behaviour)]

    @property
    def lengths(self) -> list[int]:
        """Most events of each behaviour that are read."""
        return [behaviour.length for behaviour in self.behaviours if isinstance(behaviour, Behaviour)]

    def read(self, k: int, past: Events, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The interest [B, r] that behaviour k says, and its weighted auxiliary loss where the model has one."""
        raise NotImplementedError(f"{type(self).__name__} does not implement read()")

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        parts, losses = [rows_Bnd.flatten(1), pooled_Bh], []
        for k, behaviour in enumerate(self.behaviours):
            past = behaviour(batch, rows_Bnd, self.embedding)
            interest_Br, loss = self.read(k, past, batch)
            parts.append(interest_Br)
            if self.config.sum_pooling:
                total_Be = past.events.sum(dim=1)
                parts += [total_Be, total_Be * past.target]
            if loss is not None:
                losses.append(loss)
        self._auxiliary = torch.stack(losses).sum() if losses else None
        return self.mlp(torch.cat(parts, dim=1))  # [B, w]

    def auxiliary_loss(self) -> Tensor | None:
        """The weighted auxiliary loss of the last forward pass in training, once; None where there is none."""
        loss, self._auxiliary = self._auxiliary, None
        return loss

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.hidden[-1], 1)
