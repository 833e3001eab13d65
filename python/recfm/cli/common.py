"""What the commands share."""

import datetime
import json
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

arguments: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())
"""What the command was called with, for reports."""

Json = Annotated[bool, tyro.conf.arg(help="Print the result as one JSON object in the last line.")]
Out = Annotated[
    Path | None, tyro.conf.arg(help="Folder for log and report; by default a new one under runs/.")
]
Set = Annotated[tuple[str, ...], tyro.conf.arg(metavar="SECTION.KEY=VALUE")]


def default_folder(label: str) -> Path:
    """A new folder under runs/, named after the time."""
    return Path("runs") / f"{label}-{datetime.datetime.now().astimezone().strftime('%Y%m%d-%H%M%S')}"


def without_folder(argument: str) -> str:
    """Reports are shown to others: an absolute path is cut to its last part."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def stdout_console(columns: int = 110) -> Console:
    """For tables: as wide as the terminal; in a file, so many columns."""
    return Console(width=None if sys.stdout.isatty() else columns)


def print_json(value: dict[str, Any]) -> None:
    """One line of stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
