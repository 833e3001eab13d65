"""The report: arithmetic of its rows, its notes, and the documents drawn from the made-up example."""

import copy
import errno
import io
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from recfm import report
from recfm.errors import DataError, MetricError, StorageError
from recfm.report import document, summary

EXAMPLE = Path(__file__).parent / "assets" / "report_example.json"
HOSTILE = "<script>alert(\"x\")</script> & 'q' | $x_1$ {{ 7*7 }} [bold]"


@pytest.fixture
def example():
    return report.read(EXAMPLE)


def run(name, ne, seed=0, auc=0.7, **more):
    values = {"seed": seed, "name": name, "auc": auc, "gauc": 0.6, "logloss": 0.6, "ne": ne, "seconds": 1.5}
    return {**values, "epochs": 1, "parameters": 10, "curve": [], **more}


def rows_of(*runs):
    return report.summarise(list(runs))


def by_name(rows):
    return {row["name"]: row for row in rows}


# --- arithmetic ---


def test_transfer_ratio():
    assert report.transfer_ratio(0.8, 0.9, 0.85) == pytest.approx(0.5)
    assert report.transfer_ratio(0.8, 0.9, 0.95) == pytest.approx(-0.5)
    assert report.transfer_ratio(0.8, 0.9, 0.78) == pytest.approx(1.2)


@pytest.mark.parametrize(("fm", "vm"), [(0.9, 0.9), (0.91, 0.9), (float("nan"), 0.9), (0.8, float("inf"))])
def test_transfer_ratio_undefined(fm, vm):
    with pytest.raises(MetricError, match="transfer ratio"):
        report.transfer_ratio(fm, vm, 0.85)


@given(st.floats(0.1, 0.8), st.floats(0.01, 0.5), st.floats(-1, 2))
def test_transfer_ratio_inverts(fm, gap, ratio):
    vm = fm + gap
    assert report.transfer_ratio(fm, vm, vm - ratio * (vm - fm)) == pytest.approx(ratio, abs=1e-9)


def test_summary_of_two_seeds():
    rows = by_name(
        rows_of(
            *[run("vm+loopfm", ne, seed, auc=0.7 + seed / 10) for seed, ne in enumerate((0.85, 0.82))],
            *[run("vm", 0.9, seed, parameters=None) for seed in (0, 1)],
            *[run("fm", 0.8, seed) for seed in (0, 1)],
        )
    )
    assert list(rows) == ["fm", "vm", "vm+loopfm"]
    row = rows["vm+loopfm"]
    assert row["seeds"] == 2
    assert row["auc"] == pytest.approx(0.75)
    assert row["auc_std"] == pytest.approx(0.1 / 2**0.5)
    assert row["transfer_ratio"] == pytest.approx((0.5 + 0.8) / 2)
    assert row["transfer_ratio_std"] == pytest.approx(0.3 / 2**0.5)
    assert row["transfer_ratio_skipped"] == 0
    assert rows["fm"]["transfer_ratio"] is None
    assert rows["vm"]["transfer_ratio"] is None
    assert rows["vm"]["parameters"] is None
    assert rows["fm"]["ne_std"] == 0


def test_one_seed_has_no_spread():
    row = by_name(rows_of(run("fm", 0.8), run("vm", 0.9), run("vm+kd", 0.89)))["vm+kd"]
    assert row["transfer_ratio"] == pytest.approx(0.1)
    assert [row[key] for key in row if key.endswith("_std")] == [None] * 5


def test_seed_in_which_the_fm_loses_is_left_out():
    seeds = [run("fm", 0.8, 0), run("fm", 0.95, 1), run("vm", 0.9, 0), run("vm", 0.9, 1)]
    rows = rows_of(*seeds, run("vm+kd", 0.85, 0), run("vm+kd", 0.85, 1))
    row = by_name(rows)["vm+kd"]
    assert row["transfer_ratio"] == pytest.approx(0.5)
    assert row["transfer_ratio_std"] is None
    assert row["transfer_ratio_skipped"] == 1
    rows = rows_of(run("fm", 0.95), run("vm", 0.9), run("vm+loopfm", 0.85))
    assert by_name(rows)["vm+loopfm"]["transfer_ratio"] is None
    assert any("does not beat the VM" in note for note in report.notes(rows))
    assert summary.headline(rows) == "The transfer ratio is undefined in this run."


