"""Errors of the command line: one line that says what to do, code 1, nothing on stdout, nothing written."""

import re

import polars as pl
import pytest

from model_helpers import config_file, planted
from recfm import doctor
from recfm.cli import main


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The working folder, empty, beside a folder for data."""
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fails(capsys):
    """`fails(arguments)`: the message of a command that ends with code 1 and prints nothing on stdout."""

    def fails(*arguments):
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        line = err.strip().splitlines()[-1]
        assert re.match("[A-Z][a-zA-Z]+Error: ", line), err
        return line

    return fails


DATA = 'data = "events.parquet"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (DATA, 'dat = "events.parquet"', r"'dat'; did you mean 'data'\?"),
        (DATA, "", "'data' is missing"),
        (DATA, 'data = "events.parquet', "run.toml' cannot be read as TOML"),
        (DATA, 'data = "evnts.parquet"', r"no event table at .*evnts\.parquet"),
        (DATA, 'data = "run.toml"', r"run\.toml' cannot be read as Parquet"),
        ("[schema]", "[shema]", r"'shema'; did you mean 'schema'\?"),
        ("[loop]\n", "[lop]\n", r"'lop'; did you mean 'loop'\?"),
        ('label = "clicked"', 'lable = "clicked"', r"'lable'; did you mean 'label'\?"),
        ('label = "clicked"', 'label = "click"', r"column 'click' is missing; did you mean 'clicked'\?"),
        ('user = "user"', 'user = "user"\nuser_id = 3', r"\[schema\].*'user_id'"),
        ('side = "item"', 'sid = "item"', r"'features\.0\.sid'; did you mean 'side'\?"),
        ('kind = "history"', 'kind = "histories"', "'histories'"),
        ('kind = "history"', "", r"'features\.1\.kind' is missing"),
        ('of = ["item"]', 'of = ["itm"]', "'itm'"),
        ("z_dim = 4", "zdim = 4", r"\[loop\].*'zdim'; did you mean 'z_dim'\?"),
        ("[loop]\n", "[loop]\ndelay = nan\n", "delay"),
        ("[loop]\n", "[loop]\nepochs = 3\n", r"'epochs'; did you mean '(fm|vm)_train\.epochs'\?"),
        ("layers = 1", "layer = 1", r"'fm\.layer'; did you mean 'layers'\?"),
        ("[loop.fm]", "[loop.fmm]", r"'fmm'; did you mean 'fm'\?"),
        ("epochs = 1", "epochs = 0", "epochs is 0"),
        ("epochs = 1", 'epochs = "one"', r"'fm_train\.epochs' is 'one'"),
    ],
)
def test_a_wrong_file_is_explained(work, fails, old, new, message):
    line = fails("loop", "--config", config_file(work.parent / "data", old, new), "--out", "out")
    assert re.search(message, line), line
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.length", "section.key=value"),
        ("loop.lenght=3", "did you mean 'length'"),
        ("loop.length=three", "length"),
        ("loop.length='3'", "length"),
        ("loop=3", "loop"),
        ("data.x=3", "'data' is a value"),
        ("seeds=[]", "seeds"),
        ("seeds=[1, 1]", "seeds"),
        ("loop.periods.fm=0.9", "periods"),
        ("loop.periods.vm=0.0001", "the vm period is empty"),
        ("loop.taps=['mlp.hiden_0']", "mlp.hidden_0"),
        ("loop.fm_train.device=gpu0", "device 'gpu0'"),
    ],
)
def test_a_wrong_override_is_explained(work, fails, override, message):
    path = config_file(work.parent / "data")
    assert message in fails("loop", "--config", path, "--set", override, "--out", "out")
    assert list(work.iterdir()) == []


def test_a_missing_config_is_named(fails):
    assert "nowhere.toml" in fails("loop", "--config", "nowhere.toml")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_explained(work, fails, seed):
    path = config_file(work.parent / "data")
    assert "seeds" in fails("loop", "--config", path, f"--seed={seed}", "--out", "out")


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class_are_explained(work, fails, label):
    path = config_file(work.parent / "data")
    events = planted(users=50, events=20).with_columns(clicked=pl.lit(label))
    events.write_parquet(work.parent / "data" / "events.parquet")
    assert f"period are {label}" in fails("loop", "--config", path, "--out", "out")


def test_a_test_period_of_one_class_is_explained(work, fails):
    path = config_file(work.parent / "data")
    events = planted(users=50, events=20)
    late = pl.col("time") >= events["time"].sort()[801]
    events = events.with_columns(clicked=pl.when(late).then(1).otherwise("clicked"))
    events.write_parquet(work.parent / "data" / "events.parquet")
    message = fails("loop", "--config", path, "--set", "loop.periods.fm=0.5", "loop.periods.vm=0.301")
    assert "labels of the test period are 1" in message


def test_a_used_folder_is_refused_and_left_as_it_is(work, fails):
    (work / "out").mkdir()
    (work / "out" / "mine").write_text("x")
    path = config_file(work.parent / "data")
    assert "already holds files" in fails("loop", "--config", path, "--out", "out")
    assert [file.name for file in (work / "out").iterdir()] == ["mine"]
    assert (work / "out" / "mine").read_text() == "x"


def test_a_result_path_below_a_file_is_refused(work, fails):
    (work / "file").write_text("x")
    path = config_file(work.parent / "data")
    assert "file" in fails("loop", "--config", path, "--out", "file/out")


def test_resuming_needs_the_folder_of_the_run(work, fails):
    path = config_file(work.parent / "data")
    assert "out" in fails("loop", "--config", path, "--resume")
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("command", [("demo",), ("reproduce", "ml-1m")], ids=str)
def test_a_folder_without_movielens_is_explained(work, fails, command):
    assert str(work) in fails(*command, "--data", str(work))


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["loop"], ["loop", "--config", "x", "--nope"]], ids=str
)
def test_a_wrong_command_line_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""


def test_an_interrupt_exits_with_130(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", interrupted)
    assert main(["doctor"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "interrupted" in err
