"""What watches a fit: the base class, and a log of JSON lines."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from torch import nn

from recfm.errors import StorageError
from recfm.files import reason, write_whole
from recfm.train.config import TrainConfig

if TYPE_CHECKING:
    from recfm.train.trainer import Fit


@dataclass(frozen=True, kw_only=True)
class FitStart:
    """What is about to be trained.

    Attributes:
        objective: The module that gives the loss; `objective.model` is the model.
        config: How it is trained.
        folder: Of the run, if it has one.
        steps: Steps of all epochs together.
        done: Steps that an earlier run did; 0 unless this one resumes it.
    """

    objective: nn.Module
    config: TrainConfig
    folder: Path | None
    steps: int
    done: int


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One step, after it is done.

    Attributes:
        step: Its number in the whole run, from 1.
        steps: Steps of all epochs together.
        epoch: From 1.
        batch: Batches done in this epoch.
        loss: Mean loss of the epoch so far (on a GPU, as of the last look at it, at most 50 steps ago).
        learning_rate: Of this step.
        rows_per_second: Training rows of all processes, since the epoch began (or was resumed).
    """

    step: int
    steps: int
    epoch: int
    batch: int
    loss: float
    learning_rate: float
    rows_per_second: float


class Callback:
    """Watches a fit; override what you need. In a distributed fit only the first process runs callbacks.

    An exception ends the fit. With a folder, `fit(..., resume=True)` goes on from the last checkpoint.
    """

    def on_fit_start(self, start: FitStart) -> None:
        """Before the first step."""

    def on_step(self, report: StepReport) -> None:
        """After each step, before a checkpoint that is due then."""

    def on_epoch_end(self, step: int, point: dict[str, float]) -> None:
        """After each epoch's validation: `point` is what joins `Fit.curve`."""

    def on_fit_end(self, fit: "Fit | None") -> None:
        """At the end, with the best weights in place; None if an exception ended the fit."""


@dataclass
class JsonLines(Callback):
    """Appends one JSON object per epoch and one every `every` steps.

    A line of a step has `step`, `epoch`, `loss`, `lr`, `rows_per_second`; one of an epoch has `step` and the point
    of the curve. A resumed fit first drops the lines that the checkpoint does not know.

    Attributes:
        path: The file; None = `log.jsonl` in the folder of the run.
        every: Steps between lines.
    """

    path: Path | None = None
    every: int = 100
    _file: IO[str] | None = field(default=None, init=False, repr=False)

    def on_fit_start(self, start: FitStart) -> None:
        path = self.path or (start.folder / "log.jsonl" if start.folder else None)
        if path is None:
            raise StorageError("the JSON log has no path: give it one, or the trainer a folder")
        write_whole(path, _known(path, start.done) if start.done else b"")
        try:
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed when the fit ends
        except OSError as error:
            raise StorageError(f"cannot write '{path}': {reason(error)}") from None

    def on_step(self, report: StepReport) -> None:
        if report.step % self.every == 0:
            self._write(
                {
                    "step": report.step,
                    "epoch": report.epoch,
                    "loss": report.loss,
                    "lr": report.learning_rate,
                    "rows_per_second": round(report.rows_per_second, 1),
                }
            )

    def on_epoch_end(self, step: int, point: dict[str, float]) -> None:
        self._write({"step": step, **point})

    def on_fit_end(self, fit: "Fit | None") -> None:
        if self._file:
            self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(f"cannot write '{self._file.name}': {reason(error)}") from None


def _known(path: Path, step: int) -> bytes:
    """The lines up to a step; a line that a kill cut short is none."""
    kept = []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return b""
    for line in lines:
        try:
            if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return b"".join(kept)