def test_order_unknown_names_and_null_gauc():
    rows = rows_of(
        run("mine", 0.7), run("control:count", 0.7), run("vm", 0.9, gauc=None), run("control:new", 0.7)
    )
    assert [row["name"] for row in rows] == ["vm", "control:count", "mine", "control:new"]
    assert [row["role"] for row in rows] == ["main", "control", "main", "control"]
    assert rows[0]["gauc"] is None


def test_summary_refuses():
    with pytest.raises(DataError, match="seed 0 of vm comes twice"):
        rows_of(run("vm", 0.9), run("vm", 0.9))
    broken = run("vm", 0.9)
    del broken["logloss"]
    with pytest.raises(DataError, match=r"runs\[0\]\.logloss is missing"):
        rows_of(broken)


def test_example_rows_follow_from_its_runs(example):
    assert report.summarise(example["runs"]) == example["rows"]
    assert [row["name"] for row in example["rows"]] == list(summary.WHAT)


# --- notes ---

TWO = (0, 1)
NOISE = {0: -0.001, 1: 0.001}


def noisy(**nes):
    """Rows of two seeds, each NE 0.001 below and above the given one."""
    names = {name.replace("__", ":").replace("_", "+"): ne for name, ne in nes.items()}
    names = {
        name.replace("random+", "random-").replace("raw+ids", "raw-ids"): ne for name, ne in names.items()
    }
    return rows_of(*[run(name, ne + NOISE[seed], seed) for name, ne in names.items() for seed in TWO])


def test_nothing_to_say():
    rows = noisy(fm=0.8, vm=0.9, vm_kd=0.88, vm_loopfm=0.83, control__count=0.895, control__random_item=0.9)
    assert report.notes(rows) == []


def test_control_that_wins():
    rows = noisy(fm=0.8, vm=0.9, vm_loopfm=0.83, control__raw_ids=0.82)
    (note,) = report.notes(rows)
    assert note.startswith(
        "control:raw-ids beats vm+loopfm on NE (0.8200 against 0.8300): the VM could learn"
    )
    rows = noisy(fm=0.8, vm=0.9, vm_loopfm=0.83, control__raw_ids=0.8299)
    (note,) = report.notes(rows)
    assert "(0.8299 against 0.8300), within noise" in note
    rows = noisy(fm=0.8, vm=0.9, vm_loopfm=0.83, control__raw_ids=0.8301)
    (note,) = report.notes(rows)
    assert note.startswith("control:raw-ids is within noise of vm+loopfm (NE +0.0001): perhaps")


def test_control_that_wins_on_auc_only():
    runs = [run("fm", 0.8, auc=0.8), run("vm", 0.9), run("vm+loopfm", 0.83, auc=0.78)]
    notes = report.notes(rows_of(*runs, run("control:count", 0.84, auc=0.79)))
    assert any("beats vm+loopfm on AUC (0.7900 against 0.7800)" in note for note in notes)


def test_random_vectors_should_change_nothing():
    rows = noisy(fm=0.8, vm=0.9, vm_loopfm=0.83, control__random_event=0.89)
    (note,) = report.notes(rows)
    assert note.startswith("control:random-event is better than vm by more than noise")
    rows = noisy(fm=0.8, vm=0.9, vm_loopfm=0.83, control__random_item=0.91)
    assert "control:random-item is worse than vm" in report.notes(rows)[0]


