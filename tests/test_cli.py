"""The command line: results on stdout, progress on stderr, `--json` in one line that follows the contract."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model_helpers import config_file
from recfm import report
from recfm.cli import main

NAMES = ["fm", "vm", "vm+kd", "vm+loopfm", "vm+kd+loopfm"]
CONTRACT = {"name", "seeds", "auc", "auc_std", "gauc", "logloss", "ne", "ne_std", "transfer_ratio"}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A good run.toml in a data folder; the working folder is another one, and empty."""
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return config_file(tmp_path / "data")


def result(capsys):
    """The JSON object in the last line of stdout, and all of stdout."""
    out, _ = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), out


# ---- loop ------------------------------------------------------------------------------------------------------


def test_loop_prints_one_json_line_that_follows_the_contract(config, capsys):
    assert main(["loop", "--config", config, "--out", "results", "--json"]) == 0
    found, out = result(capsys)
    assert len(out.splitlines()) == 1
    assert found.keys() == {"protocol", "rows", "report"}
    assert [row["name"] for row in found["rows"]][:5] == NAMES
    assert len(found["rows"]) == 12
    assert all(row.keys() >= CONTRACT for row in found["rows"])
    assert all(row["seeds"] == 1 and 0 <= row["auc"] <= 1 and row["auc_std"] is None for row in found["rows"])
    written = report.read(found["report"])
    assert written["rows"] == found["rows"]
    assert written["protocol"] == found["protocol"]
    assert found["protocol"]["dataset"] == "run"


def test_the_report_holds_the_command_that_made_it(config):
    main(["loop", "--config", config, "--set", "loop.length=3", "--out", "a b"])
    name = Path(config).name  # an absolute path is cut: reports are shown to others
    assert report.read("a b")["command"] == f"recfm loop --config {name} --set loop.length=3 --out 'a b'"


def test_without_json_a_table_and_the_reports_path_are_printed(config, capsys):
    out = "results[bold]" + "x" * 100
    assert main(["loop", "--config", config, "--out", out]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*NAMES, "control:count"))
    assert f"report: {out}/report.html" in printed.splitlines()


def test_by_default_results_go_to_a_new_folder_under_runs(config, tmp_path, capsys):
    assert main(["loop", "--config", config, "--json"]) == 0
    folder = result(capsys)[0]["report"].removesuffix("/report.json")
    assert folder.startswith("runs/loop-")
    assert (tmp_path / "work" / folder / "report.html").exists()


def test_overrides_name_seeds_and_out_reach_the_run(config, tmp_path, capsys):
    settings = ["loop.length=3", "name=mine", "seeds=[4, 5]", "out=there", "loop.vm=deepfm"]
    assert main(["loop", "--config", config, "--set", *settings, "--json"]) == 0
    found, _ = result(capsys)
    protocol = found["protocol"]
    assert (protocol["history_length"], protocol["dataset"], protocol["vm_model"]) == (3, "mine", "deepfm")
    assert protocol["seeds"] == [4, 5]
    assert found["rows"][0]["seeds"] == 2
    assert (tmp_path / "work" / "there" / "seed-5").is_dir()


def test_a_seed_on_the_command_line_replaces_those_of_the_file(config, capsys):
    assert main(["loop", "--config", config, "--seed", "9", "--set", "seeds=[1, 2]", "--json"]) == 0
    assert result(capsys)[0]["protocol"]["seeds"] == [9]


@pytest.mark.parametrize("absolute", [False, True], ids=["folder", "absolute glob"])
def test_data_may_be_a_folder_or_a_glob(config, tmp_path, capsys, absolute):
    where = tmp_path / "data" / "*.parquet" if absolute else "."
    assert main(["loop", "--config", config, "--set", f"data={where}", "--json"]) == 0
    assert sum(p["rows"] for p in result(capsys)[0]["protocol"]["periods"].values()) == 1000


# ---- doctor, demo, reproduce -----------------------------------------------------------------------------------


