"""What encoding learns from the training rows, piece by piece: vocabularies, moments, quantiles.

Everything here is a sum over rows: the same rows give the same encoder in any order and in any pieces, and the
sums of several workers merge.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.errors import DataError
from recfm.schema import Categorical, Numeric, Schema, Tokens, vocabulary_of

_LARGEST = 1e100  # keeps squares inside float64
_DROPPED_BITS = 40  # of 52: quantiles tell 4,096 numbers apart between a power of two and the next


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What was learned, by feature.

    Attributes:
        vocabularies: Of categorical and token features that are not hashed and share none.
        moments: Mean and standard deviation of "standard" and "log" numbers.
        edges: Of "quantile" numbers, float64 rising: bucket b begins at `edges[b - 1]`.
    """

    vocabularies: dict[str, _core.Vocab]
    moments: dict[str, tuple[float, float]]
    edges: dict[str, NDArray[np.float64]]


class Fitting:
    """Sums over the training rows so far.

    Args:
        schema: Which features to learn.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.rows = 0
        self._counts: dict[str, _core.VocabBuilder] = {}
        self._moments: dict[str, _core.ExactMoments] = {}
        for feature in schema.features:
            if isinstance(feature, Numeric) and feature.transform != "quantile":
                self._moments[feature.name] = _core.ExactMoments()
            elif isinstance(feature, Numeric) or feature in fitted_vocabularies(schema):
                self._counts[feature.name] = _core.VocabBuilder(name=feature.name)

    def add(self, frame: pl.DataFrame) -> None:
        """Learn from these rows too; they must have passed `check_frame`.

        Raises:
            SchemaError: A column has a dtype that its feature cannot take, or another kind than before.
        """
        self.rows += len(frame)
        for feature in self.schema.features:
            if isinstance(feature, Numeric):
                values = numeric_values(frame[feature.name], feature)
                if feature.transform == "quantile":
                    self._counts[feature.name].add(pl.Series(_keys(values[~np.isnan(values)])))
                else:
                    self._moments[feature.name].update(values[np.isfinite(values)])
            elif isinstance(feature, Categorical | Tokens) and vocabulary_of(feature) in self._counts:
                self._counts[vocabulary_of(feature)].add(frame[feature.name])

    @property
    def nbytes(self) -> int:
        """Bytes that the sums take."""
        return sum(counts.nbytes for counts in self._counts.values())

    def check_memory(self, limit: int) -> None:
        """Refuse to grow beyond `limit` bytes.

        Raises:
            DataError: The vocabularies together take more; the largest is named.
        """
        if self.nbytes <= limit:
            return
        name, counts = max(self._counts.items(), key=lambda pair: pair[1].nbytes)
        raise DataError(
            f"the vocabularies take more than {limit / 2**20:,.0f} MiB, half of the memory budget: feature '{name}' "
            f"alone has {len(counts):,} distinct values after {self.rows:,} rows; hash it (buckets=...) or raise memory"
        )

    def state(self) -> dict[str, Any]:
        """The sums as plain values that travel between processes; `merge` takes them in."""
        counts = {}
        for name, builder in self._counts.items():
            if builder.kind is not None:  # a column of no type says nothing
                whole = builder.finish(min_count=1)
                counts[name] = (pl.Series(whole.arrow_values()), whole.counts())
        return {"rows": self.rows, "counts": counts, "moments": self._moments}

    def merge(self, state: dict[str, Any]) -> None:
        """Take in the sums of other rows, as if they had been added here."""
        self.rows += state["rows"]
        for name, (values, counts) in state["counts"].items():
            self._counts[name].add(values, counts)
        for name, moments in state["moments"].items():
            self._moments[name].merge(moments)

    def finish(self) -> Fitted:
        """What was learned.

        Raises:
            DataError: There were no rows.
        """
        if not self.rows:
            raise DataError("the event table has no rows")
        vocabularies, edges = {}, {}
        for feature in self.schema.features:
            if isinstance(feature, Numeric) and feature.transform == "quantile":
                edges[feature.name] = _edges(self._counts[feature.name].finish(), feature.buckets)
        for feature in fitted_vocabularies(self.schema):
            vocabularies[feature.name] = self._counts[feature.name].finish(min_count=feature.min_count)
        moments = {name: _mean_and_deviation(moments) for name, moments in self._moments.items()}
        return Fitted(vocabularies=vocabularies, moments=moments, edges=edges)


def fitted_vocabularies(schema: Schema) -> list[Categorical | Tokens]:
    """The features that have a vocabulary of their own, in schema order."""
    ids = [f for f in schema.features if isinstance(f, Categorical | Tokens)]
    return [f for f in ids if f.buckets is None and f.shares is None]


def numeric_values(column: pl.Series, feature: Numeric) -> NDArray[np.float64]:
    """The numbers that a feature is fitted on and made from: float64, NaN where null, infinities as they are."""
    values: NDArray[Any] = column.cast(pl.Float64).to_numpy()
    if feature.transform == "log":
        values = np.sign(values) * np.log1p(np.abs(values))
    if feature.transform != "quantile":
        finite = np.isfinite(values)
        values = np.where(finite, np.clip(values, -_LARGEST, _LARGEST), values)
    return values


def _mean_and_deviation(moments: _core.ExactMoments) -> tuple[float, float]:
    """1 for the deviation of a constant column, or of one without values."""
    if moments.count == 0:
        return 0.0, 1.0
    return moments.mean(), moments.std() or 1.0


def _keys(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The leading bits of each number, as integers in the numbers' order; both zeros are one."""
    bits = (values + 0.0).view(np.int64)
    ordered = np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)
    return ordered >> _DROPPED_BITS


def _lowest(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """The least number of each key."""
    ordered = keys << _DROPPED_BITS
    return np.where(ordered < 0, ordered ^ np.int64(2**63 - 1), ordered).view(np.float64)


def _edges(counted: _core.Vocab, buckets: int) -> NDArray[np.float64]:
    """Where the buckets after the first begin: each boundary is the one nearest behind its share of the rows."""
    counts = counted.counts()
    if not len(counts):
        return np.zeros(0)
    keys = pl.Series(counted.arrow_values()).to_numpy()
    order = np.argsort(keys)
    keys, reached = keys[order], np.cumsum(counts[order])
    shares = -(-int(reached[-1]) * np.arange(1, buckets, dtype=object) // buckets)
    firsts = np.searchsorted(reached, shares.astype(np.int64)) + 1
    return _lowest(keys[np.unique(firsts[firsts < len(keys)])])
