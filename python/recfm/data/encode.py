"""From an event table to ids: fit on the FM's training period, transform everything the same way."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.config import memory_bytes
from recfm.data.fit import Fitted, Fitting, fitted_vocabularies, numeric_values
from recfm.data.frame import check_frame, event_time
from recfm.data.reading import Events, TableReader
from recfm.errors import DataError, SchemaError
from recfm.layout import Column, Layout
from recfm.schema import Categorical, Numeric, Schema, Tokens, vocabulary_of

if TYPE_CHECKING:
    from recfm.data.folder import EncodedFolder

_FURTHEST = 1e4  # standard deviations; an outlier beyond it says nothing more and would swamp float32 sums
_PIECE = (2**14, 2**20)  # rows of a piece: at least, at most

Jagged = tuple[NDArray[np.int32], NDArray[np.int64]]
"""`values [total]` and `offsets [n + 1]`: row i holds values[offsets[i]:offsets[i + 1]]."""

OnRows = Callable[[str, int, int | None], None]
"""Called with what is being done ("fit" or "encode"), rows done, and rows in all if that is known."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """An event table as numbers, rows in the table's own order.

    Attributes:
        ids: int32 [n, F], columns as in `layout.categorical`.
        numeric: float32 [n, N], standardised, columns as in `layout.numeric`.
        tokens: Per token feature, its jagged ids.
        user: int64 [n], the user key itself, or XXH3 of a string key; zeros where the schema has none.
        item: int64 [n], likewise.
        time: int64 [n], microseconds; zeros where the schema has none.
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

    Ids: 0 = padding, 1 = out of vocabulary (and null), then by falling count, ties by value. Tables of any size:
    `fit` and `encode` read a file, folder, glob or Arrow producer in pieces, within a memory budget, and give what
    they would give on the whole table at once.

    Example:
        >>> encoder = Encoder(schema).fit("train/*.parquet", memory="2GiB")      # doctest: +SKIP
        >>> encoder.encode("all/*.parquet", "encoded", memory="2GiB")            # doctest: +SKIP
        >>> encoded = encoder.transform(frame)                                   # doctest: +SKIP
    """

    def __init__(self, schema: Schema, fitted: Fitted | None = None) -> None:
        self.schema = schema
        self._fitted = fitted

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as its files."""
        if self._fitted is None:
            return Encoder, (self.schema,)
        return _from_files, (self.files(),)

    def fit(self, events: Events, *, memory: str | int = "2GiB", on_rows: OnRows | None = None) -> "Encoder":
        """Learn vocabularies and numeric statistics from these rows, which must be training rows only.

        Args:
            events: The training rows.
            memory: What reading and counting may take, such as "2GiB".
            on_rows: Called after every piece.

        Raises:
            SchemaError: A column is missing or has a dtype that its feature cannot take.
            DataError: The table is empty or unreadable, a key is null, a label is not 0 or 1, or the
                vocabularies do not fit the budget.
            ConfigError: `memory` is no size.
        """
        budget, fitting = memory_bytes(memory), Fitting(self.schema)
        source = TableReader(events, self.schema.columns())
        for frame in source.pieces(piece_rows(self.schema, budget)):
            check_frame(frame, self.schema, first_row=fitting.rows)
            fitting.add(frame)
            fitting.check_memory(budget // 2)
            if on_rows:
                on_rows("fit", fitting.rows, source.rows)
        self._fitted = fitting.finish()
        return self

    def transform(self, frame: pl.DataFrame, *, first_row: int = 0) -> Encoded:
        """Encode any rows of the same schema.

        Args:
            frame: The rows.
            first_row: Which row of its table the frame begins with, for errors.

        Raises:
            SchemaError: A column is missing or has a dtype that its feature cannot take.
            DataError: The encoder was not fitted, or a key or label is bad.
        """
        fitted = self.fitted
        check_frame(frame, self.schema, first_row=first_row)
        schema, n = self.schema, len(frame)
        categorical = schema.of_kind(Categorical)
        ids = np.empty((n, len(categorical)), np.int32)
        _core.encode_ids([frame[f.name] for f in categorical], [self._ids_of(f) for f in categorical], ids)
        numeric, buckets = [], []
        for feature in schema.of_kind(Numeric):
            values = numeric_values(frame[feature.name], feature)
            if feature.transform == "quantile":
                buckets.append(_bucketed(values, fitted.edges[feature.name]))
            else:
                numeric.append(_standardised(values, *fitted.moments[feature.name]))
        return Encoded(
            schema=schema,
            layout=self.layout,
            ids=np.column_stack([ids, *buckets]) if buckets else ids,
            numeric=np.stack(numeric, axis=1) if numeric else np.zeros((n, 0), np.float32),
            tokens={
                f.name: self._ids_of(f).encode_lists(frame[f.name], max_length=f.max_length)
                for f in schema.of_kind(Tokens)
            },
            user=_key(frame, schema.user),
            item=_key(frame, schema.item),
            time=np.zeros(n, np.int64)
            if schema.time is None
            else event_time(frame, schema, first_row=first_row),
            label=frame[schema.label].cast(pl.Float32).to_numpy().copy(),
        )

    def encode(
        self,
        events: Events,
        folder: str | Path,
        *,
        memory: str | int = "2GiB",
        on_rows: OnRows | None = None,
    ) -> "EncodedFolder":
        """Encode a table of any size into a new folder; it appears whole, or not at all.

        Args:
            events: The table.
            folder: Must not exist yet.
            memory: What reading and encoding may take, such as "2GiB".
            on_rows: Called after every piece.

        Raises:
            SchemaError: A column is missing or has a dtype that its feature cannot take.
            DataError: The encoder was not fitted, the table is unreadable, or a key or label is bad.
            StorageError: The folder exists, or the disk refuses.
            ConfigError: `memory` is no size.
        """
        from recfm.data.folder import BLOCK_ROWS, EncodedFolder, FolderWriter

        rows = max(piece_rows(self.schema, memory_bytes(memory)) // BLOCK_ROWS, 1) * BLOCK_ROWS
        source = TableReader(events, self.schema.columns())
        done = 0
        with FolderWriter(folder, self) as writer:
            for frame in source.pieces(rows):
                writer.append(self.transform(frame, first_row=done))
                done += len(frame)
                if on_rows:
                    on_rows("encode", done, source.rows)
            if not done:
                raise DataError(
                    "the event table has no rows; a stream that can be read only once must be given as a function "
                    "that makes it afresh"
                )
            writer.commit()
        return EncodedFolder(folder)

    @property
    def fitted(self) -> Fitted:
        """What was learned.

        Raises:
            DataError: Nothing yet.
        """
        if self._fitted is None:
            raise DataError("the encoder has not been fitted: call fit(training_rows) first")
        return self._fitted

    @property
    def layout(self) -> Layout:
        """Names, table sizes and sides of the encoded features; bucketed numbers come behind the categoricals."""
        numbers = self.schema.of_kind(Numeric)
        categorical: list[Categorical | Numeric] = list(self.schema.of_kind(Categorical))
        categorical += [f for f in numbers if f.transform == "quantile"]
        return Layout(
            categorical=tuple(self._column(f) for f in categorical),
            tokens=tuple(self._column(f) for f in self.schema.of_kind(Tokens)),
            numeric=tuple(
                Column(name=f.name, rows=0, side=f.side, seen_by=f.seen_by)
                for f in numbers
                if f.transform != "quantile"
            ),
        )

    def _column(self, feature: Categorical | Tokens | Numeric) -> Column:
        # Padding, null, and one bucket more than there are edges.
        edges = self.fitted.edges
        rows = len(edges[feature.name]) + 3 if isinstance(feature, Numeric) else len(self._ids_of(feature))
        shares = "" if isinstance(feature, Numeric) else feature.shares or ""
        return Column(name=feature.name, rows=rows, side=feature.side, seen_by=feature.seen_by, shares=shares)

    def _ids_of(self, feature: Categorical | Tokens) -> "_core.Vocab | _core.Hasher":
        name = vocabulary_of(feature)
        if name in self.fitted.vocabularies:
            return self.fitted.vocabularies[name]
        owner = next(f for f in self.schema.features if f.name == name)
        assert isinstance(owner, Categorical | Tokens)  # the schema refuses anything else
        assert owner.buckets is not None  # all others were fitted
        return _core.Hasher(name=name, buckets=owner.buckets)

    def files(self) -> dict[str, bytes]:
        """The encoder as files: a schema, the numbers, and a Parquet table for each vocabulary."""
        fitted = self.fitted
        numbers = {
            "moments": {name: list(pair) for name, pair in fitted.moments.items()},
            "edges": {name: edges.tolist() for name, edges in fitted.edges.items()},
        }
        files = {"schema.json": self.schema.to_json().encode(), "numbers.json": json.dumps(numbers).encode()}
        for place, (name, vocab) in enumerate(fitted.vocabularies.items()):
            values = pl.Series("value", pl.Series(vocab.arrow_values()))
            table = pl.DataFrame([values, pl.Series("count", vocab.counts())])
            files[_vocab_file(place, name)] = _parquet_bytes(table)
        return files

    @staticmethod
    def from_files(read: Callable[[str], bytes]) -> "Encoder":
        """The encoder of `files`, read by name.

        Raises:
            SchemaError: The schema is not valid.
            DataError: A vocabulary or number is missing or not of a fit.
        """
        schema = Schema.from_json(read("schema.json").decode())
        try:
            numbers = json.loads(read("numbers.json"))
            moments = {name: (float(mean), float(std)) for name, (mean, std) in numbers["moments"].items()}
            edges = {name: np.array(edge, np.float64) for name, edge in numbers["edges"].items()}
            vocabularies = {}
            for place, feature in enumerate(fitted_vocabularies(schema)):
                table = pl.read_parquet(read(_vocab_file(place, feature.name)))
                vocabularies[feature.name] = _core.Vocab.from_values(
                    table["value"], table["count"].to_numpy(), name=feature.name
                )
            for feature in schema.of_kind(Numeric):
                if feature.name not in (edges if feature.transform == "quantile" else moments):
                    raise KeyError(feature.name)
        except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
            if isinstance(error, DataError | SchemaError):
                raise
            raise DataError(f"the saved encoder is not valid ({type(error).__name__}: {error})") from None
        return Encoder(schema, Fitted(vocabularies=vocabularies, moments=moments, edges=edges))


def _from_files(files: dict[str, bytes]) -> Encoder:
    return Encoder.from_files(files.__getitem__)


def _key(frame: pl.DataFrame, column: str | None) -> NDArray[np.int64]:
    return np.zeros(len(frame), np.int64) if column is None else _core.hash_keys(frame[column], name=column)


def piece_rows(schema: Schema, budget: int) -> int:
    """Rows to read at a time: a quarter of the budget at a guess of what a row takes on its way."""
    width = 64 * len(schema.columns()) + 256 * len(schema.of_kind(Tokens))
    return min(max(budget // 4 // width, _PIECE[0]), _PIECE[1])


def _vocab_file(place: int, name: str) -> str:
    readable = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:60]
    return f"vocab-{place:03d}-{readable}.parquet"


def _parquet_bytes(table: pl.DataFrame) -> bytes:
    import io

    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _standardised(values: NDArray[np.float64], mean: float, deviation: float) -> NDArray[np.float32]:
    scaled = np.clip((values - mean) / deviation, -_FURTHEST, _FURTHEST)
    return np.nan_to_num(scaled).astype(np.float32)


def _bucketed(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int32]:
    """2 and up for the buckets, 1 for NaN."""
    ids = np.searchsorted(edges, values, side="right") + 2
    return np.where(np.isnan(values), 1, ids).astype(np.int32)
