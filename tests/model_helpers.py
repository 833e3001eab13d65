"""Small layouts, batches and a synthetic log with planted taste, for the tests of models, training and the loop."""

import dataclasses
import functools

import numpy as np
import polars as pl
import torch

from recfm.data.batch import Batch, Jagged, Sequence
from recfm.data.batches import Batches
from recfm.experiment import run_experiment
from recfm.layout import Column, Layout, SequenceLayout
from recfm.loop import LoopConfig, own_histories, prepare
from recfm.models.dnn import DNNConfig
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.wukong import WukongConfig
from recfm.periods import PeriodConfig
from recfm.schema import Categorical, History, Schema
from recfm.train.trainer import TrainConfig

LAYOUT = Layout(
    categorical=(
        Column(name="item", rows=7, side="item"),
        Column(name="user", rows=5, side="user"),
        Column(name="secret", rows=6, side="item", seen_by="fm"),
        Column(name="place", rows=4, side="context"),
    ),
    tokens=(
        Column(name="genres", rows=6, side="item"),
        Column(name="notes", rows=4, side="context", seen_by="fm"),
    ),
    numeric=(
        Column(name="price", rows=0, side="item"),
        Column(name="hidden", rows=0, side="context", seen_by="fm"),
        Column(name="age", rows=0, side="user"),
    ),
)
VECTORS = SequenceLayout(name="past", dim=3, length=5)
IDS = SequenceLayout(name="past", ids=("item", "place"), length=5)
LABELLED = SequenceLayout(name="past", ids=("item",), labels=True, length=5)
COUNTS = SequenceLayout(name="past", counts_only=True)


