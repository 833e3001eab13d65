"""The `recfm` command: demo, loop, encode, train, evaluate, predict, sweep, reproduce, doctor.

Results go to stdout, progress and errors to stderr. With `--json` the last line of stdout is one JSON object.
Exit codes: 0 done, 1 a recfm error (its message says what to do), 2 a bad command line, 130 interrupted.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from rich.console import Console

from recfm.cli import common
from recfm.cli.loops import LoopFile, demo, loop, reproduce
from recfm.cli.sweeps import sweep
from recfm.cli.tables import doctor, encode
from recfm.cli.training import evaluate, predict, train
from recfm.errors import RecfmError

__all__ = ["LoopFile", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `recfm` command; returns the exit code."""
    arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    common.arguments.set(arguments)
    commands: dict[str, Callable[..., Any]] = {
        "demo": demo,
        "loop": loop,
        "encode": encode,
        "train": train,
        "evaluate": evaluate,
        "predict": predict,
        "sweep": sweep,
        "reproduce": reproduce,
        "doctor": doctor,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="recfm",
            description="Train big, serve small, keep what was learned.",
            args=arguments,
        )
    except RecfmError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}:[/] ", end="")
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was written so far is kept\n")
        return 130
    return 0
