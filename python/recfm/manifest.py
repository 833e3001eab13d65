"""Manifests: small JSON files that say what belongs to a folder, and know their own checksum."""

import hashlib
import json
from pathlib import Path
from typing import Any

from recfm.errors import RecfmError
from recfm.files import reason


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """A manifest as its file holds it."""
    return json.dumps({**manifest, "checksum": _checksum(manifest)}).encode()


def read_manifest(
    path: Path, *, what: str, format: str, version: int, error: type[RecfmError]
) -> dict[str, Any]:
    """A manifest that matches its own checksum.

    Args:
        path: The file.
        what: What its folder should be, for errors.
        format: The format that it must name.
        version: The version of it that is understood.
        error: The class to raise.

    Raises:
        RecfmError: (as `error`) It is absent, damaged, or of another format or version.
    """
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        checksum = manifest.pop("checksum")
    except FileNotFoundError:
        raise error(f"there is no {what} at '{path.parent}': it has no {path.name}") from None
    except OSError as problem:
        raise error(f"'{path}' cannot be read: {reason(problem)}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise error(f"'{path}' is damaged: it is no recfm manifest; restore it from a backup") from None
    if manifest.get("format") != format or manifest.get("version") != version:
        raise error(
            f"'{path}' is {manifest.get('format')!r} version {manifest.get('version')!r}: "
            f"this recfm reads {format!r} version {version}"
        )
    if _checksum(manifest) != checksum:
        raise error(
            f"'{path}' does not match its own checksum: it was altered or damaged; restore it from a backup"
        )
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
