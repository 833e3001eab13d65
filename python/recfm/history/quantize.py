"""Vectors in [-1, 1] in fewer bits, and how they are stored.

| kind | bytes a value | largest error |
|---|---|---|
| f32 | 4 | none |
| f16 | 2 | 2^-12 (half a step near 1) |
| bf16 | 2 | 2^-9 |
| int8 | 1 | 1/254 |
| int4 | 1/2 | 1/15 with the uniform codebook |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from recfm import _core
from recfm.errors import DataError

Stored = Literal["f32", "f16", "bf16", "int8", "int4"]
STORED: tuple[str, ...] = get_args(Stored)
CODES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "int8": np.dtype(np.int8),
    "int4": np.dtype(np.uint8),
    "i32": np.dtype(np.int32),
}


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Rows of `dim` values as they are stored.

    Attributes:
        stored: How: one of f32, f16, bf16, int8, int4, or i32 for ids.
        codes: [n, dim] (int4: [n, ceil(dim / 2)], the first of two values in the low half of a byte).
        dim: Values of a row.
        codebook: float32 [16], what int4 codes stand for; None for 16 values evenly over [-1, 1].
        blocks: If the codes are mapped from a file, what verifies them.
    """

    stored: str
    codes: NDArray[Any]
    dim: int
    codebook: NDArray[np.float32] | None = None
    blocks: _core.Blocks | None = None

    def __post_init__(self) -> None:
        width = -(-self.dim // 2) if self.stored == "int4" else self.dim
        if self.stored not in CODES or self.codes.dtype != CODES[self.stored] or self.codes.ndim != 2:
            raise DataError(
                f"vectors stored as {self.stored!r} are {self.codes.dtype} of shape {self.codes.shape}: expected "
                f"2-d {CODES.get(self.stored, 'codes of one of ' + ', '.join(STORED))}"
            )
        if self.codes.shape[1] != width:
            raise DataError(
                f"vectors stored as {self.stored} have {self.codes.shape[1]} codes a row: expected {width}"
            )

    def __len__(self) -> int:
        return len(self.codes)

    def like(self, other: "Vectors") -> bool:
        """Whether both are stored in the same way."""
        same = (self.stored, self.dim) == (other.stored, other.dim)
        return same and np.array_equal(_book(self.codebook), _book(other.codebook))

    def slice(self, first: int, last: int) -> "Vectors":
        """Rows `first` up to `last`, not copied."""
        return replace(self, codes=self.codes[first:last])

    @staticmethod
    def joined(stores: "Sequence[Vectors]") -> "Vectors":
        """All rows of stores of one kind, in memory.

        Raises:
            StorageError: One is mapped from a file, and a block of it is damaged.
        """
        codes = np.concatenate([store.checked() for store in stores])
        return replace(stores[0], codes=codes, blocks=None)

    def checked(self) -> NDArray[Any]:
        """The codes, verified where they are mapped.

        Raises:
            StorageError: A block of their file is damaged.
        """
        if self.blocks is not None:
            self.blocks.check_array(self.codes)
        return self.codes

    @property
    def shape(self) -> tuple[int, int]:
        """(n, dim)."""
        return len(self.codes), self.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """What they are read as: float32, or int32 for ids."""
        return np.dtype(np.int32 if self.stored == "i32" else np.float32)


def quantize(z: NDArray[Any], dtype: Stored, *, codebook: NDArray[np.float32] | None = None) -> Vectors:
    """Store vectors in fewer bits.

    Args:
        z: [n, d] floats in [-1, 1].
        dtype: How.
        codebook: float32 [16], rising, for int4; 16 values evenly over [-1, 1] without it.

    Raises:
        DataError: `z` is not 2-d, holds NaN or leaves [-1, 1], `dtype` is unknown or the codebook does not rise.
    """
    if dtype not in STORED:
        raise DataError(f"dtype is {dtype!r}: it must be one of {', '.join(STORED)}")
    if z.ndim != 2 or z.dtype.kind != "f":
        raise DataError(f"z is {z.dtype} of shape {z.shape}: expected 2-d floats")
    if z.size and not (np.abs(z) <= 1).all():
        raise DataError(f"z reaches {np.abs(z).max():g}: only vectors in [-1, 1] can be quantised")
    if codebook is not None and dtype != "int4":
        raise DataError(f"a codebook is for int4, not for {dtype}")
    if dtype == "f32" or dtype == "f16":
        codes: NDArray[Any] = np.ascontiguousarray(z, CODES[dtype])
    else:
        codes = _core.quantize_rows(np.ascontiguousarray(z, np.float32), dtype=dtype, codebook=codebook)
    return Vectors(stored=dtype, codes=codes, dim=z.shape[1], codebook=codebook)


def dequantize(vectors: Vectors) -> NDArray[np.float32]:
    """float32 [n, d] of stored vectors: exactly what `HistoryIndex.gather` reads.

    Raises:
        StorageError: They are mapped from a file, and a block of it is damaged.
    """
    codes = vectors.checked()
    if vectors.stored == "bf16":
        return (codes.astype(np.uint32) << 16).view(np.float32)
    if vectors.stored == "int8":
        return codes.astype(np.float32) / np.float32(127)
    if vectors.stored == "int4":
        both = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), 2 * codes.shape[1])
        return _book(vectors.codebook)[both[:, : vectors.dim]]
    return codes.astype(np.float32)


@dataclass(frozen=True)
class Shape:
    """What values look like when they are gathered: [n, d] of float32, or int32 ids."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]


def vectors_of(values: NDArray[Any] | Vectors, n: int) -> Vectors:
    """`values` as the store of a table of `n` rows.

    Raises:
        DataError: They are of another shape or dtype.
    """
    if isinstance(values, Vectors):
        if len(values) != n:
            raise DataError(f"history values have shape {values.shape}: expected [{n}, d], a row per event")
        return values
    if values.ndim != 2 or len(values) != n:
        raise DataError(f"history values have shape {values.shape}: expected [{n}, d], a row per event")
    kinds = {CODES[stored]: stored for stored in ("f32", "f16", "i32")}
    if values.dtype not in kinds:
        raise DataError(f"history values are {values.dtype}: expected float32, float16 or int32 ids")
    return Vectors(stored=kinds[values.dtype], codes=np.ascontiguousarray(values), dim=values.shape[1])


def refuse_mixed(stores: Sequence[Vectors]) -> None:
    """One index holds one kind of values.

    Raises:
        DataError: These stores differ.
    """
    for store in stores[1:]:
        if not store.like(stores[0]):
            raise DataError(
                f"values stored as {store.stored} of width {store.dim} cannot follow {stores[0].stored} of width "
                f"{stores[0].dim}: one index holds one kind"
            )


def _book(codebook: NDArray[np.float32] | None) -> NDArray[np.float32]:
    return _core.uniform_codebook() if codebook is None else codebook
