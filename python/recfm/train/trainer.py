"""Fit, evaluate and predict: any module that maps a batch to logits, or an objective with losses of its own."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from recfm.data.batches import Batches
from recfm.data.loader import BatchSource
from recfm.errors import ConfigError, StorageError
from recfm.files import reason
from recfm.storage import CHECKPOINT, locked
from recfm.train.callbacks import Callback, JsonLines
from recfm.train.checkpoint import Checkpoints
from recfm.train.config import TrainConfig
from recfm.train.distributed import join
from recfm.train.losses import LabelLoss, Objective
from recfm.train.metrics import Metrics
from recfm.train.run import Fit, OnBatch, Run
from recfm.train.scoring import evaluate, predict

__all__ = ["Fit", "OnBatch", "TrainConfig", "Trainer", "predict"]


class Trainer:
    """Trains modules and evaluates them.

    Args:
        config: How to train.
        callbacks: What watches a fit.
        folder: Of the run: gets checkpoints (the latest and the best) and `log.jsonl`. Without it nothing is
            written, and the best weights are kept in memory.

    Example:
        >>> trainer = Trainer(TrainConfig(epochs=20, patience=2), folder="runs/dnn")       # doctest: +SKIP
        >>> fit = trainer.fit(model, train, valid)                                          # doctest: +SKIP
        >>> trainer.evaluate(model, test)                                                   # doctest: +SKIP
    """

    def __init__(
        self,
        config: TrainConfig | None = None,
        *,
        callbacks: Iterable[Callback] = (),
        folder: str | Path | None = None,
    ) -> None:
        self.config = config or TrainConfig()
        self.callbacks = tuple(callbacks)
        self.folder = None if folder is None else Path(os.path.expanduser(folder))

    def fit(
        self,
        model: nn.Module,
        train: BatchSource,
        valid: BatchSource | None = None,
        *,
        resume: bool = False,
        on_batch: OnBatch | None = None,
    ) -> Fit:
        """Train until the monitored metric stops improving; the model ends with its best epoch's weights.

        In processes that torchrun started, this is data-parallel training; see `recfm.train.distributed`.

        Args:
            model: Maps a batch to logits [B], trained on the label; or an `Objective`, which gives its own loss.
            train: What to train on.
            valid: What early stopping looks at; None trains for all epochs and keeps the last weights.
            resume: Go on from the latest checkpoint in `folder`, or start where there is none. On a CPU the
                weights are those of a run that was never interrupted, bit for bit.
            on_batch: Called after each step with (steps done, steps in all, running loss).

        Raises:
            RecfmError: The loss is NaN or infinite; the message names the step and the largest gradients.
            MetricError: The validation rows have one class only, or no gAUC is there to monitor.
            DataError: A batch holds ids beyond the model's tables, or a checkpoint is of other rows.
            ConfigError: Settings do not fit each other, the data or the checkpoint; the folder holds another run.
            SchemaError: A checkpoint is of another schema or vocabulary.
            StorageError: A checkpoint is damaged or cannot be written.
        """
        objective = model if isinstance(model, Objective) else LabelLoss(model)
        if resume and self.folder is None:
            raise ConfigError("resume needs the folder of the run: Trainer(config, folder=...)")
        callbacks = ((JsonLines(),) if self.folder else ()) + self.callbacks
        world = join(self.config.device)
        with contextlib.ExitStack() as stack:
            if self.folder and world.first:
                _make(self.folder)
                stack.enter_context(locked(self.folder, CHECKPOINT))
                if len(Checkpoints(self.folder)) and not resume:
                    raise ConfigError(
                        f"'{self.folder}' holds checkpoints of a run: go on with resume=True, or choose another folder"
                    )
            run = Run(
                objective,
                train,
                valid,
                self.config,
                world=world,
                callbacks=callbacks,
                folder=self.folder,
                on_batch=on_batch,
            )
            if resume and self.folder and len(Checkpoints(self.folder)):
                run.resume()
            return run.train()

    def evaluate(self, model: nn.Module, batches: BatchSource) -> Metrics:
        """Metrics of a model on the rows of `batches`, on the config's device and in its precision.

        Raises:
            MetricError: All labels are the same, or a prediction is NaN.
        """
        return evaluate(model, batches, device=self.config.device, precision=self.config.precision)

    def predict(self, model: nn.Module, batches: Batches) -> NDArray[np.float64]:
        """Probabilities float64 [n] in the order of `batches.rows`.

        Raises:
            DataError: The batches are shuffled.
        """
        return predict(model, batches, device=self.config.device, precision=self.config.precision)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create '{folder}': {reason(error)}") from None
