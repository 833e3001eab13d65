"""The log's manifest, which knows its own checksum, and how the log writes files."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from recfm.errors import LogError
from recfm.files import reason, write_whole

FORMAT, VERSION = "recfm-embedding-log", 1


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
    write_whole(path, content, error=LogError, kept="the log is as it was before")


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Replace the manifest in one step.

    Raises:
        LogError: The disk refuses; the old manifest stands.
    """
    write_log_file(path, json.dumps({**manifest, "checksum": _checksum(manifest)}, indent=2).encode())


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest that matches its own checksum.

    Raises:
        LogError: It is absent, damaged, or of another format or version.
    """
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        checksum = manifest.pop("checksum")
    except FileNotFoundError:
        raise LogError(f"there is no embedding log at '{path.parent}': it has no manifest.json") from None
    except OSError as error:
        raise LogError(f"'{path}' cannot be read: {reason(error)}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise LogError(f"'{path}' is damaged: it is not a recfm manifest; restore it from a backup") from None
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise LogError(
            f"'{path}' is {manifest.get('format')!r} version {manifest.get('version')!r}: "
            f"this recfm reads {FORMAT!r} version {VERSION}"
        )
    if _checksum(manifest) != checksum:
        raise LogError(
            f"'{path}' does not match its own checksum: it was altered or damaged; restore it from a backup"
        )
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
