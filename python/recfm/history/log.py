"""The embedding log: what the frozen FM thought of every event, appended once, read many times.

A log is a directory. Each `append` writes one safetensors segment and then commits it by renaming a new
`manifest.json` over the old one; a reader only ever sees segments that the manifest lists. Killed at any byte,
the log opens at its last commit.

    manifest.json                 format, FM fingerprint, the FM's training period, dim, dtype, segments, checksum
    segment-000000.safetensors    user i64 [n], time i64 [n] (microseconds), event i64 [n], score f32 [n], z [n, d]
    index/                        a history index with one part for each segment, made by `index`
"""

import contextlib
import hashlib
import json
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfm._core import Blocks
from recfm.errors import DataError, LeakError, LogError
from recfm.files import check_size, reason
from recfm.history.index import HistoryIndex
from recfm.history.quantize import CODES, STORED, Stored, Vectors, dequantize, quantize
from recfm.history.tensors import map_tensors, parse, sealed
from recfm.storage import (
    INDEX,
    LOG,
    MANIFEST,
    confirm,
    locked,
    read_manifest,
    sync_folder,
    write_log_file,
    write_manifest,
)

_FIX = "restore the file, or score its events again into a new log"


@dataclass(frozen=True, kw_only=True)
class LogRows:
    """Logged events in the order in which they were appended.

    Attributes:
        user: int64 [n], user keys.
        time: int64 [n], microseconds.
        event: int64 [n], the caller's id of the event, unique in a log.
        score: float32 [n], the FM's predicted probability.
        z: float32 or float16 [n, d], in [-1, 1]; float32 where the log stores fewer bits.
        stored: The same z as the log stores it; None if it is just `z`.
    """

    user: NDArray[np.int64]
    time: NDArray[np.int64]
    event: NDArray[np.int64]
    score: NDArray[np.float32]
    z: NDArray[Any]
    stored: Vectors | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.event)

    def history(self) -> HistoryIndex:
        """Each user's past z, ready to be joined; in as few bits as the log stores."""
        return HistoryIndex(self.user, self.time, self.z if self.stored is None else self.stored)


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
        dtype: Stored = "f32",
        codebook: NDArray[np.float32] | None = None,
    ) -> "EmbeddingLog":
        """Start an empty log.

        Args:
            folder: Created if absent; must not hold a log yet.
            fm: Fingerprint of the FM whose embeddings these are.
            dim: d, the width of z.
            trained: First and last event time (microseconds) of the FM's training period, validation included.
            dtype: How z is stored (see `recfm.history.quantize`).
            codebook: float32 [16], rising, for int4; 16 values evenly over [-1, 1] without it.

        Raises:
            DataError: An argument makes no sense.
            LogError: The folder holds a log already, or cannot be written.
        """
        for name, value, fine in (
            ("fm", fm, isinstance(fm, str) and fm != ""),
            ("dim", dim, isinstance(dim, int | np.integer) and dim >= 1),
            ("dtype", dtype, dtype in STORED),
            ("trained", trained, _is_period(trained)),
        ):
            if not fine:
                raise DataError(
                    f"{name} is {value!r}: fm must be a fingerprint, dim at least 1, dtype one of "
                    f"{', '.join(STORED)}, trained (first, last) times"
                )
        quantize(np.zeros((0, int(dim)), np.float32), dtype, codebook=codebook)  # or it says what is wrong
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogError(f"cannot create '{folder}': {reason(error)}") from None
        manifest = {
            "format": LOG.format,
            "version": LOG.version,
            "fm": fm,
            "dim": int(dim),
            "dtype": dtype,
            "trained": {"from": int(trained[0]), "to": int(trained[1])},
            "segments": [],
        }
        if codebook is not None:
            manifest["codebook"] = [float(code) for code in codebook]
        log = cls(folder, manifest)
        with locked(folder, LOG):
            if (folder / MANIFEST).exists():  # another process was faster
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
        manifest = read_manifest(folder, LOG)
        if fm is not None and manifest["fm"] != fm:
            raise LogError(
                f"the log at '{folder}' is of FM {manifest['fm'][:12]}, not {fm[:12]}: two embedding spaces must not "
                "mix in one sequence; score the events again with this FM into a new log"
            )
        for segment in manifest["segments"]:
            check_size(folder / segment["file"], segment["bytes"], what="segment", error=LogError, fix=_FIX)
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
    def dtype(self) -> Stored:
        """How z is stored."""
        dtype: Stored = self._manifest["dtype"]
        return dtype

    @property
    def _codebook(self) -> NDArray[np.float32] | None:
        codebook = self._manifest.get("codebook")
        return None if codebook is None else np.array(codebook, np.float32)

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
        rows = {
            "user": _column("user", user, np.int64, 1),
            "time": _column("time", time, np.int64, 1),
            "event": _column("event", event, np.int64, 1),
            "score": _column("score", score, np.float32, 1),
            "z": _column("z", z, np.float16 if self.dtype == "f16" else np.float32, 2),
        }
        with self._writing():
            events = self._check(rows)
            name = f"segment-{len(self._manifest['segments']):06d}.safetensors"
            header = {key: str(self._manifest[key]) for key in ("format", "version", "fm", "dim", "dtype")}
            header["trained"] = json.dumps(self._manifest["trained"])
            rows["z"] = quantize(rows["z"], self.dtype, codebook=self._codebook).codes
            content, sums = sealed(rows, header)
            self._write_segment(self.folder / name, content)
            segment = {
                "file": name,
                "rows": len(rows["event"]),
                **sums,
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
        width = -(-self.dim // 2) if self.dtype == "int4" else self.dim
        codes = np.concatenate([p["z"] for p in parts]) if parts else np.zeros((0, width), CODES[self.dtype])
        if self.dtype in ("f32", "f16"):
            return LogRows(**columns, z=codes, stored=None)
        stored = self._vectors(codes)
        return LogRows(**columns, z=dequantize(stored), stored=stored)

    def _vectors(self, codes: NDArray[Any], blocks: Blocks | None = None) -> Vectors:
        return Vectors(stored=self.dtype, codes=codes, dim=self.dim, codebook=self._codebook, blocks=blocks)

    def index(self) -> HistoryIndex:
        """Each user's past z without reading the log into memory: one part and one mapped store for each segment.

        The index lives in `index/` beside the segments; segments that were appended since are indexed now, the
        others are left alone. Every block of both is verified when it is first touched.

        Raises:
            LogError: A segment is missing, truncated or damaged.
            StorageError: The index is damaged or of another log (delete its folder), or cannot be written.
        """
        segments = self._manifest["segments"]
        mapped = [self._map_segment(segment) for segment in segments]
        stores = [self._vectors(values["z"], blocks) for values, blocks in mapped]
        folder = self.folder / "index"
        if not (folder / MANIFEST).exists():
            with contextlib.suppress(INDEX.error):  # another process may be faster; `open` tells
                HistoryIndex.empty(folder)
        index = HistoryIndex.open(folder)
        known = [found.get("segment") for found in index.entries]
        if known != [segment["sha256"] for segment in segments[: len(known)]]:
            raise INDEX.error(f"the history index at '{folder}' is of another log: delete that folder")
        for segment, (values, blocks) in zip(segments[len(known) :], mapped[len(known) :], strict=True):
            for name in ("user", "time"):
                if blocks is not None:
                    blocks.check_array(values[name])
            index.append(values["user"], values["time"], segment=segment["sha256"])
        return index.with_values(stores)

    def _map_segment(self, segment: dict[str, Any]) -> tuple[dict[str, NDArray[Any]], Blocks | None]:
        if "checks" not in segment:  # written by a recfm that had no checksums for blocks
            return self._read_segment(segment), None
        file = map_tensors(self.folder / segment["file"], segment, what="segment", error=LogError, fix=_FIX)
        return file.tensors, file.blocks

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
        return parse(np.frombuffer(content, np.uint8))[0]

    def _write_segment(self, path: Path, content: bytes) -> None:
        write_log_file(path, content)
        try:
            sync_folder(self.folder)  # before the manifest may name it
        except OSError as error:
            path.unlink(missing_ok=True)
            raise LogError(f"cannot write '{path}': {reason(error)}; the log is as it was before") from None

    def _commit(self, manifest: dict[str, Any]) -> None:
        write_manifest(self.folder, manifest, LOG)
        self._manifest = manifest
        confirm(self.folder, LOG)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the only writer, and see what earlier writers committed since this log was opened."""
        with locked(self.folder, LOG):
            found = read_manifest(self.folder, LOG)
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
