"""From a batch of ids to embedding rows.

Shape legend: B rows of the batch, F categorical columns, N numeric columns, n embedding rows, d embedding dim.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recfm import _core
from recfm.data.batch import Batch, Jagged
from recfm.errors import ConfigError, DataError, SchemaError
from recfm.layout import Column, Layout
from recfm.models.embedding import Read, sparse_lookup

Viewer = Literal["fm", "vm"]
NumericRows = Literal["mlp", "each", "none"]
MOST_ROWS = 2**31 - 1
"""Rows of a fused table are numbered in int32."""


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
        sparse: Give the table a sparse gradient, for the optimisers of `recfm.train.sparse`: a step costs what the
            batch's rows cost, whatever the size of the table. Its first values are drawn in parallel and have a
            bell shape cut at 3.46 `std`. May be set later; the lookups are the same.

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
        sparse: bool = False,
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
        if total > MOST_ROWS:
            raise SchemaError(
                f"the features have {total} embedding rows together, more than {MOST_ROWS}: hash the largest"
            )
        self.starts, self.sparse = starts, sparse
        self.weight = nn.Parameter(
            _bell(total, dim, std) if sparse else torch.empty(total, dim).normal_(std=std)
        )
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
        if self.seen.categorical and self.sparse:
            reads = [self._read(c, self.layout.position(c.name)) for c in self.seen.categorical]
            rows.append(sparse_lookup(self.weight, batch.ids, reads))
        elif self.seen.categorical:
            ids_BF = batch.ids.index_select(1, self.positions) + self.offsets
            rows.append(functional.embedding(ids_BF, self.weight))
        rows += [self._pooled(batch, column).unsqueeze(1) for column in self.seen.tokens]
        if self.numeric is not None:
            rows.append(self.numeric(self.numbers(batch)).view(-1, self.numeric_rows, self.dim))
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def numbers(self, batch: Batch) -> Tensor:
        """The numeric features that this model sees, float32 [B, N']."""
        return batch.numeric.index_select(1, self.numeric_positions)

    def _pooled(self, batch: Batch, column: Column) -> Tensor:
        jagged = batch.tokens[column.name]
        if self.sparse:
            _check_tokens(jagged, column)
        return functional.embedding_bag(
            jagged.values.long() + self.starts[column.table],
            self.weight,
            jagged.offsets,
            mode="mean",
            include_last_offset=True,
            sparse=self.sparse,
        )

    def lookup(self, names: Sequence[str], ids: Tensor) -> Tensor:
        """Rows of further ids of some features, such as those of past events, side by side.

        Args:
            names: Features, one for each of the leading columns of `ids`.
            ids: Integers [..., C], C at least `len(names)`.

        Returns:
            [..., len(names) * d].

        Raises:
            SchemaError: The model sees no such feature.
            DataError: The table is sparse and an id has no row in it.
        """
        if not self.sparse:
            parts = [functional.embedding(ids[..., i], self.table(name)) for i, name in enumerate(names)]
            return torch.cat(parts, dim=-1)
        reads = [self._read(self._column(name), i) for i, name in enumerate(names)]
        rows = sparse_lookup(self.weight, ids.flatten(0, -2), reads)
        return rows.view(*ids.shape[:-1], len(names) * self.dim)

    def table(self, name: str) -> Tensor:
        """The rows [rows, d] of one feature's table, a view into the fused one.

        Raises:
            SchemaError: The model sees no such feature.
            ConfigError: The table is sparse and gradients are recorded: one through this view would be as large as
                the table.
        """
        column = self._column(name)
        if self.sparse and torch.is_grad_enabled() and self.weight.requires_grad:
            raise ConfigError(
                f"the table of feature '{name}' is sparse: use lookup() where gradients flow, or torch.no_grad()"
            )
        start = self.starts[column.table]
        return self.weight[start : start + column.rows]

    def _column(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise SchemaError(f"this model has no table of feature '{name}': it may be one that only the FM sees")

    def _read(self, column: Column, position: int) -> Read:
        return column.name, position, self.starts[column.table], column.rows

    def item_rows(self, rows_Bnd: Tensor) -> Tensor:
        """The candidate's own rows, flattened to [B, n_item * d]: what an attention query may be made of."""
        keep = [i for i, column in enumerate(self.columns) if column.side == "item"]
        return rows_Bnd[:, keep].flatten(1)

    @property
    def item_width(self) -> int:
        """Width of `item_rows`."""
        return self.dim * sum(column.side == "item" for column in self.columns)


def _bell(rows: int, dim: int, std: float) -> Tensor:
    """[rows, dim] of deviation `std`; the seed is one number of torch's generator."""
    weight = torch.empty(rows, dim)
    seed = int(torch.randint(2**62, ()))
    _core.fill_bell(weight.view(-1).numpy(), std=std, seed=seed)
    return weight


def _check_tokens(jagged: Jagged, column: Column) -> None:
    """Refuses token ids without a row; on an accelerator that would wait for it, so only on the CPU."""
    if jagged.values.device.type != "cpu" or len(jagged.values) == 0:
        return
    low, high = (int(value) for value in jagged.values.aminmax())
    if low < 0 or high >= column.rows:
        raise DataError(
            f"column '{column.name}' holds the id {low if low < 0 else high}, but its embedding table has "
            f"{column.rows} rows: build the model on the layout of the data that it reads"
        )


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
