"""One fit in progress: the loop over epochs, and what of it a checkpoint holds."""

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recfm import _core
from recfm.data.encode import Encoded
from recfm.data.loader import Loader
from recfm.errors import ConfigError, MetricError, RecfmError
from recfm.layout import Layout
from recfm.train import checkpoint as files
from recfm.train.callbacks import Callback, FitStart, StepReport
from recfm.train.checkpoint import Checkpoints
from recfm.train.checks import largest_gradients
from recfm.train.config import TrainConfig
from recfm.train.distributed import World
from recfm.train.losses import Objective
from recfm.train.metrics import Metrics
from recfm.train.optim import Schedule, build_optimizers
from recfm.train.resume import digests, refuse_data, rng_state, set_rng_state
from recfm.train.scoring import monitored, streamed
from recfm.train.step import Losses, Step

OnBatch = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, running loss)."""

_MAY_DIFFER = ("device", "compile", "checkpoint_every")
"""Settings that a resumed fit may change; `epochs` too, unless the schedule depends on it."""


@dataclass(kw_only=True)
class Fit:
    """What happened in one training.

    Attributes:
        curve: Per epoch: epoch (from 1), train_loss, learning_rate (at its end), and with validation valid_ne,
            valid_auc, valid_logloss and, where there are users, valid_gauc.
        best_epoch: The epoch whose weights the model now has.
        seconds: Wall time, of the interrupted runs before too.
        steps: Steps done.
    """

    curve: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    steps: int = 0


@dataclass(kw_only=True)
class Position:
    """Where a fit is, as `state.json` holds it.

    Attributes:
        step: Steps done.
        epoch: The epoch at work, from 1.
        batch: Batches done of it.
        loss_sum: Sum of their losses.
        best: The best value of the monitored metric.
        stale: Epochs since then.
        stopped: Early stopping has ended the fit.
        fit: What becomes the result.
    """

    step: int = 0
    epoch: int = 1
    batch: int = 0
    loss_sum: float = 0.0
    best: float | None = None
    stale: int = 0
    stopped: bool = False
    fit: Fit = field(default_factory=Fit)


class Run:
    """Trains an objective until it is done; see `Trainer.fit`."""

    def __init__(
        self,
        objective: Objective,
        train: Any,
        valid: Any,
        config: TrainConfig,
        *,
        world: World,
        callbacks: Sequence[Callback],
        folder: Path | None,
        on_batch: OnBatch | None,
    ) -> None:
        self._objective, self._train, self._valid, self._config = objective, train, valid, config
        self._world, self._on_batch, self._folder = world, on_batch, folder
        self._callbacks = tuple(callbacks) if world.first else ()
        self._check()
        if config.seed is not None:
            torch.manual_seed(config.seed + world.rank)
        objective.to(world.device)
        self._optimizers = build_optimizers(objective, config)
        self._total = config.epochs * len(train)
        self._schedule = Schedule(self._optimizers, config, self._total)
        self._layout: Layout | None = getattr(train, "layout", None)
        self._step = Step(objective, self._optimizers, config, world, self._layout)
        self._loader = Loader(train, device=world.device, start=(1, 0))
        self._losses = Losses(world)
        self._at = Position()
        self._checkpoints = Checkpoints(folder) if folder else None
        self._data = digests(next(train.epoch(0))) if folder else {}
        self._best: dict[str, Any] | None = None
        self._best_checkpoint: str | None = None
        self._rate = config.learning_rate

    def train(self) -> Fit:
        """All epochs that are left, then the best weights."""
        at, fit = self._at, self._at.fit
        started, before = time.perf_counter(), fit.seconds
        start = FitStart(
            objective=self._objective,
            config=self._config,
            folder=self._folder,
            steps=self._total,
            done=at.step,
        )
        result = None
        try:
            for callback in self._callbacks:
                callback.on_fit_start(start)
            while at.epoch <= self._config.epochs and not at.stopped:
                self._epoch()
                fit.seconds = before + time.perf_counter() - started
                self._end_epoch()
            self._restore_best()
            fit.seconds, fit.steps = before + time.perf_counter() - started, at.step
            result = fit
        finally:
            self._loader.close()
            for callback in self._callbacks:
                callback.on_fit_end(result)
        return fit

    # ---- an epoch ------------------------------------------------------------------------------------------------

    def _epoch(self) -> None:
        at = self._at
        self._objective.train()
        self._losses.sum, self._losses.count = at.loss_sum, at.batch
        if at.batch == len(self._train):
            return
        started, rows = time.perf_counter(), 0
        for batch in self._loader:
            self._rate = self._schedule.set(at.step)
            loss = self._step.loss(batch)
            self._refuse_diverged(self._losses.add(loss))
            self._step.update(loss)
            at.step, at.batch = at.step + 1, at.batch + 1
            rows += len(batch) * self._world.size
            self._report(rows / (time.perf_counter() - started))
            every = self._config.checkpoint_every
            if every and at.step % every == 0 and at.batch < len(self._train):
                self._checkpoint(best=False)
        self._refuse_diverged(self._losses.read())

    def _report(self, rows_per_second: float) -> None:
        at = self._at
        if self._on_batch and self._world.first:
            self._on_batch(at.step, self._total, self._losses.mean)
        if self._callbacks:
            report = StepReport(
                step=at.step,
                steps=self._total,
                epoch=at.epoch,
                batch=at.batch,
                loss=self._losses.mean,
                learning_rate=self._rate,
                rows_per_second=rows_per_second,
            )
            for callback in self._callbacks:
                callback.on_step(report)

    def _end_epoch(self) -> None:
        at, fit, last = self._at, self._at.fit, self._at.epoch == self._config.epochs
        point = {
            "epoch": at.epoch,
            "train_loss": self._losses.sum / len(self._train),
            "learning_rate": self._rate,
        }
        better = True
        if self._valid is not None:
            metrics = self._validate()
            point |= {
                f"valid_{name}": value
                for name, value in dataclasses.asdict(metrics).items()
                if value is not None
            }
            value, sign = monitored(metrics, self._config.monitor)
            better = at.best is None or sign * (value - at.best) > self._config.min_delta
            if better:
                at.best = value
        fit.curve.append(point)
        if better:
            at.stale, fit.best_epoch = 0, at.epoch
            if self._checkpoints is None and not last:
                self._best = copy.deepcopy(self._objective.state_dict())
        else:
            at.stale += 1
            self._schedule.stalled()
            at.stopped = at.stale >= self._config.patience
        for callback in self._callbacks:
            callback.on_epoch_end(at.step, point)
        at.epoch, at.batch = at.epoch + 1, 0
        self._losses.sum, self._losses.count = 0.0, 0
        self._checkpoint(best=better)

    def _validate(self) -> Metrics:
        self._world.copy_from_first(
            self._objective, parameters=False
        )  # batch norm's statistics differ by process
        model, config = self._objective.model, self._config
        mine = streamed(model, self._valid, device=str(self._world.device), precision=config.precision)
        rows = self._world.merged(mine)
        try:
            return rows.compute()
        except MetricError as error:
            raise MetricError(f"epoch {self._at.epoch}: the {len(rows)} validation rows: {error}") from None

    def _restore_best(self) -> None:
        if self._at.stale:  # else the weights are the best epoch's
            if self._best is not None:
                self._objective.load_state_dict(self._best)
            elif self._checkpoints is not None:
                if self._world.first:
                    best = self._checkpoints.best()
                    files.load_module(self._objective, files.read_tensors(best, files.MODEL), best)
                self._world.copy_from_first(self._objective)
        self._objective.eval()

    # ---- what can go wrong ---------------------------------------------------------------------------------------

    def _check(self) -> None:
        config, valid = self._config, self._valid
        self._world.check_shard(self._train, "training")
        if valid is None:
            if config.schedule == "plateau":
                raise ConfigError("schedule is 'plateau', which looks at validation: give `valid` batches")
            return
        self._world.check_shard(valid, "validation")
        if "gauc" in config.monitor and not getattr(valid, "has_users", True):
            raise ConfigError(
                f"monitor is {config.monitor!r}, but the validation rows have no user key: use auc or ne"
            )
        table = getattr(valid, "_table", None)
        if self._world.size == 1 and isinstance(table, Encoded):
            label = table.label[valid.rows]
            if np.all(label == label[0]):
                raise MetricError(
                    f"all labels of the {len(label)} validation rows are {label[0]:g}: AUC and NE are undefined; "
                    "choose validation rows of both classes"
                )

    def _refuse_diverged(self, value: float | None) -> None:
        if value is None:
            return
        at, k = self._at, self._losses.count
        gradients, when = largest_gradients(self._objective), "the step before"
        if not gradients and self._world.size == 1:
            when = "this step"
        step = at.step - at.batch + k + 1
        message = f"the loss is {value} at epoch {at.epoch}, step {k + 1} (step {step} in all)"
        if gradients:
            message += f"; the largest gradients of {when}: {gradients}"
        raise self._diverged(message)

    def _refuse_broken_weights(self) -> None:
        """A finite loss may have had a gradient that was not; such weights replace no good checkpoint."""
        for name, parameter in self._objective.named_parameters():
            if not torch.isfinite(parameter.detach()).all():
                raise self._diverged(
                    f"'{name}' holds values that are not finite after step {self._at.step}; the largest gradients of "
                    f"that step: {largest_gradients(self._objective)}"
                )

    def _diverged(self, message: str) -> RecfmError:
        if self._checkpoints is not None and len(self._checkpoints):
            message += f"; the last good checkpoint is '{self._checkpoints.latest()}'"
        return RecfmError(f"{message}: lower learning_rate (now {self._rate:g}) or set clip_norm")

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _checkpoint(self, *, best: bool) -> None:
        if self._checkpoints is None:
            return
        self._refuse_diverged(self._losses.read())
        self._refuse_broken_weights()
        self._at.loss_sum = self._losses.sum
        rng = self._world.gather(rng_state())
        if not self._world.first:
            return
        state = {
            "recfm": _core.build_info()["version"],
            "torch": torch.__version__,
            "objective": type(self._objective).__name__,
            "model": type(self._objective.model).__name__,
            "config": dataclasses.asdict(self._config),
            "layout": files.layout_values(self._layout) if self._layout else None,
            "columns": self._data,
            "position": dataclasses.asdict(self._at),
            "data": self._loader.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._step.scaler.state_dict(),
            "best_checkpoint": self._best_checkpoint,
        }
        tensors = {f"{name}.{rank}": value for rank, one in enumerate(rng) for name, value in one.items()}
        written = self._checkpoints.write(
            self._at.step, self._objective, self._optimizers, tensors, state, best=best
        )
        if best:
            self._best_checkpoint = written.name

    def resume(self) -> None:
        """Go on from the latest checkpoint.

        Raises:
            StorageError: There is none, or it is damaged.
            SchemaError: It is of another schema or vocabulary.
            ConfigError: It is of another config or model.
            DataError: It is of other rows, or batches in another order.
        """
        assert self._checkpoints is not None
        folder = self._checkpoints.latest()
        state = files.read_state(folder)
        if self._layout is not None and state["layout"] is not None:
            files.refuse_layout(state["layout"], files.layout_values(self._layout), folder)
        self._refuse_config(state["config"], folder)
        if self._world.first:
            refuse_data(state["columns"], self._data, folder)
        for name, mine in (("objective", self._objective), ("model", self._objective.model)):
            if state[name] != type(mine).__name__:
                raise ConfigError(
                    f"'{folder}' is a checkpoint of another model: its {name} is a {state[name]}, this one a "
                    f"{type(mine).__name__}"
                )
        files.load_module(self._objective, files.read_tensors(folder, files.MODEL), folder)
        tensors = files.read_tensors(folder, files.OPTIMIZER)
        rng = {
            name.removeprefix("rng."): tensors.pop(name) for name in list(tensors) if name.startswith("rng.")
        }
        files.load_optimizers(self._optimizers, tensors, state["optimizers"])
        self._schedule.load_state_dict(state["schedule"])
        self._step.scaler.load_state_dict(state["scaler"])
        position = dict(state["position"])
        self._at = Position(**(position | {"fit": Fit(**position["fit"])}))
        self._best_checkpoint = state["best_checkpoint"]
        self._loader.load_state_dict(
            state["data"] | ({"rank": self._world.rank} if self._world.size > 1 else {})
        )
        set_rng_state(rng, self._world.rank)

    def _refuse_config(self, saved: dict[str, Any], folder: Path) -> None:
        free = _MAY_DIFFER + (() if self._config.schedule == "cosine" else ("epochs",))
        mine = dataclasses.asdict(self._config)
        for name, value in mine.items():
            if name not in free and saved.get(name) != value:
                raise ConfigError(
                    f"'{folder}' was trained with {name} = {saved.get(name)!r}, and this config has {value!r}: "
                    "resume with the config of the run, or choose another folder"
                )
