"""The report as one self-contained HTML page; `template.html` beside this file holds markup and colours."""

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from recfm.report import document, summary, text

_STUDENTS = ("vm+kd", "vm+loopfm", "vm+kd+loopfm")
_CURVE_WIDTH, _CURVE_HEIGHT = 220.0, 72.0  # SVG units


def html(report: dict[str, Any]) -> str:
    """Return the page. Every text from the report is escaped; nothing is loaded from anywhere."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=text.number, spread=text.spread, count=_count, span=_span)
    template = environment.from_string(files("recfm.report").joinpath("template.html").read_text("utf-8"))
    rows = report["rows"]
    protocol = {key: value for key, value in report["protocol"].items() if key != "periods"}
    return template.render(
        report=report,
        headline=summary.headline(rows),
        by_name={row["name"]: row for row in rows},
        main=[row for row in rows if row["role"] == "main"],
        controls=[row for row in rows if row["role"] == "control"],
        best=min((row["ne"] for row in rows if row["name"] in _STUDENTS), default=None),
        reading=summary.READING,
        gauge=_gauge(rows),
        dots=_dots(rows),
        curves=_curves(report["runs"]),
        periods=_periods(report["protocol"]["periods"]),
        protocol=list(_flat(protocol)),
        log=list(_flat(report["log"])),
        machine=list(_flat(report["machine"])),
        notes=document.all_notes(report),
    )


def _count(value: float | None) -> str:
    """1234567 as "1.23 M"; null as a dash."""
    if value is None:
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{value:,.0f}"


def _span(seconds: float) -> str:
    """Seconds as "0.4 s", "12 s" or "3 min 20 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _scale(values: Iterable[float], *, margin: float = 0.06) -> tuple[float, float]:
    """Return the low end and the width of a range that holds all values with a margin on both sides."""
    known = list(values) or [0.0, 1.0]
    width = (max(known) - min(known)) or 1.0
    return min(known) - margin * width, width * (1 + 2 * margin)


def _gauge(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Bars of the students' transfer ratios, in percent of a track that holds the VM (0) and the FM (1)."""
    shown = [row for row in rows if row["name"] in _STUDENTS and row["transfer_ratio"] is not None]
    if not shown:
        return None
    ends = [
        row["transfer_ratio"] + sign * (row["transfer_ratio_std"] or 0) for row in shown for sign in (-1, 1)
    ]
    low, high = float(min(0.0, *ends)), float(max(1.0, *ends))
    low, width = low - 0.06 * (low < 0), high - low + 0.06 * (high > 1) + 0.06 * (low < 0)

    def at(value: float) -> float:
        return 100 * (value - low) / width

    bars = [
        {
            "name": row["name"],
            "ratio": row["transfer_ratio"],
            "std": row["transfer_ratio_std"],
            "left": at(min(row["transfer_ratio"], 0)),
            "width": 100 * abs(row["transfer_ratio"]) / width,
            "error": (
                at(row["transfer_ratio"] - (row["transfer_ratio_std"] or 0)),
                200 * (row["transfer_ratio_std"] or 0) / width,
            ),
        }
        for row in shown
    ]
    return {"bars": bars, "vm": at(0), "fm": at(1)}


def _dots(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """NE of every row with its error bar; positions in percent of the plot's width."""
    ends = [row["ne"] + sign * (row["ne_std"] or 0) for row in rows for sign in (-1, 1)]
    low, width = _scale(ends)

    def at(value: float) -> float:
        return 100 * (value - low) / width

    points = [
        {
            "row": row,
            "at": at(row["ne"]),
            "left": at(row["ne"] - (row["ne_std"] or 0)),
            "width": 200 * (row["ne_std"] or 0) / width,
        }
        for row in rows
    ]
    marks = [{"name": row["name"], "at": at(row["ne"])} for row in rows if row["name"] in ("fm", "vm")]
    return {"points": points, "marks": marks}


def _curves(runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Validation NE by epoch, one card per model and one line per seed, all on the same scale."""
    names = [name for name in summary.WHAT if any(run["name"] == name for run in runs)]
    names += sorted({run["name"] for run in runs} - set(names))
    lines = {
        name: [
            [
                (point["epoch"], point["valid_ne"])
                for point in run["curve"]
                if point.get("valid_ne") is not None
            ]
            for run in runs
            if run["name"] == name
        ]
        for name in names
    }
    lines = {name: kept for name, found in lines.items() if (kept := [line for line in found if line])}
    if not lines:
        return None
    every = [point for found in lines.values() for line in found for point in line]
    low, width = _scale(ne for _, ne in every)
    first, last = min(epoch for epoch, _ in every), max(epoch for epoch, _ in every)

    def place(epoch: float, ne: float) -> tuple[float, float]:
        x = 4 + (_CURVE_WIDTH - 8) * ((epoch - first) / (last - first) if last > first else 0.5)
        return round(x, 2), round(_CURVE_HEIGHT * (1 - (ne - low) / width), 2)

    cards = []
    for name, found in lines.items():
        best_epoch, best = min((point for line in found for point in line), key=lambda point: point[1])
        cards.append(
            {
                "name": name,
                "control": name.startswith("control:"),
                "best": best,
                "best_epoch": best_epoch,
                "lines": [
                    " ".join(f"{x},{y}" for x, y in (place(*point) for point in line)) for line in found
                ],
                "dots": [place(*min(line, key=lambda point: point[1])) for line in found],
            }
        )
    return {
        "cards": cards,
        "width": _CURVE_WIDTH,
        "height": _CURVE_HEIGHT,
        "low": min(ne for _, ne in every),
        "high": max(ne for _, ne in every),
        "first": first,
        "last": last,
    }


def _periods(periods: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    total = sum(period["rows"] for period in periods.values()) or 1
    return [
        {**period, "name": name, "title": name.replace("_", " "), "share": 100 * period["rows"] / total}
        for name, period in periods.items()
    ]


def _flat(value: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield (dotted key, value as text) of nested objects."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        elif isinstance(item, list):
            yield f"{prefix}{key}", ", ".join(map(str, item))
        elif isinstance(item, bool) or item is None:
            yield f"{prefix}{key}", {True: "yes", False: "no", None: "none"}[item]
        else:
            yield f"{prefix}{key}", f"{item:,}" if isinstance(item, int) and item >= 10_000 else str(item)
