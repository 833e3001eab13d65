"""Ray Data: what a cluster encodes is what one machine encodes, whatever the blocks and workers."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from recfm import ray as recfm_ray
from recfm.data.encode import Encoder
from recfm.data.partitioned import PartitionedFolder, partition_of
from recfm.errors import ConfigError, DataError, SchemaError, StorageError
from recfm.history.index import HistoryIndex
from recfm.schema import Categorical, Numeric, Schema, Tokens
from table_helpers import refused

SCHEMA = Schema(
    user="user",
    item="item",
    time="time",
    label="label",
    features=(
        Categorical(name="user", side="user"),
        Categorical(name="item", side="item", min_count=2),
        Categorical(name="id", side="item", buckets=50),
        Numeric(name="price", side="item"),
        Numeric(name="size", side="item", transform="log"),
        Numeric(name="age", side="user", transform="quantile", buckets=5),
        Tokens(name="genres", side="item", max_length=2),
        Tokens(name="tags", side="item", buckets=20),
    ),
)
# Keys without features of the kinds that make matrices and lists.
BARE = Schema(
    user="user",
    item="item",
    time="time",
    label="label",
    features=(Tokens(name="genres", side="item"),),
)
ROWS, PARTITIONS = 3000, 5
WITH_SLOW_WORKERS = {"slow": True}


def events(rows=ROWS, seed=0, *, strings=False):
    """Users of a few dozen events, many at the same second, in no order of time."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 70, rows) * 64
    lists = [rng.integers(0, 9, k).tolist() for k in rng.integers(0, 5, rows)]
    some = pl.Series(rng.random(rows) < 0.1)
    frame = pl.DataFrame(
        {
            "user": [f"u{u}" for u in user] if strings else user,
            "item": [f"item-{i}" for i in rng.integers(0, 90, rows)],
            "time": rng.integers(0, 300, rows),
            "label": rng.integers(0, 2, rows),
            "id": rng.integers(0, 30, rows),
            "price": rng.normal(1e9, 1e-2, rows),
            "size": rng.lognormal(3, 2, rows),
            "age": rng.integers(0, 90, rows).astype(float),
            "genres": lists,
            "tags": [[str(i) for i in row] for row in lists],
            "unused": rng.random(rows),
        }
    )
    return frame.with_columns(pl.when(~some).then(pl.col("id", "price", "age", "genres")))


@pytest.fixture(scope="module")
def ray():
    with pytest.MonkeyPatch.context() as patch, pytest.warns() if False else _quiet():
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'recfm[ray]'")
        import ray.data

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()
