"""Parts that the factorization machines and their deep descendants share.

Shape legend: B rows, n embedding rows, d embedding dim, h width of the pooled histories, w width of the deep part.
"""

import torch
from torch import Tensor, nn

from recfm.data.batch import Batch
from recfm.layout import Layout
from recfm.models.features import FeatureEmbedding, Viewer


def pairwise_interactions(rows_Bnd: Tensor) -> Tensor:
    """sum_{i<j} <e_i, e_j> of each example, [B, n, d] -> [B, 1], in O(n d)."""
    square_of_sum = rows_Bnd.sum(dim=1).square()
    sum_of_square = rows_Bnd.square().sum(dim=1)
    return 0.5 * (square_of_sum - sum_of_square).sum(dim=1, keepdim=True)


class FirstOrder(nn.Module):
    """sum_i w_i x_i, the linear part of a factorization machine without its bias: (Batch, [B, h]) -> [B, 1].

    A weight for each id (the mean over a list of ids), a weight times each number, a weight for each unit of the
    pooled histories.
    """

    def __init__(self, layout: Layout, *, viewer: Viewer, history_width: int = 0) -> None:
        super().__init__()
        self.features = FeatureEmbedding(layout, 1, viewer=viewer, numeric="each")
        self.history = nn.Linear(history_width, 1, bias=False) if history_width else None

    def forward(self, batch: Batch, pooled_Bh: Tensor) -> Tensor:
        linear_B1 = self.features(batch).sum(dim=1)
        return linear_B1 if self.history is None else linear_B1 + self.history(pooled_Bh)


class HistoryRow(nn.Module):
    """The pooled histories as one more embedding row: ([B, n, d], [B, h]) -> [B, n + 1, d]; with h = 0 the n rows."""

    def __init__(self, history_width: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(history_width, dim) if history_width else None

    def __len__(self) -> int:
        """Rows that it adds: 0 or 1."""
        return int(self.project is not None)

    def forward(self, rows_Bnd: Tensor, pooled_Bh: Tensor) -> Tensor:
        if self.project is None:
            return rows_Bnd
        return torch.cat([rows_Bnd, self.project(pooled_Bh).unsqueeze(1)], dim=1)


class AddBias(nn.Module):
    """A head for models whose hidden [B, 1] is the logit itself: it adds the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.bias


class AddWide(nn.Module):
    """[B, w + 1] -> [B, 1]: a linear map of the deep part plus the wide logit in the last column, as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep = nn.Linear(width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.deep(hidden[:, :-1]) + hidden[:, -1:]
