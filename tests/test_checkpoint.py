"""A fit that was stopped at any step goes on to the same bytes; checkpoints of anything else are refused."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_helpers import planted_table, table_batches
from recfm.data.batches import Batches
from recfm.errors import ConfigError, DataError, RecfmError, SchemaError, StorageError
from recfm.train.checkpoint import Checkpoints, load_weights, name_of, read_state
from recfm.train.losses import Objective
from recfm.train.trainer import TrainConfig, Trainer, predict
from train_helpers import SEEN, Stop, StopAt, same_bytes, small_batches, small_fit, small_model

STEPS = 5  # of an epoch of the small fit


@pytest.fixture(scope="module")
def whole():
    """The fit that was never interrupted."""
    return small_fit()


def numbers(fit):
    return (fit.curve, fit.best_epoch, fit.steps)


def test_the_small_fit_uses_what_must_be_resumed(whole):
    _, fit, _ = whole
    rates = [point["learning_rate"] for point in fit.curve]
    assert len(set(rates)) > 1  # the plateau schedule worked
    assert fit.best_epoch < len(fit.curve)  # so the best weights are not the last


@pytest.mark.parametrize("steps", [(1,), (2,), (3, 6), (5,), (7, 8, 9), (10, 14)], ids=str)
def test_a_fit_stopped_at_any_step_goes_on_to_the_same_bytes(whole, tmp_path, steps):
    for i, step in enumerate(steps):
        with pytest.raises(Stop):
            small_fit(tmp_path, callbacks=[StopAt(step)], resume=i > 0)
    torch.manual_seed(99)  # whatever the generators did in between
    model = small_model()
    for parameter in model.parameters():  # the weights come from the checkpoint, where there is one
        if max(steps) > 2:
            nn.init.zeros_(parameter)
    model, fit, losses = small_fit(tmp_path, resume=True, model=model)
    assert same_bytes(model, whole[0])
    assert numbers(fit) == numbers(whole[1])
    assert losses == {step: loss for step, loss in whole[2].items() if step in losses}
    assert min(losses) == {1: 1, 2: 1, 6: 6, 5: 5, 9: 9, 14: 13}[max(steps)]


@pytest.mark.parametrize(
    "config",
    [{"schedule": "cosine", "checkpoint_every": 3}, {"optimizer": "adamw", "weight_decay": 0.1},
     {"optimizer": "sgd"}, {"precision": "bf16"}, {"precision": "fp16"}],
    ids=str,
)  # fmt: skip
def test_every_kind_of_fit_resumes(tmp_path, config):
    config = {"embedding_l2": 0.0, "epochs": 2} | config
    model, fit, _ = small_fit(**config)
    with pytest.raises(Stop):
        small_fit(tmp_path, callbacks=[StopAt(8)], **config)
    again, resumed, _ = small_fit(tmp_path, resume=True, **config)
    assert same_bytes(again, model)
    assert numbers(resumed) == numbers(fit)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from train_helpers import small_fit
from recfm import new_folder

step, where = int(sys.argv[3]), sys.argv[4]
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def at(done):
    if done == step and where == "step":
        kill()
    if done == step and where == "rename":
        new_folder.sync_folder = kill
small_fit(sys.argv[2], resume=True, on_batch=at)
"""


@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_same_bytes(whole, tmp_path):
    for step, where in ((4, "rename"), (8, "step")):
        command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), str(step), where]
        ended = subprocess.run(command, capture_output=True, timeout=200)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        if where == "rename":
            assert [path.name for path in tmp_path.glob("step-*")] == [name_of(2)]
            assert list(tmp_path.glob(f".{name_of(4)}.*.tmp"))
    model, fit, losses = small_fit(tmp_path, resume=True)
    assert min(losses) == 9 - 2
    assert same_bytes(model, whole[0])
    assert numbers(fit) == numbers(whole[1])
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_finished_fit_has_nothing_to_resume(whole, tmp_path):
    small_fit(tmp_path)
    model, fit, losses = small_fit(tmp_path, resume=True)
    assert losses == {}
    assert same_bytes(model, whole[0])
    assert numbers(fit) == numbers(whole[1])


def test_more_epochs_continue_a_finished_fit(tmp_path):
    quiet = {"schedule": "constant", "patience": 9}
    small_fit(tmp_path, epochs=2, **quiet)
    model, fit, _ = small_fit(tmp_path, resume=True, epochs=4, **quiet)
    other, straight, _ = small_fit(epochs=4, **quiet)
    assert same_bytes(model, other)
    assert numbers(fit) == numbers(straight)


