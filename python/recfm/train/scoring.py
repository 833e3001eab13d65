"""Predictions and metrics of a model over batches."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recfm.data.batch import Batch
from recfm.data.batches import Batches
from recfm.data.loader import BatchSource, Loader
from recfm.errors import DataError, MetricError
from recfm.train.checks import beyond_a_table, id_check
from recfm.train.config import Monitor
from recfm.train.losses import refuse_shape
from recfm.train.metrics import Metrics, StreamingMetrics
from recfm.train.precision import Precision, autocast


def predict(
    model: nn.Module, batches: Batches, *, device: str = "cpu", precision: Precision = "fp32"
) -> NDArray[np.float64]:
    """Probabilities float64 [n] in the order of `batches.rows`; the model ends in evaluation mode.

    Args:
        model: Maps a batch to logits [B].
        batches: In row order.
        device: Where to compute.
        precision: Of the forward pass.

    Raises:
        DataError: The batches are shuffled, so their order is not that of `batches.rows`; or they hold ids beyond
            the model's tables.
    """
    if batches.shuffle:
        raise DataError("predict needs batches in row order: build them with shuffle=False")
    parts = [probability for _, probability in scored(model, batches, device=device, precision=precision)]
    return torch.cat(parts).numpy()


def evaluate(
    model: nn.Module, batches: BatchSource, *, device: str = "cpu", precision: Precision = "fp32"
) -> Metrics:
    """Metrics of a model on the rows of `batches`, in whatever order they come; gAUC only where there are users.

    Args:
        model: Maps a batch to logits [B].
        batches: What to evaluate on.
        device: Where to compute.
        precision: Of the forward pass.

    Raises:
        DataError: A batch holds ids beyond the model's tables.
        MetricError: All labels are the same, or a prediction is NaN.
    """
    return streamed(model, batches, device=device, precision=precision).compute()


def streamed(
    model: nn.Module, batches: BatchSource, *, device: str, precision: Precision
) -> StreamingMetrics:
    """The predictions of one worker, which merge with those of others."""
    rows, has_users = StreamingMetrics(), getattr(batches, "has_users", True)
    for batch, probability in scored(model, batches, device=device, precision=precision):
        user = batch.user.cpu().numpy() if has_users else None
        rows.update(batch.label.cpu().numpy(), probability.numpy(), user)
    return rows


def scored(
    model: nn.Module, batches: BatchSource, *, device: str, precision: Precision
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch with its probabilities, float64 [B] on the CPU.

    Raises:
        DataError: An id is beyond its embedding table.
        ConfigError: The model does not give one logit per row.
    """
    model.to(device).eval()
    check_ids = id_check(model)
    with torch.inference_mode():
        for batch in Loader(batches, device=device):
            if check_ids:
                check_ids(batch)
            try:
                with autocast(device, precision):
                    logits = model(batch)
            except IndexError as error:
                raise beyond_a_table(model, batch, error) from None
            refuse_shape(logits, batch)
            yield batch, logits.double().sigmoid().cpu()


def monitored(metrics: Metrics, monitor: Monitor) -> tuple[float, int]:
    """The value that early stopping looks at, and 1 if more is better, else -1.

    Raises:
        MetricError: gAUC is asked for, and no user has both labels.
    """
    if "gauc" in monitor and metrics.gauc is None:
        raise MetricError(
            f"monitor is '{monitor}', but no user of the validation rows has both labels, so there is no gAUC: "
            "use auc or ne"
        )
    if monitor == "auc+gauc":
        return metrics.auc + (metrics.gauc or 0.0), 1
    return getattr(metrics, monitor), -1 if monitor in ("ne", "logloss") else 1
