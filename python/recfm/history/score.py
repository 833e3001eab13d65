"""Score events with a frozen FM and log what it thought of them (LoopFM section 3.5)."""

import hashlib

import torch
from torch import nn

from recfm.data.batches import Batches
from recfm.history.compress import Autoencoder
from recfm.history.log import EmbeddingLog
from recfm.history.tap import Tap
from recfm.train.trainer import OnBatch


def fingerprint(*modules: nn.Module) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of every weight: two FMs share it only if they are the same."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def log_embeddings(
    log: EmbeddingLog,
    model: nn.Module,
    tap: Tap,
    autoencoder: Autoencoder,
    batches: Batches,
    *,
    device: str = "cpu",
    on_batch: OnBatch | None = None,
) -> None:
    """Append score and z of every row of `batches` to the log, as one segment.

    The event id of a row is its position in the encoded table. The FM sees each row's history, never its label.

    Raises:
        SchemaError: The events have no user or no time.
        LeakError: A row is not later than the period the FM trained on; nothing is written.
        LogError: The log is of another FM, or the disk refuses.
    """
    for role in ("user", "time"):
        batches.encoded.schema.require(role, "an embedding log")
    log.refuse_trained(batches.encoded.time[batches.rows], batches.rows)
    model.to(device).eval()
    autoencoder.to(device).eval()
    scores, vectors, rows = [], [], []
    with torch.inference_mode():
        for k, batch in enumerate(batches.epoch(0)):
            scores.append(model(batch.to(device)).sigmoid().cpu())
            vectors.append(autoencoder(tap.activations()).cpu())
            rows.append(batch.row)
            if on_batch:
                on_batch(k + 1, len(batches), 0.0)
    event = torch.cat(rows).numpy()
    log.append(
        user=batches.encoded.user[event],
        time=batches.encoded.time[event],
        event=event,
        score=torch.cat(scores).numpy(),
        z=torch.cat(vectors).numpy(),
        fm=fingerprint(model, autoencoder),
    )
