"""What the VM reads beside its features, in the result rows and in the controls that always run beside them.

Each variant is the same VM with the same training; only the sequence it reads, the distillation or the training
rows differ. A control shows what part of LoopFM's gain needs no FM at all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recfm.data.encode import Encoded
from recfm.errors import ConfigError, DataError
from recfm.history.index import HistoryIndex, PastEvents
from recfm.history.log import LogRows
from recfm.layout import SequenceLayout

SEQUENCE = "loopfm"
"""Name of the extra sequence in a batch."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train the VM; what each means stands in `recfm.report.summary.WHAT`."""

    name: str
    distil: bool = False
    all_periods: bool = False


VARIANTS = (
    Variant(name="vm"),
    Variant(name="vm+kd", distil=True),
    Variant(name="vm+loopfm"),
    Variant(name="vm+kd+loopfm", distil=True),
    Variant(name="control:random-event"),
    Variant(name="control:random-item"),
    Variant(name="control:count"),
    Variant(name="control:score"),
    Variant(name="control:raw-ids"),
    Variant(name="control:raw-ids+labels"),
    Variant(name="control:vm-all-periods", all_periods=True),
)


@dataclass(frozen=True, kw_only=True)
class ExtraSequence:
    """A sequence to join to the VM's batches, and how a model reads it."""

    past: PastEvents
    layout: SequenceLayout


def extra_sequence(
    variant: Variant,
    log: LogRows,
    encoded: Encoded,
    raw: tuple[str, ...],
    *,
    length: int,
    delay: float,
    seed: int,
    tested_from: int,
) -> ExtraSequence | None:
    """What `variant` reads: always of the same events (those in the log) with the same delay, and the same
    length, but for `control:count`, which counts all of them.

    Args:
        variant: One of `VARIANTS`.
        log: The embedding log; its event ids are row positions of `encoded`.
        encoded: The event table.
        raw: Which raw ids an event shows in the raw-id controls.
        length: L.
        delay: Seconds.
        seed: Of the random vectors.
        tested_from: First time of the test period, microseconds: the random vectors take their spread from before.
    """
    if variant.name in ("vm", "vm+kd", "control:vm-all-periods"):
        return None
    if len(log) == 0 or log.event.min() < 0 or log.event.max() >= len(encoded):
        raise DataError(f"the log's {len(log)} events are not rows of this table of {len(encoded)}")
    counts_only = variant.name == "control:count"
    values = None if counts_only else _values(variant, log, encoded, raw, seed, tested_from)
    raw_ids = variant.name.startswith("control:raw-ids")
    index = HistoryIndex(log.user, log.time, values)
    return ExtraSequence(
        past=PastEvents(index=index, length=length, delay=delay, counts_only=counts_only),
        layout=SequenceLayout(
            name=SEQUENCE,
            ids=raw if raw_ids else (),
            labels=variant.name == "control:raw-ids+labels",
            dim=0 if raw_ids or values is None else values.shape[1],
            length=length,
            counts_only=counts_only,
        ),
    )


def _values(
    variant: Variant, log: LogRows, encoded: Encoded, raw: tuple[str, ...], seed: int, tested_from: int
) -> NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int32]:
    match variant.name:
        case "vm+loopfm" | "vm+kd+loopfm":
            return log.z
        case "control:random-event":
            return _like_z(log, len(log), seed, tested_from)
        case "control:random-item":
            items, which = np.unique(encoded.item[log.event], return_inverse=True)
            return _like_z(log, len(items), seed, tested_from)[which]
        case "control:score":
            return log.score[:, None]
        case "control:raw-ids":
            return encoded.history_ids(raw, labels=False)[log.event]
        case "control:raw-ids+labels":
            return encoded.history_ids(raw, labels=True)[log.event]
    known = ", ".join(v.name for v in VARIANTS)
    raise ConfigError(f"there is no variant '{variant.name}': use one of {known}")


def _like_z(log: LogRows, n: int, seed: int, tested_from: int) -> NDArray[np.float32]:
    """Random vectors [n, d] of z's own width and spread, so that only z's meaning is missing.

    The spread is that of z before the test period: not even a scale may come from there.
    """
    z = log.z[log.time < tested_from]
    spread = float(np.sqrt(np.mean(np.square(z, dtype=np.float64)))) if len(z) else 1.0
    return np.random.default_rng(seed).normal(0.0, spread, (n, log.z.shape[1])).clip(-1, 1).astype(np.float32)
