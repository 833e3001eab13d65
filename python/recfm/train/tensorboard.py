"""TensorBoard: loss, rate and learning rate of steps, metrics of epochs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recfm.errors import ConfigError
from recfm.train.callbacks import Callback, FitStart, StepReport
from recfm.train.run import Fit


@dataclass
class TensorBoard(Callback):
    """Writes scalars for TensorBoard: `train/...` every `every` steps, `valid/...` after each epoch.

    A resumed fit adds a file that hides what the interrupted run wrote after its last checkpoint.

    Attributes:
        folder: For the event files; None = `tensorboard` in the folder of the run.
        every: Steps between points.

    Raises:
        ConfigError: (when a fit starts) tensorboard is not installed, or there is no folder.
    """

    folder: Path | None = None
    every: int = 100
    _writer: Any = field(default=None, init=False, repr=False)

    def on_fit_start(self, start: FitStart) -> None:
        folder = self.folder or (start.folder / "tensorboard" if start.folder else None)
        if folder is None:
            raise ConfigError("TensorBoard has no folder: give it one, or the trainer")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "TensorBoard needs the package tensorboard: pip install 'recfm[tensorboard]'"
            ) from None
        purge = start.done + 1 if start.done else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)  # type: ignore[no-untyped-call]

    def on_step(self, report: StepReport) -> None:
        if report.step % self.every == 0:
            self._add("train/loss", report.loss, report.step)
            self._add("train/learning_rate", report.learning_rate, report.step)
            self._add("train/rows_per_second", report.rows_per_second, report.step)

    def on_epoch_end(self, step: int, point: dict[str, float]) -> None:
        self._add("train/epoch_loss", point["train_loss"], step)
        for name, value in point.items():
            if name.startswith("valid_"):
                self._add(f"valid/{name.removeprefix('valid_')}", value, step)

    def on_fit_end(self, fit: Fit | None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)
