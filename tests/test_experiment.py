"""Whole runs on a small log with planted taste: rows, report, seeds, folders, and what the numbers must say."""

import itertools
import json
import os
import statistics

import numpy as np
import polars as pl
import pytest

from model_helpers import NAMES, SMALL, planted, planted_schema, quick_run, tiny_config
from recfm import report
from recfm.errors import ConfigError, DataError, RecfmError, SchemaError
from recfm.experiment import run_experiment
from recfm.history.log import EmbeddingLog
from recfm.schema import Schema

CONTRACT = ("name", "seeds", "auc", "auc_std", "gauc", "logloss", "ne", "ne_std", "transfer_ratio")


def by_name(document):
    return {row["name"]: row for row in document["rows"]}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two seeds at a size where the planted taste is learnt, and their folder."""
    folder = tmp_path_factory.mktemp("experiment") / "results"
    document = run_experiment(planted(), planted_schema(), tiny_config(), seeds=(0, 1), folder=folder)
    return document, folder


# ---- rows and report -------------------------------------------------------------------------------------------


def test_all_rows_come_in_the_order_of_the_contract(experiment):
    document, _ = experiment
    assert [row["name"] for row in document["rows"]] == NAMES
    assert [run["name"] for run in document["runs"]] == NAMES * 2
    assert all(set(CONTRACT) <= row.keys() for row in document["rows"])


def test_the_report_on_disk_is_the_one_returned(experiment):
    document, folder = experiment
    assert {path.name for path in folder.iterdir()} == {
        "report.json", "report.png", "report.html", "seed-0", "seed-1",
    }  # fmt: skip
    report.validate(document)
    assert report.read(folder) == json.loads(json.dumps(document))
    json.dumps(document, allow_nan=False)


def test_rows_are_means_and_deviations_over_seeds(experiment):
    document, _ = experiment
    for row in document["rows"]:
        runs = [run for run in document["runs"] if run["name"] == row["name"]]
        assert row["seeds"] == len(runs) == 2
        for metric in ("auc", "gauc", "logloss", "ne"):
            values = [run[metric] for run in runs]
            assert row[metric] == pytest.approx(statistics.fmean(values), abs=1e-12)
            assert row[f"{metric}_std"] == pytest.approx(statistics.stdev(values), abs=1e-12)
        assert row["ne_std"] > 0


def test_the_transfer_ratio_is_the_share_of_the_fms_gain(experiment):
    document, _ = experiment
    ne = {(run["seed"], run["name"]): run["ne"] for run in document["runs"]}
    for name in NAMES[2:]:
        ratios = [(ne[s, "vm"] - ne[s, name]) / (ne[s, "vm"] - ne[s, "fm"]) for s in (0, 1)]
        assert by_name(document)[name]["transfer_ratio"] == pytest.approx(statistics.fmean(ratios), abs=1e-9)


def test_the_protocol_says_what_was_done(experiment):
    protocol = experiment[0]["protocol"]
    periods = protocol["periods"]
    assert list(periods) == ["fm", "fm_validation", "vm", "vm_validation", "test"]
    assert sum(period["rows"] for period in periods.values()) == len(planted())
    edges = [(period["from"], period["to"]) for period in periods.values()]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(edges))
    assert protocol["seeds"] == [0, 1]
    assert protocol["config"]["length"] == protocol["history_length"] == 10
    assert Schema.from_dict(json.loads(json.dumps(protocol["schema"]))) == planted_schema()


def test_each_seed_has_its_own_log_of_rows_no_fm_trained_on(experiment):
    document, folder = experiment
    logs = [EmbeddingLog.open(folder / f"seed-{seed}" / "log") for seed in (0, 1)]
    periods = document["protocol"]["periods"]
    for log in logs:
        rows = log.read()
        assert log.trained[1] < rows.time.min()
        assert len(rows) == sum(periods[name]["rows"] for name in ("vm", "vm_validation", "test"))
    assert logs[0].fm != logs[1].fm
    assert not np.array_equal(logs[0].read().z, logs[1].read().z)


def test_the_logs_description_counts_the_history_of_the_test_rows(experiment):
    document, folder = experiment
    rows = EmbeddingLog.open(folder / "seed-1" / "log").read()
    start = np.datetime64(document["protocol"]["periods"]["test"]["from"], "us").astype(int)
    lengths = [
        min(10, ((rows.user == user) & (rows.time < time)).sum())
        for user, time in zip(rows.user, rows.time, strict=True)
        if time >= start
    ]
    assert document["log"]["events"] == len(rows)
    assert document["log"]["mean_history"] == pytest.approx(np.mean(lengths))
    assert document["log"]["empty_history"] == pytest.approx(np.mean(np.equal(lengths, 0)))


# ---- what the numbers must say ---------------------------------------------------------------------------------


def test_the_fms_past_embeddings_carry_the_taste_that_only_it_sees(experiment):
    rows = by_name(experiment[0])
    gain = rows["vm"]["ne"] - rows["vm+loopfm"]["ne"]
    assert rows["fm"]["auc"] > rows["vm"]["auc"] + 0.1
    assert rows["vm+loopfm"]["auc"] > rows["vm"]["auc"] + 0.1
    assert rows["vm+loopfm"]["transfer_ratio"] > 0.5
    assert rows["control:raw-ids+labels"]["auc"] > rows["vm"]["auc"] + 0.1
    for name in ("random-event", "random-item", "count", "raw-ids"):
        assert abs(rows[f"control:{name}"]["ne"] - rows["vm"]["ne"]) < 0.2 * gain, name


def test_soft_labels_alone_cannot_carry_it(experiment):
    rows = by_name(experiment[0])
    assert rows["vm+kd"]["auc"] < rows["vm+loopfm"]["auc"] - 0.1


# ---- seeds and folders -----------------------------------------------------------------------------------------


def numbers(document):
    return [
        {key: value for key, value in run.items() if key != "seconds"} for run in document["runs"]
    ], document["log"]


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others(tmp_path):
    first, again, other = (
        quick_run(tmp_path / name, seeds=(seed,)) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert numbers(first) == numbers(again)
    assert all(a["ne"] != b["ne"] for a, b in zip(first["runs"], other["runs"], strict=True))
    assert [row["ne_std"] for row in first["rows"]] == [None] * 12


def test_the_numbers_of_a_seed_do_not_depend_on_the_seeds_before_it(tmp_path):
    both, alone = quick_run(tmp_path / "both", seeds=(6, 5)), quick_run(tmp_path / "alone", seeds=(5,))
    assert numbers(both)[0][12:] == numbers(alone)[0]


def test_a_folder_that_holds_files_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="already holds files"):
        quick_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_fine(tmp_path):
    quick_run(tmp_path)
    assert (tmp_path / "report.json").exists()


def test_resuming_never_removes_files_of_others(tmp_path):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="seed-0"):
        quick_run(tmp_path, resume=True)
    assert (tmp_path / "seed-0" / "thesis.txt").read_text() == "mine"


def test_resuming_never_replaces_the_report_of_another_run(tmp_path):
    quick_run(tmp_path / "out", seeds=(0,))
    before = (tmp_path / "out" / "report.json").read_bytes()
    with pytest.raises(ConfigError, match="or code: choose another folder"):
        quick_run(tmp_path / "out", seeds=(1,), resume=True, z_dim=3)
    assert (tmp_path / "out" / "report.json").read_bytes() == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="file"):
            quick_run(folder)


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,), (2**63,)], ids=str)
def test_unusable_seeds_are_refused_before_anything_is_written(seeds, tmp_path):
    with pytest.raises(ConfigError, match="seeds"):
        quick_run(tmp_path / "out", seeds=seeds)
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_work_leaves_no_folder(tmp_path):
    with pytest.raises(SchemaError, match="'clicked'"):
        quick_run(tmp_path / "out", SMALL.drop("clicked"))
    with pytest.raises(DataError, match="period"):
        quick_run(tmp_path / "out", SMALL.with_columns(time=pl.lit(1)))
    with pytest.raises(DataError, match="period are 0"):
        quick_run(tmp_path / "out", SMALL.with_columns(clicked=pl.lit(0)))
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_is_explained(tmp_path):
    quick_run(tmp_path / "out")
    (tmp_path / "out" / "report.json").unlink()
    (tmp_path / "out" / "report.json" / "in the way").mkdir(parents=True)
    with pytest.raises(RecfmError, match=r"report\.json"):
        quick_run(tmp_path / "out", resume=True)


def test_a_kill_while_a_seeds_runs_are_written_does_not_block_resuming(tmp_path):
    before = quick_run(tmp_path / "out")
    saved = tmp_path / "out" / "seed-0" / "runs.json"
    saved.rename(saved.with_name(f".runs.json.{os.getpid()}.tmp"))
    assert numbers(quick_run(tmp_path / "out", resume=True)) == numbers(before)
