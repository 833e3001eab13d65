"""Callbacks see every step and epoch, in order; logs of a resumed fit are those of a whole one."""

import io
import json
import sys

import pytest
from rich.console import Console

from recfm.errors import ConfigError, StorageError
from recfm.train.bar import ProgressBar
from recfm.train.callbacks import Callback, JsonLines
from recfm.train.tensorboard import TensorBoard
from train_helpers import Stop, StopAt, small_fit

PLAIN = {"epochs": 2, "patience": 9, "schedule": "constant"}


class Notes(Callback):
    def __init__(self):
        self.calls, self.reports, self.end = [], [], []

    def on_fit_start(self, start):
        self.calls.append("start")
        self.start = start

    def on_step(self, report):
        self.calls.append("step")
        self.reports.append(report)

    def on_epoch_end(self, step, point):
        self.calls.append("epoch")
        self.point = point

    def on_fit_end(self, fit):
        self.calls.append("end")
        self.end.append(fit)


def test_callbacks_see_everything_in_order():
    notes = Notes()
    _, fit, losses = small_fit(callbacks=[notes], **PLAIN)
    assert notes.calls == ["start", *(["step"] * 5 + ["epoch"]) * 2, "end"]
    assert notes.end == [fit]
    assert notes.point is fit.curve[-1]
    assert (notes.start.steps, notes.start.done) == (10, 0)
    assert {report.step: report.loss for report in notes.reports} == losses
    assert [(r.epoch, r.batch) for r in notes.reports] == [(e, b) for e in (1, 2) for b in range(1, 6)]
    assert [r.learning_rate for r in notes.reports][:4] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05, 0.05])
    assert all(report.rows_per_second > 0 for report in notes.reports)


def test_callbacks_are_told_of_an_interrupted_fit():
    notes = Notes()
    with pytest.raises(Stop):
        small_fit(callbacks=[notes, StopAt(2)], **PLAIN)
    assert notes.calls == ["start", "step", "step", "end"]
    assert notes.end == [None]


def lines(folder):
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "rows_per_second"} for line in found]


def test_the_log_has_a_line_per_epoch_and_one_every_few_steps(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl", every=2)
    _, fit, losses = small_fit(callbacks=[log], **PLAIN)
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 5, 6, 8, 10, 10]
    assert [line["loss"] for line in lines(tmp_path) if "loss" in line] == [
        losses[s] for s in (2, 4, 6, 8, 10)
    ]
    assert [line for line in lines(tmp_path) if "valid_ne" in line] == [
        {"step": 5 * point["epoch"], **point} for point in fit.curve
    ]


def test_the_log_of_a_resumed_fit_is_that_of_a_whole_one(tmp_path):
    for name, stops in (("whole", []), ("resumed", [3, 9])):
        log = JsonLines(tmp_path / name / "log.jsonl", every=1)
        for i, stop in enumerate(stops):
            with pytest.raises(Stop):
                small_fit(tmp_path / name, callbacks=[log, StopAt(stop)], resume=i > 0, **PLAIN)
            with open(tmp_path / name / "log.jsonl", "a") as file:
                file.write('{"step": 1, "los')  # what a kill in the middle of a write leaves
        small_fit(tmp_path / name, callbacks=[log], resume=bool(stops), **PLAIN)
    assert lines(tmp_path / "resumed") == lines(tmp_path / "whole")


def test_a_log_without_a_place_is_refused(tmp_path):
    with pytest.raises(StorageError, match="path"):
        small_fit(callbacks=[JsonLines()], **PLAIN)
    with pytest.raises(StorageError, match="no such|cannot write"):
        small_fit(callbacks=[JsonLines(tmp_path / "absent" / "log.jsonl")], **PLAIN)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_numbers_of_the_fit(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(Stop):
        small_fit(tmp_path, callbacks=[TensorBoard(every=1), StopAt(7)], **PLAIN)
    _, fit, _ = small_fit(tmp_path, callbacks=[TensorBoard(every=1)], resume=True, **PLAIN)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == list(range(1, 11))
    found = [point.value for point in events.Scalars("valid/auc")]
    assert found == pytest.approx([point["valid_auc"] for point in fit.curve], rel=1e-6)
    assert {"train/learning_rate", "train/rows_per_second", "valid/ne", "valid/gauc"} <= set(
        events.Tags()["scalars"]
    )


def test_tensorboard_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="folder"):
        small_fit(callbacks=[TensorBoard()], **PLAIN)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"recfm\[tensorboard\]"):
        small_fit(tmp_path, callbacks=[TensorBoard()], **PLAIN)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_shows_rate_loss_and_metric(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140)
    _, fit, losses = small_fit(callbacks=[ProgressBar(console)], **PLAIN)
    text = out.getvalue()
    assert f"auc {fit.curve[-1]['valid_auc']:.5f}" in text
    assert f"loss {losses[10]:.4f}" in text
    assert ("rows/s" in text) == terminal
    assert text.count("epoch 2  step 10") == (0 if terminal else 1)
