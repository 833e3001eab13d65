"""A run of several seeds goes on where it was interrupted, with the numbers of a run that never was."""

import shutil

import pytest

from model_helpers import planted, planted_schema, tiny_config
from recfm.errors import ConfigError
from recfm.experiment import run_experiment
from recfm.train.trainer import TrainConfig

ONE_EPOCH = TrainConfig(epochs=1, batch_size=256)
EVENTS = planted(users=60, events=20)


def run(folder, seeds, *, events=EVENTS, resume=False, **changes):
    config = tiny_config(**({"fm_train": ONE_EPOCH, "vm_train": ONE_EPOCH} | changes))
    return run_experiment(events, planted_schema(), config, seeds=seeds, folder=folder, resume=resume)


def numbers(document):
    timings = ("seconds", "transfer_ratio_skipped")
    return [{key: value for key, value in row.items() if key not in timings} for row in document["rows"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run(folder, (0, 1)), folder


@pytest.fixture
def interrupted(whole, tmp_path):
    """As a kill during seed 1 leaves it: seed 0 is finished, seed 1 has a log and no runs, there is no report."""
    folder = tmp_path / "run"
    shutil.copytree(whole[1], folder)
    (folder / "seed-1" / "runs.json").unlink()
    for report in folder.glob("report.*"):
        report.unlink()
    return folder


def test_a_resumed_run_gives_the_numbers_of_a_whole_one(whole, interrupted):
    untouched = (interrupted / "seed-0" / "runs.json").stat().st_mtime_ns
    assert numbers(run(interrupted, (0, 1), resume=True)) == numbers(whole[0])
    assert (interrupted / "seed-0" / "runs.json").stat().st_mtime_ns == untouched


def test_without_resume_the_folder_is_refused(interrupted):
    with pytest.raises(ConfigError, match="resume"):
        run(interrupted, (0, 1))


@pytest.mark.parametrize("change", ["config", "events"])
def test_a_seed_of_another_run_is_refused(interrupted, change):
    changes = {"z_dim": 3} if change == "config" else {"events": EVENTS.head(len(EVENTS) - 1)}
    with pytest.raises(ConfigError, match="other data, schema, config or code"):
        run(interrupted, (0, 1), resume=True, **changes)
    assert (interrupted / "seed-0" / "log" / "manifest.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "x"}', '{"key": 1, "runs": []'])
def test_damaged_runs_are_named(interrupted, content):
    (interrupted / "seed-0" / "runs.json").write_text(content)
    with pytest.raises(ConfigError, match=r"runs\.json' is damaged"):
        run(interrupted, (0, 1), resume=True)


def test_a_seed_of_other_code_is_refused(interrupted, monkeypatch):
    monkeypatch.setattr("torch.__version__", "0.0")
    with pytest.raises(ConfigError, match="or code"):
        run(interrupted, (0, 1), resume=True)
