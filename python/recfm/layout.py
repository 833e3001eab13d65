"""What a model needs to know about encoded features: names, table sizes and sides. No data, no torch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from recfm.errors import SchemaError
from recfm.schema import SeenBy, Side


@dataclass(frozen=True, kw_only=True)
class Column:
    """One encoded feature.

    Attributes:
        rows: Rows of its embedding table, padding (0) and out-of-vocabulary (1) included; 0 for a numeric column.
        shares: Another feature whose vocabulary and embedding table this one uses; "" for its own.
    """

    name: str
    rows: int
    side: Side
    seen_by: SeenBy = "both"
    shares: str = ""

    @property
    def table(self) -> str:
        """Name of the embedding table: the feature's own, or the one it shares."""
        return self.shares or self.name


@dataclass(frozen=True, kw_only=True)
class SequenceLayout:
    """A sequence of past events that a batch carries.

    Attributes:
        ids: Leading columns of `ids [B, L, F]`, in order; their tables are those of the categorical features of
            that name. Empty for a sequence of vectors.
        labels: `ids` has one more column, the past event's label: 0 = padding, 1 = negative, 2 = positive.
        dim: Width of `vectors [B, L, dim]`; 0 for a sequence of ids.
        length: L, the longest that it can be.
        counts_only: The sequence carries only `lengths`, the number of past events.
    """

    name: str
    ids: tuple[str, ...] = ()
    labels: bool = False
    dim: int = 0
    length: int = 50
    counts_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Encoded features in the order in which a `Batch` holds them.

    Attributes:
        categorical: Columns of `ids [B, F]`.
        tokens: Jagged features.
        numeric: Columns of `numeric [B, N]`.
    """

    categorical: tuple[Column, ...]
    tokens: tuple[Column, ...]
    numeric: tuple[Column, ...]

    def _keep(self, keep: Callable[[Column], bool]) -> "Layout":
        return Layout(
            categorical=tuple(filter(keep, self.categorical)),
            tokens=tuple(filter(keep, self.tokens)),
            numeric=tuple(filter(keep, self.numeric)),
        )

    def seen_by_vm(self) -> "Layout":
        """The features that a vertical model may read (`seen_by="both"`)."""
        return self._keep(lambda column: column.seen_by == "both")

    def position(self, name: str) -> int:
        """Index of a categorical column in `ids [B, F]`.

        Raises:
            SchemaError: There is no categorical feature of that name.
        """
        for i, column in enumerate(self.categorical):
            if column.name == name:
                return i
        known = ", ".join(c.name for c in self.categorical)
        raise SchemaError(f"no categorical feature '{name}' (known: {known})")

    def __len__(self) -> int:
        return len(self.categorical) + len(self.tokens) + len(self.numeric)


def merged(layouts: Iterable[Layout]) -> Layout:
    """Features of several tables side by side, in the order given.

    Raises:
        SchemaError: Two of them have a feature of the same name.
    """
    layouts = list(layouts)
    names: set[str] = set()
    for column in (c for one in layouts for c in (*one.categorical, *one.tokens, *one.numeric)):
        if column.name in names:
            raise SchemaError(f"two tables have a feature '{column.name}': rename one of them")
        names.add(column.name)
    return Layout(
        categorical=tuple(c for one in layouts for c in one.categorical),
        tokens=tuple(c for one in layouts for c in one.tokens),
        numeric=tuple(c for one in layouts for c in one.numeric),
    )