# ---- what is kept ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    model, fit, _ = small_fit(folder)
    return folder, model, fit


def test_the_latest_and_the_best_are_kept(finished):
    folder, _, fit = finished
    kept = Checkpoints(folder)
    assert [path.name for path in sorted(folder.glob("*step*"))] == [
        name_of(STEPS * fit.best_epoch),
        name_of(fit.steps),
    ]
    assert kept.best().name == name_of(STEPS * fit.best_epoch)
    assert kept.latest().name == name_of(fit.steps)
    position = read_state(kept.best())["position"]
    assert (position["step"], position["epoch"], position["batch"]) == (
        STEPS * fit.best_epoch,
        fit.best_epoch + 1,
        0,
    )


def test_a_runs_best_weights_load_into_a_new_model(finished):
    folder, model, fit = finished
    for place in (folder, folder / name_of(STEPS * fit.best_epoch)):
        fresh = small_model()
        load_weights(fresh, place)
        assert same_bytes(fresh, model)
    last = small_model()
    load_weights(last, folder / name_of(fit.steps))
    assert not same_bytes(last, model)


def test_a_checkpoint_holds_no_pickle(finished):
    for path in finished[0].rglob("*"):
        if path.is_file():
            assert path.suffix in (".safetensors", ".json", ".jsonl") or path.name == ".lock"
            content = path.read_bytes()
            if path.suffix == ".json":
                json.loads(content)
            assert not content.startswith(b"PK")


def test_a_run_is_not_overwritten_by_accident(finished):
    with pytest.raises(ConfigError, match="resume=True"):
        small_fit(finished[0])


def test_resume_starts_where_there_is_nothing_yet(whole, tmp_path):
    model, _, _ = small_fit(tmp_path / "new" / "run", resume=True)
    assert same_bytes(model, whole[0])


def test_resume_without_a_folder_is_refused():
    with pytest.raises(ConfigError, match="folder"):
        small_fit(resume=True)


def test_two_fits_in_one_folder_are_refused(tmp_path):
    class Second(StopAt):
        def on_step(self, report):
            small_fit(tmp_path, resume=True)

    with pytest.raises(StorageError, match="another process"):
        small_fit(tmp_path, callbacks=[Second(1)])


# ---- what does not fit -------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Stop):
        small_fit(folder, callbacks=[StopAt(3)])
    return folder


@pytest.mark.parametrize("change", [{"learning_rate": 0.01}, {"monitor": "ne"}, {"seed": 8}], ids=str)
def test_another_config_is_refused(stopped, change):
    with pytest.raises(ConfigError, match=f"{next(iter(change))} = "):
        small_fit(stopped, resume=True, **change)


def test_another_model_is_refused(stopped):
    with pytest.raises(ConfigError, match=r"head.weight' is of shape \[1, 8\] in it and of shape \[1, 16\]"):
        small_fit(stopped, resume=True, model=small_model(hidden=(16,)))
    with pytest.raises(ConfigError, match=r"hidden_1.0.bias' is absent in it"):
        load_weights(small_model(hidden=(8, 8)), stopped)


def other_layout(rows):
    """The planted table with an item vocabulary of another size."""
    encoded = planted_table().encoded
    layout = dataclasses.replace(
        encoded.layout, categorical=(dataclasses.replace(encoded.layout.categorical[0], rows=rows),)
    )
    return dataclasses.replace(encoded, layout=layout)


def test_another_vocabulary_is_refused_by_column_and_sizes(stopped):
    encoded = other_layout(50)
    past = small_batches()[0].sequences
    batches = [Batches(encoded, part.rows, batch_size=100, sequences=past) for part in small_batches()]
    rows = planted_table().encoded.layout.categorical[0].rows
    with pytest.raises(SchemaError, match=rf"column 'item' has rows {rows} in it and 50 here"):
        small_fit(stopped, resume=True, batches=batches)


def test_a_model_for_another_vocabulary_is_refused_when_weights_load(stopped):
    from recfm.models.dnn import DNN, DNNConfig

    model = DNN(other_layout(50).layout, DNNConfig(dim=4, hidden=(8,)), viewer="fm", sequences=[SEEN])
    with pytest.raises(SchemaError, match=r"column 'item' has rows \d+ in it and 50 here"):
        load_weights(model, stopped)


def test_another_vocabulary_of_the_same_size_is_refused(stopped):
    train, valid = small_batches()
    encoded = dataclasses.replace(train.encoded, ids=np.maximum(train.encoded.ids, 4))
    batches = Batches(encoded, train.rows, batch_size=100, sequences=train.sequences)
    with pytest.raises(DataError, match=r"another vocabulary: id column 0"):
        small_fit(stopped, resume=True, batches=(batches, valid))


