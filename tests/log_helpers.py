"""Embedding logs whose rows are a function of their event ids, for the tests of the log."""

import numpy as np

from recfm.history.log import EmbeddingLog

FM, OTHER = "a" * 64, "b" * 64
TRAINED = (0, 1000)
COLUMNS = {"user": np.int64, "time": np.int64, "event": np.int64, "score": np.float32}


def create(folder, dim=3, dtype="f32", **change):
    return EmbeddingLog.create(
        folder, **({"fm": FM, "dim": dim, "trained": TRAINED, "dtype": dtype} | change)
    )


def rows(events, dim=3, **change):
    """Columns for `append` that are a function of the event ids alone."""
    event = np.asarray(list(events), np.int64)
    column = {
        "user": event % 7 - 3,
        "time": 1001 + event % 11,
        "event": event,
        "score": ((event % 13) / 12).astype(np.float32),
        "z": np.sin(event[:, None] + np.arange(dim)).astype(np.float32),
    }
    return column | change


def contents(folder):
    """Every file of a log but its lock, as bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def assert_holds(log, events, dtype=np.float32):
    """The log has exactly the rows of these events, in this order."""
    read, expected = log.read(), rows(events, log.dim)
    assert len(log) == len(read) == len(expected["event"])
    for name, kind in COLUMNS.items():
        assert getattr(read, name).dtype == kind
        assert getattr(read, name).tolist() == expected[name].tolist()
    assert read.z.dtype == dtype
    assert read.z.shape == (len(expected["event"]), log.dim)
    assert (read.z == expected["z"].astype(dtype)).all()
