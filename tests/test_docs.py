"""The pages of docs/ are true: their code runs as written, their tables name what there is."""

import ast
import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from recfm.cli import LoopFile, main
from recfm.config import parse
from recfm.datasets import ctr, frappe
from recfm.loop import LoopConfig
from recfm.models.zoo import MODELS
from recfm.schema import Schema
from recfm.single import TrainFile
from recfm.sweep.plan import SweepFile, settings_of
from recfm.train.config import TrainConfig

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page.stem for page in DOCS.glob("*.md"))


def blocks(page, language):
    """The fenced blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)


def run_python(page):
    """Run the Python of a page in one scope, and give that."""
    scope = {"__name__": page}
    for example in blocks(page, "python"):
        exec(compile(example, f"docs/{page}.md", "exec"), scope)
    return scope


def rows_of_table(page, head):
    """The cells of a page's table whose first heading is `head`."""
    lines = iter((DOCS / f"{page}.md").read_text().splitlines())
    for line in lines:
        if line.startswith(f"| {head} |"):
            next(lines)
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", (DOCS / f"{page}.md").read_text())
    for link in links:
        path, _, section = link.partition("#")
        target = DOCS / path if path else DOCS / f"{page}.md"
        assert target.exists(), link
        heads = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if section else []
        assert not section or section in [
            re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in heads
        ]


def test_the_config_page_shows_a_file_that_is_accepted():
    (example,) = blocks("config", "toml")
    file = parse(LoopFile, tomllib.loads(example), what="docs/config.md")
    parse(Schema, file.schema, what="[schema]")
    parse(LoopConfig, file.loop, what="[loop]")


def test_the_data_page_runs_as_written(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    rows = 3000
    events = pl.DataFrame(
        {
            "user": rng.integers(0, 50, rows),
            "item": rng.integers(0, 90, rows),
            "time": np.arange(rows),
            "clicked": rng.integers(0, 2, rows),
            "query": [f"q{i % 31}" for i in range(rows)],
            "price": rng.lognormal(size=rows),
            "age": rng.integers(18, 80, rows),
            "tags": [[i % 7, i % 5] for i in range(rows)],
        }
    )
    for name in ("log", "train"):
        (tmp_path / name).mkdir()
        events.write_parquet(tmp_path / name / "0.parquet")
    monkeypatch.chdir(tmp_path)
    scope = run_python("data")
    assert scope["batch"].ids.shape == (rows, 3)
    assert len(scope["index"]) == rows


def test_the_training_page_runs_as_written(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    scope = run_python("training")
    assert [point["epoch"] for point in scope["fit"].curve] == [1, 2, 3, 4, 5]
    best = scope["longer"].evaluate(scope["served"], scope["valid"]).ne
    assert best == min(point["valid_ne"] for point in scope["fit"].curve) < 1
    (file,) = blocks("training", "toml")
    (tmp_path / "my.toml").write_text(file)
    events = scope["log"].frame()
    events.write_parquet("events.parquet")
    events.tail(50).drop("label").write_parquet("new.parquet")
    capsys.readouterr()
    for command in (line for block in blocks("training", "bash") for line in block.splitlines()):
        program, *arguments = shlex.split(command)
        assert program == "recfm"
        assert main(arguments) == 0, capsys.readouterr().err
    assert pl.read_parquet("probabilities.parquet").shape == (50, 2)


def test_the_training_page_lists_every_setting_with_its_default():
    rows = {row[0].strip("`"): row[1] for row in rows_of_table("training", "key")}
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert {name: ast.literal_eval(default.strip("`")) for name, default in rows.items()} == fields


def test_the_models_page_runs_as_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    scope = run_python("models")
    assert scope["logits"].shape == (1024,)
    assert scope["model"].behaviours[0].names == ("item",)
    assert scope["cost"].training_flops > scope["cost"].forward_flops


def test_the_models_page_lists_every_model_and_settings_that_exist():
    rows = {row[0].strip("`"): row[3] for row in rows_of_table("models", "name")}
    assert rows.keys() == MODELS.keys()
    for name, text in rows.items():
        known = {field.name for field in dataclasses.fields(MODELS[name][1])}
        named = {setting.partition(" ")[0] for setting in re.findall(r"`([^`]+)`", text)}
        assert named <= known, name


def test_the_benchmarks_page_runs_as_written(monkeypatch, tmp_path):
    fields = (
        "user",
        "item",
        "daytime",
        "weekday",
        "isweekend",
        "homework",
        "cost",
        "weather",
        "country",
        "city",
    )
    model = {"model": "DNN", "dataset_id": "frappe_x1", "hidden_units": [8], "embedding_dim": 2, "batch_size": 16,
             "loss": "binary_crossentropy", "optimizer": "adam", "learning_rate": 0.001, "epochs": 1,
             "seed": 2}  # fmt: skip
    data = {"data_format": "csv", "feature_cols": [{"name": list(fields), "type": "categorical"}],
            "label_col": {"name": "label"}}  # fmt: skip
    (tmp_path / "data" / "Frappe_x1").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    for split in ("train", "valid", "test"):
        rows = {"label": [0, 1] * 20} | {name: [i % 3 for i in range(40)] for name in fields}
        pl.DataFrame(rows).write_csv(tmp_path / "data" / "Frappe_x1" / f"{split}.csv")
        data[f"{split}_data"] = f"../data/Frappe_x1/{split}.csv"
    for name, content in (
        ("dataset", {"frappe_x1": data}),
        ("model", {"Base": {}, "DNN_frappe_x1_010": model}),
    ):
        (tmp_path / "config" / f"{name}_config.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(frappe, "MD5", {})
    monkeypatch.chdir(tmp_path)
    scope = run_python("benchmarks")
    assert len(next(scope["batches"].epoch(0))) == 16
    assert scope["trainer"].config.epochs == 1


def test_the_benchmarks_page_lists_every_data_set():
    named = re.findall(r"`([^`]+)`", " ".join(row[0] for row in rows_of_table("benchmarks", "name")))
    assert sorted(named) == sorted(ctr.DATASETS)


def test_the_sweep_page_shows_files_that_are_accepted():
    head, one, many = blocks("sweep", "toml")
    parse(TrainFile, tomllib.loads(one.replace("[model]", head + "[model]")), what="docs/sweep.md")
    top, runs = many.split("[[runs]]")
    sweep = parse(SweepFile, tomllib.loads(f"{top}\n{head}\n[[runs]]{runs}"), what="docs/sweep.md")
    assert len(settings_of(sweep)) == 4
