"""One model on one table, from a TOML file to a folder that predicts: `recfm train`, `evaluate`, `predict`.

<folder>/model.json          the model, its settings and the file's other sections
<folder>/encoder/            vocabularies and statistics of the training rows
<folder>/step-*/, log.jsonl  checkpoints and log of the trainer
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm.config import Strict, parse, read_toml
from recfm.data.encode import Encoder
from recfm.data.frame import read_events
from recfm.errors import ConfigError, DataError
from recfm.experiment import make_folder
from recfm.files import write_whole
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.ranker import Ranker
from recfm.models.zoo import model_config, preset
from recfm.schema import History
from recfm.sweep.data import PERIODS, DataSection, TrainingData, load_data
from recfm.sweep.job import EVALUATION_ROWS, make_batches, make_model
from recfm.sweep.plan import InitConfig, Setting
from recfm.train.checkpoint import load_weights
from recfm.train.config import TrainConfig
from recfm.train.distributed import shard
from recfm.train.metrics import Metrics
from recfm.train.trainer import Fit, OnBatch, Trainer

_FORMAT = 1


@dataclass(kw_only=True, slots=True)
class ModelSection(Strict):
    """Which model, and what differs from its defaults."""

    name: str
    preset: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class TrainFile(Strict):
    """A `recfm train` file."""

    data: DataSection
    model: ModelSection
    schema: dict[str, Any] | None = None
    train: dict[str, Any] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What `train_file` did; `metrics` are of the validation rows."""

    folder: Path
    fit: Fit
    metrics: Metrics


def train_file(
    path: str | Path,
    folder: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    on_batch: OnBatch | None = None,
) -> Trained:
    """Train the model of a file; in processes that torchrun started, data-parallel.

    Args:
        path: The TOML file.
        folder: Gets the model, the encoder, checkpoints and the log.
        overrides: Such as "train.epochs=3".
        resume: Go on from the latest checkpoint in `folder`.
        on_batch: Called after each step.

    Raises:
        ConfigError: A key, a model or a preset is unknown, or the folder holds another training.
        RecfmError: Whatever is wrong with the data, or the loss is NaN.
    """
    path, folder = Path(path), Path(folder)
    file = parse(TrainFile, read_toml(path, overrides), what=str(path))
    setting = _setting(file)
    config = dataclasses.replace(setting.train, seed=file.seed)  # refuses bad seeds
    data = load_data(file.data, file.schema, beside=path.parent)
    first = shard()["rank"] == 0
    if first:
        _describe(folder, file, setting, data, beside=path.parent)
    model = make_model(data, setting, file.seed)
    trainer = Trainer(config, folder=folder)
    train = make_batches(data, "train", batch_size=setting.train.batch_size, seed=file.seed, sharded=True)
    valid = make_batches(data, "valid", batch_size=EVALUATION_ROWS, sharded=True)
    fit = trainer.fit(model, train, valid, resume=resume, on_batch=on_batch if first else None)
    whole = make_batches(data, "valid", batch_size=EVALUATION_ROWS)
    return Trained(folder=folder, fit=fit, metrics=trainer.evaluate(model, whole))


def evaluate_folder(
    folder: str | Path, *, events: str | Path | None = None, period: str = "test", data: Path | None = None
) -> Metrics:
    """Metrics of the best checkpoint.

    Args:
        folder: Of a training.
        events: Parquet to evaluate on, encoded as the training rows were; by default the rows of the training's own
            `[data]`.
        period: Which of those: "train", "valid" or "test".
        data: Where the data set's folder is now.

    Raises:
        ConfigError: The folder holds no training, or there is no such period.
        RecfmError: Whatever is wrong with the data or the checkpoint.
    """
    saved = _Saved.open(Path(folder))
    if events is None:
        if period not in PERIODS:
            raise ConfigError(f"period is '{period}': use one of {', '.join(PERIODS)}")
        table = saved.own_data(data)
    else:
        table, period = saved.encode(read_events(events), name=str(events)), "test"
    model = saved.model(table)
    batches = make_batches(table, period, batch_size=EVALUATION_ROWS)
    return Trainer(saved.setting.train).evaluate(model, batches)


