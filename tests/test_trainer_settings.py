"""Every setting of a fit does what it says, against plain computations."""

import copy
import dataclasses
import math
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from model_helpers import planted_table, table_batches
from recfm.data.batches import Batches
from recfm.errors import ConfigError, DataError, MetricError
from recfm.models.dnn import DNN, DNNConfig
from recfm.models.layers import embedding_parameters
from recfm.train.losses import LabelLoss, Objective
from recfm.train.metrics import Metrics
from recfm.train.optim import Schedule, build_optimizers
from recfm.train.scoring import monitored
from recfm.train.trainer import TrainConfig, Trainer, predict
from train_helpers import same_bytes, small_batches, small_fit, small_model

QUIET = {"epochs": 2, "patience": 9, "schedule": "constant", "warmup_steps": 0, "checkpoint_every": 0}
PLAIN = QUIET | {"embedding_l2": 0.0, "network_l2": 0.0, "clip_norm": 0.0, "monitor": "ne", "seed": None}


# ---- gradients ---------------------------------------------------------------------------------------------------


def by_hand(model, steps, optimizer, *, embedding_l2=0.0, network_l2=0.0, clip_norm=0.0):
    """Some steps of training with the penalty written into the loss."""
    model = copy.deepcopy(model).train()
    tables = embedding_parameters(model)
    others = [p for p in model.parameters() if not any(p is table for table in tables)]
    optimizer = optimizer(model.parameters())
    for batch in list(small_batches()[0].epoch(1))[:steps]:
        loss = functional.binary_cross_entropy_with_logits(model(batch), batch.label)
        loss = loss + embedding_l2 / 2 * sum(table.square().sum() for table in tables)
        loss = loss + network_l2 / 2 * sum(p.square().sum() for p in others)
        optimizer.zero_grad()
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("config", "optimizer"),
    [
        ({"optimizer": "adam", "embedding_l2": 0.1, "network_l2": 0.01, "clip_norm": 0.3},
         lambda p: torch.optim.Adam(p, lr=0.01)),
        ({"optimizer": "adam", "embedding_l2": 0.1, "network_l2": 0.02}, lambda p: torch.optim.Adam(p, lr=0.01)),
        ({"optimizer": "sgd", "network_l2": 0.1}, lambda p: torch.optim.SGD(p, lr=0.01)),
        ({"optimizer": "adamw", "weight_decay": 0.1, "embedding_l2": 0.1, "network_l2": 0.02},
         lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
        ({"optimizer": "sgd", "clip_norm": 1e-3}, lambda p: torch.optim.SGD(p, lr=0.01)),
    ],
    ids=["bars", "adam", "sgd", "adamw", "clip"],
)  # fmt: skip
def test_penalties_and_clipping_are_those_of_a_loss_with_the_penalty_in_it(config, optimizer):
    model = small_model(dropout=0.0)
    penalties = {k: v for k, v in config.items() if k in ("embedding_l2", "network_l2", "clip_norm")}
    expected = by_hand(model, 5, optimizer, **penalties)
    Trainer(TrainConfig(**(PLAIN | {"epochs": 1, "learning_rate": 0.01} | config))).fit(
        model, small_batches()[0]
    )
    for (name, mine), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-6, msg=name)


def test_l2_moves_rows_that_no_batch_touches():
    model = small_model(dropout=0.0)
    before = model.embedding.weight[0].clone()  # padding
    small_fit(
        model=model, **PLAIN | {"embedding_l2": 0.5, "optimizer": "sgd", "learning_rate": 0.1, "epochs": 1}
    )
    torch.testing.assert_close(model.embedding.weight[0].detach(), before * (1 - 0.5 * 0.1) ** 5)


def test_decoupled_decay_belongs_to_adamw():
    with pytest.raises(ConfigError, match=r"weight_decay is 0.1.*network_l2"):
        TrainConfig(optimizer="adam", weight_decay=0.1)


def test_frozen_parameters_stay():
    model = small_model()
    model.embedding.weight.requires_grad_(False)
    before = model.embedding.weight.clone()
    small_fit(model=model, **PLAIN | {"embedding_l2": 0.5})
    assert torch.equal(model.embedding.weight, before)


# ---- schedules ---------------------------------------------------------------------------------------------------


def rates(total, *, stalls=(), **config):
    config = TrainConfig(learning_rate=0.1, **config)
    optimizers = build_optimizers(nn.Linear(2, 1), config)
    schedule = Schedule(optimizers, config, total)
    out = []
    for step in range(total):
        if step in stalls:
            schedule.stalled()
        out.append(schedule.set(step))
        assert optimizers[0].param_groups[0]["lr"] == out[-1]
    return out


def test_constant_is_the_rate_itself():
    assert rates(3) == [0.1, 0.1, 0.1]


