"""Running sweeps: every setting and seed once, whoever is asked, and nothing chosen by the test rows."""

import json
import subprocess
import sys

import pytest
import torch

from recfm.errors import ConfigError, SchemaError
from recfm.sweep import Sweep, engine, job, summary
from recfm.sweep.folder import SweepFolder
from sweep_helpers import HEAD, SYNTHETIC, sweep_file


@pytest.fixture
def trained(monkeypatch):
    """Labels and seeds of the runs that were really trained."""
    done = []
    real = job.run_one

    def counted(data, setting, seed, **options):
        done.append((setting.label, seed))
        return real(data, setting, seed, **options)

    monkeypatch.setattr(engine, "run_one", counted)
    return done


ALL = [(label, seed) for seed in (0, 1) for label in ("dnn hidden=[4]", "dnn hidden=[8]", "W")]


def test_every_setting_and_seed_is_run_and_written(tmp_path, trained):
    out = tmp_path / "out"
    document = Sweep.open(sweep_file(tmp_path, top="evaluate_test = true")).run(out)
    assert trained == ALL
    assert json.loads((out / "results.json").read_text()) == document
    assert (out / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert "| dnn hidden=[4]" in (out / "table.md").read_text()
    assert [row["seeds"] for row in document["settings"]] == [2, 2, 2]
    run = document["runs"][0]
    assert run["status"] == "done"
    assert set(run["test"]) == set(run["valid"]) == {"auc", "gauc", "logloss", "ne"}
    assert run["parameters"]["embedding"] == 2 * (12 + 10 + 8 + 6 + 4 * 2)
    assert run["training_flops_per_example"] == 6 * (8 * 4 + 4)
    assert run["epochs"] == run["best_epoch"] == len(run["curve"]) == 1
    assert run["rows_per_second"] == pytest.approx(2400 / run["seconds"])
    assert document["protocol"]["floor"]["test"]["ne"] < min(run["test"]["ne"] for run in document["runs"])


def test_rows_are_mean_and_deviation_of_their_runs(tmp_path):
    document = Sweep.open(sweep_file(tmp_path)).run(tmp_path / "out")
    first, second = (run["valid"]["auc"] for run in document["runs"][:2])
    assert document["settings"][0]["valid"]["auc"] == pytest.approx((first + second) / 2)
    assert document["settings"][0]["valid"]["auc_std"] == pytest.approx(abs(first - second) / 2**0.5)


def test_a_run_is_the_same_numbers_whatever_ran_before_it(tmp_path):
    whole = Sweep.open(sweep_file(tmp_path)).run(tmp_path / "whole")
    only = '[[runs]]\nmodel = "dnn"\nsettings = { dim = 2, hidden = [8] }'
    alone = Sweep.open(sweep_file(tmp_path, runs=only)).run(tmp_path / "alone")
    same = [run for run in whole["runs"] if run["label"] == "dnn hidden=[8]"]
    assert [run["valid"] for run in same] == [run["valid"] for run in alone["runs"]]
    assert [run["key"] for run in same] == [run["key"] for run in alone["runs"]]


def test_finished_runs_are_skipped_and_a_grown_sweep_does_only_the_new_ones(tmp_path, trained):
    path = sweep_file(tmp_path)
    first = Sweep.open(path).run(tmp_path / "out")
    trained.clear()
    again = Sweep.open(path).run(tmp_path / "out")
    assert trained == []
    assert again["settings"] == first["settings"]
    Sweep.open(path, ["seeds=[0, 1, 2]"]).run(tmp_path / "out")
    assert trained == [(label, 2) for label, seed in ALL if seed == 0]


def test_a_killed_sweep_goes_on_where_it_was(tmp_path, trained, monkeypatch):
    path, counted = sweep_file(tmp_path), engine.run_one

    def killed(data, setting, seed, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return counted(data, setting, seed, **options)

    monkeypatch.setattr(engine, "run_one", killed)
    with pytest.raises(KeyboardInterrupt):
        Sweep.open(path).run(tmp_path / "out")
    partial = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "4 of 6 runs are still to be done." in partial["notes"]
    monkeypatch.setattr(engine, "run_one", counted)
    Sweep.open(path).run(tmp_path / "out")
    assert trained == ALL


def test_a_search_never_measures_the_test_rows(tmp_path, monkeypatch):
    real, periods = job.make_batches, []

    def spied(data, period, **options):
        periods.append(period)
        return real(data, period, **options)

    monkeypatch.setattr(job, "make_batches", spied)
    document = Sweep.open(sweep_file(tmp_path)).run(tmp_path / "out")
    assert "test" not in periods
    assert all(run["test"] is None for run in document["runs"])
    assert all(row["test"] is None for row in document["settings"])
    assert "test AUC" not in (tmp_path / "out" / "table.md").read_text().split("\n\n")[1]


def record(auc, test):
    metrics = {"gauc": None, "logloss": 0.5, "ne": 0.9}
    return {
        "status": "done",
        "valid": {"auc": auc, **metrics},
        "test": {"auc": test, **metrics},
    } | dict.fromkeys(
        ("parameters", "training_flops_per_example", "epochs", "best_epoch", "seconds", "rows_per_second")
    )


def test_the_best_setting_is_chosen_by_validation_and_whole_settings_only(tmp_path):
    sweep = Sweep.open(sweep_file(tmp_path))
    better_on_test = [[record(0.7, 0.9)] * 2, [record(0.8, 0.6)] * 2, []]
    rows = summary.summarise(sweep.settings, better_on_test, "auc")
    assert [row["best"] for row in rows] == [False, True, False]
    failed = {"status": "failed", "error": "x"}
    rows = summary.summarise(sweep.settings, [[record(0.7, 0.9)] * 2, [record(0.8, 0.6), failed], []], "auc")
    assert [row["best"] for row in rows] == [True, False, False]
    assert rows[1]["failed"] == 1
    assert [row["missing"] for row in rows] == [0, 0, 2]


def test_a_failing_run_is_recorded_and_the_others_go_on(tmp_path, trained):
    explode = "train = { learning_rate = 1000.0, weight_decay = 1000.0, epochs = 3 }"
    bad = f'[[runs]]\nmodel = "dnn"\nlabel = "bad"\n{explode}'
    good = '[[runs]]\nmodel = "dnn"\nlabel = "good"\nsettings = { dim = 2 }'
    path = sweep_file(tmp_path, runs=f"{bad}\n{good}")
    document = Sweep.open(path).run(tmp_path / "out")
    assert [(row["label"], row["seeds"], row["failed"]) for row in document["settings"]] == [
        ("bad", 0, 2),
        ("good", 2, 0),
    ]
    assert any("bad, seed 0, failed: RecfmError: the loss is" in note for note in document["notes"])
    trained.clear()
    Sweep.open(path).run(tmp_path / "out")
    assert trained == []
    Sweep.open(path).run(tmp_path / "out", retry_failed=True)
    assert trained == [("bad", 0), ("bad", 1)]


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("evaluate_test=true", "evaluate_test is false there and true here"),
        ("data.synthetic.seed=9", "data name is .*seed 0.* there and .*seed 9.* here"),
        ("data.synthetic.rows=4000", "data periods is .*2400.* there and .*3200.* here"),
        ("data.synthetic.scale=1.0", "data digest|data periods"),
    ],
)
def test_the_folder_of_another_sweep_is_refused(tmp_path, override, difference):
    path, out = sweep_file(tmp_path), tmp_path / "out"
    Sweep.open(path, ["seeds=[0]"]).run(out)
    with pytest.raises(ConfigError, match=rf"holds another sweep: {difference}"):
        Sweep.open(path, [override]).run(out)


