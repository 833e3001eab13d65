"""From an event table to ids: fit on the FM's training period, transform everything the same way."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.data.frame import check_frame, event_time
from recfm.errors import DataError
from recfm.layout import Column, Layout
from recfm.schema import Categorical, Numeric, Schema, Tokens

_LARGEST = 1e100  # keeps squares inside float64
_FURTHEST = 1e4  # standard deviations; an outlier beyond it says nothing more and would swamp float32 sums

Jagged = tuple[NDArray[np.int32], NDArray[np.int64]]
"""`values [total]` and `offsets [n + 1]`: row i holds values[offsets[i]:offsets[i + 1]]."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """An event table as numbers, rows in the table's own order.

    Attributes:
        ids: int32 [n, F], columns as in `layout.categorical`.
        numeric: float32 [n, N], standardised, columns as in `layout.numeric`.
        tokens: Per token feature, its jagged ids.
        user: int64 [n], the user key itself, or XXH3 of a string key.
        item: int64 [n], likewise.
        time: int64 [n], microseconds.
        label: float32 [n], 0 or 1.
    """

    schema: Schema
    layout: Layout
    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    tokens: dict[str, Jagged]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.int64]
    label: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    def history_ids(self, of: tuple[str, ...], *, labels: bool) -> NDArray[np.int32]:
        """What a past event shows of itself: int32 [n, len(of) (+ 1)], the label (1 or 2) last if asked for."""
        columns = [self.ids[:, self.layout.position(name)] for name in of]
        if labels:
            columns.append(self.label.astype(np.int32) + 1)
        return np.ascontiguousarray(np.stack(columns, axis=1))


class Encoder:
    """Vocabularies and numeric statistics of one training period.

    Ids: 0 = padding, 1 = out of vocabulary (and null), then by falling count, ties by value.

    Example:
        >>> encoder = Encoder(schema).fit(train_frame)        # doctest: +SKIP
        >>> encoded = encoder.transform(all_events)            # doctest: +SKIP
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._vocabularies: dict[str, _core.Vocab] = {}
        self._moments: dict[str, tuple[float, float]] = {}
        self._fitted = False

    def fit(self, frame: pl.DataFrame) -> "Encoder":
        """Learn vocabularies and numeric moments from these rows, which must be training rows only.

        Raises:
            SchemaError: A column is missing or has a dtype that its feature cannot take.
            DataError: The frame is empty, a key is null, or a label is not 0 or 1.
        """
        check_frame(frame, self.schema)
        vocabularies, moments = {}, {}
        for feature in self.schema.features:
            if isinstance(feature, Categorical | Tokens) and feature.buckets is None:
                vocabularies[feature.name] = _core.Vocab.fit(
                    frame[feature.name], name=feature.name, min_count=feature.min_count
                )
            elif isinstance(feature, Numeric):
                moments[feature.name] = _moments(_numeric_values(frame[feature.name], feature))
        self._vocabularies, self._moments, self._fitted = vocabularies, moments, True
        return self

    def transform(self, frame: pl.DataFrame) -> Encoded:
        """Encode any rows of the same schema.

        Raises:
            SchemaError: A column is missing or has a dtype that its feature cannot take.
            DataError: The encoder was not fitted, or a key or label is bad.
        """
        if not self._fitted:
            raise DataError("the encoder has not been fitted: call fit(training_rows) first")
        check_frame(frame, self.schema)
        schema, n = self.schema, len(frame)
        categorical = [self._ids(frame[f.name], f) for f in schema.of_kind(Categorical)]
        numeric = [self._standardised(frame[f.name], f) for f in schema.of_kind(Numeric)]
        return Encoded(
            schema=schema,
            layout=self.layout,
            ids=np.stack(categorical, axis=1) if categorical else np.zeros((n, 0), np.int32),
            numeric=np.stack(numeric, axis=1) if numeric else np.zeros((n, 0), np.float32),
            tokens={f.name: self._lists(frame[f.name], f) for f in schema.of_kind(Tokens)},
            user=_core.hash_keys(frame[schema.user], name=schema.user),
            item=_core.hash_keys(frame[schema.item], name=schema.item),
            time=event_time(frame, schema),
            label=frame[schema.label].cast(pl.Float32).to_numpy().copy(),
        )

    @property
    def layout(self) -> Layout:
        """Names, table sizes and sides of the encoded features."""
        return Layout(
            categorical=tuple(self._column(f) for f in self.schema.of_kind(Categorical)),
            tokens=tuple(self._column(f) for f in self.schema.of_kind(Tokens)),
            numeric=tuple(
                Column(name=f.name, rows=0, side=f.side, seen_by=f.seen_by)
                for f in self.schema.of_kind(Numeric)
            ),
        )

    def _column(self, feature: Categorical | Tokens) -> Column:
        rows = feature.buckets if feature.buckets is not None else len(self._vocabularies[feature.name])
        return Column(name=feature.name, rows=rows, side=feature.side, seen_by=feature.seen_by)

    def _ids(self, column: pl.Series, feature: Categorical) -> NDArray[np.int32]:
        if feature.buckets is not None:
            return _core.hash_ids(column, name=feature.name, buckets=feature.buckets)
        return self._vocabularies[feature.name].encode(column)

    def _lists(self, column: pl.Series, feature: Tokens) -> Jagged:
        if feature.buckets is not None:
            return _core.hash_lists(column, name=feature.name, buckets=feature.buckets)
        return self._vocabularies[feature.name].encode_lists(column)

    def _standardised(self, column: pl.Series, feature: Numeric) -> NDArray[np.float32]:
        mean, deviation = self._moments[feature.name]
        values = np.clip(_numeric_values(column, feature), -_LARGEST, _LARGEST)
        values = np.clip((values - mean) / deviation, -_FURTHEST, _FURTHEST)
        return np.nan_to_num(values).astype(np.float32)


def _moments(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of the finite values; 1 for the deviation of a constant column."""
    known = np.clip(values[np.isfinite(values)], -_LARGEST, _LARGEST)
    if len(known) == 0:
        return 0.0, 1.0
    if known.min() == known.max():
        return float(known[0]), 1.0
    return float(known.mean()), float(known.std()) or 1.0  # squares of tiny values underflow to 0


def _numeric_values(column: pl.Series, feature: Numeric) -> NDArray[np.float64]:
    values: NDArray[Any] = column.cast(pl.Float64).to_numpy()
    if feature.transform == "log":
        values = np.sign(values) * np.log1p(np.abs(values))
    return values