def test_warm_up_rises_linearly():
    assert rates(6, warmup_steps=4) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_cosine_falls_to_the_least_rate():
    found = rates(8, schedule="cosine", min_learning_rate=0.01)
    assert found == pytest.approx([0.01 + 0.09 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])
    warm = rates(12, schedule="cosine", min_learning_rate=0.01, warmup_steps=4)
    assert warm[4:] == pytest.approx(found)
    assert warm[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_plateau_multiplies_at_each_stall_down_to_the_floor():
    found = rates(5, schedule="plateau", stalls=(1, 2, 4), schedule_factor=0.1, min_learning_rate=5e-4)
    assert found == pytest.approx([0.1, 0.01, 1e-3, 1e-3, 5e-4])


def test_a_plateau_follows_validation_and_patience_counts_epochs_in_a_row():
    _, fit, _ = small_fit(epochs=20)
    better, best = [], -1.0
    for point in fit.curve:
        better.append(point["valid_auc"] > best)
        best = max(best, point["valid_auc"])
    stalls = np.cumsum([0] + [not found for found in better[:-1]])
    assert [point["learning_rate"] for point in fit.curve] == pytest.approx(0.05 * 0.1**stalls)
    assert better[-2:] == [False, False]
    assert fit.best_epoch == len(better) - 2 == int(np.argmax([p["valid_auc"] for p in fit.curve])) + 1


def test_plateau_needs_validation():
    with pytest.raises(ConfigError, match="valid"):
        Trainer(TrainConfig(schedule="plateau")).fit(small_model(), small_batches()[0])


def test_small_gains_count_as_none():
    _, fit, _ = small_fit(min_delta=1.0, epochs=9)
    assert (len(fit.curve), fit.best_epoch) == (3, 1)


# ---- what is monitored -------------------------------------------------------------------------------------------

METRICS = Metrics(auc=0.8, gauc=0.7, logloss=0.5, ne=0.9)


@pytest.mark.parametrize(
    ("monitor", "value"), [("ne", (0.9, -1)), ("logloss", (0.5, -1)), ("auc", (0.8, 1)), ("gauc", (0.7, 1)),
                           ("auc+gauc", (1.5, 1))],
)  # fmt: skip
def test_monitors(monitor, value):
    assert monitored(METRICS, monitor) == pytest.approx(value)


def test_gauc_that_is_not_there_is_named():
    with pytest.raises(MetricError, match="no user of the validation rows has both labels"):
        monitored(Metrics(auc=0.8, gauc=None, logloss=0.5, ne=0.9), "gauc")


def test_rows_without_users_have_no_gauc_to_monitor():
    train, valid = small_batches()
    valid.has_users = False
    _, fit, _ = small_fit(batches=(train, valid), **PLAIN)
    assert "valid_gauc" not in fit.curve[0]
    assert "valid_auc" in fit.curve[0]
    with pytest.raises(ConfigError, match="no user key"):
        small_fit(batches=(train, valid), **PLAIN | {"monitor": "auc+gauc"})


def test_without_validation_all_epochs_train_and_the_last_weights_stay():
    model = small_model()
    fit = Trainer(TrainConfig(epochs=3)).fit(model, small_batches()[0])
    assert [sorted(point) for point in fit.curve] == [["epoch", "learning_rate", "train_loss"]] * 3
    assert (fit.best_epoch, fit.steps) == (3, 15)
    assert not model.training


def test_evaluate_and_predict_agree_with_validation():
    model, fit, _ = small_fit(**PLAIN)
    valid = small_batches()[1]
    trainer = Trainer(TrainConfig())
    metrics = trainer.evaluate(model, valid)
    best = fit.curve[fit.best_epoch - 1]
    assert (metrics.ne, metrics.auc, metrics.gauc) == (
        best["valid_ne"],
        best["valid_auc"],
        best["valid_gauc"],
    )
    shuffled = table_batches(valid.rows, seed=5)
    assert trainer.evaluate(model, shuffled) == metrics
    assert np.array_equal(trainer.predict(model, valid), predict(model, valid))


@pytest.mark.parametrize(
    "wrong",
    [{"optimizer": "adagrad"}, {"schedule": "step"}, {"monitor": "f1"}, {"precision": "fp8"}, {"clip_norm": -1.0},
     {"embedding_l2": -1.0}, {"network_l2": float("nan")}, {"warmup_steps": -1}, {"schedule_factor": 1.5},
     {"min_learning_rate": -1.0}, {"seed": -1}, {"checkpoint_every": -1}, {"min_delta": -1.0}],
    ids=str,
)  # fmt: skip
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)


