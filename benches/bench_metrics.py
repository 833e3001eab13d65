"""AUC, gAUC and log loss beside scikit-learn and pandas: `make bench-metrics`, or QUICK=1 for under a minute.

The peers' values are checked against ours in the run. Per-user AUC with pandas takes many minutes at full size, so
that peer runs on a sample of the users and its time is scaled up to all of them; its row says so.
"""

import os
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from harness import QUICK, Results, copy_seconds, medians, once
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from recfm import _core
from recfm.train.metrics import StreamingMetrics, evaluate

Array: TypeAlias = NDArray[Any]

THREADS = 2
ROWS = 200_000 if QUICK else 5_000_000
USERS = ROWS // 10
SAMPLE = 0.02  # share of users that pandas is timed on
BATCH = 4096
WORKERS = 8


def impressions() -> tuple[Array, Array, Array]:
    """User, label, probability: click rates around 0.15, float32 as a model gives them."""
    rng = np.random.default_rng(0)
    user = rng.integers(0, USERS, ROWS)
    logit = rng.normal(-2, 1, ROWS)
    probability = (1 / (1 + np.exp(-logit))).astype(np.float32).astype(np.float64)
    label = (rng.random(ROWS) < probability).astype(np.float32)
    return user, label, probability


def pandas_gauc(frame: pd.DataFrame) -> float:
    """AUC of each user of both classes, averaged with the user's rows as weight: the recipe of FuxiCTR."""
    total = weight = 0.0
    for _, rows in frame.groupby("user", sort=False):
        positives = rows["label"].sum()
        if 0 < positives < len(rows):
            total += roc_auc_score(rows["label"], rows["probability"]) * len(rows)
            weight += len(rows)
    return total / weight


def same(name: str, ours: float, peer: float, tolerance: float = 1e-12) -> None:
    """Ends the run where our value is not the peer's."""
    if not abs(ours - peer) <= tolerance * abs(peer):
        raise SystemExit(f"{name}: {ours!r} is not the peer's {peer!r}")


def streamed(user: Array, label: Array, probability: Array) -> StreamingMetrics:
    """The same rows, batch by batch, on several workers that are merged at the end."""
    workers = [StreamingMetrics() for _ in range(WORKERS)]
    for k, start in enumerate(range(0, ROWS, BATCH)):
        part = slice(start, start + BATCH)
        workers[k % WORKERS].update(label[part], probability[part], user[part])
    return StreamingMetrics.merged(workers)


def main() -> None:
    os.environ.setdefault("RECFM_NUM_THREADS", str(THREADS))  # read when the pool is first used
    user, label, probability = impressions()
    results = Results("metrics")
    results.note(rows=ROWS, users=USERS, threads=THREADS, probabilities="float32 values as float64")

    same("auc", _core.auc(label, probability), roc_auc_score(label, probability))
    works = {
        "ours": lambda: _core.auc(label, probability),
        "peer": lambda: roc_auc_score(label, probability),
    }
    seconds = medians(works)
    results.add("metrics.auc.sklearn", **seconds, unit="s", target=10)

    inside = probability.clip(1e-7, 1 - 1e-7)
    same("logloss", _core.logloss(label, probability), log_loss(label, inside), 1e-10)
    works = {
        "ours": lambda: _core.logloss(label, probability),
        "peer": lambda: log_loss(label, inside),
    }
    results.add("metrics.logloss.sklearn", **medians(works), unit="s", target=5)

    chosen = np.random.default_rng(1).permutation(USERS)[: int(USERS * SAMPLE)]
    sampled = np.isin(user, chosen)
    frame = pd.DataFrame({"user": user, "label": label, "probability": probability})[sampled]
    value = 0.0

    def peer() -> None:
        nonlocal value
        value = pandas_gauc(frame)

    pandas_seconds = once(peer)
    same("gauc", _core.gauc(user[sampled], label[sampled], probability[sampled])[0], value)
    gauc = medians({"ours": lambda: _core.gauc(user, label, probability)})["ours"]
    scale = ROWS / len(frame)
    results.add(
        "metrics.gauc.pandas",
        ours=gauc,
        peer=pandas_seconds * scale,
        unit="s",
        target=50,
        peer_method=f"{len(chosen)} of {USERS} users timed once, {pandas_seconds:.1f} s, times {scale:.2f}",
    )
    copy = copy_seconds(user.nbytes + label.nbytes + probability.nbytes)
    results.add("metrics.gauc.memcpy", ours=gauc, peer=copy, unit="s", target=None)

    whole = evaluate(label, probability, user)
    merged = streamed(user, label, probability)
    if merged.compute() != whole:
        raise SystemExit("streamed metrics are not those of all rows at once")
    works = {
        "ours": lambda: streamed(user, label, probability).compute(),
        "peer": lambda: evaluate(label, probability, user),
    }
    results.add(
        "metrics.streamed.at-once",
        **medians(works),
        unit="s",
        target=None,
        batch=BATCH,
        workers=WORKERS,
        bytes_per_row=merged.nbytes / ROWS,
    )

    values = np.random.default_rng(2).normal(size=ROWS)

    def exact_moments() -> tuple[float, float]:
        moments = _core.ExactMoments()
        moments.update(values)
        return moments.mean(), moments.std()

    for name, ours, theirs in zip(
        ("mean", "std"), exact_moments(), (values.mean(), values.std()), strict=True
    ):
        same(name, ours, theirs, 1e-9)
    works = {"ours": exact_moments, "peer": lambda: (values.mean(), values.std())}
    results.add("metrics.moments.numpy", **medians(works), unit="s", target=None)
    results.write()


if __name__ == "__main__":
    main()
