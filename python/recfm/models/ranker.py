"""What every recfm ranking model shares: embeddings, histories, a backbone and a head.

Shape legend: B rows, n embedding rows, d embedding dim, h width of the pooled histories, w width of the backbone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recfm.data.batch import Batch
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import FeatureEmbedding, NumericRows, Viewer
from recfm.models.history_encoder import HistoryEncoder, HistoryEncoderConfig


class Ranker(nn.Module):
    """Base of the ranking models: `forward(batch) -> logits [B]`.

    A subclass implements `backbone(batch) -> hidden [B, w]` and `make_head()`, which builds a map from hidden to
    logits [B, 1]. Distillation adds a second head of the same kind on the same backbone.
    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        viewer: Viewer,
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
        numeric: NumericRows = "mlp",
        numeric_hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(
            layout, dim, viewer=viewer, numeric=numeric, numeric_hidden=numeric_hidden
        )
        config = history or HistoryEncoderConfig()
        self.histories = nn.ModuleList(HistoryEncoder(s, self.embedding, config) for s in sequences)
        self._history_width = config.width * len(sequences)
        self.head: nn.Module

    def backbone(self, batch: Batch) -> Tensor:
        """hidden [B, w]."""
        raise NotImplementedError(f"{type(self).__name__} does not implement backbone()")

    def make_head(self) -> nn.Module:
        """A new head [B, w] -> [B, 1]."""
        raise NotImplementedError(f"{type(self).__name__} does not implement make_head()")

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self.backbone(batch)).squeeze(-1)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embedding rows [B, n, d] and the pooled histories side by side [B, h], h = 0 without any."""
        rows_Bnd = self.embedding(batch)
        pooled = [history(batch, rows_Bnd, self.embedding) for history in self.histories]
        return rows_Bnd, torch.cat(pooled, dim=1) if pooled else rows_Bnd.new_zeros(len(rows_Bnd), 0)

    @property
    def history_width(self) -> int:
        """h, the width of all pooled histories together."""
        return self._history_width

    @property
    def flat_width(self) -> int:
        """Width of all of a row's inputs side by side: n * d + h."""
        return len(self.embedding) * self.embedding.dim + self.history_width
