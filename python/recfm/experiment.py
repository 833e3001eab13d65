"""A run of the loop over several seeds, as one report: protocol, rows, runs, log, machine."""

import dataclasses
import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recfm import _core, report
from recfm.controls import VARIANTS
from recfm.errors import ConfigError
from recfm.history.log import LogRows
from recfm.loop import LoopConfig, Prepared, prepare, run_seed
from recfm.progress import NoProgress, Progress
from recfm.schema import Schema

STAGES_PER_SEED = 2 + len(VARIANTS)
"""Training the FM, logging, and one training per variant of the VM."""


def run_experiment(
    events: pl.DataFrame,
    schema: Schema,
    config: LoopConfig,
    *,
    seeds: Sequence[int] = (0,),
    folder: str | Path,
    title: str = "LoopFM",
    dataset: str = "events",
    source: str = "a data frame",
    command: str = "recfm.run_experiment(...)",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the loop for every seed and write the report into `folder`; earlier runs are never overwritten.

    Args:
        events: One row per impression.
        schema: What its columns mean.
        config: Everything that decides the numbers besides the seeds.
        seeds: One full run each, FM included.
        folder: Must be absent or empty. Gets `seed-N/log/`, `report.json`, `.png` and `.html`.
        title: Heading of the report.
        dataset: Name of the data, for the report.
        source: Where the data came from, for the report.
        command: The command that reproduces the run, for the report.
        progress: Where to report progress.

    Returns:
        The report, as written.

    Raises:
        ConfigError: The folder holds files already, or no seed is given.
        RecfmError: Whatever is wrong with data, schema or disk.
    """
    seeds = list(seeds)
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**63 for seed in seeds):
        raise ConfigError(f"seeds are {seeds}: give at least one, each once, from 0 to 2^63 - 1")
    folder = Path(folder)
    refuse_used(folder)
    prepared = prepare(events, schema, config)
    runs, last = [], None
    for seed in seeds:
        done, last = run_seed(
            prepared, config, seed, folder / f"seed-{seed}" / "log", progress or NoProgress()
        )
        runs += [run.to_dict() for run in done]
    assert last is not None
    rows = report.summarise(runs)
    document = {
        "recfm": _core.build_info()["version"],
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "title": title,
        "protocol": protocol(prepared, schema, config, seeds=seeds, dataset=dataset, source=source),
        "rows": rows,
        "runs": runs,
        "log": describe_log(last, prepared, config),
        "machine": machine(),
        "notes": report.notes(rows),
    }
    report.write(document, folder)
    return document


def refuse_used(folder: Path) -> None:
    """Refuse a folder that holds files; it is created only once there is something to write.

    Raises:
        ConfigError: It holds files, or is no folder.
    """
    try:
        used = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"cannot use '{folder}' for results: {error.strerror}") from None
    if used:
        raise ConfigError(f"'{folder}' already holds files: choose another folder for the results")


def protocol(
    prepared: Prepared, schema: Schema, config: LoopConfig, *, seeds: Sequence[int], dataset: str, source: str
) -> dict[str, Any]:
    """How the numbers came about, for the report."""
    encoded = prepared.encoded
    return {
        "dataset": dataset,
        "source": source,
        "periods": prepared.periods.describe(encoded.time, encoded.label),
        "split": "by time, every event of a later period strictly later; the FM is frozen before the VM's period",
        "selection": "early stopping on validation NE, cut from the end of each training period; never on test",
        "metrics": "test period; gAUC by user, weighted by impressions, users of one class dropped (FuxiCTR's)",
        "transfer_ratio": "(NE_VM - NE_VM') / (NE_VM - NE_FM), per seed, then mean and standard deviation",
        "history": "newest first, event time < row time - delay, ties never count",
        "seeds": list(seeds),
        "history_length": config.length,
        "delay_seconds": config.delay,
        "z_dim": config.z_dim,
        "vm_model": config.vm,
        "fm": dataclasses.asdict(config.fm),
        "vm": dataclasses.asdict(config.deepfm if config.vm == "deepfm" else config.dnn),
        "kd": dataclasses.asdict(config.kd),
        "config": dataclasses.asdict(config),
        "schema": dataclasses.asdict(schema),
    }


def describe_log(log: LogRows, prepared: Prepared, config: LoopConfig) -> dict[str, Any]:
    """Size of the last seed's log and how long the histories of the test rows are."""
    encoded, test = prepared.encoded, prepared.periods.test
    start, stop = log.history().window(
        encoded.user[test], encoded.time[test], length=config.length, delay=config.delay
    )
    lengths = stop - start
    return {
        "events": len(log),
        "z_dim": config.z_dim,
        "bytes": int(sum(np.asarray(getattr(log, f.name)).nbytes for f in dataclasses.fields(log))),
        "mean_history": float(lengths.mean()),
        "empty_history": float((lengths == 0).mean()),
    }


def machine() -> dict[str, Any]:
    """What the run was made on."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 0,
        "threads": f"torch {torch.get_num_threads()}, recfm {_core.num_threads()}",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "polars": pl.__version__,
        "numpy": np.__version__,
        "recfm": _core.build_info()["version"],
    }


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()
