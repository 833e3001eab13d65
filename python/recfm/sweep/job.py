"""One run of a sweep: one model, one seed, trained and measured, as a plain record."""

import dataclasses
import datetime
import traceback
from typing import Any

import torch
from torch import nn

from recfm import _core
from recfm.data.batches import Batches
from recfm.errors import RecfmError
from recfm.experiment import cpu_name
from recfm.loop import own_histories
from recfm.models.count import count
from recfm.models.layers import initialise
from recfm.models.ranker import Ranker
from recfm.models.zoo import build_model
from recfm.sweep.data import TrainingData
from recfm.sweep.plan import Setting
from recfm.train.distributed import shard
from recfm.train.trainer import OnBatch, Trainer

EVALUATION_ROWS = 8192
"""Rows of a batch that is only scored."""
_COUNTED_ROWS = 256
"""Rows of the batch on which operations are counted: many, so that its histories are as long as most batches'."""


def make_batches(
    data: TrainingData, period: str, *, batch_size: int, seed: int | None = None, sharded: bool = False
) -> Batches:
    """Batches of one period with the schema's histories joined; shuffled if there is a seed.

    `sharded` gives this process's part of them, where torchrun started several.
    """
    past = {name: sequence.past for name, sequence in own_histories(data.encoded, "fm").items()}
    place = shard() if sharded else {"rank": 0, "world_size": 1}
    return Batches(
        data.encoded,
        data.rows[period],
        batch_size=batch_size,
        seed=seed or 0,
        shuffle=seed is not None,
        sequences=past,
        sides=data.sides,
        rank=place["rank"],
        world_size=place["world_size"],
    )


def make_model(data: TrainingData, setting: Setting, seed: int) -> Ranker:
    """The model with its first weights, which depend on the seed alone."""
    torch.manual_seed(seed)
    layouts = [sequence.layout for sequence in own_histories(data.encoded, "fm").values()]
    model = build_model(
        setting.model,
        data.layout,
        setting.config,
        viewer="fm",
        sequences=layouts,
        history=setting.history,
    )
    initialise(model, linear=setting.init.linear, embedding_std=setting.init.embedding_std)
    return model


def cost(model: nn.Module, data: TrainingData) -> dict[str, Any]:
    """Parameters, and floating-point operations of training on one example (forward and backward)."""
    batch = make_batches(data, "train", batch_size=min(_COUNTED_ROWS, len(data.rows["train"]))).batch(0, 0)
    found = count(model, batch)
    return {
        "parameters": {"dense": found.dense_parameters, "embedding": found.embedding_parameters},
        "training_flops_per_example": found.training_flops,
    }


def run_one(
    data: TrainingData, setting: Setting, seed: int, *, evaluate_test: bool, on_batch: OnBatch | None = None
) -> dict[str, Any]:
    """Train and measure; whatever goes wrong is part of the record, so that one run never stops the others.

    Returns:
        `status` "done" or "failed", settings, cost, metrics of "valid" and "test" (null where not measured),
        curve, epochs, best_epoch, seconds, rows_per_second, threads, versions; of a failed run the `error`.
    """
    record: dict[str, Any] = {
        **setting.identity(),
        "seed": seed,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threads": {"torch": torch.get_num_threads(), "recfm": _core.num_threads()},
        "versions": {"recfm": _core.build_info()["version"], "torch": torch.__version__, "cpu": cpu_name()},
    }
    try:
        record |= _train(data, setting, seed, evaluate_test=evaluate_test, on_batch=on_batch)
    except RecfmError as error:
        record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    except (RuntimeError, ValueError, TypeError, MemoryError, AttributeError, LookupError) as error:
        # Out of memory, or a fault in a model: the sweep goes on, and the record says where to look.
        where = traceback.extract_tb(error.__traceback__)[-1]
        first = (str(error).splitlines() or [""])[0]
        record |= {
            "status": "failed",
            "error": f"{type(error).__name__}: {first} ({where.name}, line {where.lineno})",
        }
    record["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return record


def _train(
    data: TrainingData, setting: Setting, seed: int, *, evaluate_test: bool, on_batch: OnBatch | None
) -> dict[str, Any]:
    model = make_model(data, setting, seed)
    costs = cost(model, data)
    train = make_batches(data, "train", batch_size=setting.train.batch_size, seed=seed)
    trainer = Trainer(dataclasses.replace(setting.train, seed=seed))
    valid = make_batches(data, "valid", batch_size=EVALUATION_ROWS)
    fit = trainer.fit(model, train, valid, on_batch=on_batch)
    test = make_batches(data, "test", batch_size=EVALUATION_ROWS) if evaluate_test else None
    epochs = len(fit.curve)
    return {
        "status": "done",
        **costs,
        "valid": dataclasses.asdict(trainer.evaluate(model, valid)),
        "test": None if test is None else dataclasses.asdict(trainer.evaluate(model, test)),
        "epochs": epochs,
        "best_epoch": fit.best_epoch,
        "curve": fit.curve,
        "seconds": fit.seconds,
        "rows_per_second": len(data.rows["train"]) * epochs / fit.seconds if fit.seconds else None,
    }
