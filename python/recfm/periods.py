"""The protocol's periods: by time, FM / VM train / test, with validation cut from the end of each training period.

    |------------- fm -------------| fm_validation |---- vm ----| vm_validation |---- test ----|
    time ->

Boundaries fall between event times, never inside one: all events of one time are in one period, so every event of
a later period is strictly later than every event of an earlier one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfm.config import Strict
from recfm.errors import ConfigError, DataError

Rows = NDArray[np.int64]


@dataclass(kw_only=True, slots=True)
class PeriodConfig(Strict):
    """Shares of the events, by time."""

    fm: float = 0.5
    """Share of the events that the FM trains on, validation included."""
    vm: float = 0.3
    """Share of the events that the VM trains on, validation included; the rest is the test period."""
    validation: float = 0.1
    """Share cut from the end of each training period, for early stopping."""

    def __post_init__(self) -> None:
        if not (self.fm > 0 and self.vm > 0 and self.fm + self.vm < 1):
            raise ConfigError(f"periods fm = {self.fm}, vm = {self.vm}: both above 0 and together below 1")
        if not 0 < self.validation < 1:
            raise ConfigError(f"periods validation = {self.validation}: between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Periods:
    """Row positions, int64, of each period."""

    fm: Rows
    fm_validation: Rows
    vm: Rows
    vm_validation: Rows
    test: Rows

    @property
    def logged(self) -> Rows:
        """Rows that the frozen FM scores into the log: everything after its own period."""
        return np.concatenate([self.vm, self.vm_validation, self.test])

    def fm_trained(self, time: NDArray[np.int64]) -> tuple[int, int]:
        """First and last event time of the FM's period, validation included (early stopping has seen it)."""
        times = time[np.concatenate([self.fm, self.fm_validation])]
        return int(times.min()), int(times.max())

    def describe(self, time: NDArray[np.int64], label: NDArray[np.float32]) -> dict[str, dict[str, Any]]:
        """Rows, first and last time and base rate of each period, for the report."""
        return {
            name: {
                "rows": len(rows),
                "from": str(np.datetime64(int(time[rows].min()), "us")),
                "to": str(np.datetime64(int(time[rows].max()), "us")),
                "base_rate": float(label[rows].mean()),
            }
            for name, rows in vars(self).items()
        }


def split_by_time(time: NDArray[np.int64], label: NDArray[np.float32], config: PeriodConfig) -> Periods:
    """Cut rows into periods by their time, int64 microseconds [n].

    Raises:
        DataError: A period is empty (too few distinct times), or a period that is evaluated has one class only.
    """
    if len(time) == 0 or len(time) != len(label):
        raise DataError(
            f"cannot cut {len(time)} times and {len(label)} labels into periods: give one of each per row"
        )
    ordered = np.sort(time)
    fm_share = config.fm * (1 - config.validation)
    vm_share = config.fm + config.vm * (1 - config.validation)
    edges = [_edge(ordered, share) for share in (fm_share, config.fm, vm_share, config.fm + config.vm)]
    period = np.searchsorted(edges, time, side="right")
    names = ("fm", "fm_validation", "vm", "vm_validation", "test")
    rows = {name: np.flatnonzero(period == i) for i, name in enumerate(names)}
    for name, members in rows.items():
        if len(members) == 0:
            raise DataError(
                f"the {name} period is empty: {len(time)} events at {len(np.unique(time))} distinct times cannot be "
                "cut there; give more data or other shares"
            )
        labels = label[members]
        if name not in ("fm", "vm") and labels.min() == labels.max():
            raise DataError(
                f"all {len(members)} labels of the {name} period are {labels[0]:g}: AUC and NE are undefined there; "
                "give more data or other shares"
            )
    return Periods(**rows)


def _edge(ordered: NDArray[np.int64], share: float) -> int:
    """First time that belongs to the later side."""
    return int(ordered[min(int(len(ordered) * share), len(ordered) - 1)])
