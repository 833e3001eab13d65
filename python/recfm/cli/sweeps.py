"""`recfm sweep`: many settings and seeds of any model."""

import shlex
import sys
from json import dumps as encode
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from recfm.cli.common import Json, Set, arguments, print_json, stdout_console, without_folder


def sweep(
    config: Annotated[str, tyro.conf.Positional],
    *,
    set: Set = (),
    data: Path | None = None,
    out: Path | None = None,
    workers: int = 1,
    retry_failed: bool = False,
    dry_run: bool = False,
    json: Json = False,
) -> None:
    """Every setting and seed of a sweep file, trained and measured; run it again to go on where it was stopped.

    Args:
        config: The file, which docs/sweep.md explains, or the name of one that comes with recfm.
        set: Override single keys of the file.
        data: Folder of the data set, instead of the file's.
        out: Folder of the results, by default runs/NAME-OF-THE-FILE; several processes may share it.
        workers: Processes.
        retry_failed: Do again what failed.
        dry_run: Train nothing: list the settings with their parameters and what they would compute.
        json: Print the result as JSON.
    """
    overrides = (*set, *([data_folder(data)] if data else []))
    run_sweep(
        config, overrides, out, workers=workers, retry_failed=retry_failed, dry_run=dry_run, as_json=json
    )


def data_folder(folder: Path) -> str:
    """The override that says where a data set's files are."""
    return f"data.folder={encode(str(folder.expanduser().absolute()))}"


def run_sweep(
    config: str,
    overrides: tuple[str, ...],
    out: Path | None,
    *,
    workers: int = 1,
    retry_failed: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Run the sweep of a file and print its table."""
    from recfm.progress import BarProgress
    from recfm.sweep import Sweep, summary

    opened = Sweep.open(config, overrides)
    if dry_run:
        _print_costs(opened.costs(), as_json=as_json)
        return
    folder = out or (Path(opened.file.out) if opened.file.out else Path("runs") / opened.path.stem)
    with BarProgress(len(opened.jobs), Console(stderr=True)) as progress:
        document = opened.run(
            folder,
            workers=workers,
            retry_failed=retry_failed,
            progress=progress,
            command=shlex.join(["recfm", *map(without_folder, arguments.get())]),
        )
    if not as_json or sys.stdout.isatty():
        console = stdout_console(150)
        console.print(summary.table(document))
        for note in document["notes"]:
            console.print(f"- {note}", markup=False)
        console.print(f"results: {folder / 'results.json'}", markup=False, soft_wrap=True)
    if as_json:
        shown = ("protocol", "settings", "scaling", "notes")
        print_json({key: document[key] for key in shown} | {"results": str(folder / "results.json")})


def _print_costs(costs: list[dict[str, object]], *, as_json: bool) -> None:
    from rich.table import Table

    total = sum(float(str(cost["training_flops_at_most"])) for cost in costs)
    if as_json:
        print_json({"settings": costs, "training_flops_at_most": total})
        return
    table = Table(title="Nothing is trained", title_justify="left")
    for head in ("setting", "seeds", "dense", "embedding", "MFLOP/example", "TFLOP at most"):
        table.add_column(head, justify="left" if head == "setting" else "right")
    for cost in costs:
        parameters = cost["parameters"]
        assert isinstance(parameters, dict)
        table.add_row(
            str(cost["label"]),
            str(cost["seeds"]),
            f"{parameters['dense']:,}",
            f"{parameters['embedding']:,}",
            f"{float(str(cost['training_flops_per_example'])) / 1e6:.3f}",
            f"{float(str(cost['training_flops_at_most'])) / 1e12:.2f}",
        )
    stdout_console().print(table)
    stdout_console().print(
        f"all of it: at most {total / 1e12:.1f} TFLOP, {total / 60e9 / 60:.0f} minutes at 60 GFLOP/s",
        markup=False,
    )