def test_other_notes():
    rows = rows_of(run("fm", 0.8), run("vm", 0.9), run("vm+loopfm", 0.91), run("vm+kd+loopfm", 0.92))
    notes = "\n".join(report.notes(rows))
    assert "One seed only" in notes
    assert "No controls were run" in notes
    assert "vm+loopfm is no better than the VM alone (NE 0.9100 against 0.9000)" in notes
    assert "Distillation adds nothing to vm+loopfm here" in notes
    assert summary.headline(rows) == "vm+loopfm keeps nothing of the FM's gain over the VM."
    assert any("within noise" in note for note in report.notes(noisy(fm=0.8999, vm=0.9, vm_loopfm=0.85)))
    assert report.notes(rows_of(run("vm", 0.9)))[-1].startswith("No transfer ratio")


# --- documents ---


def test_write_and_read_back(example, tmp_path):
    page = report.write(example, tmp_path / "new" / "folder")
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json", "report.png"]
    assert report.read(page.parent) == example == report.read(page.parent / "report.json")
    png = (page.parent / "report.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">I", png[16:20])[0] == 1500
    report.write(example, page.parent)


def test_page_is_self_contained_and_complete(example, tmp_path):
    html = report.write(example, tmp_path).read_text(encoding="utf-8")
    assert not re.search(r"https?://|//[a-z]|@import|url\(|<link|<script|src=", html)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    for row in example["rows"]:
        assert f">{row['name']}<" in html
        assert f"{row['ne']:.4f}" in html
    for text in (example["command"], example["protocol"]["selection"], *document.all_notes(example)):
        assert text.replace("'", "&#39;") in html
    assert html.count("<polyline") == len(example["runs"])


def test_hostile_text_is_escaped(example, tmp_path):
    example["title"] = example["command"] = example["rows"][2]["what"] = example["notes"][0] = HOSTILE
    example["protocol"]["selection"] = example["machine"]["cpu"] = HOSTILE
    example["protocol"]["periods"]['"><script>'] = {"rows": 1, "from": HOSTILE, "to": "", "base_rate": 0.5}
    example["runs"][0]["name"] = example["rows"][0]["name"] = HOSTILE
    html = report.write(example, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "{{ 7*7 }}" in html
    assert html.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; &#39;q&#39;") >= 7
    assert HOSTILE.replace("|", "\\|") in report.markdown(example)
    assert HOSTILE in rendered(example, 300)


def test_one_seed_undefined_ratio_and_no_curves(example, tmp_path):
    runs = [run("fm", 0.95), run("vm", 0.9, curve=[{"epoch": 1, "train_loss": 0.6, "valid_ne": None}])]
    example.update(rows=rows_of(*runs), runs=runs, notes=[])
    html = report.write(example, tmp_path).read_text(encoding="utf-8")
    assert "The transfer ratio is undefined in this run." in html
    assert "<polyline" not in html
    assert "None" not in html.replace("none", "")
    example.update(rows=[], runs=[], log={})
    assert "Models" in report.write(example, tmp_path).read_text(encoding="utf-8")


def test_negative_and_large_ratios_stay_inside_the_gauge(example, tmp_path):
    runs = [run("fm", 0.8), run("vm", 0.9), run("vm+kd", 0.95), run("vm+loopfm", 0.7)]
    example.update(rows=rows_of(*runs), runs=runs)
    html = report.write(example, tmp_path).read_text(encoding="utf-8")
    assert "vm+loopfm keeps all of the FM&#39;s gain over the VM (200%)" in html
    for left, width in re.findall(r'class="bar" style="left:([-\d.]+)%;width:([-\d.]+)%', html):
        assert float(left) >= 0
        assert float(left) + float(width) <= 100


def rendered(example, width=100):
    console = Console(width=width, file=io.StringIO())
    console.print(report.table(example))
    return console.file.getvalue()


def test_table_fits_and_rules_off_controls(example):
    text = rendered(example)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    names = [line.split()[0] for line in lines if line.strip() and not set(line.strip()) <= {"─"}]
    assert [name for name in names if name in summary.WHAT] == list(summary.WHAT)
    control = next(index for index, line in enumerate(lines) if line.strip().startswith("control:"))
    assert set(lines[control - 1].strip()) == {"─"}
    loop = by_name(example["rows"])["vm+loopfm"]
    line = next(line for line in lines if line.strip().startswith("vm+loopfm"))
    assert f"{loop['ne']:.4f} ± {loop['ne_std']:.4f}" in line
    assert f"{loop['transfer_ratio']:.2f} ± {loop['transfer_ratio_std']:.2f}" in line


def test_markdown(example):
    lines = report.markdown(example).splitlines()
    assert lines[0] == "| model | AUC | gAUC | log loss | NE | TR |"
    assert len(lines) == 2 + len(example["rows"])
    assert all(line.count(" | ") == 5 for line in lines)
    assert lines[2].startswith("| `fm` | ")
    assert lines[2].endswith(" | - |")


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("title",), None, "title is None, expected a string"),
        (("rows", 2, "auc"), "0.7", r"rows\[2\]\.auc is '0\.7', expected a finite number"),
        (("rows", 0, "ne"), float("nan"), r"rows\[0\]\.ne is nan"),
        (("rows", 0, "auc"), True, r"rows\[0\]\.auc is True"),
        (("rows", 1, "role"), "other", r"rows\[1\]\.role is 'other', expected 'main' or 'control'"),
        (("rows", 1, "name"), "fm", r"rows\[1\]\.name is 'fm', which an earlier row has"),
        (("rows", 1), 3, r"rows\[1\] is 3, expected an object"),
        (("runs", 0, "curve", 1, "epoch"), None, r"runs\[0\]\.curve\[1\]\.epoch is None"),
        (("runs", 0, "curve", 1, "valid_ne"), "x", r"runs\[0\]\.curve\[1\]\.valid_ne is 'x'"),
        (("protocol", "periods", "test", "rows"), 1.5, r"protocol\.periods\.test\.rows is 1\.5"),
        (("protocol", "extra"), {1, 2}, "not plain JSON"),
        (("notes",), ["a", 1], r"notes\[1\] is 1, expected a string"),
    ],
)
def test_validate_names_the_key(where, value, message, example, tmp_path):
    inner = example
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(DataError, match=message):
        report.write(example, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_validate_names_the_missing_key(example):
    for key in list(example):
        broken = copy.deepcopy(example)
        del broken[key]
        with pytest.raises(DataError, match=f"^{key} is missing"):
            report.validate(broken)
    del example["protocol"]["periods"]["fm"]["base_rate"]
    with pytest.raises(DataError, match=r"^protocol\.periods\.fm\.base_rate is missing"):
        report.validate(example)


def test_read_refuses(tmp_path):
    with pytest.raises(DataError, match=r"no report .*report\.json"):
        report.read(tmp_path)
    path = tmp_path / "report.json"
    whole = EXAMPLE.read_text()
    for broken, message in [
        (whole[: len(whole) // 2], "is not a report: "),
        ("", "is not a report: "),
        ("[]", r"report\.json: the report is \[\], expected an object"),
        (json.dumps({"title": "x"}), r"report\.json: recfm is missing"),
    ]:
        path.write_text(broken)
        with pytest.raises(DataError, match=message):
            report.read(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8 at byte 0"):
        report.read(path)


def test_failed_write_keeps_the_old_report(example, tmp_path, monkeypatch):
    report.write(example, tmp_path)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    example["title"] = "new"
    with pytest.raises(StorageError, match=r"report\.json'.*no space left.*unchanged"):
        report.write(example, tmp_path)
    monkeypatch.undo()
    assert report.read(tmp_path)["title"] == "Example (made-up numbers)"
    assert len(list(tmp_path.iterdir())) == 3


def test_import_is_light():
    code = (
        "import sys, recfm.report, recfm.datasets.movielens;"
        "print([m for m in ('matplotlib', 'jinja2', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