# ---- precision, compilation, seeds -------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_float32_weights_to_nearly_the_same_metrics(precision):
    # Without dropout: in float32 a kernel of ours draws the mask, under autocast torch does.
    plain = PLAIN | {"epochs": 4}
    model, fit, _ = small_fit(model=small_model(dropout=0.0), **plain, precision=precision)
    _, exact, _ = small_fit(model=small_model(dropout=0.0), **plain)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert fit.curve[-1]["train_loss"] != exact.curve[-1]["train_loss"]
    assert fit.curve[-1]["train_loss"] == pytest.approx(exact.curve[-1]["train_loss"], abs=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # inductor's own
def test_compiled_training_gives_nearly_the_same_weights():
    table, weights = planted_table(), []
    for compiled in (False, True):
        torch.manual_seed(3)
        model = DNN(table.encoded.layout, DNNConfig(dim=4, hidden=(8,)), viewer="fm")
        train = Batches(table.encoded, table.periods.fm[:400], batch_size=100)
        config = TrainConfig(epochs=1, learning_rate=0.1, optimizer="sgd", compile=compiled)
        Trainer(config).fit(model, train)
        weights.append(list(model.parameters()))
    for plain, mine in zip(*weights, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-6)


def test_the_seed_decides_dropout_and_nothing_else():
    runs = []
    for before, seed in ((1, 7), (2, 7), (1, 8)):
        model = small_model()
        torch.manual_seed(before)
        small_fit(model=model, seed=seed, **{k: v for k, v in PLAIN.items() if k != "seed"})
        runs.append(model)
    assert same_bytes(runs[0], runs[1])
    assert not same_bytes(runs[0], runs[2])


# ---- bad input ---------------------------------------------------------------------------------------------------


def with_ids(change):
    """Training batches whose ids were changed after encoding."""
    train, valid = small_batches()
    encoded = dataclasses.replace(train.encoded, ids=change(train.encoded.ids.copy()))
    return Batches(encoded, train.rows, batch_size=100, sequences=train.sequences), valid


@pytest.mark.parametrize("wrong", [10_000, -3])
def test_ids_beyond_the_table_name_column_id_and_rows(wrong):
    rows = planted_table().encoded.layout.categorical[0].rows

    def change(ids):
        ids[planted_table().periods.fm[10], 0] = wrong
        return ids

    with pytest.raises(DataError, match=rf"column 'item' holds the id {wrong}, .* has {rows} rows"):
        small_fit(batches=with_ids(change), **PLAIN)


@pytest.mark.parametrize("beyond", [-1, 0])
def test_ids_beyond_the_table_are_refused_where_a_model_only_scores(beyond):
    rows = planted_table().encoded.layout.categorical[0].rows
    wrong = rows if beyond == 0 else beyond  # a row of the next feature in the fused table
    train, valid = small_batches()
    ids = valid.encoded.ids.copy()
    ids[valid.rows[-1], 0] = wrong
    bad = Batches(
        dataclasses.replace(valid.encoded, ids=ids),
        valid.rows,
        batch_size=100,
        shuffle=False,
        sequences=valid.sequences,
    )
    trainer = Trainer(TrainConfig(epochs=1))
    for call in (
        lambda: trainer.predict(small_model(), bad),
        lambda: trainer.evaluate(small_model(), bad),
        lambda: trainer.fit(small_model(), train, bad),
    ):
        with pytest.raises(DataError, match=rf"column 'item' holds the id {wrong}, .* has {rows} rows"):
            call()


def test_ids_beyond_a_table_of_a_users_own_model_are_diagnosed():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.items = nn.Embedding(3, 1)

        def forward(self, batch):
            return self.items(batch.ids[:, 0]).squeeze(1)

    for call in (lambda: small_fit(model=Own(), **PLAIN), lambda: predict(Own(), small_batches()[1])):
        with pytest.raises(DataError, match=r"items has 3 rows; the columns of the batch go up to \[\d+\]"):
            call()


def test_a_module_that_gives_no_logit_per_row_is_told_so():
    class Wide(nn.Linear):
        def forward(self, batch):
            return super().forward(batch.ids[:, :1].float())

    with pytest.raises(ConfigError, match=r"shape \[100, 1\] for 100 rows.*Objective"):
        small_fit(model=Wide(1, 1), **PLAIN)
    with pytest.raises(ConfigError, match=r"shape \[\d+, 1\] for \d+ rows"):
        predict(Wide(1, 1), small_batches()[1])


def test_an_objective_must_give_one_loss():
    class Losses(Objective):
        def forward(self, batch):
            return self.model(batch)

    with pytest.raises(ConfigError, match=r"shape \[100\].*mean"):
        small_fit(model=Losses(small_model()), **PLAIN)


def test_validation_of_one_class_is_refused_before_any_step():
    train, valid = small_batches()
    label = planted_table().encoded.label
    ones = table_batches(valid.rows[label[valid.rows] == 1], shuffle=False)
    steps = []
    with pytest.raises(MetricError, match=r"all labels of the \d+ validation rows are 1"):
        small_fit(batches=(train, ones), on_batch=steps.append, **PLAIN)
    assert steps == []


def test_an_objective_is_trained_as_it_is():
    objective = LabelLoss(small_model())
    small_fit(model=objective, **PLAIN)
    plain, _, _ = small_fit(**PLAIN)
    assert same_bytes(objective.model, plain)
