"""One table encoded as several folders, all events of a user in one of them; each has its own history index.

    manifest.json              parts, their rows and checksums, how users are spread; written last
    part-00000/                an `EncodedFolder`, rows in the table's order
    history-00000/             a saved `HistoryIndex` of these rows

`recfm.ray` writes such folders; reading them needs no Ray.
"""

import shutil
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.data.encode import Encoded, Encoder
from recfm.data.folder import EncodedFolder, FolderWriter
from recfm.errors import ConfigError, DataError, StorageError
from recfm.files import checksum, reason
from recfm.history.index import HistoryIndex
from recfm.new_folder import NewFolder
from recfm.schema import Schema
from recfm.storage import MANIFEST, PARTITIONED, read_manifest

MAX_PARTITIONS = 100_000
FUNCTION = "xxh3_64(user key as 8 little-endian bytes, seed_of('recfm.partition')) % partitions"


def check_partitions(partitions: int) -> None:
    """Refuse what is no number of partitions.

    Raises:
        ConfigError: It is no integer from 1 to 100,000.
    """
    if (
        isinstance(partitions, bool)
        or not isinstance(partitions, int)
        or not 1 <= partitions <= MAX_PARTITIONS
    ):
        raise ConfigError(f"partitions is {partitions!r}: give an integer from 1 to {MAX_PARTITIONS:,}")


def partition_of(user: NDArray[np.int64], partitions: int) -> NDArray[np.int32]:
    """The partition of each user key, int32 [n]; the same on every platform and in every version."""
    hasher = _core.Hasher(name="recfm.partition", buckets=partitions + 2)
    return hasher.encode(pl.Series("user", user)) - np.int32(2)


class PartitionedWriter:
    """Collects parts under a temporary name beside the folder; `commit` renames it, leaving without removes it.

    Args:
        folder: Must not exist yet.
        encoder: What the events were encoded with.
        partitions: How many parts there will be.

    Raises:
        StorageError: The folder exists, or cannot be made.
    """

    def __init__(self, folder: str | Path, encoder: Encoder, partitions: int) -> None:
        self._encoder, self._partitions = encoder, partitions
        # A name of its own for every run: a straggler of a failed run cannot reach into the next one.
        self._new = NewFolder(Path(folder).absolute(), run=uuid.uuid4().hex[:12])

    def __enter__(self) -> "PartitionedWriter":
        self._new.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._new.__exit__(kind, error, trace)

    @property
    def temporary(self) -> Path:
        """Where the parts are written."""
        return self._new.temporary

    def commit(self, rows: dict[int, int], *, user_kind: str) -> None:
        """Make the folder appear.

        Args:
            rows: Rows of each part that was written; the others have none.
            user_kind: What the user column holds: "integers" or "strings".

        Raises:
            StorageError: The disk refuses, or a part is not where it was written; nothing appears.
        """
        written = []
        for part in range(self._partitions):
            if part not in rows:
                write_part(self.temporary, part, None, self._encoder)
            entry: dict[str, Any] = {"rows": rows.get(part, 0)}
            for role, name in _names(part).items():
                path = self.temporary / name / MANIFEST
                try:
                    entry[role] = checksum(path.read_bytes())
                except OSError as error:
                    raise StorageError(
                        f"'{path}' was written by a worker and cannot be read here ({reason(error)}): the folder must "
                        "be on a disk that all machines share"
                    ) from None
            written.append(entry)
        _sweep(self.temporary)
        manifest = {
            "rows": sum(rows.values()),
            "partition": {"function": FUNCTION, "partitions": self._partitions, "user_kind": user_kind},
            "parts": written,
        }
        self._new.appear(manifest, PARTITIONED)


