"""A small trainer: epochs of Adam, early stopping on validation NE, the best weights back at the end."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recfm import _core
from recfm.config import Strict, check_range
from recfm.data.batches import Batches
from recfm.data.loader import Loader
from recfm.errors import ConfigError, DataError, RecfmError

OnBatch = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, running loss)."""


@dataclass(kw_only=True, slots=True)
class TrainConfig(Strict):
    """How a model is trained."""

    epochs: int = 5
    """At most so many passes over the rows."""
    batch_size: int = 1024
    learning_rate: float = 1e-3
    """Of Adam."""
    weight_decay: float = 0.0
    """Decoupled (AdamW), on every parameter."""
    patience: int = 1
    """Stop after so many epochs in a row without a better validation NE."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_range(self, "epochs", "batch_size", "patience", low=1)
        check_range(self, "learning_rate", low=1e-12, high=1e3)
        check_range(self, "weight_decay", low=0, high=1e3)
        if not isinstance(self.device, str):
            raise ConfigError(f"device is {self.device!r}: give a name such as 'cpu' or 'cuda'")
        try:
            torch.empty(0, device=self.device).cpu()
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"device '{self.device}' cannot be used ({reason}): use cpu, or see `recfm doctor`"
            ) from None


@dataclass(kw_only=True)
class Fit:
    """What happened in one training.

    Attributes:
        curve: Per epoch: epoch (from 1), train_loss, valid_ne, valid_auc.
        best_epoch: The epoch whose weights the model now has.
        seconds: Wall time.
    """

    curve: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains an objective (a module that maps a batch to a loss and has a `model`) and evaluates its model."""

    def __init__(self, config: TrainConfig | None = None) -> None:
        self.config = config or TrainConfig()

    def fit(
        self, objective: nn.Module, train: Batches, valid: Batches, *, on_batch: OnBatch | None = None
    ) -> Fit:
        """Train until validation NE stops falling; the objective ends with its best epoch's weights.

        Raises:
            RecfmError: The loss is NaN or infinite; the message names the step.
            MetricError: The validation rows have one class only.
        """
        device = torch.device(self.config.device)
        objective.to(device)
        optimizer = torch.optim.AdamW(
            objective.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        fit, best_ne, best_weights, stale = Fit(), math.inf, copy.deepcopy(objective.state_dict()), 0
        started, total = time.perf_counter(), self.config.epochs * len(train)
        for epoch in range(1, self.config.epochs + 1):
            objective.train()
            loss_sum = 0.0
            for k, batch in enumerate(Loader(train, device=device, start=(epoch, 0))):
                loss = objective(batch)
                value = loss.item()
                if not math.isfinite(value):
                    raise RecfmError(
                        f"the loss is {value} at epoch {epoch}, step {k}: "
                        f"lower learning_rate (now {self.config.learning_rate:g})"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                loss_sum += value
                if on_batch:
                    on_batch((epoch - 1) * len(train) + k + 1, total, loss_sum / (k + 1))
            ne, auc = self._validate(objective, valid)
            fit.curve.append(
                {"epoch": epoch, "train_loss": loss_sum / len(train), "valid_ne": ne, "valid_auc": auc}
            )
            if ne < best_ne:
                best_ne, best_weights, stale = ne, copy.deepcopy(objective.state_dict()), 0
                fit.best_epoch = epoch
            else:
                stale += 1
                if stale >= self.config.patience:
                    break
        objective.load_state_dict(best_weights)
        fit.seconds = time.perf_counter() - started
        return fit

    def _validate(self, objective: nn.Module, valid: Batches) -> tuple[float, float]:
        label, probability = _scored(objective.model, valid, self.config.device)  # type: ignore[arg-type]
        return _core.normalized_entropy(label, probability), _core.auc(label, probability)


def predict(model: nn.Module, batches: Batches, *, device: str = "cpu") -> NDArray[np.float64]:
    """Probabilities float64 [n] in the order of `batches.rows`.

    Raises:
        DataError: The batches are shuffled, so their order is not that of `batches.rows`.
    """
    return _scored(model, batches, device)[1]


def _scored(
    model: nn.Module, batches: Batches, device: str
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Labels and probabilities, each [n]."""
    if batches.shuffle:
        raise DataError("predict needs batches in row order: build them with shuffle=False")
    model.to(device).eval()
    labels, probabilities = [], []
    with torch.inference_mode():
        for batch in Loader(batches, device=device):
            labels.append(batch.label.cpu())
            probabilities.append(model(batch).double().sigmoid().cpu())
    return torch.cat(labels).numpy(), torch.cat(probabilities).numpy()
