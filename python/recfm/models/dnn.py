"""DNN: an MLP over the concatenated embeddings; the plainest vertical model.

    logit = w^T MLP([e_1; ...; e_n; history])

Shape legend: B rows, n embedding rows, d embedding dim, h width of the pooled histories, w last hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class DNNConfig(Strict):
    """Sizes of a DNN."""

    dim: int = 16
    """Embedding dimension d."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers."""
    dropout: float = 0.0
    batch_norm: bool = False
    """Normalise each hidden layer over the batch, before its activation."""

    def __post_init__(self) -> None:
        check_range(self, "dim", "hidden", low=1)
        check_range(self, "dropout", low=0, high=0.99)


class DNN(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: DNNConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or DNNConfig()
        super().__init__(layout, config.dim, viewer=viewer, sequences=sequences, history=history)
        self.config = config
        self.mlp = MLP(self.flat_width, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm)
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        return self.mlp(torch.cat([rows_Bnd.flatten(1), pooled_Bh], dim=1))  # [B, w]

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.hidden[-1], 1)