def test_batches_in_another_order_are_refused(stopped):
    train, valid = small_batches()
    swapped = train.rows.copy()
    train = table_batches(np.concatenate([train.rows[:-1], train.rows[-1:] + 1]), batch_size=100)
    assert not np.array_equal(train.rows, swapped)
    with pytest.raises(DataError):
        small_fit(stopped, resume=True, batches=(train, valid))


# ---- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
def test_every_damaged_file_is_refused(stopped, tmp_path, name):
    checkpoint = Checkpoints(stopped).latest()
    path = checkpoint / name
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    cuts = [content[:length] for length in (0, 1, 8, len(content) // 2, len(content) - 1)]
    flips = []
    for place in [0, 9, len(content) - 1, *rng.integers(0, len(content), 20)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        flips.append(bytes(flipped))
    for damaged in [*cuts, *flips, content + b"\0" if name != "manifest.json" else b"[]"]:
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=name):
            small_fit(stopped, resume=True, batches=(ONE[0], ONE[1]))
    path.unlink()
    with pytest.raises(StorageError, match=f"{name}|no training checkpoint"):
        small_fit(stopped, resume=True, batches=ONE)


ONE = small_batches()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"no checkpoint in .*nowhere"):
        load_weights(small_model(), tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"no training checkpoint at .*step-0000000001"):
        load_weights(small_model(), tmp_path / name_of(1))


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_refuses_leaves_the_checkpoint_before(stopped, monkeypatch, call):
    before = {path: path.read_bytes() for path in Checkpoints(stopped).latest().iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, full)
        with pytest.raises(StorageError, match="no space left"):
            small_fit(stopped, resume=True)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(stopped.glob(".*.tmp"))
    small_fit(stopped, resume=True)


# ---- divergence --------------------------------------------------------------------------------------------------


class Diverges(Objective):
    """The loss of the label until a step, from where on it is NaN."""

    def __init__(self, model, step):
        super().__init__(model)
        self.step, self.calls = step, 0

    def forward(self, batch):
        self.calls += 1
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(batch), batch.label)
        return loss * float("nan") if self.calls >= self.step else loss


def test_a_diverging_loss_names_step_gradients_and_the_last_good_checkpoint(tmp_path):
    with pytest.raises(RecfmError) as caught:
        small_fit(tmp_path, model=Diverges(small_model(), 8))
    message = str(caught.value)
    assert "the loss is nan at epoch 2, step 3 (step 8 in all)" in message
    assert "largest gradients of the step before: model." in message
    assert name_of(6) in message
    fresh = small_model()
    load_weights(fresh, tmp_path / name_of(6))
    assert all(torch.isfinite(tensor).all() for tensor in fresh.state_dict().values())


class BadGradient(Objective):
    """The loss of the label; at one step its gradient is NaN and its value is not."""

    def __init__(self, model, step):
        super().__init__(model)
        self.step, self.calls = step, 0

    def forward(self, batch):
        self.calls += 1
        logit = self.model(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, batch.label)
        return loss + (logit[0] * 0).sqrt() * 0 if self.calls == self.step else loss


def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path):
    with pytest.raises(
        RecfmError, match=r"holds values that are not finite after step 8; .*\(norm nan\)"
    ) as caught:
        small_fit(tmp_path, model=BadGradient(small_model(), 8), clip_norm=0.0)
    assert f"the last good checkpoint is '{tmp_path / name_of(6)}'" in str(caught.value)
    assert Checkpoints(tmp_path).latest().name == name_of(6)


def test_a_fit_goes_on_after_divergence(tmp_path):
    with pytest.raises(RecfmError, match="nan"):
        small_fit(tmp_path, model=Diverges(small_model(), 8), epochs=3)
    model = Diverges(small_model(), 99)
    small_fit(tmp_path, model=model, resume=True, epochs=3)
    straight = Diverges(small_model(), 99)
    small_fit(model=straight, epochs=3)
    assert same_bytes(model, straight)


def test_restored_weights_predict_what_the_trained_model_predicts(finished):
    folder, model, _ = finished
    fresh = small_model()
    load_weights(fresh, folder)
    valid = small_batches()[1]
    assert np.array_equal(predict(fresh, valid), predict(model, valid))
    assert Trainer(TrainConfig()).evaluate(fresh, valid) == Trainer(TrainConfig()).evaluate(model, valid)


def test_a_copied_run_resumes_elsewhere(whole, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "moved")
    model, _, _ = small_fit(tmp_path / "moved", resume=True)
    assert same_bytes(model, whole[0])
