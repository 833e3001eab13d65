"""The embedding log: what the frozen FM thought of every event, appended once, read many times.

A log is a directory. Each `append` writes one safetensors segment and then commits it by renaming a new
`manifest.json` over the old one; a reader only ever sees segments that the manifest lists. Killed at any byte,
the log opens at its last commit.

    manifest.json                 format, FM fingerprint, the FM's training period, dim, dtype, segments, checksum
    segment-000000.safetensors    user i64 [n], time i64 [n] (microseconds), event i64 [n], score f32 [n], z [n, d]
"""

import contextlib
import hashlib
import json
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from recfm.errors import DataError, LeakError, LogError
from recfm.files import reason
from recfm.history.index import HistoryIndex
from recfm.history.storage import (
    FORMAT,
    VERSION,
    read_manifest,
    sync_folder,
    write_log_file,
    write_manifest,
)

_DTYPES = {"f32": np.float32, "f16": np.float16}


@dataclass(frozen=True, kw_only=True)
class LogRows:
    """Logged events in the order in which they were appended.

    Attributes:
        user: int64 [n], user keys.
        time: int64 [n], microseconds.
        event: int64 [n], the caller's id of the event, unique in a log.
        score: float32 [n], the FM's predicted probability.
        z: float32 or float16 [n, d], in [-1, 1].
    """

    user: NDArray[np.int64]
    time: NDArray[np.int64]
    event: NDArray[np.int64]
    score: NDArray[np.float32]
    z: NDArray[Any]

    def __len__(self) -> int:
        return len(self.event)

    def history(self) -> HistoryIndex:
        """Each user's past z, ready to be joined."""
        return HistoryIndex(self.user, self.time, self.z)


