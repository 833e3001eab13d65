"""Files that are whole or absent."""

import contextlib
import errno
import os
from pathlib import Path

import numpy as np

from recfm import _core
from recfm.errors import RecfmError, StorageError


def write_whole(
    path: Path,
    content: bytes,
    *,
    error: type[RecfmError] = StorageError,
    kept: str = "what was there before is unchanged",
) -> None:
    """Write all of `content` or leave `path` as it was: temporary name, fsync, rename.

    Args:
        path: The file.
        content: All of it.
        error: The class to raise.
        kept: How the message ends: what the failure did not touch.

    Raises:
        RecfmError: (as `error`) The disk refuses; nothing changed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise error(f"cannot write '{path}' ({len(content)} bytes): {reason(problem)}; {kept}") from None


def reason(error: OSError) -> str:
    """What went wrong, in words."""
    return "no space left on the disk" if error.errno == errno.ENOSPC else (error.strerror or str(error))


def check_size(path: Path, expected: int, *, what: str, error: type[RecfmError], fix: str) -> None:
    """Refuse a file that is missing or of another size.

    Raises:
        RecfmError: (as `error`) Naming it.
    """
    size = path.stat().st_size if path.exists() else None
    if size != expected:
        state = "is missing" if size is None else f"has {size} bytes instead of {expected}"
        raise error(f"{what} '{path}' {state}: {fix}")


def checksum(content: bytes) -> int:
    """XXH3 of a file's content."""
    return _core.checksum(np.frombuffer(content, np.uint8))