def predict_folder(folder: str | Path, events: str | Path) -> NDArray[np.float64]:
    """Probabilities float64 [n] of the best checkpoint for each row of a Parquet table, which needs no label.

    Args:
        folder: Of a training.
        events: Parquet file, folder or glob. Where the schema has histories, the rows' past events must be among
            them, with their labels.

    Raises:
        ConfigError: The folder holds no training.
        RecfmError: Whatever is wrong with the data or the checkpoint.
    """
    saved = _Saved.open(Path(folder))
    frame = read_events(events)
    schema = saved.encoder.schema
    if schema.label not in frame.columns:
        if any(history.labels for history in schema.of_kind(History)):
            raise DataError(f"column '{schema.label}' is missing: the model reads the labels of past events")
        frame = frame.with_columns(pl.lit(0, pl.Int8).alias(schema.label))
    table = saved.encode(frame, name=str(events))
    batches = make_batches(table, "test", batch_size=EVALUATION_ROWS)
    return Trainer(saved.setting.train).predict(saved.model(table), batches)


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """A training's folder, read."""

    folder: Path
    file: TrainFile
    setting: Setting
    beside: Path
    digest: str
    """`TrainingData.digest()` of what it was trained on."""

    @classmethod
    def open(cls, folder: Path) -> "_Saved":
        """Read `model.json`.

        Raises:
            ConfigError: There is none, or it is damaged.
        """
        path = folder / "model.json"
        if not path.exists():
            raise ConfigError(
                f"'{folder}' holds no training: there is no model.json; give the --out of `recfm train`"
            )
        saved = _read(path)
        file = parse(TrainFile, saved["file"], what=str(path))
        setting = _setting(file)
        digest = str(saved["identity"].get("data"))
        return cls(folder=folder, file=file, setting=setting, beside=Path(saved["beside"]), digest=digest)

    @property
    def encoder(self) -> Encoder:
        """The encoder that was fitted on the training rows.

        Raises:
            ConfigError: The training was on a log that came as ids.
            DataError: Its files are damaged.
        """
        folder = self.folder / "encoder"
        if not folder.exists():
            raise ConfigError(
                f"'{self.folder}' has no encoder: its log came as ids, so evaluate a --period of it"
            )
        return Encoder.from_files(lambda name: _content(folder / name))

    def own_data(self, folder: Path | None) -> TrainingData:
        """The `[data]` of the training.

        Raises:
            DataError: It is not what it was: a row may have other ids now, or have been trained on.
        """
        section = self.file.data
        if folder is not None:
            section = dataclasses.replace(section, folder=str(folder.absolute()))
        found = load_data(section, self.file.schema, beside=self.beside)
        if found.digest() != self.digest:
            raise DataError(
                f"the rows of [data] are not those that '{self.folder}' was trained on (digest {found.digest()}, then "
                f"{self.digest}): restore them, or evaluate other rows with --events"
            )
        return found

    def encode(self, frame: pl.DataFrame, *, name: str) -> TrainingData:
        """Other rows, as the training rows were encoded; all of them are the "test" period."""
        encoder = self.encoder
        encoded = encoder.transform(frame)
        rows = {"train": np.arange(0), "valid": np.arange(0), "test": np.arange(len(encoded))}
        return TrainingData(name=name, split="none", encoded=encoded, encoder=encoder, rows=rows)

    def model(self, data: TrainingData) -> Ranker:
        """The model with the weights of the best checkpoint."""
        model = make_model(data, self.setting, self.file.seed)
        load_weights(model, self.folder)
        return model


def _setting(file: TrainFile) -> Setting:
    name, chosen = file.model.name, file.model.preset
    base = preset(name, chosen) if chosen else {}
    return Setting(
        label=name,
        family=name,
        model=name,
        config=model_config(name, {**base, **file.model.settings}),
        train=parse(TrainConfig, file.train, what="section [train]"),
        init=parse(InitConfig, file.init, what="section [init]"),
        history=parse(HistoryEncoderConfig, file.history, what="section [history]"),
        seeds=(file.seed,),
    )


def _describe(folder: Path, file: TrainFile, setting: Setting, data: TrainingData, *, beside: Path) -> None:
    """Write `model.json` and the encoder, or check that those which are there are of this training."""
    mine = {
        "format": _FORMAT,
        "file": dataclasses.asdict(file),
        "beside": str(beside.absolute()),
        "identity": setting.identity() | {"seed": file.seed, "data": data.digest()},
    }
    path = folder / "model.json"
    if path.exists():
        there, here = _read(path)["identity"], json.loads(json.dumps(mine["identity"]))
        changed = [
            key for key in here if key != "train" and there.get(key) != here[key]
        ]  # the trainer checks that
        if changed:
            raise ConfigError(
                f"'{folder}' holds another training: {changed[0]} is {there.get(changed[0])} there and "
                f"{here[changed[0]]} here; choose another folder"
            )
        return
    make_folder(folder)
    if data.encoder is not None:
        make_folder(folder / "encoder")
        for name, content in data.encoder.files().items():
            write_whole(folder / "encoder" / name, content)
    write_whole(path, json.dumps(mine, indent=1).encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        whole = all(isinstance(found.get(key), dict) for key in ("file", "identity")) and "beside" in found
    except (OSError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise ConfigError(f"'{path}' is damaged: train again into another folder")
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise DataError(f"'{path}' is missing: train again into another folder") from None