class EmbeddingLog:
    """An append-only log of one frozen FM's embeddings; open it with `create` or `open`."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self._manifest = folder, manifest
        self._events: set[int] | None = None

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        fm: str,
        dim: int,
        trained: tuple[int, int],
        dtype: Literal["f32", "f16"] = "f32",
    ) -> "EmbeddingLog":
        """Start an empty log.

        Args:
            folder: Created if absent; must not hold a log yet.
            fm: Fingerprint of the FM whose embeddings these are.
            dim: d, the width of z.
            trained: First and last event time (microseconds) of the FM's training period, validation included.
            dtype: How z is stored.

        Raises:
            DataError: An argument makes no sense.
            LogError: The folder holds a log already, or cannot be written.
        """
        for name, value, fine in (
            ("fm", fm, isinstance(fm, str) and fm != ""),
            ("dim", dim, isinstance(dim, int | np.integer) and dim >= 1),
            ("dtype", dtype, dtype in _DTYPES),
            ("trained", trained, _is_period(trained)),
        ):
            if not fine:
                raise DataError(
                    f"{name} is {value!r}: fm must be a fingerprint, dim at least 1, dtype one of "
                    f"{', '.join(_DTYPES)}, trained (first, last) times"
                )
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogError(f"cannot create '{folder}': {reason(error)}") from None
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "fm": fm,
            "dim": int(dim),
            "dtype": dtype,
            "trained": {"from": int(trained[0]), "to": int(trained[1])},
            "segments": [],
        }
        log = cls(folder, manifest)
        with log._locked():
            if (folder / "manifest.json").exists():  # another process was faster
                raise LogError(
                    f"'{folder}' already holds an embedding log: open it, or choose another folder"
                )
            log._commit(manifest)
        return log

    @classmethod
    def open(cls, folder: str | Path, *, fm: str | None = None) -> "EmbeddingLog":
        """Open a log at its last commit.

        Args:
            folder: The log's directory.
            fm: If given, the fingerprint that the log must be of.

        Raises:
            LogError: There is no log, its manifest is damaged, a segment is missing or truncated, or the log is
                of another FM.
        """
        folder = Path(folder)
        manifest = read_manifest(folder / "manifest.json")
        if fm is not None and manifest["fm"] != fm:
            raise LogError(
                f"the log at '{folder}' is of FM {manifest['fm'][:12]}, not {fm[:12]}: two embedding spaces must not "
                "mix in one sequence; score the events again with this FM into a new log"
            )
        for segment in manifest["segments"]:
            path = folder / segment["file"]
            found = path.stat().st_size if path.exists() else None
            if found != segment["bytes"]:
                state = "is missing" if found is None else f"has {found} bytes instead of {segment['bytes']}"
                raise LogError(
                    f"segment '{path}' {state}: restore the file, or score its events again into a new log"
                )
        return cls(folder, manifest)

    @property
    def fm(self) -> str:
        """Fingerprint of the FM."""
        return str(self._manifest["fm"])

    @property
    def dim(self) -> int:
        """d, the width of z."""
        return int(self._manifest["dim"])

    @property
    def trained(self) -> tuple[int, int]:
        """First and last event time (microseconds) of the FM's training period."""
        return self._manifest["trained"]["from"], self._manifest["trained"]["to"]

    @property
    def nbytes(self) -> int:
        """Bytes of all committed segments."""
        return sum(segment["bytes"] for segment in self._manifest["segments"])

    def __len__(self) -> int:
        """Committed events."""
        return sum(segment["rows"] for segment in self._manifest["segments"])

    def append(
        self,
        *,
        user: NDArray[np.int64],
        time: NDArray[np.int64],
        event: NDArray[np.int64],
        score: NDArray[np.float32],
        z: NDArray[Any],
        fm: str | None = None,
    ) -> None:
        """Add events as one segment; they are visible once this returns, and not before.

        Args:
            user: int64 [n].
            time: int64 [n], microseconds.
            event: int64 [n], not logged before.
            score: float32 [n], probabilities.
            z: [n, d], in [-1, 1].
            fm: Fingerprint of the FM that made these; refused unless it is the log's.

        Raises:
            LeakError: An event is not later than the FM's training period.
            DataError: Shapes or dtypes disagree, a value is out of range, or an event is logged already.
            LogError: The embeddings are of another FM, another process is writing, or the disk refuses; the log
                is as it was.
        """
        if fm is not None and fm != self.fm:
            raise LogError(
                f"these embeddings are of FM {fm[:12]}, the log is of {self.fm[:12]}: start a new log"
            )
        z_dtype = _DTYPES[self._manifest["dtype"]]
        rows = {
            "user": _column("user", user, np.int64, 1),
            "time": _column("time", time, np.int64, 1),
            "event": _column("event", event, np.int64, 1),
            "score": _column("score", score, np.float32, 1),
            "z": _column("z", z, z_dtype, 2),
        }
        with self._writing():
            events = self._check(rows)
            name = f"segment-{len(self._manifest['segments']):06d}.safetensors"
            header = {key: str(self._manifest[key]) for key in ("format", "version", "fm", "dim", "dtype")}
            header["trained"] = json.dumps(self._manifest["trained"])
            content = safetensors.numpy.save(rows, metadata=header)
            self._write_segment(self.folder / name, content)
            segment = {
                "file": name,
                "rows": len(rows["event"]),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            self._events = None  # unknown again until the commit stands
            try:
                self._commit({**self._manifest, "segments": [*self._manifest["segments"], segment]})
            except LogError:
                if segment not in self._manifest["segments"]:
                    (self.folder / name).unlink(missing_ok=True)  # give the space back
                raise
            self._events = events

    def _check(self, rows: dict[str, NDArray[Any]]) -> set[int]:
        """Every event that the log will hold with these rows, or the reason why it cannot hold them."""
        n = len(rows["event"])
        if n == 0:
            raise DataError("there are no events to append")
        for name, values in rows.items():
            shape = (n, self.dim) if name == "z" else (n,)
            if values.shape != shape:
                raise DataError(f"'{name}' has shape {values.shape}: expected {shape}")
        self.refuse_trained(rows["time"], rows["event"])
        events = self._known_events().copy()
        for event in rows["event"].tolist():
            if event in events:
                raise DataError(f"event {event} is logged already: each event is logged once")
            events.add(event)
        return events

    def refuse_trained(self, time: NDArray[np.int64], event: NDArray[np.int64]) -> None:
        """Refuse events that the FM may have trained on; `append` does this too, after the FM has done its work.

        Raises:
            LeakError: An event is not later than the FM's training period.
        """
        first, last = self.trained
        seen = time <= last
        if seen.any():
            row = int(seen.argmax())
            raise LeakError(
                f"{int(seen.sum())} of {len(time)} events are not later than the FM's training period "
                f"({_when(first)} to {_when(last)}), the first is event {event[row]} at {_when(time[row])}: "
                "an FM must never score rows it trained on into the log"
            )

    def _known_events(self) -> set[int]:
        if self._events is None:
            self._events = set(self.read().event.tolist()) if len(self) else set()
        return self._events

    def read(self) -> LogRows:
        """Every committed event; each segment's checksum is verified on the way.

        Raises:
            LogError: A segment is missing, truncated, altered, or not of this log's FM.
        """
        parts = [self._read_segment(segment) for segment in self._manifest["segments"]]
        empty = {"user": np.int64, "time": np.int64, "event": np.int64, "score": np.float32}
        columns: dict[str, NDArray[Any]] = {
            name: np.concatenate([p[name] for p in parts]) if parts else np.zeros(0, dtype)
            for name, dtype in empty.items()
        }
        z_dtype = _DTYPES[self._manifest["dtype"]]
        z = np.concatenate([p["z"] for p in parts]) if parts else np.zeros((0, self.dim), z_dtype)
        return LogRows(**columns, z=z)

    def _read_segment(self, segment: dict[str, Any]) -> dict[str, NDArray[Any]]:
        path = self.folder / segment["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LogError(f"segment '{path}' cannot be read: {reason(error)}") from None
        if hashlib.sha256(content).hexdigest() != segment["sha256"]:
            raise LogError(
                f"segment '{path}' does not match its checksum: the file was altered or damaged; "
                "restore it, or score its events again into a new log"
            )
        try:
            return safetensors.numpy.load(content)
        except safetensors.SafetensorError as error:
            raise LogError(f"segment '{path}' is not a valid safetensors file: {error}") from None

    def _write_segment(self, path: Path, content: bytes) -> None:
        write_log_file(path, content)
        try:
            sync_folder(self.folder)  # before the manifest may name it
        except OSError as error:
            path.unlink(missing_ok=True)
            raise LogError(f"cannot write '{path}': {reason(error)}; the log is as it was before") from None

    def _commit(self, manifest: dict[str, Any]) -> None:
        write_manifest(self.folder / "manifest.json", manifest)
        self._manifest = manifest
        try:
            sync_folder(self.folder)
        except OSError as error:
            raise LogError(
                f"'{self.folder}' is committed, but the disk did not confirm it ({reason(error)}): "
                "it may not survive a power cut"
            ) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only writer."""
        lock = filelock.FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise LogError(f"another process is writing to '{self.folder}': wait until it is done") from None
        except (OSError, NotImplementedError) as error:
            why = reason(error) if isinstance(error, OSError) else "its file system has no locks"
            raise LogError(f"cannot write to '{self.folder}': {why}") from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the only writer, and see what earlier writers committed since this log was opened."""
        with self._locked():
            found = read_manifest(self.folder / "manifest.json")
            if found != self._manifest:
                if _identity(found) != _identity(self._manifest):
                    raise LogError(
                        f"'{self.folder}' was replaced by another log since it was opened: open it again"
                    )
                self._manifest, self._events = found, None
            yield


def _is_period(trained: Any) -> bool:
    try:
        first, last = (operator.index(time) for time in trained)
    except (TypeError, ValueError):
        return False
    return first <= last


def _identity(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "segments"}


def _column(name: str, values: NDArray[Any], dtype: Any, ndim: int) -> NDArray[Any]:
    """`values` as `dtype`, refused where that would change them."""
    try:
        values = np.asarray(values)
    except ValueError:
        raise DataError(f"'{name}' is ragged: expected a {ndim}-d array") from None
    wanted = "integers that fit int64" if dtype is np.int64 else "floats"
    kinds = "iu" if dtype is np.int64 else "f"
    if values.dtype.kind not in kinds or values.ndim != ndim:
        raise DataError(f"'{name}' is {values.dtype} of shape {values.shape}: expected {ndim}-d {wanted}")
    if (
        dtype is np.int64
        and values.dtype == np.uint64
        and len(values)
        and values.max() > np.iinfo(np.int64).max
    ):
        raise DataError(f"'{name}' reaches {values.max()}: expected {wanted}")
    if dtype is not np.int64 and not np.isfinite(values).all():
        raise DataError(f"'{name}' holds NaN or infinity: the FM diverged; do not log it")
    low = -1.0 if name == "z" else 0.0
    if dtype is not np.int64 and values.size and (values.min() < low or values.max() > 1.0):
        worst = values.flat[np.abs(values - (low + 1.0) / 2).argmax()]
        fix = "end the encoder in tanh" if name == "z" else "it must be a probability, take the sigmoid"
        raise DataError(f"'{name}' reaches {worst:g}, outside [{low:g}, 1]: {fix}")
    return np.ascontiguousarray(values, dtype)


def _when(microseconds: int) -> str:
    return str(np.datetime64(int(microseconds), "us"))
