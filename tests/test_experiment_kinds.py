"""Runs of other kinds: another VM, no history or a shared one, every kind of feature, strangers only, a delay."""

import polars as pl

from model_helpers import LABELLED_HISTORY, NAMES, SMALL, planted, planted_schema, quick_run, tiny_config
from recfm.experiment import run_experiment
from recfm.schema import Categorical, History, Numeric, Tokens
from recfm.train.trainer import TrainConfig


def by_name(document):
    return {row["name"]: row for row in document["rows"]}


def test_a_deepfm_as_the_vertical_model(tmp_path):
    document = quick_run(tmp_path / "out", vm="deepfm")
    assert document["protocol"]["vm_model"] == "deepfm"
    sizes = {name: row["parameters"] for name, row in by_name(document).items()}
    assert sizes["vm"] == sizes["vm+kd"] == sizes["control:vm-all-periods"]
    assert sizes["vm+loopfm"] > sizes["vm"]


def test_a_schema_without_any_history(tmp_path):
    document = quick_run(tmp_path / "out", schema=planted_schema(Categorical(name="user", side="user")))
    assert [row["name"] for row in document["rows"]] == NAMES


def test_a_history_that_the_vm_reads_as_well(tmp_path):
    shared = History(name="seen", of=("item",), labels=True, length=10)
    slow = {"epochs": 6, "batch_size": 128, "learning_rate": 1e-2, "patience": 2}
    rows = by_name(
        quick_run(tmp_path / "out", planted(users=120), planted_schema(shared), vm_train=TrainConfig(**slow))
    )
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
    document = quick_run(tmp_path / "out", events, planted_schema(*features))
    assert [row["name"] for row in document["rows"]] == NAMES


def test_a_log_in_which_nobody_comes_twice_has_no_gauc(tmp_path):
    document = quick_run(tmp_path / "out", SMALL.with_columns(user=pl.int_range(pl.len())))
    assert {row["gauc"] for row in document["rows"]} == {None}
    assert document["log"]["empty_history"] == 1.0


def test_a_delay_hides_recent_events(tmp_path):
    means = [quick_run(tmp_path / str(d), delay=d)["log"]["mean_history"] for d in (0.0, 3 * 3600.0, 1e7)]
    assert means[0] > means[1] > means[2] == 0.0


def test_with_every_event_delayed_past_the_end_loopfm_has_nothing_more_to_read(tmp_path):
    config = tiny_config(delay=1e7)
    document = run_experiment(planted(users=120), planted_schema(), config, folder=tmp_path / "out")
    rows = by_name(document)
    assert abs(rows["vm+loopfm"]["auc"] - rows["vm"]["auc"]) < 0.04
    assert rows["fm"]["auc"] > rows["vm"]["auc"] + 0.1
