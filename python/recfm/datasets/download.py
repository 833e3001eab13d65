"""Fetching files without leaving half of one behind: timeouts, checksums, safe unzip, atomic rename."""

import contextlib
import hashlib
import http.client
import os
import shutil
import stat
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from recfm.errors import DownloadError

CONNECT_SECONDS = 10.0
_CHUNK = 1 << 18
_UNZIPPED_MAX = 4 << 30  # bytes; far above any data set here, far below what a zip bomb wants


def cache_folder() -> Path:
    """Return `$RECFM_CACHE`, else `$XDG_CACHE_HOME/recfm`, else `~/.cache/recfm`. It may not exist yet."""
    if own := os.environ.get("RECFM_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "recfm"


def offline() -> bool:
    """Return whether `RECFM_OFFLINE` asks for no network use (set, and neither empty nor 0)."""
    return os.environ.get("RECFM_OFFLINE", "") not in ("", "0")


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.new, algorithm, usedforsecurity=False)).hexdigest()


def verify(path: Path, checksums: dict[str, str]) -> None:
    """Raise `DownloadError` unless `path` has all `checksums` (algorithm to hexadecimal digest)."""
    for algorithm, wanted in checksums.items():
        found = digest(path, algorithm)
        if found != wanted:
            raise DownloadError(f"{path.name} has {algorithm} {found}, expected {wanted}")


def download(url: str, target: Path, *, timeout: float = CONNECT_SECONDS) -> None:
    """Write what `url` serves to `target`, which may be left incomplete on error: pass a temporary name.

    Args:
        url: An http(s) address.
        target: The file to write.
        timeout: Seconds to wait for the connection, and for each read after it.

    Raises:
        DownloadError: No connection, an error status, or fewer bytes than announced.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout) as reply, target.open("wb") as file:
            announced = reply.headers.get("Content-Length")
            total = int(announced) if announced and announced.isdigit() else None
            written = 0
            with _progress() as progress:
                task = progress.add_task(target.name, total=total)
                while chunk := reply.read(_CHUNK):
                    file.write(chunk)
                    written += len(chunk)
                    progress.update(task, completed=written)
    except urllib.error.URLError as error:
        reason = f"HTTP status {error.code}" if isinstance(error, urllib.error.HTTPError) else error.reason
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DownloadError(f"{url}: {reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{url}: {str(error) or type(error).__name__}") from error
    if total is not None and written != total:
        raise DownloadError(f"{url}: got {written} of {total} bytes")


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())


def unzip(archive: Path, folder: Path, *, inside: str = "", names: set[str] | None = None) -> list[Path]:
    """Unpack the regular files below `inside` of a zip archive into `folder`, dropping that prefix.

    Args:
        archive: The zip file.
        folder: An existing folder.
        inside: A folder inside the archive, such as "ml-100k"; empty for all of it.
        names: Keep only these paths (relative to `inside`); None keeps every file.

    Returns:
        The files written.

    Raises:
        DownloadError: Not a zip, truncated, a wrong CRC, a path that leaves `folder`, a link, or too large.
    """
    written = []
    root = PurePosixPath(inside)
    try:
        with zipfile.ZipFile(archive) as zipped:
            infos = [info for info in zipped.infolist() if not info.is_dir()]
            if sum(info.file_size for info in infos) > _UNZIPPED_MAX:
                raise DownloadError(f"{archive.name} unpacks to more than {_UNZIPPED_MAX >> 30} GiB")
            for info in infos:
                path = _safe(info, archive)
                if not path.is_relative_to(root) or (names and str(path.relative_to(root)) not in names):
                    continue
                target = folder / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(info) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
                written.append(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{archive.name} is not a complete zip archive: {error}") from error
    return written


def _safe(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DownloadError(f"{archive.name} holds the unsafe path {info.filename!r}")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DownloadError(f"{archive.name} holds the link {info.filename!r}")
    return path


@contextlib.contextmanager
def staged(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty hidden folder in `parent`, on the same file system as the final place; removed at exit.

    A process killed inside leaves only this hidden folder behind, which nothing ever reads.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
        folder = hidden / name  # mkdtemp is private to the user; this one follows the umask
        folder.mkdir()
    except OSError as error:
        raise DownloadError(f"cannot write to the cache folder {parent}: {error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def commit(folder: Path, final: Path) -> None:
    """Rename a finished folder to `final`; what stands there already is kept beside it, never deleted."""
    if final.exists():
        aside = Path(tempfile.mkdtemp(prefix=f"{final.name}.replaced-", dir=final.parent))
        final.rename(aside / final.name)
    folder.rename(final)