def make_batch(rows, *, seed=0, past=None, lengths=None, layout=LAYOUT, dtype=torch.float32):
    """Random rows of a layout; with `past`, a sequence of that layout whose padded slots are zero."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, column.rows, rows) for column in layout.categorical]
    batch = Batch(
        ids=torch.tensor(np.stack(ids, axis=1) if ids else np.zeros((rows, 0)), dtype=torch.int32),
        numeric=torch.tensor(rng.normal(size=(rows, len(layout.numeric))), dtype=dtype),
        label=torch.tensor(rng.integers(0, 2, rows), dtype=dtype),
        user=torch.arange(rows),
        time=torch.arange(rows),
        row=torch.arange(rows),
        tokens={column.name: make_jagged(rng, rows, column.rows) for column in layout.tokens},
        teacher=torch.tensor(rng.uniform(0.05, 0.95, rows), dtype=dtype),
    )
    if past is not None:
        batch.sequences[past.name] = make_sequence(rng, rows, past, lengths, layout, dtype)
    return batch


def make_jagged(rng, rows, size):
    """Lists of zero to three ids."""
    counts = rng.integers(0, 4, rows)
    values = rng.integers(1, size, counts.sum())
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Jagged(values=torch.tensor(values, dtype=torch.int32), offsets=torch.tensor(offsets))


def make_sequence(rng, rows, past, lengths, layout, dtype):
    """A random padded sequence; `lengths` defaults to a mix that includes empty and full ones."""
    given = np.arange(rows) % (past.length + 1) if lengths is None else np.asarray(lengths)
    real = torch.tensor(given)
    if past.counts_only:
        return Sequence(lengths=real)
    mask = torch.arange(past.length).unsqueeze(0) < real.unsqueeze(1)
    if past.ids:
        sizes = [layout.categorical[layout.position(name)].rows for name in past.ids]
        sizes += [3] if past.labels else []
        drawn = np.stack([rng.integers(1, size, (rows, past.length)) for size in sizes], axis=2)
        return Sequence(lengths=real, ids=torch.tensor(drawn, dtype=torch.int32) * mask.unsqueeze(2))
    vectors = torch.tensor(rng.uniform(-1, 1, (rows, past.length, past.dim)), dtype=dtype)
    return Sequence(lengths=real, vectors=vectors * mask.unsqueeze(2))


def changed(batch, **fields):
    """A copy of a batch with some fields replaced."""
    return dataclasses.replace(batch, **fields)


def planted(users=200, events=30, items=20, *, seed=0, step=60):
    """Events of users of whom half click nearly always and half nearly never.

    Items differ a little in appeal, so the item alone tells something; who the user is, only past labels tell.
    Users act in turn, `step` seconds apart.
    """
    rng = np.random.default_rng(seed)
    n = users * events
    user = np.concatenate([rng.permutation(users) for _ in range(events)])
    item = rng.integers(0, items, n)
    generous = rng.random(users) < 0.5
    chance = np.where(generous[user], 0.8, 0.15) + np.where(item % 2 == 0, 0.1, -0.1)
    label = rng.random(n) < chance
    return pl.DataFrame(
        {"user": user, "item": item, "clicked": label.astype(np.int8), "time": np.arange(n) * step}
    )


LABELLED_HISTORY = History(name="seen", of=("item",), labels=True, length=10, seen_by="fm")


def planted_schema(*features):
    """The item id, and what else is given: by default a labelled history that only the FM reads."""
    return Schema(
        user="user",
        item="item",
        time="time",
        label="clicked",
        features=(Categorical(name="item", side="item"), *(features or (LABELLED_HISTORY,))),
    )


def tiny_config(**changes):
    """A loop that learns the planted taste in seconds."""
    fast = TrainConfig(epochs=6, batch_size=128, learning_rate=1e-2, patience=2)
    fields = {
        "length": 10,
        "z_dim": 4,
        "z_hidden": 16,
        "periods": PeriodConfig(fm=0.5, vm=0.3, validation=0.15),
        "fm": WukongConfig(dim=8, layers=1, fm_rows=3, linear_rows=3, rank=3, fm_hidden=(16,), hidden=(16,)),
        "fm_history": HistoryEncoderConfig(width=8, attention_hidden=8),
        "fm_train": fast,
        "dnn": DNNConfig(dim=4, hidden=(16,)),
        "history": HistoryEncoderConfig(width=8, attention_hidden=8),
        "vm_train": fast,
    }
    return LoopConfig(**(fields | changes))


NAMES = [
    "fm", "vm", "vm+kd", "vm+loopfm", "vm+kd+loopfm", "control:random-event", "control:random-item",
    "control:count", "control:score", "control:raw-ids", "control:raw-ids+labels", "control:vm-all-periods",
]  # fmt: skip
"""Every row of a report, in its order."""

SMALL = planted(users=60, events=20)


def quick_run(folder, events=SMALL, schema=None, *, seeds=(0,), resume=False, **changes):
    """A whole experiment of one epoch a model, too short to learn much."""
    once = TrainConfig(epochs=1, batch_size=256)
    config = tiny_config(**({"fm_train": once, "vm_train": once} | changes))
    return run_experiment(
        events, schema or planted_schema(), config, seeds=seeds, folder=folder, resume=resume
    )


@functools.cache
def planted_table():
    """The planted log encoded and cut into periods, once for all tests; read only."""
    return prepare(planted(users=60, events=20), planted_schema(), tiny_config())


def table_batches(rows, *, batch_size=64, **options):
    """Batches over rows of the planted table, with the labelled history joined."""
    table = planted_table()
    past = {name: sequence.past for name, sequence in own_histories(table.encoded, "fm").items()}
    return Batches(table.encoded, rows, batch_size=batch_size, sequences=past, **options)


CONFIG = """
data = "events.parquet"

[schema]
user = "user"
item = "item"
time = "time"
label = "clicked"

[[schema.features]]
kind = "categorical"
name = "item"
side = "item"

[[schema.features]]
kind = "history"
name = "seen"
of = ["item"]
labels = true
length = 5
seen_by = "fm"

[loop]
length = 5
z_dim = 4
z_hidden = 8

[loop.fm]
dim = 4
layers = 1
fm_hidden = [8]
hidden = [8]

[loop.fm_train]
epochs = 1

[loop.dnn]
dim = 4
hidden = [8]

[loop.vm_train]
epochs = 1
"""


def config_file(folder, old="", new=""):
    """Path of a run.toml in `folder`, with one text of it replaced, beside the events.parquet that it names."""
    assert old in CONFIG
    planted(users=50, events=20).write_parquet(folder / "events.parquet")
    (folder / "run.toml").write_text(CONFIG.replace(old, new, 1))
    return str(folder / "run.toml")
