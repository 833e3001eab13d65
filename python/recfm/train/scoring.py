"""Predictions and metrics of a model over batches."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recfm.data.batch import Batch
from recfm.data.batches import Batches
from recfm.data.loader import BatchSource, Loader
from recfm.errors import DataError
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
        DataError: The batches are shuffled, so their order is not that of `batches.rows`.
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
    """Each batch with its probabilities, float64 [B] on the CPU."""
    model.to(device).eval()
    with torch.inference_mode():
        for batch in Loader(batches, device=device):
            with autocast(device, precision):
                logits = model(batch)
            yield batch, logits.double().sigmoid().cpu()
