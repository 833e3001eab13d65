"""AUC, gAUC, log loss and NE of predictions, computed exactly by the Rust core."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.errors import MetricError


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Quality of predicted probabilities on a set of impressions.

    Attributes:
        auc: Area under the ROC curve; ties count half.
        gauc: Mean of per-user AUC weighted by the user's impressions; users of one class are
            dropped (FuxiCTR's); None where no user has both labels.
        logloss: Mean binary cross-entropy, nats.
        ne: Normalised entropy, log loss over the entropy of the base rate of these labels; 1 = the base rate alone.
    """

    auc: float
    gauc: float | None
    logloss: float
    ne: float


def evaluate(label: NDArray[Any], probability: NDArray[Any], user: NDArray[Any]) -> Metrics:
    """Metrics of n impressions.

    Args:
        label: [n], 0 or 1.
        probability: [n], in [0, 1].
        user: [n], integer user keys, the groups of gAUC.

    Raises:
        MetricError: All labels are the same, or a probability is NaN or outside [0, 1].
    """
    labels = np.ascontiguousarray(label, dtype=np.float32)
    scores = np.ascontiguousarray(probability, dtype=np.float64)
    groups = np.ascontiguousarray(user, dtype=np.int64)
    auc = _core.auc(labels, scores)
    gauc: float | None
    try:
        gauc = _core.gauc(groups, labels, scores)[0]
    except MetricError:  # labels and scores are fine, or auc had raised: no user has both labels
        gauc = None
    return Metrics(
        auc=auc,
        gauc=gauc,
        logloss=_core.logloss(labels, scores),
        ne=_core.normalized_entropy(labels, scores),
    )
