"""A fit small enough to be run many times, with everything that a checkpoint must hold in use."""

import numpy as np
import torch

from model_helpers import LABELLED_HISTORY, planted_table, table_batches
from recfm.layout import SequenceLayout
from recfm.models.dnn import DNN, DNNConfig
from recfm.train.callbacks import Callback
from recfm.train.trainer import TrainConfig, Trainer

SEEN = SequenceLayout(name="seen", ids=("item",), labels=True, length=LABELLED_HISTORY.length)
BUSY = {"optimizer": "adam", "embedding_l2": 0.01, "network_l2": 0.001, "clip_norm": 1.0, "schedule": "plateau",
        "patience": 2, "monitor": "auc", "epochs": 6, "learning_rate": 0.05, "warmup_steps": 3,
        "checkpoint_every": 2, "seed": 7}  # fmt: skip
"""The learning rate is too high on purpose, so that epochs fail and the plateau schedule works."""


class Stop(Exception):
    """What ends a fit in these tests."""


class StopAt(Callback):
    """Ends the fit after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, report):
        if report.step == self.step:
            raise Stop


def small_model(**config):
    layout = planted_table().encoded.layout  # made at its first use, with draws of its own
    torch.manual_seed(3)
    fields = {"dim": 4, "hidden": (8,), "dropout": 0.2} | config
    return DNN(layout, DNNConfig(**fields), viewer="fm", sequences=[SEEN])


def small_batches(*, batch_size=100, seed=0, **options):
    """Training and validation batches: 5 steps an epoch."""
    rows = planted_table().periods
    train = table_batches(rows.fm[:450], batch_size=batch_size, seed=seed, **options)
    valid = table_batches(rows.fm_validation, shuffle=False, **options)
    return train, valid


def small_fit(folder=None, *, callbacks=(), resume=False, model=None, batches=None, on_batch=None, **config):
    """A fit of `BUSY`, changed by `config`: the model, what happened, and every running loss."""
    model = model or small_model()
    losses = {}

    def note(done, _total, loss):
        losses[done] = loss
        if on_batch:
            on_batch(done)

    trainer = Trainer(TrainConfig(**(BUSY | config)), callbacks=callbacks, folder=folder)
    fit = trainer.fit(model, *(batches or small_batches()), resume=resume, on_batch=note)
    return model, fit, losses


def same_bytes(first, second):
    """Whether two models hold the same bits."""
    mine, yours = first.state_dict(), second.state_dict()
    return mine.keys() == yours.keys() and all(
        np.array_equal(mine[name].numpy().view(np.uint8), yours[name].numpy().view(np.uint8)) for name in mine
    )
