"""The README is true: its example runs as written, its table is the committed result, its commands exist."""

import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recfm import report
from recfm.cli import LoopFile
from recfm.config import parse
from recfm.datasets import movielens
from recfm.loop import LoopConfig
from recfm.schema import Schema

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def small_movielens(name: str) -> movielens.MovieLens:
    """Made-up ratings in the form of the real ones; half of the users like nearly everything."""
    rng = np.random.default_rng(0)
    n = 2_000
    user, movie = rng.integers(0, 40, n), rng.integers(0, 50, n)
    events = pl.DataFrame(
        {
            "user_id": user,
            "movie_id": movie,
            "label": (rng.random(n) < np.where(user % 2 == 0, 0.8, 0.2)).astype(np.int8),
            "time": pl.Series(np.sort(rng.integers(0, 10**12, n))).cast(pl.Datetime("us")),
            "age": 20 + user % 5,
            "genres": pl.Series([["Drama", "Comedy"][: int(m) % 3] for m in movie], dtype=pl.List(pl.String)),
        }
    )
    return movielens.MovieLens(name=name, events=events, source="made up")


def test_the_python_example_runs_as_written(monkeypatch, tmp_path, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.setattr(movielens, "load", small_movielens)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert "('vm+kd+loopfm', 0." in capsys.readouterr().out
    assert report.read(tmp_path / "runs" / "first")["rows"][0]["name"] == "fm"


def test_the_example_is_short():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 16


def test_the_table_is_the_newest_committed_result():
    results = sorted((ROOT / "benches" / "results").glob("loopfm-ml-1m_*.json"))
    if not results:
        pytest.fail("no benches/results/loopfm-ml-1m_*.json is committed, but the README shows its table")
    shown = README.partition("<!-- results:begin -->")[2].partition("<!-- results:end -->")[0]
    assert report.markdown(report.read(results[-1])).strip() in shown


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z0-9-]+)", README))))
def test_every_make_target_it_names_exists(target):
    bench = ROOT / "benches" / f"bench_{target.removeprefix('bench-')}.py"
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) or bench.exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)]+)\)", README))))
def test_every_local_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_the_config_page_shows_a_file_that_is_accepted():
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "config.md").read_text(), re.DOTALL)
    file = parse(LoopFile, tomllib.loads(example), what="docs/config.md")
    parse(Schema, file.schema, what="[schema]")
    parse(LoopConfig, file.loop, what="[loop]")


def test_the_table_of_speeds_is_the_newest_committed_results():
    spec = importlib.util.spec_from_file_location("speed_table", ROOT / "benches" / "speed_table.py")
    speed_table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed_table)
    shown = README.partition("<!-- speed:begin -->")[2].partition("<!-- speed:end -->")[0]
    assert speed_table.table() in shown


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
    scope = {}
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL):
        exec(compile(example, "docs/data.md", "exec"), scope)
    assert scope["batch"].ids.shape == (rows, 3)
    assert len(scope["index"]) == rows
