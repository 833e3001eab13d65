"""FinalMLP (Mao et al., AAAI 2023, arXiv 2304.00902): two MLPs on gated embeddings, fused by a bilinear form.

With x = [e_1; ...; e_n; history] (feature gating: section 3.1 of the paper, fusion: section 3.2):

    g_s   = 2 sigmoid(MLP(context_s))       s = 1, 2; context_s: own embeddings of a few named features
    o_s   = MLP_s(g_s * x)
    logit = b + w_1^T o_1 + w_2^T o_2 + sum_h o_1h^T W_h o_2h,    o_s cut into k heads o_s1 ... o_sk

Without named features the context is one learned vector (zero at first), so that the gate is the same for every row.
As in FuxiCTR, down to the number of parameters: b is the sum of two biases, one of each w_s.

Shape legend: B rows, n embedding rows, d embedding dim, x = n d + h width of the input, w_s last width of stream s,
k heads, c width of a context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError, SchemaError
from recfm.layout import Layout, SequenceLayout
from recfm.models.columns import showing
from recfm.models.features import FeatureEmbedding, Viewer
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.layers import MLP, Activation
from recfm.models.ranker import Ranker


@dataclass(kw_only=True, slots=True)
class FinalMLPConfig(Strict):
    """Sizes of a FinalMLP."""

    dim: int = 16
    """Embedding dimension d."""
    hidden1: tuple[int, ...] = (64, 32)
    """Widths of the first stream's hidden layers."""
    hidden2: tuple[int, ...] = (64, 32)
    """Widths of the second stream's hidden layers."""
    dropout1: float = 0.0
    dropout2: float = 0.0
    batch_norm1: bool = False
    """Normalise each hidden layer of the first stream over the batch, before its activation."""
    batch_norm2: bool = False
    act: Activation = "relu"
    """Activation of both streams."""
    heads: int = 1
    """k; it must divide the last width of both streams."""
    gates: bool = True
    """Gate each stream's input; False gives both streams the same input (DualMLP)."""
    gate_hidden: tuple[int, ...] = (64,)
    """Hidden widths of each gate's MLP (ReLU, never batch norm)."""
    gate1: tuple[str, ...] = ()
    """Features that the first stream's gate reads; empty for one learned vector."""
    gate2: tuple[str, ...] = ()
    """Features that the second stream's gate reads."""

    def __post_init__(self) -> None:
        check_range(self, "dim", "hidden1", "hidden2", "heads", "gate_hidden", low=1)
        check_range(self, "dropout1", "dropout2", low=0, high=0.99)
        for name in ("hidden1", "hidden2"):
            if getattr(self, name)[-1] % self.heads:
                raise ConfigError(
                    f"FinalMLPConfig: heads is {self.heads}, which does not divide {name}'s last width "
                    f"{getattr(self, name)[-1]}"
                )


class FinalMLP(Ranker):
    """Batch -> logits [B]; the backbone gives both streams side by side, the head fuses them."""

    def __init__(
        self,
        layout: Layout,
        config: FinalMLPConfig | None = None,
        *,
        viewer: Viewer = "vm",
        sequences: Sequence[SequenceLayout] = (),
        history: HistoryEncoderConfig | None = None,
    ) -> None:
        config = config or FinalMLPConfig()
        super().__init__(layout, config.dim, viewer=viewer, sequences=sequences, history=history)
        self.config = config
        if config.gates:
            seen = self.embedding.seen
            self.gate1 = _Gate(layout, seen, config.gate1, config, self.flat_width)
            self.gate2 = _Gate(layout, seen, config.gate2, config, self.flat_width)
        self.mlp1 = MLP(
            self.flat_width,
            config.hidden1,
            dropout=config.dropout1,
            batch_norm=config.batch_norm1,
            act=config.act,
        )
        self.mlp2 = MLP(
            self.flat_width,
            config.hidden2,
            dropout=config.dropout2,
            batch_norm=config.batch_norm2,
            act=config.act,
        )
        self.head = self.make_head()

    def backbone(self, batch: Batch) -> Tensor:
        rows_Bnd, pooled_Bh = self.embed(batch)
        first_Bx = second_Bx = torch.cat([rows_Bnd.flatten(1), pooled_Bh], dim=1)
        if self.config.gates:
            first_Bx, second_Bx = first_Bx * self.gate1(batch), second_Bx * self.gate2(batch)
        return torch.cat([self.mlp1(first_Bx), self.mlp2(second_Bx)], dim=1)  # [B, w_1 + w_2]

    def make_head(self) -> nn.Module:
        return _Fusion(self.config.hidden1[-1], self.config.hidden2[-1], self.config.heads)


class _Gate(nn.Module):
    """Batch -> factors between 0 and 2, [B, x], or [1, x] where no feature is named."""

    def __init__(
        self, layout: Layout, seen: Layout, names: tuple[str, ...], config: FinalMLPConfig, width: int
    ) -> None:
        super().__init__()
        known = {column.name for column in (*seen.categorical, *seen.tokens, *seen.numeric)}
        for name in names:
            if name not in known:
                raise SchemaError(
                    f"a gate of FinalMLP reads '{name}', which is no feature that this model sees "
                    f"(known: {', '.join(sorted(known))})"
                )
        if names:
            self.context = FeatureEmbedding(showing(layout, names), config.dim, viewer="vm", numeric="each")
            inputs = len(self.context) * config.dim
        else:
            self.constant = nn.Parameter(torch.zeros(1, config.dim))
            inputs = config.dim
        self.named = bool(names)
        self.mlp = MLP(inputs, config.gate_hidden, out=width)

    def forward(self, batch: Batch) -> Tensor:
        context_Bc = self.context(batch).flatten(1) if self.named else self.constant
        return 2 * self.mlp(context_Bc).sigmoid()


class _Fusion(nn.Module):
    """[B, w_1 + w_2] -> [B, 1]: linear in each stream, plus their products within each head."""

    def __init__(self, first: int, second: int, heads: int) -> None:
        super().__init__()
        self.widths, self.heads = [first, second], heads
        self.first = nn.Linear(first, 1)
        self.second = nn.Linear(second, 1)
        # Xavier's variance for the one column of first * second / heads weights that the form is.
        std = (2 / (first * second / heads + 1)) ** 0.5
        self.product = nn.Parameter(torch.randn(heads, first // heads, second // heads) * std)

    def forward(self, streams: Tensor) -> Tensor:
        first_Bw, second_Bw = torch.split(streams, self.widths, dim=1)
        first_Bka = first_Bw.reshape(len(streams), self.heads, -1)
        second_Bkc = second_Bw.reshape(len(streams), self.heads, -1)
        mixed_Bkc = torch.einsum("bka,kac->bkc", first_Bka, self.product)
        products_B1 = (mixed_Bkc * second_Bkc).sum(dim=(1, 2)).unsqueeze(1)
        return self.first(first_Bw) + self.second(second_Bw) + products_B1
