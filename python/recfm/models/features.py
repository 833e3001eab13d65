"""From a batch of ids to embedding rows.

Shape legend: B rows of the batch, F categorical columns, N numeric columns, n embedding rows, d embedding dim.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recfm.data.batch import Batch
from recfm.errors import ConfigError, SchemaError
from recfm.layout import Column, Layout

Viewer = Literal["fm", "vm"]
NumericRows = Literal["mlp", "each", "none"]


class FeatureEmbedding(nn.Module):
    """One fused embedding table over all features, with an offset per feature.

    Categorical features give one row each, token features one mean-pooled row each, and the numeric features one
    row together or one row each. Features that share a vocabulary share the table.

    Args:
        layout: Everything that a batch holds.
        dim: Embedding dimension d.
        viewer: Who reads: "vm" never sees features with `seen_by="fm"`.
        std: Standard deviation of the initial embeddings.
        numeric: How numbers become rows: "mlp", all together one row through a small MLP; "each", a learned vector
            for each number, times the number (FuxiCTR's way); "none", not at all: the model reads them itself.

    Shapes: Batch -> [B, n, d], n = `len(self)`, in the order of `self.columns` (then the numeric row).
    """

    is_embedding_table = True
    positions: Tensor
    offsets: Tensor
    numeric_positions: Tensor

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        viewer: Viewer,
        std: float = 0.02,
        numeric: NumericRows = "mlp",
        numeric_hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if numeric not in ("mlp", "each", "none"):
            raise ConfigError(f"numeric is {numeric!r}: use mlp, each or none")
        seen = layout if viewer == "fm" else layout.seen_by_vm()
        if len(seen) == 0:
            raise SchemaError(f"the {viewer.upper()} sees no feature: give at least one seen_by = 'both'")
        self.layout, self.seen, self.dim = layout, seen, dim
        self.columns: tuple[Column, ...] = seen.categorical + seen.tokens
        starts, total = {}, 0
        for column in self.columns:
            if column.table not in starts:
                starts[column.table], total = total, total + column.rows
        self.starts = starts
        self.weight = nn.Parameter(torch.empty(total, dim).normal_(std=std))
        positions = [layout.position(c.name) for c in seen.categorical]
        self.register_buffer("positions", torch.tensor(positions, dtype=torch.long), persistent=False)
        offsets = torch.tensor([starts[c.table] for c in seen.categorical], dtype=torch.int32)
        self.register_buffer("offsets", offsets, persistent=False)
        found = [layout.numeric.index(c) for c in seen.numeric]
        self.register_buffer("numeric_positions", torch.tensor(found, dtype=torch.long), persistent=False)
        self.numeric: nn.Module | None = None
        self.numeric_rows = 0
        if found and numeric == "mlp":
            widths = (2 * dim,) if numeric_hidden is None else tuple(numeric_hidden)
            self.numeric, self.numeric_rows = _numeric_mlp(len(found), widths, dim), 1
        elif found and numeric == "each":
            self.numeric, self.numeric_rows = _NumericVectors(len(found), dim, std), len(found)

    def __len__(self) -> int:
        """Embedding rows n per example."""
        return len(self.columns) + self.numeric_rows

    def forward(self, batch: Batch) -> Tensor:
        rows = []  # each [B, *, d]
        if self.seen.categorical:
            ids_BF = batch.ids.index_select(1, self.positions) + self.offsets
            rows.append(functional.embedding(ids_BF, self.weight))
        rows += [self._pooled(batch, column).unsqueeze(1) for column in self.seen.tokens]
        if self.numeric is not None:
            rows.append(self.numeric(self.numbers(batch)).view(-1, self.numeric_rows, self.dim))
        return torch.cat(rows, dim=1)

    def numbers(self, batch: Batch) -> Tensor:
        """The numeric features that this model sees, float32 [B, N']."""
        return batch.numeric.index_select(1, self.numeric_positions)

    def _pooled(self, batch: Batch, column: Column) -> Tensor:
        jagged = batch.tokens[column.name]
        return functional.embedding_bag(
            jagged.values.long() + self.starts[column.table],
            self.weight,
            jagged.offsets,
            mode="mean",
            include_last_offset=True,
        )

    def table(self, name: str) -> Tensor:
        """The rows [rows, d] of one feature's table, a view into the fused one.

        Raises:
            SchemaError: The model sees no such feature.
        """
        for column in self.columns:
            if column.name == name:
                start = self.starts[column.table]
                return self.weight[start : start + column.rows]
        raise SchemaError(f"this model has no table of feature '{name}': it may be one that only the FM sees")

    def item_rows(self, rows_Bnd: Tensor) -> Tensor:
        """The candidate's own rows, flattened to [B, n_item * d]: what an attention query may be made of."""
        keep = [i for i, column in enumerate(self.columns) if column.side == "item"]
        return rows_Bnd[:, keep].flatten(1)

    @property
    def item_width(self) -> int:
        """Width of `item_rows`."""
        return self.dim * sum(column.side == "item" for column in self.columns)


def _numeric_mlp(inputs: int, widths: Sequence[int], dim: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, dim))


class _NumericVectors(nn.Module):
    """[B, N] -> [B, N, d]: each number times a vector of its own."""

    is_embedding_table = True

    def __init__(self, count: int, dim: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim).normal_(std=std))

    def forward(self, numbers_BN: Tensor) -> Tensor:
        return numbers_BN.unsqueeze(2) * self.weight
