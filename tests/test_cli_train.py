"""`recfm train`, `evaluate` and `predict`: what was trained is what is evaluated."""

import json

import numpy as np
import polars as pl
import pytest

from recfm.cli import main
from recfm.single import predict_folder
from sweep_helpers import SYNTHETIC

SCHEMA = """
[schema]
user = "user_id"
item = "movie_id"
time = "timestamp"
label = "liked"
[[schema.features]]
kind = "categorical"
name = "movie_id"
side = "item"
[[schema.features]]
kind = "categorical"
name = "occupation"
side = "user"
"""
MODEL = """
[model]
name = "dnn"
settings = { dim = 2, hidden = [4] }
[train]
epochs = 2
batch_size = 64
"""


@pytest.fixture
def work(tmp_path, monkeypatch, make_events):
    events, _ = make_events(600)
    events.write_parquet(tmp_path / "events.parquet")
    (tmp_path / "one.toml").write_text(f'[data]\nevents = "events.parquet"\n{SCHEMA}{MODEL}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """`run(...)`: the JSON that a command prints."""

    def run(*arguments):
        assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.fixture
def fails(capsys):
    def fails(*arguments):
        assert main(arguments) == 1
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return err.strip().splitlines()[-1]

    return fails


METRICS = ("auc", "gauc", "logloss", "ne")


def test_evaluate_gives_what_training_measured(work, run):
    trained = run("train", "one.toml", "--out", "run")
    found = run("evaluate", "run", "--period", "valid")
    assert [found[name] for name in METRICS] == [trained[name] for name in METRICS]
    assert run("evaluate", "run")["auc"] != found["auc"]


def test_predictions_are_in_the_order_of_the_rows_and_give_those_metrics(work, run):
    run("train", "one.toml", "--out", "run")
    table = pl.read_parquet("events.parquet")
    assert run("predict", "run", "--events", "events.parquet", "--out", "p.parquet")["rows"] == 600
    predicted = pl.read_parquet("p.parquet")
    assert predicted["row"].to_list() == list(range(600))
    label, p = table["liked"].to_numpy(), predicted["probability"].to_numpy()
    logloss = -np.mean(np.where(label == 1, np.log(p), np.log(1 - p)))
    assert run("evaluate", "run", "--events", "events.parquet")["logloss"] == pytest.approx(logloss, rel=1e-6)
    table.drop("liked").write_parquet("unlabelled.parquet")
    np.testing.assert_array_equal(predict_folder("run", "unlabelled.parquet"), p)


def test_a_resumed_training_is_the_uninterrupted_one(work, run):
    whole = run("train", "one.toml", "--out", "whole", "--set", "train.epochs=3", "train.patience=3")
    run("train", "one.toml", "--out", "parts", "--set", "train.epochs=1", "train.patience=3")
    args = ("--set", "train.epochs=3", "train.patience=3", "--resume")
    resumed = run("train", "one.toml", "--out", "parts", *args)
    assert [resumed[name] for name in METRICS] == [whole[name] for name in METRICS]


def test_a_log_of_ids_is_evaluated_by_period_only(work, run, fails):
    (work / "ids.toml").write_text(f"[data]\n{SYNTHETIC}\n{MODEL}")
    trained = run("train", "ids.toml", "--out", "run")
    assert run("evaluate", "run", "--period", "valid")["auc"] == trained["auc"]
    assert "'run' has no encoder" in fails("evaluate", "run", "--events", "events.parquet")


def test_periods_of_other_data_than_those_of_the_training_are_refused(work, run, fails):
    run("train", "one.toml", "--out", "run")
    events = pl.read_parquet("events.parquet")
    later = events.with_columns(pl.col("timestamp") + pl.col("timestamp").max())
    # Rows that were trained on would be test rows now.
    pl.concat([events, later]).write_parquet("events.parquet")
    assert "the rows of [data] are not those that 'run' was trained on" in fails("evaluate", "run")
    run("evaluate", "run", "--events", "events.parquet")


@pytest.mark.parametrize("seed", ["-1", str(2**70)])
def test_a_bad_seed_leaves_no_folder(work, fails, seed):
    assert "seed is" in fails("train", "one.toml", "--out", "x", "--set", f"seed={seed}")
    assert not (work / "x").exists()


def test_what_cannot_work_is_one_clear_line(work, run, fails):
    assert "there is no model 'dn'" in fails("train", "one.toml", "--out", "x", "--set", "model.name=dn")
    assert "unknown key 'epoch'" in fails("train", "one.toml", "--out", "x", "--set", "train.epoch=3")
    assert "model dnn has no preset 's'" in fails(
        "train", "one.toml", "--out", "x", "--set", "model.preset=s"
    )
    assert "'x' holds no training" in fails("evaluate", "x")
    assert not (work / "x").exists()
    run("train", "one.toml", "--out", "run")
    assert "holds checkpoints of a run" in fails("train", "one.toml", "--out", "run")
    other = fails("train", "one.toml", "--out", "run", "--resume", "--set", "seed=5")
    assert "'run' holds another training: seed is 0 there and 5 here" in other
    one_class = pl.read_parquet("events.parquet").filter(pl.col("liked") == 1)
    one_class.write_parquet("ones.parquet")
    assert "MetricError" in fails("evaluate", "run", "--events", "ones.parquet")
    run("predict", "run", "--events", "ones.parquet", "--out", "p.parquet")
    assert "'p.parquet' exists already" in fails(
        "predict", "run", "--events", "ones.parquet", "--out", "p.parquet"
    )
    for damage in ("{", '{"file": {}, "identity": 4, "beside": "."}'):
        (work / "run" / "model.json").write_text(damage)
        assert "model.json' is damaged" in fails("evaluate", "run")
