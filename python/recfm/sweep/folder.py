"""A sweep's folder: what is finished, what is claimed, and whose it is. Any number of processes may share it.

sweep.json            which data, and whether the test rows are measured
runs/KEY.json         one finished run; appears whole or not at all
claims/KEY.lock       locked by the process that is at this run; the system frees it when the process ends
results.json, table.md, scaling.png
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from recfm.errors import ConfigError, StorageError
from recfm.experiment import make_folder, refuse_used
from recfm.files import reason, write_whole

_FORMAT = 1
_AGAIN = "remove it and sweep again"
_MEASURED = ("valid", "test", "parameters", "training_flops_per_example", "epochs", "best_epoch", "seconds")
_WANTED = {"done": ("versions", *_MEASURED, "rows_per_second"), "failed": ("versions", "error")}
"""What tables read of a record, by its status."""


class SweepFolder:
    """Opens or makes the folder of a sweep.

    Args:
        path: The folder.
        data: `TrainingData.describe()`.
        evaluate_test: Whether its runs measure the test rows.

    Raises:
        ConfigError: It holds another sweep (the message names the difference) or something else.
    """

    def __init__(self, path: Path, *, data: dict[str, Any], evaluate_test: bool) -> None:
        self.path = path
        mine = {"format": _FORMAT, "data": data, "evaluate_test": evaluate_test}
        file = path / "sweep.json"
        if file.exists():
            self._compare(_read(file, fix="choose another folder with --out"), mine)
        else:
            refuse_used(path)
            make_folder(path)
            write_whole(file, json.dumps(mine, indent=1).encode())
        try:
            (path / "runs").mkdir(exist_ok=True)
            (path / "claims").mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot use '{path}' for results: {reason(error)}") from None

    def _compare(self, found: dict[str, Any], mine: dict[str, Any]) -> None:
        differences = [
            f"{name} is {_shown(found.get(name))} there and {_shown(mine[name])} here"
            for name in ("format", "evaluate_test")
            if found.get(name) != mine[name]
        ]
        theirs, ours = found.get("data"), mine["data"]
        if not isinstance(theirs, dict) or theirs.get("digest") != ours["digest"]:
            keys = ("name", "split", "features", "periods", "digest")
            changed = [k for k in keys if not isinstance(theirs, dict) or theirs.get(k) != ours[k]]
            there = theirs.get(changed[0]) if isinstance(theirs, dict) else theirs
            differences.append(
                f"data {changed[0]} is {_shown(there)} there and {_shown(ours[changed[0]])} here"
            )
        if differences:
            raise ConfigError(
                f"'{self.path}' holds another sweep: {'; '.join(differences)}. Choose another folder with --out"
            )

    def _file(self, key: str) -> Path:
        return self.path / "runs" / f"{key}.json"

    def finished(self, key: str) -> dict[str, Any] | None:
        """The record of a run, or None if it is still to be done.

        Raises:
            ConfigError: The file is damaged.
        """
        file = self._file(key)
        if not file.exists():
            return None
        record = _read(file)
        if record.get("key") != key:
            raise ConfigError(f"'{file}' is not the run of that name: {_AGAIN}")
        wanted = _WANTED.get(str(record.get("status")))
        if wanted is None or not all(name in record for name in wanted):
            raise ConfigError(f"'{file}' is damaged: {_AGAIN}")
        return record

    def finish(self, key: str, record: dict[str, Any]) -> None:
        """Write the record of a run.

        Raises:
            StorageError: The disk refuses.
        """
        write_whole(self._file(key), json.dumps({"key": key, **record}, indent=1, allow_nan=False).encode())

    def forget(self, key: str) -> None:
        """Remove a run, so that it is done again."""
        self._file(key).unlink(missing_ok=True)

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """True inside if this process may do the run, False if another one is at it.

        Raises:
            StorageError: The disk refuses locks.
        """
        lock = filelock.FileLock(self.path / "claims" / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise StorageError(
                f"cannot lock '{lock.lock_file}': {why}; use a folder on a local disk"
            ) from None
        try:
            yield True
        finally:
            lock.release()


def _read(file: Path, *, fix: str = _AGAIN) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"'{file}' is damaged: {fix}")
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
