"""`recfm train`, `evaluate` and `predict`: one model on one table."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from recfm.cli.common import Json, Set, print_json, stdout_console
from recfm.errors import ConfigError


def train(
    config: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path,
    set: Set = (),
    resume: bool = False,
    json: Json = False,
) -> None:
    """One model on one table, with checkpoints; `torchrun -m recfm train ...` trains in several processes.

    Args:
        config: The file; docs/sweep.md explains it.
        out: Folder for the model, its encoder, checkpoints and the log.
        set: Override single keys of the file.
        resume: Go on from the latest checkpoint in --out.
        json: Print the result as JSON.
    """
    from recfm.progress import BarProgress
    from recfm.single import train_file
    from recfm.train.distributed import shard

    with (
        BarProgress(1, Console(stderr=True, quiet=shard()["rank"] > 0)) as progress,
        progress.stage(config.stem, "training", 0) as on_batch,
    ):
        trained = train_file(config, out, overrides=set, resume=resume, on_batch=on_batch)
    if shard()["rank"] > 0:
        return
    found = {"folder": str(out), "epochs": len(trained.fit.curve), "best_epoch": trained.fit.best_epoch}
    _print_metrics(dataclasses.asdict(trained.metrics), "valid", found, as_json=json)


def evaluate(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    events: str | None = None,
    period: Literal["train", "valid", "test"] = "test",
    data: Path | None = None,
    json: Json = False,
) -> None:
    """Metrics of a training's best checkpoint, on its own test rows or on other events.

    Args:
        folder: The --out of `recfm train`.
        events: Parquet file, folder of them or glob to evaluate on, instead of the training's own data.
        period: Which rows of the training's own data.
        data: Folder of the data set, where it has moved since the training.
        json: Print the result as JSON.
    """
    from recfm.single import evaluate_folder

    metrics = evaluate_folder(folder, events=events, period=period, data=data)
    what = "events" if events else period
    _print_metrics(dataclasses.asdict(metrics), what, {"folder": str(folder)}, as_json=json)


def predict(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    events: str,
    out: Path,
    json: Json = False,
) -> None:
    """Probabilities of a training's best checkpoint, as Parquet with `row` and `probability`.

    Args:
        folder: The --out of `recfm train`.
        events: Parquet file, folder of them or glob; a label column is not needed.
        out: The file to write; must not exist yet.
        json: Print the result as JSON.
    """
    import io

    import polars as pl

    from recfm.files import write_whole
    from recfm.single import predict_folder

    if out.exists():
        raise ConfigError(f"'{out}' exists already: remove it, or choose another file")
    probability = predict_folder(folder, events)
    table = pl.DataFrame({"row": range(len(probability)), "probability": probability})
    content = io.BytesIO()
    table.write_parquet(content)
    write_whole(out, content.getvalue())
    if json:
        print_json({"rows": len(table), "out": str(out), "mean": float(probability.mean())})
    else:
        stdout_console().print(f"{out}: {len(table):,} probabilities", markup=False)


def _print_metrics(
    metrics: dict[str, float | None], period: str, more: dict[str, object], *, as_json: bool
) -> None:
    if as_json:
        print_json({**more, "period": period, **metrics})
        return
    text = "  ".join(f"{name} {value:.6f}" for name, value in metrics.items() if value is not None)
    stdout_console().print(f"{period}: {text}", markup=False)
