"""Features of users or items in a table of their own, joined to a batch by key instead of repeated in each event."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.data.encode import Encoder, Jagged
from recfm.errors import DataError, SchemaError
from recfm.layout import Layout
from recfm.schema import Categorical, Numeric, Schema, Tokens

By = Literal["user", "item"]
_UNKNOWN = 1  # the id of what no vocabulary knows
_LABEL = "side:label"
_LOOKED_UP = 2**16
"""Keys that are looked up at a time when strangers are looked for."""


@dataclass(kw_only=True)
class SideRows:
    """What a side table says about the rows of a batch.

    Attributes:
        ids: int32 [B, F].
        numeric: float32 [B, N].
        tokens: Jagged ids by feature.
    """

    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    tokens: dict[str, Jagged]


@dataclass(frozen=True, kw_only=True)
class SideTable:
    """Encoded features of m users or items.

    Row 0 stands for every key that is not in the table: out-of-vocabulary ids, numeric 0 (the mean), no tokens.

    Attributes:
        by: Which key of an event it is joined by.
        name: Column of that key, for error messages.
        layout: Its features.
        keys: int64 [m], distinct.
        ids: int32 [m + 1, F].
        numeric: float32 [m + 1, N].
        tokens: Per token feature, its jagged ids, m + 1 lists.

    Raises:
        DataError: A key occurs twice.
    """

    by: By
    name: str
    layout: Layout
    keys: NDArray[np.int64]
    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    tokens: dict[str, Jagged]

    def __post_init__(self) -> None:
        _ = self._index  # refuses repeated keys

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def _index(self) -> _core.KeyIndex:
        return _core.KeyIndex(self.keys, name=self.name)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    def refuse_strangers(self, keys: NDArray[np.int64]) -> None:
        """Refuse events none of which has its key in the table: strings on one side and integers on the other.

        Raises:
            DataError: No key is in the table.
        """
        if not len(keys) or not len(self):
            return
        for first in range(0, len(keys), _LOOKED_UP):  # nearly always the first few answer
            if self._index.rows(keys[first : first + _LOOKED_UP]).any():
                return
        raise DataError(
            f"none of {len(keys):,} events has its {self.by} in the side table's column '{self.name}': "
            "give both the same type of key"
        )

    def take(self, keys: NDArray[np.int64]) -> SideRows:
        """The features of these users or items, int64 [B]."""
        rows = self._index.rows(keys)
        taken = SideRows(
            ids=np.empty((len(rows), self.ids.shape[1]), np.int32),
            numeric=np.empty((len(rows), self.numeric.shape[1]), np.float32),
            tokens={name: _core.take_lists(*lists, rows) for name, lists in self.tokens.items()},
        )
        _core.take_rows(self.ids, rows, taken.ids)
        _core.take_rows(self.numeric, rows, taken.numeric)
        return taken


class SideEncoder:
    """Vocabularies and numeric statistics of user or item features.

    Args:
        by: Which key of an event the features belong to.
        key: Column of that key in the side frame: integers, or strings as in the event table.
        features: What the frame holds; their `side` is `by`.

    Raises:
        SchemaError: A feature is of another side or of a kind that a side table cannot hold.

    Example:
        >>> encoder = SideEncoder(by="item", key="movie_id", features=[Tokens(name="genres", side="item")])
        >>> movies = encoder.fit(frame[frame["movie_id"].is_in(seen)]).transform(frame)     # doctest: +SKIP
        >>> batches = Batches(encoded, rows, batch_size=4096, sides=[movies])               # doctest: +SKIP
    """

    def __init__(self, *, by: By, key: str, features: Sequence[Categorical | Numeric | Tokens]) -> None:
        if by not in ("user", "item"):
            raise SchemaError(f"by is {by!r}: a side table belongs to 'user' or 'item'")
        for feature in features:
            if not isinstance(feature, Categorical | Numeric | Tokens):
                raise SchemaError(
                    f"{feature!r} is no feature of a side table: use Categorical, Numeric or Tokens"
                )
            if feature.side != by:
                raise SchemaError(
                    f"feature '{feature.name}' is of the {feature.side}, but this table of the {by}: set side='{by}'"
                )
        self.by: By = by
        self.key = key
        # To the encoder, a side table is an event table with one event for each key.
        self._encoder = Encoder(Schema(user=key, label=_LABEL, features=tuple(features)))

    @property
    def layout(self) -> Layout:
        """Names, table sizes and sides of the encoded features."""
        return self._encoder.layout

    def fit(self, frame: pl.DataFrame) -> "SideEncoder":
        """Learn vocabularies and moments from these rows, which must be of users or items seen in training only.

        A key may occur more than once: fitted on the training events joined with their features, ids are
        ordered by how often an event had them.

        Raises:
            SchemaError: A column is missing or has a dtype that its feature cannot take.
            DataError: The frame is empty or a key is null.
        """
        self._encoder.fit(_as_events(frame))
        return self

    def transform(self, frame: pl.DataFrame) -> SideTable:
        """Encode a frame with one row for each key.

        Raises:
            SchemaError: A column is missing or has a dtype that its feature cannot take.
            DataError: The encoder was not fitted, a key is null or occurs twice.
        """
        encoded = self._encoder.transform(_as_events(frame))
        return SideTable(
            by=self.by,
            name=self.key,
            layout=self.layout,
            keys=encoded.user,
            ids=np.pad(encoded.ids, ((1, 0), (0, 0)), constant_values=_UNKNOWN),
            numeric=np.pad(encoded.numeric, ((1, 0), (0, 0))),
            tokens={
                name: (values, np.concatenate([[0], offsets]))
                for name, (values, offsets) in encoded.tokens.items()
            },
        )


def _as_events(frame: pl.DataFrame) -> pl.DataFrame:
    if not isinstance(frame, pl.DataFrame):
        raise SchemaError(f"a side table is a {type(frame).__name__}: give a polars.DataFrame")
    return frame.with_columns(pl.lit(0, pl.Int64).alias(_LABEL))
