"""MovieLens files on this machine, without an account: the cache, else GroupLens, else the user's own pip.

The `recbole` wheel carries MovieLens 100K as an example, so whoever can install packages can have the data.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recfm.datasets import download
from recfm.datasets import movielens_layouts as layouts
from recfm.errors import ConfigError, DataError, DownloadError

MANIFEST = ".recfm.json"
_PIP_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """Files inside a wheel: the requirement to download, the folder, and the sha256 of each file wanted."""

    requirement: str
    folder: str
    sha256: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where one data set can be had. `ratings` is its row count, which tells a half-copied folder."""

    url: str
    checksums: dict[str, str]
    ratings: int
    wheel: Wheel | None = None


KNOWN = {
    "ml-100k": Source(
        url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        checksums={
            "md5": "0e33842e24a9c977be4e0107933c0723",
            "sha256": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        },
        ratings=100_000,
        wheel=Wheel(
            requirement="recbole==1.2.1",
            folder="recbole/dataset_example/ml-100k",
            sha256={
                "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
                "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
            },
        ),
    ),
    "ml-1m": Source(
        url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        checksums={"md5": "c4d9eecfca2ab87c1945afe126590906"},
        ratings=1_000_209,
    ),
}


def fetch(name: str = "ml-100k", *, cache: Path | None = None) -> Path:
    """Return a folder with the files of a MovieLens data set, fetching them once.

    In order: `CACHE/NAME` if complete, `CACHE/NAME.zip`, the GroupLens site, and for ml-100k the `recbole`
    wheel through pip. Everything fetched is checked against a checksum before it is renamed into the cache.
    `RECFM_OFFLINE=1` leaves out the site and pip.

    Args:
        name: "ml-100k" (5 MB) or "ml-1m" (24 MB).
        cache: Cache folder; None takes `$RECFM_CACHE`, else `~/.cache/recfm`.

    Raises:
        ConfigError: No data set of this name is known.
        DownloadError: Nothing worked; says what was tried and why each failed.
    """
    if name not in KNOWN:
        raise ConfigError(f"no data set {name!r}; known are {', '.join(KNOWN)}")
    root = (download.cache_folder() if cache is None else Path(cache)).absolute()
    final = root / name
    problem = _incomplete(final, name)
    if problem is None:
        return final
    tried = [f"cache: {problem}"]
    for title, obtain in _ways(name, root):
        try:
            with download.staged(root, name) as folder:
                _commit(obtain(folder), final, name, title)
            return final
        except DownloadError as error:
            tried.append(f"{title}: {error}")
    if download.offline():
        tried.append("network: RECFM_OFFLINE is set")
    raise DownloadError(
        f"{name} could not be fetched.\n  "
        + "\n  ".join(tried)
        + f"\nPut the {name} files into {final}, or pass --data FOLDER."
    )


def origin(folder: Path) -> str | None:
    """Return where a folder that `fetch` filled came from, None for any other folder."""
    manifest = _manifest(folder)
    return None if manifest is None else str(manifest.get("origin", "unknown origin"))


def _ways(name: str, root: Path) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Yield (title, function) pairs: each function fills an empty folder and returns where the files are."""
    source = KNOWN[name]
    local = root / f"{name}.zip"
    if local.is_file():
        yield f"from {local.name}", lambda folder: _unpack(local, folder, name)
    if download.offline():
        return
    yield "from the GroupLens site", lambda folder: _from_site(folder, name)
    if (wheel := source.wheel) is not None:
        yield f"from the {wheel.requirement} wheel", lambda folder: _from_wheel(folder, wheel)


def _from_site(folder: Path, name: str) -> Path:
    archive = folder / f"{name}.zip"
    download.download(KNOWN[name].url, archive)
    return _unpack(archive, folder, name)


def _unpack(archive: Path, folder: Path, name: str) -> Path:
    download.verify(archive, KNOWN[name].checksums)
    files = folder / "files"
    files.mkdir()
    download.unzip(archive, files, inside=name)
    return files


def _from_wheel(folder: Path, wheel: Wheel) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--retries=1", "--disable-pip-version-check", "--quiet"]
    command = [*_pip(), "download", *options, "--dest", str(folder), wheel.requirement]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PIP_SECONDS, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"pip failed: {error}") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise DownloadError(f"pip failed: {lines[-1] if lines else f'exit status {done.returncode}'}")
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise DownloadError("pip left no wheel")
    files = folder / "files"
    files.mkdir()
    download.unzip(wheels[0], files, inside=wheel.folder, names=set(wheel.sha256))
    for file, sha256 in wheel.sha256.items():
        if not (files / file).is_file():
            raise DownloadError(f"{wheels[0].name} holds no {wheel.folder}/{file}")
        download.verify(files / file, {"sha256": sha256})
    return files


def _pip() -> list[str]:
    """Command that runs pip: this interpreter's, else uv's (a uv environment has no pip of its own)."""
    probe = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    if probe.returncode and (uv := shutil.which("uv")):
        return [uv, "tool", "run", "pip"]
    return [sys.executable, "-m", "pip"]


def _commit(files: Path, final: Path, name: str, title: str) -> None:
    """Check the layout, write the manifest last and rename; another process may have been faster."""
    try:
        layouts.detect(files)
        sums = {
            str(path.relative_to(files)): download.digest(path) for path in files.rglob("*") if path.is_file()
        }
        (files / MANIFEST).write_text(
            json.dumps({"origin": title, "files": sums}, indent=1), encoding="utf-8"
        )
        if _incomplete(final, name) is not None:
            download.commit(files, final)
    except (DataError, OSError) as error:
        if _incomplete(final, name) is not None:
            raise DownloadError(str(error)) from error


def _manifest(folder: Path) -> dict[str, object] | None:
    try:
        loaded = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _incomplete(folder: Path, name: str) -> str | None:
    """Return what is wrong with a cached folder, None if it is complete.

    Files that `fetch` wrote are checked by sha256; files the user put there, by the number of ratings.
    """
    if not folder.is_dir():
        return f"no folder {folder}"
    if (folder / MANIFEST).exists():
        manifest = _manifest(folder)
        sums = None if manifest is None else manifest.get("files")
        if not isinstance(sums, dict) or not sums:
            return f"{folder / MANIFEST} is unreadable"
        for file, sha256 in sums.items():
            path = folder / file
            if not path.is_file() or download.digest(path) != sha256:
                return f"{path} is missing or has changed"
        return None
    try:
        layout, paths = layouts.detect(folder)
    except DataError as error:
        return str(error)
    if layout.text:
        wanted = KNOWN[name].ratings + (1 if layout.header else 0)
        with paths[0].open("rb") as file:
            lines = sum(1 for _ in file)
        if lines != wanted:
            return f"{paths[0]} has {lines} lines, expected {wanted}"
    return None