def test_doctor_prints_one_json_object(capsys):
    assert main(["doctor", "--json"]) == 0
    found, out = result(capsys)
    assert len(out.splitlines()) == 1
    assert found.keys() >= {"ok", "machine", "core", "packages", "gpu", "problems"}
    assert found["ok"] == (found["problems"] == [])
    assert found["packages"]["polars"] == pl.__version__


def test_doctor_prints_a_table(capsys):
    assert main(["doctor"]) == 0
    assert np.__version__ in capsys.readouterr().out


def write_movielens(folder, *, users=40, movies=25, per_user=14):
    """Ratings, users and items as the Parquet layout of ml-100k has them."""
    rng = np.random.default_rng(0)
    n, folder = users * per_user, folder / "ml-tiny"
    folder.mkdir()
    start = datetime(1998, 1, 1, tzinfo=UTC)
    ratings = {
        "user_id": np.tile(np.arange(users), per_user),
        "item_id": rng.integers(1, movies + 1, n),
        "rating": rng.integers(1, 6, n).astype(np.int8),
        "timestamp": [int((start + timedelta(minutes=i)).timestamp()) for i in range(n)],
    }
    people = {
        "user_id": range(users),
        "age": [30] * users,
        "gender": ["F"] * users,
        "occupation": [3] * users,
    }
    films = {
        "item_id": range(1, movies + 1),
        "movie_title": [f"Film {i}" for i in range(movies)],
        "release_year": [str(1970 + i) for i in range(movies)],
        "class": ["Drama", "Comedy War", "", "War", "Drama War"] * (movies // 5),
    }
    for name, columns in (("ratings", ratings), ("users", people), ("items", films)):
        pl.DataFrame(columns).write_parquet(folder / f"{name}.parquet")
    return str(folder)


def test_demo_runs_on_a_folder_of_movielens(tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["demo", "--data", write_movielens(tmp_path), "--seed", "2", "--out", str(out), "--json"]) == 0
    )
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [row["name"] for row in found["rows"]][:5] == NAMES
    assert (found["protocol"]["dataset"], found["protocol"]["seeds"]) == ("ml-tiny", [2])
    assert "Harper" in captured.err, "MovieLens must be acknowledged"
    assert report.read(out)["title"] == "LoopFM on ml-tiny"


def test_reproduce_runs_as_many_seeds_as_asked_for(tmp_path, capsys):
    data, out = write_movielens(tmp_path), str(tmp_path / "out")
    arguments = ["--data", data, "--seed", "3", "--seeds", "2", "--out", out, "--json"]
    assert main(["reproduce", "ml-1m", *arguments]) == 0
    found, _ = result(capsys)
    assert found["protocol"]["seeds"] == [3, 4]
    assert all(row["seeds"] == 2 and row["ne_std"] is not None for row in found["rows"])


# ---- as a process ----------------------------------------------------------------------------------------------

HELP = """
import sys
from recfm.cli import main
commands = ("demo", "loop", "encode", "train", "evaluate", "predict", "sweep", "reproduce", "doctor")
for command in ([], *([name] for name in commands)):
    try:
        main([*command, "--help"])
    except SystemExit as stopped:
        assert stopped.code == 0, command
heavy = {"torch", "polars", "matplotlib", "sklearn"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def test_help_loads_nothing_heavy():
    finished = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=100)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "--config" in finished.stdout


def run(*arguments):
    command = [sys.executable, "-W", "error", "-m", "recfm.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_a_process_prints_its_result_and_no_warning(config, tmp_path):
    finished = run("loop", "--config", config, "--out", "out", "--json")
    assert finished.returncode == 0, finished.stderr
    assert "Warning" not in finished.stderr
    assert len(json.loads(finished.stdout)["rows"]) == 12
    assert (tmp_path / "work" / "out" / "report.html").exists()


def test_a_process_ends_an_error_with_one_line_and_code_one(config, tmp_path):
    config_file(tmp_path / "data", "[schema]", "[shema]")
    finished = run("loop", "--config", config)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("ConfigError: ")
    assert len(finished.stderr.splitlines()) == 1
