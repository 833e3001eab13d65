"""Runs a sweep: every setting, every seed, skipping what is finished, beside any number of other processes."""

import dataclasses
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from recfm import _core
from recfm.errors import ConfigError, RecfmError
from recfm.experiment import machine
from recfm.files import write_whole
from recfm.progress import NoProgress, Progress
from recfm.report import scaling
from recfm.sweep import summary
from recfm.sweep.data import TrainingData, load_data
from recfm.sweep.folder import SweepFolder
from recfm.sweep.job import cost, make_model, run_one
from recfm.sweep.plan import Setting, SweepFile, find_file, read_sweep, settings_of

_POLL = 0.5
"""Seconds between looks at what other processes have finished."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One setting with one seed."""

    setting: Setting
    seed: int
    key: str


@dataclass(kw_only=True)
class Sweep:
    """A sweep file read, its data loaded, its runs listed; nothing trained yet."""

    path: Path
    overrides: tuple[str, ...]
    name: str
    file: SweepFile
    data: TrainingData
    settings: list[Setting]
    jobs: list[Job] = field(default_factory=list)

    @classmethod
    def open(cls, path: str | Path, overrides: Sequence[str] = ()) -> "Sweep":
        """Read the file, check every setting, load the data.

        Raises:
            ConfigError: The file, a model, a preset or a key is wrong, or a grid is empty.
            RecfmError: Whatever is wrong with the data.
        """
        path = find_file(path)
        file = read_sweep(path, overrides)
        settings = settings_of(file)  # before minutes of reading
        data = load_data(file.data, file.schema, beside=path.parent)
        digest = data.digest()
        seeds = dict.fromkeys(seed for setting in settings for seed in setting.seeds)
        jobs = [
            Job(setting=s, seed=seed, key=s.key(seed, digest, evaluate_test=file.evaluate_test))
            for seed in seeds  # seed by seed, so that a sweep that is cut short has compared all settings
            for s in settings
            if seed in s.seeds
        ]
        return cls(
            path=path,
            overrides=tuple(overrides),
            name=file.name or path.stem,
            file=file,
            data=data,
            settings=settings,
            jobs=jobs,
        )

    def run(
        self,
        folder: str | Path,
        *,
        workers: int = 1,
        retry_failed: bool = False,
        progress: Progress | None = None,
        command: str = "Sweep.run(...)",
    ) -> dict[str, Any]:
        """Do every run that is not finished and not claimed by another process, wait for the others, write the tables.

        Args:
            folder: Made if absent; one that holds a part of this sweep is gone on with.
            workers: Processes; each has its share of the cores.
            retry_failed: Do failed runs again.
            progress: Where to report progress.
            command: What made the results, for the document.

        Returns:
            The document, as `results.json` holds it.

        Raises:
            ConfigError: The folder holds another sweep, or `workers` is below 1.
            StorageError: The disk refuses; finished runs are kept.
        """
        if workers < 1:
            raise ConfigError(f"workers is {workers}: give 1 or more")
        place = SweepFolder(Path(folder), data=self.data.describe(), evaluate_test=self.file.evaluate_test)
        progress = progress or NoProgress()
        if retry_failed:
            self._forget_failed(place)
        waiting = list(self.jobs)
        with _helpers(self.path, place.path, self.overrides, workers):
            while waiting:
                before = len(waiting)
                waiting = [job for job in waiting if not self._attempt(job, place, progress)]
                if waiting and len(waiting) == before:  # all that is left is claimed by others
                    time.sleep(_POLL)
        return self.write(place, command=command, draw=True)

    def _attempt(self, job: Job, place: SweepFolder, progress: Progress) -> bool:
        """Whether the run is finished now."""
        if place.finished(job.key):
            progress.skip(1)
            return True
        with place.claim(job.key) as mine:
            if not mine:
                return False
            if not place.finished(job.key):  # by another process, just before the claim
                with progress.stage(job.setting.label, "training", job.seed) as on_batch:
                    record = run_one(
                        self.data,
                        job.setting,
                        job.seed,
                        evaluate_test=self.file.evaluate_test,
                        on_batch=on_batch,
                    )
                place.finish(job.key, record)
                self.write(place, command="unfinished", draw=False)
        return True

    def _forget_failed(self, place: SweepFolder) -> None:
        for job in self.jobs:
            with place.claim(job.key) as mine:
                record = place.finished(job.key) if mine else None
                if record and record["status"] == "failed":
                    place.forget(job.key)

    def write(self, place: SweepFolder, *, command: str, draw: bool) -> dict[str, Any]:
        """Write `results.json`, `table.md` and, with `draw`, `scaling.png` of the runs finished so far."""
        document = self.document(place, command=command)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(place.path / "results.json", text.encode())
        write_whole(place.path / "table.md", summary.markdown(document).encode())
        if draw and document["scaling"]:
            write_whole(place.path / "scaling.png", scaling.png(document))
        return document

    def document(self, place: SweepFolder, *, command: str) -> dict[str, Any]:
        """Everything that is known so far, as plain values."""
        records = [(job, place.finished(job.key)) for job in self.jobs]
        by_setting = [
            [record for job, record in records if job.setting is setting and record]
            for setting in self.settings
        ]
        rows = summary.summarise(self.settings, by_setting, self.file.select)
        runs = [
            {"label": setting.label, "family": setting.family, **record}
            for setting, found in zip(self.settings, by_setting, strict=True)
            for record in found
        ]
        return {
            "recfm": _core.build_info()["version"],
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command,
            "title": self.name,
            "protocol": self._protocol(),
            "settings": rows,
            "scaling": scaling.analyse(runs),
            "runs": runs,
            "machine": machine(),
            "notes": self._notes(rows, runs),
        }

    def _protocol(self) -> dict[str, Any]:
        test = (
            "test rows are measured once, with the weights of the best validation epoch"
            if self.file.evaluate_test
            else "test rows are not looked at"
        )
        floor = {period: dataclasses.asdict(metrics) for period, metrics in self.data.floor.items()}
        return {
            "data": self.data.describe(),
            "select": self.file.select,
            "selection": f"epoch and best setting by the validation rows only; {test}",
            "metrics": "gAUC by user, weighted by impressions; NE = log loss over the entropy of the rows' base rate",
            "seeds": "weights, shuffle and dropout; mean and sample standard deviation over them",
            "floor": floor or None,
        }

    def _notes(self, rows: list[dict[str, Any]], runs: list[dict[str, Any]]) -> list[str]:
        notes = [self._protocol()["selection"].capitalize() + ".", *self.data.notes]
        if "test" in self.data.floor:
            best = self.data.floor["test"]
            notes.append(
                f"The true probabilities have test AUC {best.auc:.4f}, log loss {best.logloss:.4f}, NE {best.ne:.4f}: "
                "in expectation no model does better."
            )
        notes += [
            f"{run['label']}, seed {run['seed']}, failed: {run['error']}"
            for run in runs
            if run["status"] == "failed"
        ]
        missing = sum(row["missing"] for row in rows)
        if missing:
            notes.append(f"{missing} of {len(self.jobs)} runs are still to be done.")
        made = {json.dumps(run["versions"], sort_keys=True) for run in runs}
        if len(made) > 1:
            notes.append(f"The runs were made with {len(made)} different versions or machines; see `runs`.")
        return notes + scaling.sentences(scaling.analyse(runs))

    def costs(self) -> list[dict[str, Any]]:
        """Parameters and training FLOPs of every setting, nothing trained: what `--dry-run` prints.

        Raises:
            RecfmError: A model does not fit the data; the message begins with its label.
        """
        train = len(self.data.rows["train"])
        out = []
        for setting in self.settings:
            try:
                found = cost(make_model(self.data, setting, 0), self.data)
            except RecfmError as error:
                raise type(error)(f"{setting.label}: {error}") from None
            flops = found["training_flops_per_example"] * train * setting.train.epochs * len(setting.seeds)
            out.append(
                {
                    "label": setting.label,
                    "seeds": len(setting.seeds),
                    **found,
                    "training_flops_at_most": flops,
                }
            )
        return out


@contextmanager
def _helpers(path: Path, folder: Path, overrides: Sequence[str], workers: int) -> Iterator[None]:
    """`workers - 1` more processes at the same sweep while this one is inside; each says what it does in a log file."""
    if workers == 1:
        yield
        return
    cores = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(cores)
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores), "RECFM_NUM_THREADS": str(cores)}
    arguments = [sys.executable, "-m", "recfm", "sweep", str(path), "--out", str(folder)]
    if overrides:
        arguments += ["--set", *overrides]
    started = []
    try:
        for number in range(1, workers):
            with open(folder / f"worker-{number}.log", "wb") as log:
                started.append(subprocess.Popen(arguments, stdout=log, stderr=log, env=environment))
        yield
    finally:
        for process in started:  # every run is finished, or this process is being stopped
            process.terminate()
            process.wait()
