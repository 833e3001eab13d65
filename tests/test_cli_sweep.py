"""`recfm sweep` and `recfm reproduce` on the command line."""

import json

import pytest

from recfm.cli import main
from sweep_helpers import sweep_file


def result(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_sweep_prints_one_json_line_and_goes_on_in_its_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(sweep_file(tmp_path))
    assert main(["sweep", path, "--set", "seeds=[0]", "evaluate_test=true", "--json"]) == 0
    found = result(capsys)
    assert found.keys() == {"protocol", "settings", "scaling", "notes", "results"}
    assert found["results"] == "runs/tiny/results.json"
    written = json.loads((tmp_path / found["results"]).read_text())
    assert written["command"] == "recfm sweep tiny.toml --set 'seeds=[0]' evaluate_test=true --json"
    assert written["settings"] == found["settings"]
    assert main(["sweep", path, "--set", "seeds=[0]", "evaluate_test=true"]) == 0
    out, err = capsys.readouterr()
    assert "3.7k" not in err
    assert "test AUC" in out
    assert "results: runs/tiny/results.json" in out.splitlines()


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    path, out = str(sweep_file(tmp_path)), tmp_path / "out"
    assert main(["sweep", path, "--out", str(out), "--dry-run", "--json"]) == 0
    assert [setting["label"] for setting in result(capsys)["settings"]] == [
        "dnn hidden=[4]",
        "dnn hidden=[8]",
        "W",
    ]
    assert main(["sweep", path, "--dry-run"]) == 0
    assert "TFLOP" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["sweep", "frape"],
            "ConfigError: there is no sweep file 'frape': give a TOML file, or one of frappe,",
        ),
        (["sweep", "frappe", "--data", "nowhere"], "DataError: "),
        (
            ["reproduce", "frappe"],
            "ConfigError: Frappe cannot be fetched: give the folder of its files with --data",
        ),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
