"""xDeepFM (Lian et al., KDD 2018, arXiv 1803.05170): a compressed interaction network (CIN, section 3.1) beside an MLP.

    X^0 = [e_1, ..., e_n]                                            n rows of dim d
    X^k_h = sum_i sum_j W^{k,h}_ij (X^{k-1}_i * X^0_j)               equation 6: H_k rows, products of k + 1 embeddings
    p^k_h = sum_d X^k_h                                              sum pooling
    logit = b + sum_i w_i x_i + w_c^T [p^1; ...; p^K] + w^T MLP([e_1; ...; e_n; history])

As in the paper the CIN has no activation and no bias, and every row of a layer goes to both the output and the next
layer (section 3.1; no split halves). Without hidden layers of the MLP this is the CIN alone.

Shape legend: B rows, n embedding rows, d embedding dim, H_k rows of CIN layer k, h width of the pooled histories.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.features import Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.interactions import AddWide, FirstOrder
from recfm.models.layers import MLP
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class XDeepFMConfig(Strict):
    """Sizes of an xDeepFM."""

    dim: int = 16
    """Embedding dimension d."""
    cin: tuple[int, ...] = (32, 32)
    """Rows H_1, H_2, ... of the CIN's layers."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the deep part's hidden layers; empty for the CIN alone, which reads no history."""
    dropout: float = 0.0
    """In the deep part."""
    batch_norm: bool = False
    """Normalise each hidden layer over the batch, before its activation."""

    def __post_init__(self) -> None:
        check_range(self, "dim", "cin", *(["hidden"] if self.hidden else []), low=1)
        check_range(self, "dropout", low=0, high=0.99)


class CIN(nn.Module):
    """[B, n, d] -> [B, sum of H_k]."""

    def __init__(self, rows: int, widths: Sequence[int]) -> None:
        super().__init__()
        before = (rows, *widths[:-1])
        self.layers = nn.ModuleList(
            nn.Linear(previous * rows, width, bias=False)
            for previous, width in zip(before, widths, strict=True)
        )

    def forward(self, rows_Bnd: Tensor) -> Tensor:
        # Rows last, so that each layer is one matmul over all B * d positions.
        base_Bdn = rows_Bnd.transpose(1, 2).contiguous()
        x_BdH, pooled = base_Bdn, []
        for layer in self.layers:
            products = (x_BdH.unsqueeze(3) * base_Bdn.unsqueeze(2)).flatten(2)  # [B, d, H_{k-1} n]
            x_BdH = layer(products)
            pooled.append(x_BdH.sum(dim=1))
        return torch.cat(pooled, dim=1)


class XDeepFM(Ranker):
    """Batch -> logits [B]."""

    def __init__(
        self,
        layout: Layout,
        config: XDeepFMConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or XDeepFMConfig()
        if not config.hidden and sequences:
            raise ConfigError(
                "XDeepFMConfig: hidden is empty, but histories enter the deep part: give it a layer"
            )
        super().__init__(layout, config.dim, viewer=viewer, sequences=sequences, history=history)
        self.config = config
        self.first_order = FirstOrder(layout, viewer=viewer)
        self.cin = CIN(len(self.embedding), config.cin)
        self.mlp: MLP | None = None
        if config.hidden:
            self.mlp = MLP(
                self.flat_width, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm
            )
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        parts = [self.cin(rows_Bnd)]
        if self.mlp is not None:
            parts.append(self.mlp(torch.cat([rows_Bnd.flatten(1), pooled_Bh], dim=1)))
        return torch.cat([*parts, self.first_order(batch, pooled_Bh)], dim=1)  # [B, sum of H_k + w + 1]

    def make_head(self) -> nn.Module:
        return AddWide(sum(self.config.cin) + (self.config.hidden[-1] if self.config.hidden else 0))
