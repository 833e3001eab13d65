"""Encoded events on disk: written once, whole or absent, and read block by block.

    manifest.json          rows, files, where every block's columns lie and their XXH3; written last
    schema.json, numbers.json, vocab-*.parquet      the encoder
    events-00000.arrow     Arrow IPC, uncompressed; each record batch is a block of 65,536 rows

A block holds `user`, `item`, `time` (int64), `label` (float32), `ids` and `numeric` (a fixed-size list per row, so
that a row is one stretch of memory) and `tokens.<name>` (lists of int32). Polars opens the files as they are.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm import _core
from recfm.data.encode import Encoded, Encoder, Jagged
from recfm.errors import DataError, StorageError
from recfm.files import check_size, checksum, reason, write_whole
from recfm.layout import Layout
from recfm.new_folder import NewFolder
from recfm.schema import Schema
from recfm.storage import ENCODED, read_manifest

BLOCK_ROWS = 2**16
FILE_BLOCKS = 64
_KEYS = {"user": np.int64, "item": np.int64, "time": np.int64, "label": np.float32}

_FIX = "restore the file, or encode the table again"

Region = tuple[int, int, int]
"""Offset in its file, bytes, XXH3."""


class FolderWriter:
    """Writes an encoded folder under a temporary name beside it; `commit` renames it, leaving without removes it.

    Args:
        folder: Must not exist yet.
        encoder: What the events were encoded with.

    Raises:
        StorageError: The folder exists, or cannot be made.
    """

    def __init__(self, folder: str | Path, encoder: Encoder) -> None:
        self._new, self._encoder = NewFolder(Path(os.path.expanduser(folder))), encoder
        self._files: list[dict[str, Any]] = []
        self._writer: _core.BlockWriter | None = None
        self._rows, self._blocks, self._ended = 0, 0, False

    def __enter__(self) -> "FolderWriter":
        self._new.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._new.__exit__(kind, error, trace)

    def append(self, encoded: Encoded) -> None:
        """Write rows behind those before: whole blocks, but for the last call.

        Raises:
            DataError: The rows before did not fill their block.
            StorageError: The disk refuses; nothing appears.
        """
        if self._ended:
            raise DataError(
                f"only the last rows may fill a block of {BLOCK_ROWS} in part: pass whole blocks before"
            )
        for start in range(0, len(encoded), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(encoded))
            if self._writer is None:
                self._writer = _core.BlockWriter(str(self._new.temporary / self._file_name()))
                self._rows = 0
            self._writer.write(_block_columns(encoded, start, stop))
            self._rows += stop - start
            self._blocks += 1
            self._ended = stop - start < BLOCK_ROWS
            if self._blocks == FILE_BLOCKS:
                self._end_file()

    def commit(self) -> None:
        """Make the folder appear.

        Raises:
            StorageError: The disk refuses; nothing appears.
        """
        self._end_file()
        described = {}
        for name, content in self._encoder.files().items():
            write_whole(self._new.temporary / name, content, kept="nothing appears")
            described[name] = {"bytes": len(content), "xxh3": checksum(content)}
        manifest = {
            "rows": sum(file["rows"] for file in self._files),
            "block_rows": BLOCK_ROWS,
            "encoder": described,
            "files": self._files,
        }
        self._new.appear(manifest, ENCODED)

    def _file_name(self) -> str:
        return f"events-{len(self._files):05d}.arrow"

    def _end_file(self) -> None:
        if self._writer is None:
            return
        name, columns = self._file_name(), list(_column_names(self._encoder.layout))
        blocks = self._writer.finish()
        self._files.append(
            {
                "file": name,
                "bytes": (self._new.temporary / name).stat().st_size,
                "rows": self._rows,
                "blocks": [dict(zip(columns, block, strict=True)) for block in blocks],
            }
        )
        self._writer, self._blocks = None, 0


class EncodedFolder:
    """Encoded events on disk. Opening reads the manifest alone; blocks are checked as they are read.

    Args:
        folder: Written by `Encoder.encode`.

    Raises:
        StorageError: There is no such folder, its manifest is damaged, or a file is missing or truncated.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.expanduser(folder))
        self._manifest = read_manifest(self.folder, ENCODED)
        for file in self._manifest["files"]:
            path = self.folder / file["file"]
            check_size(path, file["bytes"], what="event file", error=StorageError, fix=_FIX)
        self.encoder = Encoder.from_files(self._read_encoder_file)
        self.schema: Schema = self.encoder.schema
        self.layout: Layout = self.encoder.layout
        self._paths = [str(self.folder / file["file"]) for file in self._manifest["files"]]
        self._blocks: list[tuple[int, dict[str, list[Region]]]] = [
            (place, block) for place, file in enumerate(self._manifest["files"]) for block in file["blocks"]
        ]

    def __len__(self) -> int:
        """Rows."""
        return int(self._manifest["rows"])

    def __reduce__(self) -> tuple[type["EncodedFolder"], tuple[Path]]:
        """Another process opens it again."""
        return EncodedFolder, (self.folder,)

    @property
    def block_rows(self) -> int:
        """Rows of every block but the last."""
        return int(self._manifest["block_rows"])

    @property
    def num_blocks(self) -> int:
        """Blocks."""
        return len(self._blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of the event files."""
        return sum(file["bytes"] for file in self._manifest["files"])

    def read(self, blocks: Sequence[int] | None = None) -> Encoded:
        """Some blocks one behind the other, in the order asked for; all of them by default.

        Raises:
            DataError: There is no such block.
            StorageError: A file cannot be read, or its bytes do not match their checksum.
        """
        wanted = self._wanted(blocks)
        ids, numeric = len(self.layout.categorical), len(self.layout.numeric)
        return Encoded(
            schema=self.schema,
            layout=self.layout,
            ids=self._matrix("ids", np.int32, ids, wanted),
            numeric=self._matrix("numeric", np.float32, numeric, wanted),
            tokens={
                column.name: self._lists(f"tokens.{column.name}", wanted) for column in self.layout.tokens
            },
            **{name: self.column(name, wanted) for name in _KEYS},
        )

    def column(self, name: str, blocks: Sequence[int] | None = None) -> NDArray[Any]:
        """One of `user`, `item`, `time` (int64) and `label` (float32), without reading the others.

        Raises:
            DataError: There is no such column or block.
            StorageError: A file cannot be read, or its bytes do not match their checksum.
        """
        if name not in _KEYS:
            raise DataError(f"column is {name!r}: use one of {', '.join(_KEYS)}")
        return self._array(name, _KEYS[name], self._wanted(blocks), 0)

    def scan(self) -> pl.LazyFrame:
        """The event files as a Polars query."""
        return pl.scan_ipc(self._paths, glob=False)

    def _wanted(self, blocks: Sequence[int] | None) -> list[int]:
        wanted = list(range(self.num_blocks)) if blocks is None else [int(block) for block in blocks]
        for block in wanted:
            if not 0 <= block < self.num_blocks:
                raise DataError(f"there is no block {block}: '{self.folder}' has {self.num_blocks}")
        return wanted

    def _matrix(self, name: str, dtype: type, width: int, blocks: list[int]) -> NDArray[Any]:
        if width:
            return self._array(name, dtype, blocks, 0).reshape(-1, width)
        rows = sum(self._block_rows(block) for block in blocks)
        return np.zeros((rows, 0), dtype)

    def _block_rows(self, block: int) -> int:
        return min(self.block_rows, len(self) - block * self.block_rows)

    def _array(self, name: str, dtype: type, blocks: list[int], buffer: int) -> NDArray[Any]:
        """Buffer `buffer` of a column, the blocks end to end."""
        regions = [(self._blocks[block][0], *self._blocks[block][1][name][buffer]) for block in blocks]
        out: NDArray[Any] = np.empty(sum(region[2] for region in regions) // np.dtype(dtype).itemsize, dtype)
        _core.read_regions(self._paths, regions, out.view(np.uint8))
        return out

    def _lists(self, name: str, blocks: list[int]) -> Jagged:
        values = self._array(name, np.int32, blocks, 1)
        # Each block's offsets begin at 0; its lists begin where those of the blocks before it end.
        bounds, offsets, end = self._array(name, np.int64, blocks, 0), [np.zeros(1, np.int64)], 0
        for block in blocks:
            rows = self._block_rows(block)
            offsets.append(bounds[1 : rows + 1] + end)
            end += int(bounds[rows])
            bounds = bounds[rows + 1 :]
        return values, np.concatenate(offsets)

    def _read_encoder_file(self, name: str) -> bytes:
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StorageError(f"'{path}' cannot be read: {reason(error)}") from None
        if checksum(content) != self._manifest["encoder"].get(name, {}).get("xxh3"):
            raise StorageError(f"'{path}' does not match its checksum: restore it, or encode the table again")
        return content


def _column_names(layout: Layout) -> list[str]:
    names = list(_KEYS)
    names += ["ids"] if layout.categorical else []
    names += ["numeric"] if layout.numeric else []
    return names + [f"tokens.{column.name}" for column in layout.tokens]


def _block_columns(encoded: Encoded, start: int, stop: int) -> list[tuple[Any, ...]]:
    """Rows [start, stop) as the writer takes them, in the order of `_column_names`."""
    columns: list[tuple[Any, ...]] = [(name, getattr(encoded, name)[start:stop]) for name in _KEYS]
    for name in ("ids", "numeric"):
        matrix = getattr(encoded, name)
        if matrix.shape[1]:
            columns.append((name, np.ascontiguousarray(matrix[start:stop])))
    for name, (values, offsets) in encoded.tokens.items():
        bounds = offsets[start : stop + 1]
        columns.append((f"tokens.{name}", values[bounds[0] : bounds[-1]], bounds - bounds[0]))
    return columns
