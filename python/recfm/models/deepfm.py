"""DeepFM (Guo et al., 2017, arXiv 1703.04247): a factorization machine beside an MLP on shared embeddings.

    logit = b + sum_i w_i + 1/2 * sum_d ((sum_i e_i)^2 - sum_i e_i^2) + w^T MLP([e_1; ...; e_n; history])

Shape legend: B rows, n embedding rows, d embedding dim, h width of the pooled histories, w last hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import FeatureEmbedding, Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
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

    def __post_init__(self) -> None:
        check_range(self, "dim", "hidden", low=1)
        check_range(self, "dropout", low=0, high=0.99)


class _AddWide(nn.Module):
    """[B, w + 1] -> [B, 1]: a linear map of the deep part plus the FM logit in the last column, as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep = nn.Linear(width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.deep(hidden[:, :-1]) + hidden[:, -1:]


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
        self.first_order = FeatureEmbedding(layout, 1, viewer=viewer)
        self.mlp = MLP(self.flat_width, config.hidden, dropout=config.dropout)
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        wide_B1 = self.first_order(batch).sum(dim=1) + pairwise_interactions(rows_Bnd)
        return torch.cat(
            [self.mlp(torch.cat([rows_Bnd.flatten(1), pooled_Bh], dim=1)), wide_B1], dim=1
        )  # [B, w + 1]

    def make_head(self) -> nn.Module:
        return _AddWide(self.config.hidden[-1])


def pairwise_interactions(rows_Bnd: Tensor) -> Tensor:
    """sum_{i<j} <e_i, e_j> of each example, [B, n, d] -> [B, 1], in O(n d)."""
    square_of_sum = rows_Bnd.sum(dim=1).square()
    sum_of_square = rows_Bnd.square().sum(dim=1)
    return 0.5 * (square_of_sum - sum_of_square).sum(dim=1, keepdim=True)
