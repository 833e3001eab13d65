"""AUC, gAUC, log loss, NE and calibration of predictions, computed exactly by the Rust core.

`evaluate` takes all rows at once; `StreamingMetrics` takes them in parts and from several workers. Both give the
same bits: pairs are counted in integers and sums are exact, so neither the order of rows nor their split matters.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.errors import MetricError

Weighting: TypeAlias = Literal["impressions", "positives", "uniform"]
"""What a user's AUC counts for in gAUC; users whose labels are all the same have none and are always left out.

- "impressions": the user's rows (FuxiCTR, BARS).
- "positives": the user's rows of label 1 (RecBole).
- "uniform": one (TorchRec's `gauc`, TorchEasyRec's `grouped_auc`).
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Quality of predicted probabilities on a set of impressions.

    Attributes:
        auc: Area under the ROC curve; ties count half.
        gauc: Weighted mean of per-user AUC, by default weighted by the user's impressions; users of one class are
            dropped (FuxiCTR's); None where no user has both labels.
        logloss: Mean binary cross-entropy, nats.
        ne: Normalised entropy, log loss over the entropy of the base rate of these labels; 1 = the base rate alone.
    """

    auc: float
    gauc: float | None
    logloss: float
    ne: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Predicted against observed rates in bins of probability; bins without rows are left out.

    Attributes:
        bin: [k] Number of the bin, from 0.
        rows: [k] Rows in the bin.
        predicted: [k] Mean probability.
        observed: [k] Mean label.
        error: Expected calibration error: |predicted - observed|, averaged over rows.
    """

    bin: NDArray[np.int64]
    rows: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    error: float


class StreamingMetrics:
    """Metrics of predictions that arrive batch by batch, on one worker or many.

    Whatever the order, the batches and the merges, the results are the same bits as of all rows at once. That
    takes every row: 4 bytes each while all probabilities are float32 (8 from the first that is not), and 8 bytes
    more for its user. It pickles, so it travels through `torch.distributed.all_gather_object` or Ray as it is.

    Example:
        >>> mine = StreamingMetrics()
        >>> for batch in batches:
        ...     mine.update(batch.label, probabilities(batch), batch.user)
        >>> gathered = [None] * torch.distributed.get_world_size()
        >>> torch.distributed.all_gather_object(gathered, mine)
        >>> StreamingMetrics.merged(gathered).compute()
    """

    def __init__(self) -> None:
        self._rows = _core.Predictions()

    def update(
        self, label: NDArray[Any], probability: NDArray[Any], user: NDArray[Any] | None = None
    ) -> None:
        """Takes n impressions in: all of them or, where it raises, none.

        Args:
            label: [n], 0 or 1.
            probability: [n], in [0, 1].
            user: [n], integer user keys, the groups of gAUC; with every update or with none.

        Raises:
            MetricError: A label is not 0 or 1, a probability is NaN or outside [0, 1], a user is no integer, or
                users came before and do not now, or the other way round. It names the row and the value.
            DataError: The lengths differ.
        """
        self._rows.update(
            np.ascontiguousarray(label, dtype=np.float32),
            np.ascontiguousarray(probability, dtype=np.float64),
            None if user is None else _user_keys(user),
        )

    def merge(self, other: "StreamingMetrics") -> None:
        """Takes in the rows of another worker, which keeps them.

        Raises:
            MetricError: One of the two has users and the other has not.
        """
        self._rows.merge(other._rows)

    @classmethod
    def merged(cls, parts: "list[StreamingMetrics]") -> "StreamingMetrics":
        """The rows of all parts together; the parts keep theirs.

        Raises:
            MetricError: Some parts have users and some have not.
        """
        whole = cls()
        for part in parts:
            whole.merge(part)
        return whole

    def __len__(self) -> int:
        """Rows so far."""
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return self._rows.nbytes

    def compute(self, *, weighting: Weighting = "impressions") -> Metrics:
        """Metrics of all rows so far; `gauc` is None without users or where no user has both labels.

        Args:
            weighting: What a user counts for in gAUC.

        Raises:
            MetricError: There are no rows, or all labels are the same.
            ConfigError: No such weighting.
        """
        auc = self._rows.auc()
        gauc: float | None = None
        if self._rows.has_users:
            try:
                gauc = self._rows.gauc(weighting)[0]
            except MetricError:  # there are rows and users: no user has both labels
                gauc = None
        return Metrics(auc=auc, gauc=gauc, logloss=self._rows.logloss(), ne=self._rows.normalized_entropy())

    def calibration(self) -> float:
        """Mean prediction over mean label, as TorchRec's: 1 is right on average, more is too much.

        Raises:
            MetricError: There are no rows, or no label is 1.
        """
        return self._rows.calibration()

    def reliability(self, bins: int = 10, *, by: Literal["width", "count"] = "width") -> Reliability:
        """Predicted against observed rates, and the expected calibration error.

        Args:
            bins: Number of bins, 1 to 10,000.
            by: "width": bin i holds probabilities in (i / bins, (i + 1) / bins], and 0 is in the first.
                "count": about as many rows in each; equal probabilities share the bin of the lowest of them.

        Raises:
            MetricError: There are no rows.
            ConfigError: No such number of bins or no such kind.
        """
        number, rows, positives, predicted, error = self._rows.reliability(bins, by)
        return Reliability(bin=number, rows=rows, predicted=predicted, observed=positives / rows, error=error)

    def state_dict(self) -> dict[str, bytes]:
        """The rows so far, as bytes with a checksum."""
        return {"rows": self._rows.to_bytes()}

    def load_state_dict(self, state: dict[str, bytes]) -> None:
        """Replaces the rows with those of a `state_dict`.

        Raises:
            DataError: The bytes are damaged.
        """
        self._rows = _core.Predictions.from_bytes(state["rows"])


def evaluate(
    label: NDArray[Any],
    probability: NDArray[Any],
    user: NDArray[Any] | None = None,
    *,
    weighting: Weighting = "impressions",
) -> Metrics:
    """Metrics of n impressions.

    Args:
        label: [n], 0 or 1.
        probability: [n], in [0, 1].
        user: [n], integer user keys, the groups of gAUC; None where there are no users, and then `gauc` is None.
        weighting: What a user counts for in gAUC.

    Raises:
        MetricError: All labels are the same, a probability is NaN or outside [0, 1], or a user is no integer.
        DataError: The lengths differ.
        ConfigError: No such weighting.
    """
    streaming = StreamingMetrics()
    streaming.update(label, probability, user)
    return streaming.compute(weighting=weighting)


def _user_keys(user: NDArray[Any]) -> NDArray[np.int64]:
    """Users as int64: integers as they are, whole floats by value."""
    keys = np.asarray(user)
    if keys.dtype.kind not in "biuf":
        raise MetricError(
            f"`user` has dtype {keys.dtype}, but gAUC groups by integers: encode the users first"
        )
    if keys.dtype.kind == "f":
        # Beyond 2**53 a float no longer tells neighbouring keys apart.
        whole = (np.abs(keys) <= 2**53) & (np.floor(keys) == keys)
        if not whole.all():
            row = int(np.argmin(whole))
            raise MetricError(f"the user of row {row} is {keys[row]}, but gAUC groups by integers")
    return np.ascontiguousarray(keys, dtype=np.int64)
