"""LoopFM from events to report, in one file to be read from top to bottom (paper: arXiv 2605.29280).

    events -> FM on period A -> freeze -> score period B and test into a log -> each row's past z -> VM on B -> test

`recfm.experiment` does it for several seeds. Every control runs beside the result. Nothing is selected on the test
period: early stopping looks at the end of the training periods only.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from recfm.config import Strict, check_range
from recfm.controls import SEQUENCE, VARIANTS, ExtraSequence, Variant, extra_sequence
from recfm.data.batches import Batches
from recfm.data.encode import Encoded, Encoder
from recfm.data.frame import check_frame, event_time
from recfm.errors import ConfigError, SchemaError
from recfm.history.compress import Autoencoder
from recfm.history.index import HistoryIndex, PastEvents
from recfm.history.log import EmbeddingLog, LogRows
from recfm.history.score import fingerprint, log_embeddings
from recfm.history.tap import Tap
from recfm.layout import SequenceLayout
from recfm.models.deepfm import DeepFM, DeepFMConfig
from recfm.models.dnn import DNN, DNNConfig
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.ranker import Ranker
from recfm.models.wukong import Wukong, WukongConfig
from recfm.periods import PeriodConfig, Periods, split_by_time
from recfm.progress import NoProgress, Progress
from recfm.schema import MAX_DELAY, MAX_LENGTH, Categorical, History, Schema
from recfm.train.losses import DistillConfig, DistilledLoss, FoundationLoss, LabelLoss
from recfm.train.metrics import Metrics, evaluate
from recfm.train.trainer import Fit, TrainConfig, Trainer, predict

VM = Literal["dnn", "deepfm"]
_PARTS: dict[str, type] = {
    "periods": PeriodConfig,
    "fm": WukongConfig,
    "fm_history": HistoryEncoderConfig,
    "fm_train": TrainConfig,
    "dnn": DNNConfig,
    "deepfm": DeepFMConfig,
    "history": HistoryEncoderConfig,
    "vm_train": TrainConfig,
    "kd": DistillConfig,
}


@dataclass(kw_only=True, slots=True)
class LoopConfig(Strict):
    """Everything that decides a run's numbers, besides data, schema and seeds."""

    vm: VM = "dnn"
    """Which vertical model."""
    length: int = 50
    """L, how many past events the VM reads."""
    delay: float = 0.0
    """Logging delay in seconds: an event's z becomes visible only so long after it."""
    z_dim: int = 32
    """d, width of a logged embedding."""
    z_hidden: int = 128
    """Hidden units of the autoencoder."""
    taps: tuple[str, ...] = ("mlp.hidden_0",)
    """Layers of the FM whose activations are logged."""
    periods: PeriodConfig = field(default_factory=PeriodConfig)
    fm: WukongConfig = field(default_factory=WukongConfig)
    fm_history: HistoryEncoderConfig = field(default_factory=HistoryEncoderConfig)
    """How the FM reads its own labelled history."""
    fm_train: TrainConfig = field(default_factory=TrainConfig)
    dnn: DNNConfig = field(default_factory=DNNConfig)
    deepfm: DeepFMConfig = field(default_factory=DeepFMConfig)
    history: HistoryEncoderConfig = field(default_factory=HistoryEncoderConfig)
    """How the VM reads the sequence of z (and every control's sequence)."""
    vm_train: TrainConfig = field(default_factory=TrainConfig)
    kd: DistillConfig = field(default_factory=DistillConfig)

    def __post_init__(self) -> None:
        if self.vm not in ("dnn", "deepfm"):
            raise ConfigError(f"vm is {self.vm!r}: use dnn or deepfm")
        for name, kind in _PARTS.items():
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a {kind.__name__}")
        taps: object = self.taps
        if isinstance(taps, str):
            raise ConfigError(f"taps is {taps!r}: give a list of layer names")
        check_range(self, "length", low=1, high=MAX_LENGTH)
        check_range(self, "z_dim", "z_hidden", low=1)
        check_range(self, "delay", low=0, high=MAX_DELAY)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained model of one seed, measured on the test period."""

    name: str
    seed: int
    metrics: Metrics
    parameters: int
    fit: Fit

    def to_dict(self) -> dict[str, Any]:
        """As the report holds it."""
        return {
            "name": self.name,
            "seed": self.seed,
            **dataclasses.asdict(self.metrics),
            "parameters": self.parameters,
            "epochs": self.fit.best_epoch,
            "seconds": self.fit.seconds,
            "curve": self.fit.curve,
        }


# ---- 1. events -> numbers and periods --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Encoded events and their periods; the same for every seed."""

    encoded: Encoded
    periods: Periods


