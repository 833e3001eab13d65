"""Folders that know their own checksums: a manifest that is written last, one writer at a time."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from recfm.errors import LogError, RecfmError, StorageError
from recfm.files import reason, write_whole

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Kind:
    """What a folder holds.

    Attributes:
        format: Name of the format, as its manifest says it.
        version: Version that is written and read.
        name: In words.
        error: The class of its errors.
    """

    format: str
    version: int
    name: str
    error: type[RecfmError]

    @property
    def kept(self) -> str:
        """How a refused write ends."""
        return f"the {self.name.rsplit(' ', 1)[-1]} is as it was before"


LOG = Kind("recfm-embedding-log", 1, "embedding log", LogError)
INDEX = Kind("recfm-history-index", 1, "history index", StorageError)
ENCODED = Kind("recfm-encoded", 1, "encoded table", StorageError)
CHECKPOINT = Kind("recfm-checkpoint", 1, "training checkpoint", StorageError)
PARTITIONED = Kind("recfm-partitioned", 1, "partitioned table", StorageError)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut.

    Raises:
        OSError: The disk does not confirm.
    """
    if os.name == "nt":  # Windows cannot open folders; its renames are journalled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_log_file(path: Path, content: bytes) -> None:
    """Write a file of the log, all or nothing.

    Raises:
        LogError: The disk refuses; the log is as it was.
    """
    write_whole(path, content, error=LOG.error, kept=LOG.kept)


def write_manifest(folder: Path, manifest: dict[str, Any], kind: Kind) -> None:
    """Replace the manifest in one step: this is the commit.

    Raises:
        RecfmError: (as `kind.error`) The disk refuses; the old manifest stands.
    """
    content = json.dumps({**manifest, "checksum": _checksum(manifest)}, indent=2).encode()
    write_whole(folder / MANIFEST, content, error=kind.error, kept=kind.kept)


def confirm(folder: Path, kind: Kind) -> None:
    """Wait until the disk has what was committed.

    Raises:
        RecfmError: (as `kind.error`) It does not say so.
    """
    try:
        sync_folder(folder)
    except OSError as error:
        raise kind.error(
            f"'{folder}' is committed, but the disk did not confirm it ({reason(error)}): "
            "it may not survive a power cut"
        ) from None


def read_manifest(folder: Path, kind: Kind) -> dict[str, Any]:
    """A manifest that matches its own checksum.

    Raises:
        RecfmError: (as `kind.error`) It is absent, damaged, or of another format or version.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        checksum = manifest.pop("checksum")
    except FileNotFoundError:
        raise kind.error(f"there is no {kind.name} at '{folder}': it has no {MANIFEST}") from None
    except OSError as error:
        raise kind.error(f"'{path}' cannot be read: {reason(error)}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise kind.error(
            f"'{path}' is damaged: it is not a recfm manifest; restore it from a backup"
        ) from None
    if manifest.get("format") != kind.format or manifest.get("version") != kind.version:
        raise kind.error(
            f"'{path}' is {manifest.get('format')!r} version {manifest.get('version')!r}: "
            f"this recfm reads {kind.format!r} version {kind.version}"
        )
    if _checksum(manifest) != checksum:
        raise kind.error(
            f"'{path}' does not match its own checksum: it was altered or damaged; restore it from a backup"
        )
    return manifest


@contextlib.contextmanager
def locked(folder: Path, kind: Kind) -> Iterator[None]:
    """Be the only writer of a folder.

    Raises:
        RecfmError: (as `kind.error`) Another process is, or the folder cannot be written.
    """
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise kind.error(f"another process is writing to '{folder}': wait until it is done") from None
    except (OSError, NotImplementedError) as error:
        why = reason(error) if isinstance(error, OSError) else "its file system has no locks"
        raise kind.error(f"cannot write to '{folder}': {why}") from None
    try:
        yield
    finally:
        lock.release()


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
