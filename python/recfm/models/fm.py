"""FM (Rendle, ICDM 2010, "Factorization Machines", equation 1; computed as in lemma 3.1, in O(n d)).

    logit = b + sum_i w_i x_i + sum_{i<j} <e_i, e_j>,   sum_{i<j} <e_i, e_j> = 1/2 sum_d ((sum_i e_i)^2 - sum_i e_i^2)

with e_i = x_i v_i: the embedding of an id (x_i = 1), or a number times its vector. A pooled history is one more row.

Shape legend: B rows, n embedding rows, d embedding dim, h width of the pooled histories.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.interactions import AddBias, FirstOrder, HistoryRow, pairwise_interactions
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class FMConfig(Strict):
    """Sizes of an FM."""

    dim: int = 16
    """Embedding dimension d."""

    def __post_init__(self) -> None:
        check_range(self, "dim", low=1)


class FM(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: FMConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or FMConfig()
        super().__init__(
            layout, config.dim, viewer=viewer, sequences=sequences, history=history, numeric="each"
        )
        self.config = config
        self.first_order = FirstOrder(layout, viewer=viewer, history_width=self.history_width)
        self.history_row = HistoryRow(self.history_width, config.dim)
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        linear_B1 = self.first_order(batch, pooled_Bh)
        return linear_B1 + pairwise_interactions(self.history_row(rows_Bnd, pooled_Bh))  # [B, 1]

    def make_head(self) -> nn.Module:
        return AddBias()