def prepare(events: pl.DataFrame, schema: Schema, config: LoopConfig) -> Prepared:
    """Cut by time, fit the vocabularies on the FM's training rows, encode everything.

    What cannot work (a model that sees nothing, a layer that is not there) is refused here, before any training.

    Raises:
        SchemaError: Columns or features do not fit the data or the models.
        DataError: The data is unusable, or a period is empty or has one class.
        ConfigError: A tapped layer does not exist.
    """
    schema.require("user", "the loop")
    check_frame(events, schema)
    time = event_time(events, schema)
    label = events[schema.label].cast(pl.Float32).to_numpy()
    periods = split_by_time(time, label, config.periods)
    encoder = Encoder(schema).fit(events[periods.fm])
    prepared = Prepared(encoded=encoder.transform(events), periods=periods)
    if any(history.name == SEQUENCE for history in schema.of_kind(History)):
        raise SchemaError(
            f"a history cannot be named '{SEQUENCE}', the name of the logged sequence: rename it"
        )
    raw_ids(schema)
    fm_layouts = [history_layout(history) for history in seen_histories(schema, "fm")]
    Tap(build_fm(prepared, config, fm_layouts), config.taps).close()
    build_vm(prepared, config, [SequenceLayout(name=SEQUENCE, dim=config.z_dim, length=config.length)])
    return prepared


def seen_histories(schema: Schema, viewer: Literal["fm", "vm"]) -> list[History]:
    """The schema's raw-id histories that the FM or the VM reads."""
    return [h for h in schema.of_kind(History) if viewer == "fm" or h.seen_by == "both"]


def history_layout(history: History) -> SequenceLayout:
    """How a model reads one of them."""
    return SequenceLayout(name=history.name, ids=history.of, labels=history.labels, length=history.length)


def own_histories(encoded: Encoded, viewer: Literal["fm", "vm"]) -> dict[str, ExtraSequence]:
    """Those histories over all events, ready to be joined."""
    out = {}
    for history in seen_histories(encoded.schema, viewer):
        values = encoded.history_ids(history.of, labels=history.labels)
        index = HistoryIndex(encoded.user, encoded.time, values)
        past = PastEvents(index=index, length=history.length, delay=history.delay)
        out[history.name] = ExtraSequence(past=past, layout=history_layout(history))
    return out


def batches(
    prepared: Prepared,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    sequences: dict[str, ExtraSequence],
    train: TrainConfig,
    *,
    seed: int = 0,
    shuffle: bool = False,
    teacher: np.ndarray[Any, np.dtype[np.float32]] | None = None,
) -> Batches:
    """Batches of some rows with these sequences joined."""
    past = {name: sequence.past for name, sequence in sequences.items()}
    return Batches(
        prepared.encoded,
        rows,
        batch_size=train.batch_size,
        seed=seed,
        shuffle=shuffle,
        sequences=past,
        teacher=teacher,
    )


# ---- 2. FM: train on period A, freeze, log what comes after ----------------------------------------------------


def build_fm(prepared: Prepared, config: LoopConfig, sequences: list[SequenceLayout]) -> Wukong:
    """The configured foundation model."""
    layout = prepared.encoded.layout
    return Wukong(layout, config.fm, viewer="fm", sequences=sequences, history=config.fm_history)


def train_and_log(
    prepared: Prepared, config: LoopConfig, seed: int, folder: Path, progress: Progress
) -> tuple[Run, EmbeddingLog]:
    """Train the FM and its autoencoder, then score every later event into a log in `folder`."""
    torch.manual_seed(seed)
    encoded, periods, train = prepared.encoded, prepared.periods, config.fm_train
    histories = own_histories(encoded, "fm")
    model = build_fm(prepared, config, [h.layout for h in histories.values()])
    with Tap(model, config.taps) as tap:
        first = batches(prepared, periods.fm[:2], histories, train).batch(0, 0)
        with torch.no_grad():
            model(first)
        autoencoder = Autoencoder(tap.activations().shape[1], config.z_dim, hidden=config.z_hidden)
        with progress.stage("fm", "training", seed) as on_batch:
            fit = Trainer(train).fit(
                FoundationLoss(model, tap, autoencoder),
                batches(prepared, periods.fm, histories, train, seed=seed, shuffle=True),
                batches(prepared, periods.fm_validation, histories, train),
                on_batch=on_batch,
            )
        log = EmbeddingLog.create(
            folder,
            fm=fingerprint(model, autoencoder),
            dim=config.z_dim,
            trained=periods.fm_trained(encoded.time),
        )
        with progress.stage("fm", "logging", seed) as on_batch:
            later = batches(prepared, periods.logged, histories, train)
            log_embeddings(log, model, tap, autoencoder, later, device=train.device, on_batch=on_batch)
    rows = log.read()
    scores = scores_by_row(rows, len(encoded))[periods.test]
    metrics = evaluate(encoded.label[periods.test], scores, encoded.user[periods.test])
    return Run(name="fm", seed=seed, metrics=metrics, parameters=parameter_count(model), fit=fit), log


