"""The report as a document: checked, written as JSON first and drawn from that, read back."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recfm.errors import DataError, StorageError
from recfm.files import reason, write_whole
from recfm.report import summary

_TEXT = "a string"
_NUMBER = "a finite number"
_MAYBE = "a finite number or null"
_COUNT = "an integer >= 0"

_ROW = {
    "name": _TEXT,
    "what": _TEXT,
    "seeds": _COUNT,
    **{metric: _NUMBER for metric in summary.METRICS if metric != "gauc"},
    "gauc": _MAYBE,
    **{f"{metric}_std": _MAYBE for metric in summary.METRICS},
    "transfer_ratio": _MAYBE,
    "transfer_ratio_std": _MAYBE,
    "parameters": "an integer >= 0 or null",
    "seconds": _NUMBER,
}
_RUN = {
    "name": _TEXT,
    "seed": _COUNT,
    **{metric: _MAYBE if metric == "gauc" else _NUMBER for metric in summary.METRICS},
    "seconds": _NUMBER,
    "epochs": _COUNT,
    "curve": "a list",
}
_PERIOD = {"rows": _COUNT, "from": _TEXT, "to": _TEXT, "base_rate": _NUMBER}
_TOP = {
    **dict.fromkeys(("recfm", "created", "command", "title"), _TEXT),
    **dict.fromkeys(("protocol", "log", "machine"), "an object"),
    **dict.fromkeys(("rows", "runs", "notes"), "a list"),
}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_CHECKS: dict[str, Callable[[object], bool]] = {
    _TEXT: lambda value: isinstance(value, str),
    _NUMBER: _number,
    _MAYBE: lambda value: value is None or _number(value),
    _COUNT: _count,
    "an integer >= 0 or null": lambda value: value is None or _count(value),
    "an object": lambda value: isinstance(value, dict),
    "a list": lambda value: isinstance(value, list),
}


def validate(report: dict[str, Any]) -> None:
    """Raise `DataError` naming the first missing or wrong key, e.g. `rows[2].auc`; other keys are allowed."""
    _fields(report, _TOP, "")
    protocol = report["protocol"]
    expected = {"dataset": _TEXT, "source": _TEXT, "periods": "an object", "seeds": "a list"}
    _fields(protocol, expected, "protocol.")
    for name, period in protocol["periods"].items():
        _fields(period, _PERIOD, f"protocol.periods.{name}.")
    names: set[str] = set()
    for index, row in enumerate(report["rows"]):
        _fields(row, _ROW, f"rows[{index}].")
        if row.get("role") not in ("main", "control"):
            raise DataError(f"rows[{index}].role is {row.get('role')!r}, expected 'main' or 'control'")
        if row["name"] in names:
            raise DataError(f"rows[{index}].name is {row['name']!r}, which an earlier row has")
        names.add(row["name"])
    for index, run in enumerate(report["runs"]):
        _fields(run, _RUN, f"runs[{index}].")
        for step, point in enumerate(run["curve"]):
            _fields(point, {"epoch": _NUMBER}, f"runs[{index}].curve[{step}].")
            wrong = [key for key, value in point.items() if not _CHECKS[_MAYBE](value)]
            if wrong:
                raise DataError(
                    f"runs[{index}].curve[{step}].{wrong[0]} is {point[wrong[0]]!r}, expected {_MAYBE}"
                )
    for index, note in enumerate(report["notes"]):
        if not isinstance(note, str):
            raise DataError(f"notes[{index}] is {note!r}, expected {_TEXT}")
    try:
        json.dumps(report, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"the report is not plain JSON: {error}") from error


def _fields(value: object, expected: dict[str, str], where: str) -> None:
    if not isinstance(value, dict):
        raise DataError(f"{where.rstrip('.') or 'the report'} is {value!r}, expected an object")
    for key, kind in expected.items():
        if key not in value:
            raise DataError(f"{where}{key} is missing")
        if not _CHECKS[kind](value[key]):
            raise DataError(f"{where}{key} is {value[key]!r}, expected {kind}")


def all_notes(report: dict[str, Any]) -> list[str]:
    """Return the report's own notes, then those that its rows call for and that it lacks."""
    own: list[str] = list(report["notes"])
    return own + [note for note in summary.notes(report["rows"]) if note not in own]


def write(report: dict[str, Any], folder: str | Path) -> Path:
    """Write `report.json`, then `report.png` and `report.html` drawn from it; each appears whole or not.

    Args:
        report: The report; see `validate` for what it must hold.
        folder: Made if absent; an earlier report in it is replaced.

    Returns:
        The path of `report.html`.

    Raises:
        DataError: A key is missing or wrong; nothing is written then.
        StorageError: The disk refuses.
    """
    validate(report)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create '{folder}' for the report: {reason(error)}") from None
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(folder / "report.json", text.encode())

    from recfm.report import figure, page  # matplotlib and jinja2 are slow to import

    write_whole(folder / "report.png", figure.png(report))
    html = folder / "report.html"
    write_whole(html, page.html(report).encode())
    return html


def read(path: str | Path) -> dict[str, Any]:
    """Read a report from a `report.json`, or from the folder that holds one.

    Raises:
        DataError: No such file, not JSON (truncated, corrupted), or not a report.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no report {path}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a report: not UTF-8 at byte {error.start}") from error
    except ValueError as error:
        raise DataError(f"{path} is not a report: {error}") from error
    try:
        validate(report)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    loaded: dict[str, Any] = report
    return loaded