def write_part(folder: Path, part: int, encoded: Encoded | None, encoder: Encoder) -> None:
    """Write one part and its history index; what a killed worker left of it is replaced.

    Args:
        folder: Of the run.
        part: Its number.
        encoded: Its rows in the table's order; None if it has none.
        encoder: What they were encoded with.

    Raises:
        StorageError: The disk refuses.
    """
    if not folder.is_dir():
        raise StorageError(
            f"'{folder}' is not there: the run has ended, or the folder is not on a disk that all machines share"
        )
    names = _names(part)
    for name in names.values():
        shutil.rmtree(folder / name, ignore_errors=True)
    with FolderWriter(folder / names["events"], encoder) as writer:
        if encoded is not None:
            writer.append(encoded)
        writer.commit()
    nothing = np.zeros(0, np.int64)
    index = HistoryIndex(nothing, nothing) if encoded is None else HistoryIndex(encoded.user, encoded.time)
    index.save(folder / names["history"])


class PartitionedFolder:
    """A table in several folders. Opening reads the manifests alone; blocks are checked as they are read.

    Example:
        >>> table = PartitionedFolder("encoded")                                          # doctest: +SKIP
        >>> part = table.part_of(user_id)                                                 # doctest: +SKIP
        >>> events, past = table.part(part), table.history(part)                          # doctest: +SKIP

    Args:
        folder: Written by `recfm.ray.encode`.

    Raises:
        StorageError: There is no such folder, its manifest is damaged, or a part is missing or of another run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._manifest = read_manifest(self.folder, PARTITIONED)
        for part, entry in enumerate(self._manifest["parts"]):
            for role, name in _names(part).items():
                self._check(self.folder / name, entry[role])
        self._first = self.part(0)

    @staticmethod
    def _check(folder: Path, expected: int) -> None:
        try:
            found = checksum((folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            raise StorageError(f"'{folder}' is missing: restore it, or encode the table again") from None
        except OSError as error:
            raise StorageError(f"'{folder / MANIFEST}' cannot be read: {reason(error)}") from None
        if found != expected:
            raise StorageError(
                f"'{folder}' is of another run than the manifest beside it, or damaged: restore it, or encode the "
                "table again"
            )

    def __len__(self) -> int:
        """Rows of all parts."""
        return int(self._manifest["rows"])

    @property
    def num_parts(self) -> int:
        """Parts, those without rows included."""
        return len(self._manifest["parts"])

    @property
    def parts(self) -> list[EncodedFolder]:
        """The parts in order."""
        return [self.part(part) for part in range(self.num_parts)]

    @property
    def encoder(self) -> Encoder:
        """What all parts were encoded with."""
        return self._first.encoder

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        return self._first.schema

    def part(self, part: int) -> EncodedFolder:
        """The events of one part.

        Raises:
            DataError: There is no such part.
            StorageError: A file of it is missing, truncated or damaged.
        """
        return EncodedFolder(self._path(part, "events"))

    def history(self, part: int) -> HistoryIndex:
        """The past of the users of one part, over the rows of that part; give it values with `with_values`.

        Raises:
            DataError: There is no such part.
            StorageError: The index is missing, truncated or damaged.
        """
        return HistoryIndex.open(self._path(part, "history"))

    def part_of(self, user: int | str) -> int:
        """The part that holds all events of a user; it need not be a user that the table has.

        Raises:
            DataError: `user` is no key like those of the table.
        """
        kind = self._manifest["partition"]["user_kind"]
        fits = isinstance(user, str) if kind == "strings" else isinstance(user, int | np.integer)
        if not fits or isinstance(user, bool):
            raise DataError(f"user is {user!r}: the user keys of this table are {kind}")
        if not isinstance(user, str) and not -(2**63) <= user < 2**63:
            raise DataError(f"user is {user!r}: a key must fit a signed 64-bit integer")
        keys = _core.hash_keys(pl.Series("user", [user]), name="user")
        return int(partition_of(keys, self.num_parts)[0])

    def _path(self, part: int, role: str) -> Path:
        if not 0 <= part < self.num_parts:
            raise DataError(f"there is no part {part}: '{self.folder}' has {self.num_parts}")
        return self.folder / _names(int(part))[role]


def _names(part: int) -> dict[str, str]:
    return {"events": f"part-{part:05d}", "history": f"history-{part:05d}"}


def _sweep(folder: Path) -> None:
    """Remove what killed workers left behind."""
    for left in folder.glob(".*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
