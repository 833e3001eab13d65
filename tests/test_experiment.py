"""Whole runs on a small log with planted taste: rows, report, seeds, folders, and what the numbers must say."""

import itertools
import json
import statistics

import numpy as np
import polars as pl
import pytest

from model_helpers import LABELLED_HISTORY, planted, planted_schema, tiny_config
from recfm import report
from recfm.errors import ConfigError, DataError, SchemaError
from recfm.experiment import run_experiment
from recfm.history.log import EmbeddingLog
from recfm.periods import PeriodConfig
from recfm.schema import Categorical, History, Numeric, Schema, Tokens
from recfm.train.trainer import TrainConfig

NAMES = [
    "fm", "vm", "vm+kd", "vm+loopfm", "vm+kd+loopfm", "control:random-event", "control:random-item",
    "control:count", "control:score", "control:raw-ids", "control:raw-ids+labels", "control:vm-all-periods",
]  # fmt: skip
CONTRACT = ("name", "seeds", "auc", "auc_std", "gauc", "logloss", "ne", "ne_std", "transfer_ratio")
ONE_EPOCH = TrainConfig(epochs=1, batch_size=256)
QUICK = {"fm_train": ONE_EPOCH, "vm_train": ONE_EPOCH}
SMALL = planted(users=60, events=20)


def by_name(document):
    return {row["name"]: row for row in document["rows"]}


def quick(folder, events=SMALL, schema=None, *, seeds=(0,), **changes):
    config = tiny_config(**(QUICK | changes))
    return run_experiment(events, schema or planted_schema(), config, seeds=seeds, folder=folder)


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
        quick(tmp_path / name, seeds=(seed,)) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert numbers(first) == numbers(again)
    assert all(a["ne"] != b["ne"] for a, b in zip(first["runs"], other["runs"], strict=True))
    assert [row["ne_std"] for row in first["rows"]] == [None] * 12


def test_the_numbers_of_a_seed_do_not_depend_on_the_seeds_before_it(tmp_path):
    both, alone = quick(tmp_path / "both", seeds=(6, 5)), quick(tmp_path / "alone", seeds=(5,))
    assert numbers(both)[0][12:] == numbers(alone)[0]


def test_a_folder_that_holds_files_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="already holds files"):
        quick(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_and_one_to_be_made_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/one"):
        assert (tmp_path / name / "report.json").exists() or quick(tmp_path / name)
        assert (tmp_path / name / "report.json").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="file"):
            quick(folder)


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,), (2**63,)], ids=str)
def test_unusable_seeds_are_refused_before_anything_is_written(seeds, tmp_path):
    with pytest.raises(ConfigError, match="seeds"):
        quick(tmp_path / "out", seeds=seeds)
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_work_leaves_no_folder(tmp_path):
    with pytest.raises(SchemaError, match="'clicked'"):
        quick(tmp_path / "out", SMALL.drop("clicked"))
    with pytest.raises(DataError, match="period"):
        quick(tmp_path / "out", SMALL.with_columns(time=pl.lit(1)))
    with pytest.raises(DataError, match="period are 0"):
        quick(tmp_path / "out", SMALL.with_columns(clicked=pl.lit(0)))
    assert not (tmp_path / "out").exists()


# ---- other shapes of a run -------------------------------------------------------------------------------------


def test_a_deepfm_as_the_vertical_model(tmp_path):
    document = quick(tmp_path / "out", vm="deepfm")
    assert document["protocol"]["vm_model"] == "deepfm"
    sizes = {name: row["parameters"] for name, row in by_name(document).items()}
    assert sizes["vm"] == sizes["vm+kd"] == sizes["control:vm-all-periods"]
    assert sizes["vm+loopfm"] > sizes["vm"]


def test_a_schema_without_any_history(tmp_path):
    document = quick(tmp_path / "out", schema=planted_schema(Categorical(name="user", side="user")))
    assert [row["name"] for row in document["rows"]] == NAMES


def test_a_history_that_the_vm_reads_as_well(tmp_path):
    shared = History(name="seen", of=("item",), labels=True, length=10)
    slow = {"epochs": 6, "batch_size": 128, "learning_rate": 1e-2, "patience": 2}
    rows = by_name(quick(tmp_path / "out", planted(), planted_schema(shared), vm_train=TrainConfig(**slow)))
    assert rows["vm"]["auc"] > 0.75, "it now sees past labels itself"
    assert rows["vm+loopfm"]["parameters"] > rows["vm"]["parameters"]


def test_every_kind_of_feature_and_user_key_at_once(tmp_path):
    events = SMALL.with_columns(
        user=pl.format("u{}", "user"),
        time=pl.from_epoch("time", time_unit="s"),
        price=pl.col("item") * 1.5,
        tags=pl.concat_list(pl.format("t{}", pl.col("item") % 3)),
        secret=pl.col("item") % 4,
    )
    features = (
        Numeric(name="price", side="item"), Tokens(name="tags", side="item", buckets=9),
        Categorical(name="secret", side="item", seen_by="fm"), LABELLED_HISTORY,
        History(name="hidden", of=("secret",), labels=True, length=4, seen_by="fm"),
    )  # fmt: skip
    document = quick(tmp_path / "out", events, planted_schema(*features))
    assert [row["name"] for row in document["rows"]] == NAMES


def test_a_log_in_which_nobody_comes_twice_has_no_gauc(tmp_path):
    document = quick(tmp_path / "out", SMALL.with_columns(user=pl.int_range(pl.len())))
    assert {row["gauc"] for row in document["rows"]} == {None}
    assert document["log"]["empty_history"] == 1.0


def test_a_delay_hides_recent_events(tmp_path):
    means = [quick(tmp_path / str(d), delay=d)["log"]["mean_history"] for d in (0.0, 3 * 3600.0, 1e7)]
    assert means[0] > means[1] > means[2] == 0.0


def test_with_every_event_delayed_past_the_end_loopfm_is_a_vm_with_nothing_more_to_read(tmp_path):
    config = tiny_config(delay=1e7, periods=PeriodConfig(fm=0.5, vm=0.3, validation=0.15))
    document = run_experiment(planted(), planted_schema(), config, folder=tmp_path / "out")
    rows = by_name(document)
    assert abs(rows["vm+loopfm"]["auc"] - rows["vm"]["auc"]) < 0.03
    assert rows["fm"]["auc"] > rows["vm"]["auc"] + 0.1
