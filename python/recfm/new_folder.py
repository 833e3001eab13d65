"""A folder that appears whole or not at all: written under a temporary name beside its own, renamed at the end."""

import glob
import os
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from recfm.errors import StorageError
from recfm.files import reason
from recfm.storage import Kind, sync_folder, write_manifest

_ours: set[Path] = set()
"""Temporary folders that this process is writing."""


def refuse_existing(folder: Path) -> None:
    """Raise a `StorageError` if there is something at `folder` already, or can be nothing."""
    if "\0" in str(folder):
        raise StorageError(f"{str(folder)!r} is no path: it holds a NUL byte")
    if os.path.lexists(folder):  # a broken link is something too
        raise StorageError(f"'{folder}' exists already: remove it, or choose another folder")


class NewFolder:
    """Entering makes the temporary folder, `appear` renames it, leaving without removes it.

    What a killed process on this machine left of the same folder is cleared away first.

    Args:
        folder: Must not exist yet.
        run: Part of the temporary name, for those whose runs must not meet even in one process.

    Attributes:
        folder: Where it will be.
        temporary: Where to write.

    Raises:
        StorageError: The folder exists, or cannot be made.
    """

    def __init__(self, folder: Path, *, run: str = "") -> None:
        refuse_existing(folder)
        self.folder = folder
        self.temporary = folder.with_name(f".{folder.name}.{owner(run)}.tmp")

    def __enter__(self) -> "NewFolder":
        _remove_abandoned(self.folder)
        place = self.temporary.resolve()
        first = place not in _ours
        _ours.add(place)  # before it is there, so that no other thread clears it away
        try:
            self.temporary.mkdir(parents=True)
        except OSError as error:
            if first:
                _ours.discard(place)
            raise StorageError(f"cannot create '{self.temporary}': {reason(error)}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ours.discard(self.temporary.resolve())
        shutil.rmtree(self.temporary, ignore_errors=True)

    def appear(self, manifest: dict[str, Any], kind: Kind) -> None:
        """Write the manifest, which is the last file, and give the folder its name.

        Raises:
            StorageError: The disk refuses; nothing appears.
        """
        write_manifest(self.temporary, {"format": kind.format, "version": kind.version, **manifest}, kind)
        try:
            sync_folder(self.temporary)
            self.temporary.rename(self.folder)
            sync_folder(self.folder.parent)
        except OSError as error:
            raise StorageError(f"cannot create '{self.folder}': {reason(error)}") from None


def owner(run: str = "") -> str:
    """This machine, the run, and this process."""
    return "-".join(part for part in (socket.gethostname(), run, str(os.getpid())) if part)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed process on this machine left of this folder."""
    host = socket.gethostname()
    for left in folder.parent.glob(glob.escape(f".{folder.name}.{host}-") + "*.tmp"):
        pid = left.name.removesuffix(".tmp").rpartition("-")[2]
        # A container that starts again has the process id of the one that was killed.
        alive = left.resolve() in _ours if pid == str(os.getpid()) else not pid.isdigit() or _alive(int(pid))
        if not alive:
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
