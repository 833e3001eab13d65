"""The `[data]` section of a training or sweep file: one table, encoded, with its train, valid and test rows."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.config import Strict, parse
from recfm.data.encode import Encoded, Encoder
from recfm.data.frame import check_frame, event_time, first_line, read_events
from recfm.data.side import SideTable
from recfm.datasets import movielens
from recfm.datasets.movielens_fetch import KNOWN
from recfm.datasets.synthetic import SyntheticConfig, generate
from recfm.errors import ConfigError, DataError, SchemaError
from recfm.layout import Layout, merged
from recfm.schema import Schema
from recfm.train.metrics import Metrics

Rows = NDArray[np.int64]
PERIODS = ("train", "valid", "test")


@dataclass(kw_only=True, slots=True)
class DataSection(Strict):
    """Where the rows come from: give one of `events`, `train`, `dataset` and `synthetic`."""

    events: str = ""
    """Parquet of all events (file, folder or glob), cut by time; relative to the file. Needs `[schema]`."""
    split: tuple[float, float] = (0.8, 0.1)
    """Of `events` and of MovieLens: the earliest part to train on, and the part after it to validate on."""
    train: str = ""
    """Parquet of the training rows, with `valid` and `test` beside it. Needs `[schema]`."""
    valid: str = ""
    test: str = ""
    dataset: str = ""
    """A public data set by name."""
    folder: str = ""
    """Where its files are; MovieLens is fetched if left out."""
    synthetic: dict[str, Any] | None = None
    """Keys of `SyntheticConfig`."""

    def __post_init__(self) -> None:
        given = [n for n in ("events", "train", "dataset") if getattr(self, n)]
        given += ["synthetic"] if self.synthetic is not None else []
        if len(given) != 1:
            raise ConfigError(
                f"[data] names {' and '.join(given) or 'nothing'}: give one of events, train, dataset, synthetic"
            )
        if self.train and not (self.valid and self.test):
            raise ConfigError("[data] gives train but not both valid and test: give all three, or events")
        train, valid = self.split
        if not (train > 0 and valid > 0 and train + valid < 1):
            raise ConfigError(f"[data] split is {list(self.split)}: both above 0 and together below 1")


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """An encoded table and which of its rows are for what.

    Attributes:
        name: For reports.
        split: How the rows were cut, in words.
        encoded: All rows.
        encoder: What encoded them; None for a log that came as ids.
        rows: int64 row numbers of "train", "valid" and "test".
        floor: Best metrics that are possible on each period, where the truth is known.
        sides: Features to join to batches by user or item.
        notes: What the reader of a result must know about the data.
    """

    name: str
    split: str
    encoded: Encoded
    encoder: Encoder | None
    rows: dict[str, Rows]
    floor: dict[str, Metrics] = field(default_factory=dict)
    sides: tuple[SideTable, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        """What a batch holds."""
        return merged([self.encoded.layout, *(side.layout for side in self.sides)])

    def describe(self) -> dict[str, Any]:
        """Name, split, rows and base rate of each period, and the digest, for reports."""
        label, layout = self.encoded.label, self.layout
        return {
            "name": self.name,
            "split": self.split,
            "periods": {
                name: {"rows": len(rows), "base_rate": float(label[rows].mean())}
                for name, rows in self.rows.items()
            },
            "features": [c.name for c in (*layout.categorical, *layout.tokens, *layout.numeric)],
            "digest": self.digest(),
            "notes": list(self.notes),
        }

    def digest(self) -> str:
        """Of everything that a model can read, the labels, and the cut into periods."""
        encoded = self.encoded
        arrays: list[NDArray[Any]] = [encoded.ids, encoded.numeric, encoded.user, encoded.time, encoded.label]
        arrays.extend(self.rows.values())
        for values, offsets in encoded.tokens.values():
            arrays += [values, offsets]
        sums = [_core.checksum(np.ascontiguousarray(array).reshape(-1).view(np.uint8)) for array in arrays]
        shapes = [array.shape for array in arrays]
        return hashlib.sha256(repr((sums, shapes, encoded.schema.to_json())).encode()).hexdigest()[:16]


def load_data(section: DataSection, schema: dict[str, Any] | None, *, beside: Path) -> TrainingData:
    """Read, cut and encode what a file's `[data]` names; vocabularies are learned from its training rows only.

    Args:
        section: The parsed `[data]`.
        schema: The `[schema]` section, for the user's own tables.
        beside: The folder of the file: relative paths start there.

    Raises:
        ConfigError: The section lacks something.
        SchemaError: Columns and schema disagree.
        DataError: The rows are unusable, or a period has one class only.
    """
    if section.synthetic is not None:
        found = _synthetic(parse(SyntheticConfig, section.synthetic, what="[data] synthetic"))
    elif section.dataset:
        found = _dataset(section, beside)
    else:
        if schema is None:
            raise SchemaError(
                "there is no [schema] section: it says which columns are keys and which are features"
            )
        parsed = parse(Schema, schema, what="section [schema]", error=SchemaError)
        if section.events:
            events = read_events(_path(section.events, beside))
            found = _by_time(events, parsed, section, name=Path(section.events).stem)
        else:
            frames = {name: read_events(_path(getattr(section, name), beside)) for name in PERIODS}
            found = from_frames(frames, parsed, name=Path(section.train).stem)
    _refuse_one_class(found.encoded.label, found.rows)
    return found


def _refuse_one_class(label: NDArray[np.float32], periods: dict[str, Rows]) -> None:
    for name, rows in periods.items():
        labels = label[rows]
        if len(rows) == 0 or labels.min() == labels.max():
            what = "has no rows" if len(rows) == 0 else f"has only labels {labels[0]:g} in {len(rows)} rows"
            raise DataError(
                f"the {name} period {what}: AUC and NE are undefined there; give more data or another split"
            )


def from_frames(
    frames: dict[str, pl.DataFrame],
    schema: Schema,
    *,
    name: str,
    split: str = "as given",
    notes: tuple[str, ...] = (),
    sides: tuple[SideTable, ...] = (),
) -> TrainingData:
    """Frames "train", "valid" and "test" as one encoded table; vocabularies from "train" only.

    Raises:
        SchemaError: A column is missing or has other dtypes in another period.
        DataError: A key or label is bad.
    """
    for period in PERIODS:
        check_frame(frames[period], schema)
    columns = schema.columns()
    encoder = Encoder(schema).fit(frames["train"])
    try:
        together = pl.concat([frames[period].select(columns) for period in PERIODS], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise SchemaError(f"train, valid and test have other dtypes: {first_line(error)}") from None
    edges = np.cumsum([0, *(len(frames[period]) for period in PERIODS)])
    rows = {period: np.arange(edges[i], edges[i + 1]) for i, period in enumerate(PERIODS)}
    encoded = encoder.transform(together)
    return TrainingData(
        name=name, split=split, encoded=encoded, encoder=encoder, rows=rows, notes=notes, sides=sides
    )


def _path(text: str, beside: Path) -> Path:
    path = Path(text).expanduser()
    return path if path.is_absolute() else beside / path


def _synthetic(config: SyntheticConfig) -> TrainingData:
    log = generate(config)
    rows = {period: getattr(log, period) for period in PERIODS}
    _refuse_one_class(log.encoded.label, rows)  # else there is no floor
    shares = ", ".join(f"order {i}: {share:.0%}" for i, share in enumerate(config.shares, start=1))
    return TrainingData(
        name=f"synthetic log (seed {config.seed})",
        split="by time, each event later than the one before",
        encoded=log.encoded,
        encoder=None,
        rows=rows,
        floor={period: log.floor(rows[period]) for period in PERIODS},
        notes=(f"Planted interactions, shares of the logit's variance: {shares}.",),
    )


def _dataset(section: DataSection, beside: Path) -> TrainingData:
    from recfm.datasets import ctr

    if section.dataset in KNOWN:
        rated = movielens.load(_path(section.folder, beside) if section.folder else section.dataset)
        schema = movielens.schema(rated)
        return _by_time(rated.events, schema, section, name=section.dataset, notes=(rated.acknowledgement,))
    if section.dataset.lower() not in ctr.DATASETS:
        known = ", ".join([*KNOWN, *ctr.DATASETS])
        raise ConfigError(f"there is no data set '{section.dataset}': use one of {known}")
    if not section.folder:
        raise ConfigError(
            f"[data] dataset = '{section.dataset}' needs `folder`, where its files are (or --data)"
        )
    data = ctr.load(section.dataset, _path(section.folder, beside))
    return from_frames(
        {period: _collected(getattr(data, period), data.name, period) for period in PERIODS},
        data.schema,
        name=data.name,
        split="as published",
        notes=(*data.notes, data.acknowledgement),
        sides=data.sides,
    )


def _collected(rows: pl.LazyFrame, name: str, period: str) -> pl.DataFrame:
    try:
        return rows.collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{name}, {period} rows: {first_line(error)}") from None


def _by_time(
    events: pl.DataFrame, schema: Schema, section: DataSection, *, name: str, notes: tuple[str, ...] = ()
) -> TrainingData:
    """Cut where time passes a share of the events; all events of one time stay together."""
    check_frame(events, schema)
    time = event_time(events, schema)
    ordered = np.sort(time)
    train, valid = section.split
    edges = [ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (train, train + valid)]
    period = np.searchsorted(edges, time, side="right")
    rows = {name: np.flatnonzero(period == i) for i, name in enumerate(PERIODS)}
    empty = [name for name, members in rows.items() if len(members) == 0]
    if empty:
        raise DataError(
            f"the {empty[0]} period is empty: {len(time)} events at {len(np.unique(time))} distinct times cannot be "
            "cut there; give more data or another split"
        )
    encoder = Encoder(schema).fit(events[rows["train"]])
    return TrainingData(
        name=name,
        split=f"by time: the first {train:.0%} of events to train, the next {valid:.0%} to validate, the rest to test",
        encoded=encoder.transform(events),
        encoder=encoder,
        rows=rows,
        notes=notes,
    )
