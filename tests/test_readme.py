"""The README is true: its example runs as written, its tables are committed results, its commands exist."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recfm import report
from recfm.datasets import movielens

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


@pytest.mark.parametrize("name", ["speed", "frappe"])
def test_a_drawn_table_is_the_newest_committed_results(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benches" / f"{name}_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = README.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0]
    assert module.table() in shown