def test_a_folder_of_something_else_or_a_damaged_run_is_refused(tmp_path):
    path, out = sweep_file(tmp_path), tmp_path / "out"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(ConfigError, match="already holds files"):
        Sweep.open(path).run(tmp_path / "full")
    Sweep.open(path, ["seeds=[0]"]).run(out)
    victim = next((out / "runs").glob("*.json"))
    unmeasured = json.dumps({"key": victim.stem, "status": "done"}).encode()
    for content in (victim.read_bytes()[:40], b"[]", b'{"key": "other"}', unmeasured):
        victim.write_bytes(content)
        with pytest.raises(ConfigError, match=f"{victim.name}' is .*: remove it and sweep again"):
            Sweep.open(path, ["seeds=[0]"]).run(out)
    (out / "sweep.json").write_text("{")
    with pytest.raises(ConfigError, match=r"sweep.json' is damaged: choose another folder"):
        Sweep.open(path, ["seeds=[0]"]).run(out)


HOLD = """
import sys, time
from pathlib import Path
from recfm.sweep.folder import SweepFolder
place = SweepFolder(Path(sys.argv[1]), data={"digest": "d"}, evaluate_test=False)
with place.claim("run") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_claim_keeps_others_out_until_its_process_dies(tmp_path):
    place = SweepFolder(tmp_path / "out", data={"digest": "d"}, evaluate_test=False)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"True\n"
        with place.claim("run") as mine, place.claim("other") as free:
            assert not mine
            assert free
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with place.claim("run") as mine:
        assert mine


def test_what_another_process_claims_is_waited_for(tmp_path, trained, monkeypatch):
    """The other one finishes its run while this process sleeps."""
    sweep = Sweep.open(sweep_file(tmp_path), ["seeds=[0]"])
    place = SweepFolder(tmp_path / "out", data=sweep.data.describe(), evaluate_test=False)
    theirs, naps = sweep.jobs[0], []
    with place.claim(theirs.key) as mine:
        assert mine

        def nap(_seconds):
            naps.append(1)
            place.finish(theirs.key, job.run_one(sweep.data, theirs.setting, 0, evaluate_test=False))

        monkeypatch.setattr(engine.time, "sleep", nap)
        document = sweep.run(tmp_path / "out")
    assert naps == [1]
    assert trained == [("dnn hidden=[8]", 0), ("W", 0)]
    assert [row["seeds"] for row in document["settings"]] == [1, 1, 1]


@pytest.mark.slow
def test_two_workers_make_the_results_of_one(tmp_path):
    path = sweep_file(tmp_path)
    two = Sweep.open(path).run(tmp_path / "two", workers=2)
    (threads,) = {run["threads"]["torch"] for run in two["runs"]}  # torch's sums depend on how many
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one = Sweep.open(path).run(tmp_path / "one")
    finally:
        torch.set_num_threads(before)
    assert [run["valid"] for run in one["runs"]] == [run["valid"] for run in two["runs"]]
    assert (tmp_path / "two" / "worker-1.log").exists()


def test_a_dry_run_says_what_it_would_compute(tmp_path):
    costs = Sweep.open(sweep_file(tmp_path)).costs()
    assert costs[0]["training_flops_at_most"] == 6 * (8 * 4 + 4) * 2400 * 2
    assert costs[1]["parameters"]["dense"] == 8 * 8 + 8 + 8 + 1


def test_a_dry_run_names_the_setting_that_does_not_fit_the_data(tmp_path):
    path = sweep_file(tmp_path, runs='[[runs]]\nmodel = "din"\nlabel = "D"')
    with pytest.raises(SchemaError, match=r"^D: DIN reads a user's past events"):
        Sweep.open(path).costs()


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_below_one_is_refused(tmp_path, workers):
    with pytest.raises(ConfigError, match=f"workers is {workers}"):
        Sweep.open(sweep_file(tmp_path)).run(tmp_path / "out", workers=workers)
    assert not (tmp_path / "out").exists()


def test_own_tables_are_cut_by_time_or_taken_as_given(tmp_path, make_events):
    events, _ = make_events(600)
    schema = """
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
kind = "history"
name = "seen"
of = ["movie_id"]
labels = true
length = 3
"""
    runs = '[[runs]]\nmodel = "dnn"\nsettings = { dim = 2, hidden = [4] }'
    events.write_parquet(tmp_path / "events.parquet")
    by_time = HEAD.replace(SYNTHETIC, 'events = "events.parquet"') + schema
    data = Sweep.open(sweep_file(tmp_path, head=by_time, runs=runs)).data
    last = [data.encoded.time[data.rows[period]].max() for period in ("train", "valid", "test")]
    first = [data.encoded.time[data.rows[period]].min() for period in ("train", "valid", "test")]
    assert last[0] < first[1] <= last[1] < first[2]
    assert Sweep.open(tmp_path / "tiny.toml").run(tmp_path / "out")["settings"][0]["failed"] == 0
    parts = {"train": events[:300], "valid": events[300:400], "test": events[400:]}
    for name, part in parts.items():
        part.write_parquet(tmp_path / f"{name}.parquet")
    given = 'train = "train.parquet"\nvalid = "valid.parquet"\ntest = "test.parquet"'
    data = Sweep.open(sweep_file(tmp_path, head=HEAD.replace(SYNTHETIC, given) + schema, runs=runs)).data
    assert {name: len(rows) for name, rows in data.rows.items()} == {"train": 300, "valid": 100, "test": 200}
    assert data.encoder.fitted.vocabularies["movie_id"].counts().sum() == 300  # training rows only
