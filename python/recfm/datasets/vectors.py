"""Pretrained vectors of items or users, joined to batches by key: HDF5 files with `key [m]` and `value [m, d]`.

A model reads them as numbers: with `FeatureEmbedding(numeric="mlp", numeric_hidden=())` they become one embedding
row through a linear layer, as FuxiCTR projects a frozen pretrained embedding.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.data.side import By, SideTable
from recfm.errors import ConfigError, DataError
from recfm.layout import Column, Layout


def read_vectors(path: str | Path) -> tuple[pl.Series, NDArray[np.float32]]:
    """Keys [m], integers or strings, and vectors float32 [m, d] of an HDF5 file.

    Raises:
        ConfigError: h5py is not installed.
        DataError: The file cannot be read, or holds no `key` and `value` of one length.
    """
    try:
        import h5py
    except ImportError:
        raise ConfigError("reading .h5 files needs h5py: pip install 'recfm[h5]'") from None
    try:
        with h5py.File(path, "r") as file:
            key, value = file["key"][:], file["value"][:]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"'{path}' cannot be read as HDF5 with datasets `key` and `value`: {error}") from None
    if key.ndim != 1 or value.ndim != 2 or len(key) != len(value) or value.dtype.kind not in "iuf":
        raise DataError(
            f"'{path}' holds keys {key.dtype} {key.shape} and values {value.dtype} {value.shape}: expected [m] and "
            "numbers [m, d]"
        )
    if key.dtype.kind in "SO":
        key = np.array([one.decode() if isinstance(one, bytes) else one for one in key.tolist()])
    return pl.Series("key", key), value.astype(np.float32, copy=False)


def vector_table(
    keys: pl.Series, values: NDArray[np.float32], *, by: By, name: str, like: Any = None
) -> SideTable:
    """A side table of vectors as d numeric columns `<name>_0` to `<name>_<d - 1>`.

    Args:
        keys: [m], distinct.
        values: float32 [m, d]; an event whose key is not there gets zeros.
        by: Which key of an event they belong to.
        name: What the vectors are called.
        like: Polars dtype of that key in the event table; keys are cast to it, so that 7 and "7" meet.

    Raises:
        DataError: A key is null, occurs twice or does not fit `like`, the lengths differ, or a value is not finite.
    """
    if values.ndim != 2 or len(values) != len(keys):
        raise DataError(f"{name}: {len(keys)} keys and values of shape {values.shape}: give [m] and [m, d]")
    if like is not None:
        keys = keys.cast(like, strict=False)
    if keys.null_count():
        raise DataError(f"{name}: {keys.null_count()} keys are missing or are no {keys.dtype}")
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise DataError(f"{name}: the vector of key {keys[row]!r} is not finite")
    columns = [Column(name=f"{name}_{i}", rows=0, side=by) for i in range(values.shape[1])]
    count = len(values) + 1
    return SideTable(
        by=by,
        name=name,
        layout=Layout(categorical=(), tokens=(), numeric=tuple(columns)),
        keys=_core.hash_keys(keys, name=name),
        ids=np.zeros((count, 0), np.int32),
        numeric=np.concatenate([np.zeros((1, values.shape[1]), np.float32), values.astype(np.float32)]),
        tokens={},
    )
