"""The trainer: best weights back, errors that name the step, and the same bytes for the same seed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_helpers import LABELLED_HISTORY, planted_table, table_batches
from recfm import _core
from recfm.errors import ConfigError, DataError, MetricError, RecfmError
from recfm.layout import SequenceLayout
from recfm.models.dnn import DNN, DNNConfig
from recfm.train.losses import LabelLoss, Objective
from recfm.train.trainer import TrainConfig, Trainer, predict

SEEN = SequenceLayout(name="seen", ids=("item",), labels=True, length=LABELLED_HISTORY.length)


@pytest.fixture(scope="module")
def periods():
    return planted_table().periods


class Steady(nn.Module):
    """A model of one weight on a signal that is right four times in five: NE is best at logits of +-log 4."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        right = torch.where(batch.row % 5 == 0, -1.0, 1.0)
        return self.weight * right * (2 * batch.label - 1)


class Climb(Objective):
    """Pushes the weight up by the learning rate at each step, past the best value, whatever the data say."""

    def __init__(self):
        super().__init__(Steady())
        self.modes = []

    def forward(self, batch):
        self.modes.append((self.training, self.model.training))
        return -self.model.weight


def climb(periods, **config):
    config = TrainConfig(**({"epochs": 30, "learning_rate": 0.02} | config))
    objective = Climb()
    train, valid = table_batches(periods.vm), table_batches(periods.vm_validation, shuffle=False)
    return objective, Trainer(config).fit(objective, train, valid), len(train), valid


@pytest.mark.parametrize("patience", [1, 3])
def test_early_stopping_brings_the_best_epochs_weights_back(periods, patience):
    objective, fit, steps, valid = climb(periods, patience=patience)
    curve = [point["valid_ne"] for point in fit.curve]
    assert fit.best_epoch == int(np.argmin(curve)) + 1
    assert 1 < fit.best_epoch < 30
    assert len(curve) == fit.best_epoch + patience
    assert [point["epoch"] for point in fit.curve] == list(range(1, len(curve) + 1))
    assert objective.model.weight.item() == pytest.approx(0.02 * steps * fit.best_epoch, rel=1e-3)
    label = valid.encoded.label[valid.rows]
    assert _core.normalized_entropy(label, predict(objective.model, valid)) == min(curve)


def test_training_ends_after_the_last_epoch(periods):
    _, fit, _, _ = climb(periods, epochs=2, learning_rate=1e-4)
    assert (len(fit.curve), fit.best_epoch) == (2, 2)


def test_objectives_train_in_training_mode_after_each_validation(periods):
    objective, fit, steps, _ = climb(periods, epochs=3, learning_rate=1e-4)
    assert objective.modes == [(True, True)] * 3 * steps
    assert not objective.model.training
    assert fit.seconds > 0


def test_each_epoch_serves_every_row_once_in_an_order_of_its_own(periods):
    class Rows(Climb):
        def forward(self, batch):
            served.append(batch.row)
            return super().forward(batch)

    served, train = [], table_batches(periods.vm)
    valid = table_batches(periods.vm_validation, shuffle=False)
    Trainer(TrainConfig(epochs=2, learning_rate=1e-4)).fit(Rows(), train, valid)
    first, second = torch.cat(served[: len(train)]), torch.cat(served[len(train) :])
    assert first.sort().values.tolist() == second.sort().values.tolist() == sorted(periods.vm)
    assert not torch.equal(first, second)


