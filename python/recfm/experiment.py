"""A run of the loop over several seeds, as one report: protocol, rows, runs, log, machine."""

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recfm import _core, report
from recfm.controls import VARIANTS
from recfm.errors import ConfigError
from recfm.files import reason, write_whole
from recfm.history.log import EmbeddingLog, LogRows
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
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the loop for every seed and write the report into `folder`; earlier runs are never overwritten.

    Args:
        events: One row per impression.
        schema: What its columns mean.
        config: Everything that decides the numbers besides the seeds.
        seeds: One full run each, FM included.
        folder: Must be absent or empty. Gets `seed-N/log/`, `seed-N/runs.json`, and the report as `report.json`,
            `.png` and `.html`.
        title: Heading of the report.
        dataset: Name of the data, for the report.
        source: Where the data came from, for the report.
        command: The command that reproduces the run, for the report.
        resume: Take the seeds that `folder` holds already, finished with the same data, schema, config and
            code, and run only the others.
        progress: Where to report progress.

    Returns:
        The report, as written.

    Raises:
        ConfigError: The folder holds files already (or, to resume, a seed of another run), or no seed is given.
        StorageError: The disk refuses the results; finished seeds are kept, and `resume` takes them.
        RecfmError: Whatever is wrong with data or schema.
    """
    seeds = list(seeds)
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**63 for seed in seeds):
        raise ConfigError(f"seeds are {seeds}: give at least one, each once, from 0 to 2^63 - 1")
    folder, progress = Path(folder), progress or NoProgress()
    if not resume:
        refuse_used(folder)
    prepared = prepare(events, schema, config)
    key = run_key(prepared, schema, config)
    finished = finished_seeds(folder, key) if resume else {}
    make_folder(folder)
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        seed_folder = folder / f"seed-{seed}"
        if seed in finished:
            progress.skip(STAGES_PER_SEED)
        else:
            clear_unfinished(seed_folder)
            done = [run.to_dict() for run in run_seed(prepared, config, seed, seed_folder / "log", progress)]
            write_whole(seed_folder / "runs.json", json.dumps({"key": key, "runs": done}).encode())
            finished[seed] = done
        runs += finished[seed]
    last = EmbeddingLog.open(folder / f"seed-{seeds[-1]}" / "log").read()
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
    """Refuse a folder that holds files.

    Raises:
        ConfigError: It holds files, or is no folder.
    """
    try:
        used = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"cannot use '{folder}' for results: {reason(error)}") from None
    if used:
        raise ConfigError(
            f"'{folder}' already holds files: choose another folder, or resume the run that it holds"
        )


def make_folder(folder: Path) -> None:
    """Create `folder` before any training, so that a bad path costs nothing.

    Raises:
        ConfigError: It cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"cannot use '{folder}' for results: {reason(error)}") from None


def run_key(prepared: Prepared, schema: Schema, config: LoopConfig) -> str:
    """SHA-256 of all that decides a seed's numbers: code, torch, data as encoded, schema, config."""
    encoded = prepared.encoded
    package = Path(__file__).parent
    sources = [path.read_bytes() for path in sorted(package.rglob("*.py"))]
    settings = [torch.__version__, _core.build_info()["version"], schema.to_json(), repr(config)]
    jagged = [part for pair in encoded.tokens.values() for part in pair]
    arrays = [encoded.ids, encoded.numeric, encoded.user, encoded.item, encoded.time, encoded.label, *jagged]
    digest = hashlib.sha256()
    for part in [*sources, *(text.encode() for text in settings), *(array.tobytes() for array in arrays)]:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def finished_seeds(folder: Path, key: str) -> dict[int, list[dict[str, Any]]]:
    """The runs of each seed that was finished in `folder`.

    Raises:
        ConfigError: A seed was run with other data, schema, config or code, or the folder holds something else.
    """
    finished = {}
    for path in sorted(folder.glob("seed-*/runs.json")):
        try:
            saved = json.loads(path.read_bytes())
            found, seed, runs = saved["key"], int(path.parent.name.removeprefix("seed-")), list(saved["runs"])
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"'{path}' is damaged: remove the folder '{path.parent}' and resume again"
            ) from None
        if found != key:
            raise ConfigError(
                f"'{path}' is of other data, schema, config or code: choose another folder for this run"
            )
        finished[seed] = runs
    if not any(folder.glob("seed-*")):
        refuse_used(folder)
    return finished


def clear_unfinished(seed_folder: Path) -> None:
    """Remove what an interrupted run left of a seed, which cannot be continued: its log, and nothing else.

    Raises:
        ConfigError: The folder holds something else, or cannot be emptied.
    """
    try:
        names = {path.name for path in seed_folder.iterdir()} if seed_folder.exists() else set()
        # A kill while runs.json is written leaves its temporary file.
        foreign = {name for name in names - {"log"} if not name.startswith(".runs.json.")}
        if foreign:
            raise ConfigError(
                f"'{seed_folder}' holds {', '.join(sorted(foreign))}, not an unfinished seed: move it away"
            )
        if names:
            shutil.rmtree(seed_folder)
    except OSError as error:
        raise ConfigError(f"cannot empty '{seed_folder}': {reason(error)}") from None


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
        "schema": schema.to_dict(),
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