def scores_by_row(log: LogRows, rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The FM's score of each row of the encoded table, float32 [rows]; NaN where it is not logged."""
    score = np.full(rows, np.nan, np.float32)
    score[log.event] = log.score
    return score


def parameter_count(model: torch.nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters())


# ---- 3. VM: past z as a sequence feature, KD on top ------------------------------------------------------------


def build_vm(prepared: Prepared, config: LoopConfig, sequences: list[SequenceLayout]) -> Ranker:
    """The configured vertical model."""
    layout = prepared.encoded.layout
    if config.vm == "deepfm":
        return DeepFM(layout, config.deepfm, sequences=sequences, history=config.history)
    return DNN(layout, config.dnn, sequences=sequences, history=config.history)


def train_vm(
    prepared: Prepared, variant: Variant, log: LogRows, config: LoopConfig, seed: int, progress: Progress
) -> Run:
    """Train one variant of the VM on its period and measure it on the test period."""
    torch.manual_seed(seed)
    encoded, periods, train = prepared.encoded, prepared.periods, config.vm_train
    sequences = own_histories(encoded, "vm")
    extra = extra_sequence(
        variant,
        log,
        encoded,
        raw_ids(encoded.schema),
        length=config.length,
        delay=config.delay,
        seed=seed,
        tested_from=int(encoded.time[periods.test].min()),
    )
    if extra is not None:
        sequences[SEQUENCE] = extra
    model = build_vm(prepared, config, [s.layout for s in sequences.values()])
    rows = np.concatenate([periods.fm, periods.vm]) if variant.all_periods else periods.vm
    teacher = scores_by_row(log, len(encoded)) if variant.distil else None
    with progress.stage(variant.name, "training", seed) as on_batch:
        fit = Trainer(train).fit(
            DistilledLoss(model, config.kd) if variant.distil else LabelLoss(model),
            batches(prepared, rows, sequences, train, seed=seed, shuffle=True, teacher=teacher),
            batches(prepared, periods.vm_validation, sequences, train),
            on_batch=on_batch,
        )
    probability = predict(model, batches(prepared, periods.test, sequences, train), device=train.device)
    metrics = evaluate(encoded.label[periods.test], probability, encoded.user[periods.test])
    return Run(name=variant.name, seed=seed, metrics=metrics, parameters=parameter_count(model), fit=fit)


def raw_ids(schema: Schema) -> tuple[str, ...]:
    """What a past event shows in the raw-id controls: what a history is of, else the item id; only what the VM sees.

    Raises:
        SchemaError: There is no such id.
    """
    shown = {feature.name: feature for feature in schema.of_kind(Categorical) if feature.seen_by == "both"}
    for history in schema.of_kind(History):
        of = tuple(name for name in history.of if name in shown)
        if of:
            return of
    items = [name for name, feature in shown.items() if feature.side == "item"]
    if not items:
        raise SchemaError(
            "the raw-id controls need a categorical item feature that the VM sees: add the item id to the schema"
        )
    return (schema.item if schema.item and schema.item in items else items[0],)


# ---- 4. all of it, for one seed --------------------------------------------------------------------------------


def run_seed(
    prepared: Prepared, config: LoopConfig, seed: int, folder: Path, progress: Progress | None = None
) -> list[Run]:
    """FM, log, VM with and without each channel, and every control.

    Args:
        prepared: Encoded events and periods.
        config: Everything else that decides the numbers.
        seed: Of weights, shuffles and random controls.
        folder: Where the embedding log goes; must not hold one.
        progress: Where to report progress.
    """
    progress = progress or NoProgress()
    fm, log = train_and_log(prepared, config, seed, folder, progress)
    rows = log.read()
    return [fm, *(train_vm(prepared, variant, rows, config, seed, progress) for variant in VARIANTS)]
