"""safetensors files whose blocks are verified where they are first touched.

The last tensor of such a file, `checks`, holds XXH3 of every 256 KiB before it; what the manifest keeps of a file is
its size and the SHA-256 of that table. Opening reads the table and the header; everything else is mapped.
"""

import hashlib
import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.errors import RecfmError
from recfm.files import check_size, reason

BLOCK = 256 << 10
_NAMES = {
    "i8": "I64",
    "u8": "U64",
    "f4": "F32",
    "u4": "U32",
    "i4": "I32",
    "f2": "F16",
    "i1": "I8",
    "u1": "U8",
}
# NumPy has no bfloat16: its bits travel as uint16.
_DTYPES = {name: np.dtype("<" + code) for code, name in _NAMES.items()} | {"BF16": np.dtype("<u2")}


def name_of(values: NDArray[Any]) -> str:
    """The safetensors name of an array's dtype; uint16 is bfloat16 bits."""
    return "BF16" if values.dtype == np.uint16 else _NAMES[values.dtype.str[1:]]


def header(shapes: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str], size: int = 0) -> bytes:
    """The start of a safetensors file whose tensors (dtype name, shape) follow without gaps.

    Args:
        shapes: In the order of the file.
        metadata: Strings by name.
        size: Bytes that it takes, filled up with spaces; 0 for as many as it needs.
    """
    entries: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, (dtype, shape) in shapes.items():
        stop = start + _DTYPES[dtype].itemsize * int(np.prod(shape, dtype=np.int64))
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text = text.ljust(size - 8 if size else -(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text


def blocks_in(length: int) -> int:
    """Checksums that cover so many bytes."""
    return -(-length // BLOCK)


def sealed(tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> tuple[bytes, dict[str, Any]]:
    """A whole file in memory, and what a manifest keeps of it.

    Wider tensors must come first, so that all are aligned.
    """
    data = b"".join(np.ascontiguousarray(values).tobytes() for values in tensors.values())
    data += bytes(-len(data) % 8)  # at the end of the last tensor before the checks
    shapes = {name: (name_of(values), values.shape) for name, values in tensors.items()}
    body_length = sum(values.nbytes for values in tensors.values())
    if body_length < len(data):
        shapes["padding"] = ("U8", (len(data) - body_length,))
    blocks = 0
    while True:  # the header says how many checksums there are, and they cover the header
        start = header({**shapes, "checks": ("U64", (blocks,))}, metadata)
        if blocks == blocks_in(len(start) + len(data)):
            break
        blocks = blocks_in(len(start) + len(data))
    covered = start + data
    checks = _core.block_sums(np.frombuffer(covered, np.uint8)).tobytes()
    return covered + checks, entry(len(covered) + len(checks), checks)


def entry(length: int, checks: bytes) -> dict[str, Any]:
    """What a manifest keeps of a file of `length` bytes."""
    return {"bytes": length, "blocks": len(checks) // 8, "checks": hashlib.sha256(checks).hexdigest()}


@dataclass(frozen=True)
class Mapped:
    """A file in the address space; its arrays must only be read through `blocks`, or through `read`."""

    path: Path
    tensors: dict[str, NDArray[Any]]
    metadata: dict[str, str]
    blocks: _core.Blocks

    def read(self, name: str) -> NDArray[Any]:
        """One tensor, verified whole.

        Raises:
            StorageError: A block of it is damaged.
        """
        values = self.tensors[name]
        self.blocks.check_array(values)
        return values


def map_tensors(path: Path, found: dict[str, Any], *, what: str, error: type[RecfmError], fix: str) -> Mapped:
    """Map a file that a manifest describes as `found`, an `entry`.

    Args:
        path: The file.
        found: See `entry`.
        what: What it is, for messages.
        error: The class of errors about the whole file; a damaged block is a StorageError.
        fix: How those messages end.

    Raises:
        RecfmError: (as `error`) It is missing, truncated, or its header or table of checksums is damaged.
    """
    check_size(path, found["bytes"], what=what, error=error, fix=fix)
    covered = found["bytes"] - 8 * found["blocks"]
    try:
        with open(path, "rb") as file:
            whole = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as problem:
        why = reason(problem) if isinstance(problem, OSError) else str(problem)
        raise error(f"{what} '{path}' cannot be read: {why}") from None
    if (
        len(whole) != found["bytes"]
        or hashlib.sha256(whole[covered:].tobytes()).hexdigest() != found["checks"]
    ):
        raise error(
            f"{what} '{path}' does not match its checksum: its table of checksums was altered or damaged; "
            f"{fix}"
        )
    sums = np.frombuffer(whole[covered:].tobytes(), np.uint64)
    blocks = _core.Blocks(whole[:covered], sums, str(path))
    blocks.check(0, min(8, covered))
    length = int.from_bytes(whole[:8].tobytes(), "little")
    blocks.check(8, min(length, covered - 8))
    tensors, metadata = parse(whole)
    return Mapped(path, tensors, metadata, blocks)


def parse(whole: NDArray[np.uint8]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Views of a file's tensors, and its metadata. The bytes must be known to be whole."""
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    entries = json.loads(whole[8:start].tobytes())
    metadata: dict[str, str] = entries.pop("__metadata__", {})
    tensors = {
        name: whole[start + found["data_offsets"][0] : start + found["data_offsets"][1]]
        .view(_DTYPES[found["dtype"]])
        .reshape(found["shape"])
        for name, found in entries.items()
    }
    return tensors, metadata