def test_progress_counts_steps_and_reports_the_mean_loss(periods):
    seen = []
    objective = LabelLoss(Steady())
    train = table_batches(periods.vm)
    config = TrainConfig(epochs=2, learning_rate=1e-9, patience=2)
    Trainer(config).fit(
        objective,
        train,
        table_batches(periods.vm_validation, shuffle=False),
        on_batch=lambda *a: seen.append(a),
    )
    assert [done for done, _, _ in seen] == list(range(1, 2 * len(train) + 1))
    assert {total for _, total, _ in seen} == {2 * len(train)}
    assert seen[-1][2] == pytest.approx(np.log(2), abs=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverging_loss_names_epoch_and_step(periods, value):
    class Diverges(Climb):
        def forward(self, batch):
            steps_before = len(self.modes)
            return super().forward(batch) * (value if steps_before == len(train) + 2 else 1.0)

    train, valid = table_batches(periods.vm), table_batches(periods.vm_validation, shuffle=False)
    with pytest.raises(RecfmError, match=r"epoch 2, step 3 \("):
        Trainer(TrainConfig(epochs=3, learning_rate=1e-4)).fit(Diverges(), train, valid)


def test_validation_rows_of_one_class_are_refused(periods):
    label = planted_table().encoded.label
    ones = periods.vm_validation[label[periods.vm_validation] == 1]
    with pytest.raises(MetricError, match=r"all labels|undefined"):
        Trainer(TrainConfig(epochs=1)).fit(
            Climb(), table_batches(periods.vm), table_batches(ones, shuffle=False)
        )


def trained(seed, *, shuffle_seed=0):
    torch.manual_seed(seed)
    rows = planted_table().periods
    model = DNN(
        planted_table().encoded.layout,
        DNNConfig(dim=4, hidden=(8,), dropout=0.1),
        viewer="fm",
        sequences=[SEEN],
    )
    config = TrainConfig(epochs=3, batch_size=64, learning_rate=1e-2, patience=3)
    valid = table_batches(rows.fm_validation, shuffle=False)
    fit = Trainer(config).fit(LabelLoss(model), table_batches(rows.fm, seed=shuffle_seed), valid)
    return model.state_dict(), fit.curve


def test_the_same_seed_gives_the_same_bytes():
    first, curve = trained(3)
    again, same_curve = trained(3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert curve == same_curve


@pytest.mark.parametrize("other", [{"seed": 4}, {"seed": 3, "shuffle_seed": 1}], ids=["weights", "shuffle"])
def test_another_seed_gives_other_weights(other):
    first, _ = trained(3)
    second, _ = trained(**other)
    assert not torch.equal(first["embedding.weight"], second["embedding.weight"])


DIGEST = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from recfm import _core
from test_trainer import trained
digest = hashlib.sha256()
for name, tensor in trained(3)[0].items():
    digest.update(tensor.numpy().tobytes())
print(_core.num_threads(), digest.hexdigest())
"""


@pytest.mark.slow
def test_weights_do_not_depend_on_the_number_of_data_threads():
    command = [sys.executable, "-c", DIGEST, str(Path(__file__).parent)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen(
            command, env=environment | {"RECFM_NUM_THREADS": n}, stdout=subprocess.PIPE, text=True
        )
        for n in ("1", "4")
    ]
    results = [run.communicate(timeout=200)[0].split() for run in runs]
    assert [threads for threads, _ in results] == ["1", "4"]
    assert results[0][1] == results[1][1]


# ---- predict ---------------------------------------------------------------------------------------------------


class Row(nn.Module):
    def forward(self, batch):
        return batch.row / 1000


@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_predictions_come_in_the_order_of_the_rows(batch_size):
    rows = np.random.default_rng(0).permutation(len(planted_table().encoded))[:50]
    probability = predict(Row(), table_batches(rows, batch_size=batch_size, shuffle=False))
    assert probability.dtype == np.float64
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-rows / 1000)), rtol=1e-6)


def test_predicting_shuffled_batches_is_refused(periods):
    with pytest.raises(DataError, match="shuffle=False"):
        predict(Row(), table_batches(periods.test))


def test_predicting_turns_dropout_off_and_keeps_no_gradient(periods):
    model = nn.Sequential(Row(), nn.Dropout(0.9))
    rows = table_batches(periods.test, shuffle=False)
    assert np.array_equal(predict(model, rows), predict(Row(), rows))
    assert not model.training


# ---- config ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 0}, {"patience": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")},
     {"weight_decay": -0.1}, {"device": "gpu0"}, {"device": "meta"}],
    ids=str,
)  # fmt: skip
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="device 'cuda'"):
        TrainConfig(device="cuda")
