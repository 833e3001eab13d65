"""Parts of a saved history index: one file each, written in pieces and mapped to be read.

    part-000000.safetensors   times i64 [n], rows u32 [n], users i64 [u], offsets u32 [u + 1], slots u32 [2u], checks

`rows` and `offsets` end in one zero more where that makes their number even, so that everything stays aligned.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.files import reason
from recfm.history.tensors import BLOCK, blocks_in, entry, header, map_tensors
from recfm.storage import INDEX, MANIFEST, confirm, sync_folder, write_manifest

HEADER = 1024
MAX_ROWS = 2**32 - 2
_FIX = "restore the file, or build the index again"
_EMPTY = 0xFFFFFFFF
_CHUNK = 32 * BLOCK
_USERS_AT_ONCE = 1 << 20


class PartWriter:
    """Writes the sorted events of one part, piece by piece; the file appears whole or not at all.

    Args:
        path: The part.
        events: How many events it will have.
        table: Rows of the table that it covers.
    """

    def __init__(self, path: Path, *, events: int, table: int) -> None:
        self.path, self.events, self.table = path, events, table
        self._written = self._users = 0
        self._last_user: int | None = None
        self._rows_at = HEADER + 8 * events
        self._users_at = self._rows_at + 4 * _even(events)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._files = contextlib.ExitStack()

    def __enter__(self) -> "PartWriter":
        with _disk(self.path):
            self._file: BinaryIO = self._files.enter_context(open(self._temporary, "w+b"))
            self._offsets: BinaryIO = self._files.enter_context(tempfile.TemporaryFile(dir=self.path.parent))
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
        self._temporary.unlink(missing_ok=True)

    def add(self, part: _core.HistoryIndex, rows: NDArray[np.uint32] | None = None) -> None:
        """Append the events of `part`, which come after those that are there.

        Args:
            part: In (user, time, row) order.
            rows: Row of each of the events that `part` was built from; None if those are its own.

        Raises:
            StorageError: The disk refuses.
        """
        columns = part.columns()
        users, offsets = columns["users"], columns["offsets"]
        own = columns["rows"]
        with _disk(self.path):
            self._put(HEADER + 8 * self._written, columns["times"])
            for first in range(0, len(own), _CHUNK):
                piece = own[first : first + _CHUNK]
                self._put(self._rows_at + 4 * (self._written + first), piece if rows is None else rows[piece])
            first = int(len(users) > 0 and self._last_user == users[0])  # it began in the piece before
            self._put(self._users_at + 8 * self._users, users[first:])
            self._offsets.write((offsets[first:-1] + np.uint32(self._written)).tobytes())
        self._users += len(users) - first
        self._written += len(own)
        if len(users):
            self._last_user = int(users[-1])

    def finish(self) -> dict[str, Any]:
        """Seal the file and rename it into place; returns what the manifest keeps of it.

        Raises:
            StorageError: The disk refuses.
        """
        users, offsets = self._users, _even(self._users + 1)
        offsets_at = self._users_at + 8 * users
        slots_at = offsets_at + 4 * offsets
        end = slots_at + 8 * users
        with _disk(self.path):
            self._file.truncate(end)
            self._offsets.write(np.array([self._written] + [0] * (offsets - users - 1), np.uint32).tobytes())
            self._offsets.seek(0)
            self._file.seek(offsets_at)
            for piece in _pieces(self._offsets):
                self._file.write(piece)
            self._file.flush()
            self._fill_slots(slots_at)
            shapes: dict[str, tuple[str, tuple[int, ...]]] = {
                "times": ("I64", (self.events,)),
                "rows": ("U32", (_even(self.events),)),
                "users": ("I64", (users,)),
                "offsets": ("U32", (offsets,)),
                "slots": ("U32", (2 * users,)),
                "checks": ("U64", (blocks_in(end),)),
            }
            metadata = {"format": INDEX.format, "version": str(INDEX.version), "table": str(self.table)}
            self._file.seek(0)
            self._file.write(header(shapes, metadata, HEADER))
            self._file.seek(0)
            checks = b"".join(
                _core.block_sums(np.frombuffer(piece, np.uint8)).tobytes() for piece in _pieces(self._file)
            )
            self._file.seek(end)
            self._file.write(checks)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()  # before the rename, which Windows wants
            os.replace(self._temporary, self.path)
            sync_folder(self.path.parent)
        counts = {"table": self.table, "events": self.events, "users": users}
        return {"file": self.path.name, **counts, **entry(end + len(checks), checks)}

    def _put(self, at: int, values: NDArray[Any]) -> None:
        self._file.seek(at)
        self._file.write(np.ascontiguousarray(values).data)

    def _fill_slots(self, at: int) -> None:
        if self._users == 0:
            return
        # Mapped, so that neither the users nor their slots need to fit in memory.
        users = np.memmap(self._temporary, np.int64, "r", self._users_at, (self._users,))
        slots = np.memmap(self._temporary, np.uint32, "r+", at, (2 * self._users,))
        slots[:] = _EMPTY
        for first in range(0, self._users, _USERS_AT_ONCE):
            _core.fill_slots(users, first, first + _USERS_AT_ONCE, slots)
        slots.flush()


def map_part(folder: Path, found: dict[str, Any]) -> _core.HistoryIndex:
    """The part that a manifest describes, mapped: its blocks are verified where they are first touched.

    Raises:
        StorageError: The file is missing, truncated, damaged or of another part.
    """
    file = map_tensors(folder / found["file"], found, what="part", error=INDEX.error, fix=_FIX)
    columns = file.tensors
    events, users = len(columns["times"]), len(columns["users"])
    if (events, users, file.metadata["table"]) != (found["events"], found["users"], str(found["table"])):
        raise INDEX.error(f"part '{file.path}' is another part than its manifest says: restore the file")
    return _core.HistoryIndex.mapped(
        rows=columns["rows"][:events],
        times=columns["times"],
        users=columns["users"],
        offsets=columns["offsets"][: users + 1],
        slots=columns["slots"],
        table=found["table"],
        blocks=file.blocks,
    )


def new_folder(folder: str | Path) -> Path:
    """The folder, created if absent.

    Raises:
        StorageError: It cannot be.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise INDEX.error(f"cannot create '{folder}': {reason(error)}") from None
    return folder


