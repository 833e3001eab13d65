"""DeepFM (Guo et al., IJCAI 2017, arXiv 1703.04247, section 2.1): an FM beside an MLP on shared embeddings.

    logit = b + sum_i w_i x_i + sum_{i<j} <e_i, e_j> + w^T MLP([e_1; ...; e_n; history])

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
from recfm.models.interactions import AddWide, FirstOrder, pairwise_interactions
from recfm.models.layers import MLP
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class DeepFMConfig(Strict):
    """Sizes of a DeepFM."""

    dim: int = 16
    """Embedding dimension d."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the deep part's hidden layers."""
    dropout: float = 0.0
    """In the deep part."""
    batch_norm: bool = False
    """Normalise each hidden layer over the batch, before its activation."""

    def __post_init__(self) -> None:
        check_range(self, "dim", "hidden", low=1)
        check_range(self, "dropout", low=0, high=0.99)


class DeepFM(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: DeepFMConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or DeepFMConfig()
        super().__init__(layout, config.dim, viewer=viewer, sequences=sequences, history=history)
        self.config = config
        self.first_order = FirstOrder(layout, viewer=viewer)
        self.mlp = MLP(self.flat_width, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm)
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        wide_B1 = self.first_order(batch, pooled_Bh) + pairwise_interactions(rows_Bnd)
        deep_Bw = self.mlp(torch.cat([rows_Bnd.flatten(1), pooled_Bh], dim=1))
        return torch.cat([deep_Bw, wide_B1], dim=1)  # [B, w + 1]

    def make_head(self) -> nn.Module:
        return AddWide(self.config.hidden[-1])
