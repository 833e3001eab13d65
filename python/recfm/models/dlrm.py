"""DLRM (Naumov et al., 2019, arXiv 1906.00091, section 2.2): dot products of embeddings and of the numbers' vector.

    z = ReLU(MLP_bottom(numbers))                                    one row of dim d, where there are numbers
    dot:  u = [z; <e_i, e_j> for i > j]                              all pairs of rows, z among the rows
    cat:  u = [e_1; ...; e_n]                                        z among the rows: a DNN
    sum:  u = e_1 + ... + e_n
    logit = w^T MLP_top(u)

A pooled history is one more row.

Shape legend: B rows, n rows that interact (embeddings, history, z), d embedding dim, N numeric columns, w last hidden
width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError, SchemaError
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.interactions import HistoryRow
from recfm.models.layers import MLP
from recfm.models.ranker import Ranker

Interaction = Literal["dot", "cat", "sum"]


@dataclass(kw_only=True, slots=True)
class DLRMConfig(Strict):
    """Sizes of a DLRM."""

    dim: int = 16
    """Embedding dimension d."""
    bottom: tuple[int, ...] = (64,)
    """Hidden widths of the MLP on the numbers; a last layer of width d follows."""
    hidden: tuple[int, ...] = (64, 32)
    """Hidden widths of the top MLP."""
    interaction: Interaction = "dot"
    dropout: float = 0.0
    """In the top MLP."""
    batch_norm: bool = False
    """Normalise each hidden layer of both MLPs over the batch, before its activation."""

    def __post_init__(self) -> None:
        if self.interaction not in ("dot", "cat", "sum"):
            raise ConfigError(f"DLRMConfig: interaction is {self.interaction!r}: use dot, cat or sum")
        check_range(self, "dim", "hidden", *(["bottom"] if self.bottom else []), low=1)
        check_range(self, "dropout", low=0, high=0.99)


class DotInteraction(nn.Module):
    """<x_i, x_j> for i > j, row by row of the lower triangle: [B, n, d] -> [B, n (n - 1) / 2]."""

    pairs: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        below, across = torch.tril_indices(rows, rows, offset=-1)
        self.register_buffer("pairs", below * rows + across, persistent=False)

    def forward(self, rows_Bnd: Tensor) -> Tensor:
        return (rows_Bnd @ rows_Bnd.transpose(1, 2)).flatten(1).index_select(1, self.pairs)


class DLRM(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: DLRMConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or DLRMConfig()
        super().__init__(
            layout, config.dim, viewer=viewer, sequences=sequences, history=history, numeric="none"
        )
        self.config = config
        if not self.embedding.columns:
            raise SchemaError(
                "DLRM reads numbers beside embeddings: give at least one feature of ids or tokens"
            )
        self.history_row = HistoryRow(self.history_width, config.dim)
        numbers = len(self.embedding.seen.numeric)
        self.bottom: nn.Module | None = None
        if numbers:
            mlp = MLP(numbers, config.bottom, out=config.dim, batch_norm=config.batch_norm)
            self.bottom = nn.Sequential(mlp, nn.ReLU())
        rows = len(self.embedding) + len(self.history_row) + (self.bottom is not None)
        if config.interaction == "dot" and rows < 2:
            raise SchemaError(
                "DLRM has one row, and no pair to multiply: add a feature, or use interaction 'cat'"
            )
        widths = {"cat": rows * config.dim, "sum": config.dim}
        if config.interaction == "dot":
            self.dot = DotInteraction(rows)
            widths["dot"] = len(self.dot.pairs) + config.dim * (self.bottom is not None)
        self.mlp = MLP(
            widths[config.interaction], config.hidden, dropout=config.dropout, batch_norm=config.batch_norm
        )
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd = self.history_row(*self.embed(batch))
        z_Bd = rows_Bnd.new_zeros(len(rows_Bnd), 0)
        if self.bottom is not None:
            z_Bd = self.bottom(self.embedding.numbers(batch))
            rows_Bnd = torch.cat([z_Bd.unsqueeze(1), rows_Bnd], dim=1)
        if self.config.interaction == "cat":
            return self.mlp(rows_Bnd.flatten(1))  # [B, w]
        if self.config.interaction == "sum":
            return self.mlp(rows_Bnd.sum(dim=1))
        return self.mlp(torch.cat([z_Bd, self.dot(rows_Bnd)], dim=1))

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.hidden[-1], 1)