def refuse_existing(folder: Path) -> None:
    """One folder holds one index.

    Raises:
        StorageError: This one holds one.
    """
    if (folder / MANIFEST).exists():
        raise INDEX.error(f"'{folder}' already holds a history index: open it, or choose another folder")


def write_part(folder: Path, number: int, part: _core.HistoryIndex) -> dict[str, Any]:
    """Write a part and return what the manifest keeps of it.

    Raises:
        StorageError: The disk refuses, or the part is mapped and damaged.
    """
    path = folder / f"part-{number:06d}.safetensors"
    part.verified()
    with PartWriter(path, events=len(part), table=part.table) as writer:
        writer.add(part)
        return writer.finish()


def sweep(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Delete what killed writers left behind; only for who holds the folder's lock."""
    listed = {found["file"] for found in entries}
    for path in [*folder.glob("part-*.safetensors"), *folder.glob(".*.tmp")]:
        if path.name not in listed:
            with contextlib.suppress(OSError):  # it is only in the way
                path.unlink()


def next_number(entries: list[dict[str, Any]]) -> int:
    """A number that no listed part has."""
    return 1 + max((int(entry["file"][5:11]) for entry in entries), default=-1)


def commit(folder: Path, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Make these parts the index.

    Raises:
        StorageError: The disk refuses; the index is as it was.
    """
    manifest = {"format": INDEX.format, "version": INDEX.version, "parts": entries}
    write_manifest(folder, manifest, INDEX)
    confirm(folder, INDEX)
    return manifest


def _even(count: int) -> int:
    return count + count % 2


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """The disk's own errors as one of ours."""
    try:
        yield
    except OSError as error:
        raise INDEX.error(f"cannot write '{path}': {reason(error)}; {INDEX.kept}") from None
