"""`recfm demo`, `loop` and `reproduce`: LoopFM from events to report."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from recfm.cli.common import Json, Out, arguments, default_folder, print_json, stdout_console, without_folder
from recfm.cli.sweeps import data_folder, run_sweep
from recfm.config import Strict, parse, read_toml
from recfm.errors import ConfigError, SchemaError

if TYPE_CHECKING:  # torch takes seconds to import; `recfm --help` must not
    import polars as pl

    from recfm.loop import LoopConfig
    from recfm.schema import Schema


def demo(*, data: Path | None = None, seed: int = 0, out: Out = None, json: Json = False) -> None:
    """LoopFM on MovieLens 100K, FM to report, in a few minutes: fetches the data, needs no account.

    Args:
        data: Folder that holds ml-100k already, in any of its layouts.
        seed: Of weights, shuffles and random controls.
        out: Folder for log and report.
        json: Print the result as JSON.
    """
    from recfm import presets

    _movielens(data or "ml-100k", presets.ml_100k(), [seed], out, "demo", as_json=json)


def reproduce(
    name: Annotated[Literal["ml-1m", "frappe", "scaling"], tyro.conf.Positional],
    *,
    data: Path | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    out: Out = None,
    resume: bool = False,
    json: Json = False,
) -> None:
    """The committed results again: all rows and controls, several seeds, mean and standard deviation.

    "frappe" and "scaling" are sweeps: they always go on where they were stopped.

    Args:
        name: Which result: LoopFM on ml-1m, the benchmark on Frappe_x1, or the scaling laws (the synthetic log and,
            with --data, MovieLens 1M).
        data: Folder that holds the data set; MovieLens is fetched if left out.
        seed: The first seed; by default 0, or the sweep's own.
        seeds: How many seeds; by default 5, or the sweep's own.
        out: Folder for logs and report.
        resume: Keep the seeds that --out holds already and run only the others.
        json: Print the result as JSON.
    """
    if name != "ml-1m":
        _reproduce_sweeps(name, data, seed, seeds, out, as_json=json)
        return
    from recfm import presets

    first = seed or 0
    _movielens(
        data or name,
        presets.ml_1m(),
        range(first, first + (5 if seeds is None else seeds)),
        out,
        name,
        resume=resume,
        as_json=json,
    )


def _reproduce_sweeps(
    name: str, data: Path | None, seed: int | None, seeds: int | None, out: Path | None, *, as_json: bool
) -> None:
    overrides = []
    if seed is not None or seeds is not None:
        first = seed or 0
        overrides.append(f"seeds={list(range(first, first + (5 if seeds is None else seeds)))}")
    where = out or Path("runs") / name
    if name == "frappe":
        if data is None:
            raise ConfigError("Frappe cannot be fetched: give the folder of its files with --data")
        run_sweep("frappe", (*overrides, data_folder(data)), where, as_json=as_json)
        return
    run_sweep("scaling-synthetic", tuple(overrides), where / "synthetic", as_json=as_json)
    if data is not None:
        run_sweep("scaling-ml-1m", (*overrides, data_folder(data)), where / "ml-1m", as_json=as_json)


def loop(
    *,
    config: Path,
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SECTION.KEY=VALUE")] = (),
    seed: int | None = None,
    out: Out = None,
    resume: bool = False,
    json: Json = False,
) -> None:
    """LoopFM on your own events: a TOML file names the Parquet, the schema and what differs from the defaults.

    Args:
        config: The file; docs/config.md explains it.
        set: Override single keys of the file.
        seed: Run this one seed instead of the file's.
        out: Folder for log and report.
        resume: Keep the seeds that --out holds already and run only the others.
        json: Print the result as JSON.
    """
    from recfm.data.frame import read_events
    from recfm.schema import Schema

    settings = parse(LoopFile, read_toml(config, set), what=str(config))
    schema = parse(Schema, settings.schema, what=f"{config}, section [schema]", error=SchemaError)
    from recfm.loop import LoopConfig

    loop_config = parse(LoopConfig, settings.loop, what=f"{config}, section [loop]")
    path = Path(settings.data).expanduser()
    path = path if path.is_absolute() else config.parent / path
    events = read_events(path)
    _run(
        events,
        schema,
        loop_config,
        list(settings.seeds) if seed is None else [seed],
        out or (Path(settings.out) if settings.out else None),
        name=settings.name or config.stem,
        source=str(path),
        resume=resume,
        as_json=json,
    )


@dataclass(kw_only=True, slots=True)
class LoopFile(Strict):
    """A `recfm loop` file; docs/config.md explains it."""

    data: str
    """Parquet file, folder of them or glob; relative to the file."""
    schema: dict[str, Any]
    """Keys and features: `recfm.Schema`."""
    loop: dict[str, Any] = field(default_factory=dict)
    """What differs from the defaults of `recfm.LoopConfig`."""
    name: str = ""
    out: str = ""
    seeds: tuple[int, ...] = (0,)


def _movielens(
    where: str | Path,
    config: "LoopConfig",
    seeds: Sequence[int],
    out: Path | None,
    name: str,
    *,
    resume: bool = False,
    as_json: bool,
) -> None:
    from recfm.datasets import movielens

    data = movielens.load(where)
    Console(stderr=True).print(f"[dim]{data.acknowledgement}[/]")
    schema = movielens.schema(data)
    _run(
        data.events,
        schema,
        config,
        seeds,
        out,
        name=data.name,
        source=data.source,
        resume=resume,
        as_json=as_json,
        label=name,
    )


def _run(
    events: "pl.DataFrame",
    schema: "Schema",
    config: "LoopConfig",
    seeds: Sequence[int],
    out: Path | None,
    *,
    name: str,
    source: str,
    resume: bool,
    as_json: bool,
    label: str = "loop",
) -> None:
    from recfm import report
    from recfm.experiment import STAGES_PER_SEED, run_experiment
    from recfm.progress import BarProgress

    if resume and out is None:
        raise ConfigError("--resume needs --out, the folder of the run to go on with")
    folder = out or default_folder(label)
    with BarProgress(STAGES_PER_SEED * len(seeds), Console(stderr=True)) as progress:
        document = run_experiment(
            events,
            schema,
            config,
            seeds=seeds,
            folder=folder,
            title=f"LoopFM on {name}",
            dataset=name,
            source=source,
            command=shlex.join(["recfm", *map(without_folder, arguments.get())]),
            resume=resume,
            progress=progress,
        )
    if not as_json or sys.stdout.isatty():
        console = stdout_console()
        console.print(report.table(document))
        for note in document["notes"]:
            console.print(f"- {note}", markup=False)
        console.print(f"report: {folder / 'report.html'}", markup=False, soft_wrap=True)
    if as_json:
        rows = document["rows"]
        print_json({"protocol": document["protocol"], "rows": rows, "report": str(folder / "report.json")})
