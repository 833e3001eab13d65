"""One mini-batch: a dataclass of tensors, the only thing a recfm model ever sees."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing recfm.data must not import torch
    from torch import Tensor

    from recfm.layout import Layout, SequenceLayout


@dataclass(kw_only=True)
class Jagged:
    """Ids of a multi-hot feature: row b holds `values[offsets[b]:offsets[b + 1]]`.

    Attributes:
        values: int32 [total].
        offsets: int64 [B + 1].
    """

    values: "Tensor"
    offsets: "Tensor"


@dataclass(kw_only=True)
class Sequence:
    """Past events of each row's user, newest first: padded at the end, or jagged.

    Attributes:
        lengths: int64 [B], number of real entries (of a counts-only sequence: of past events, uncapped).
        ids: int32 [B, L, F], 0 where padded; None for a sequence of vectors.
        vectors: float32 [B, L, d], 0 where padded; None for a sequence of ids.
        values: Of a jagged sequence, which has neither of both: int32 [total, F] or float32 [total, d]; row b
            holds `values[offsets[b]:offsets[b + 1]]`.
        offsets: int64 [B + 1] of a jagged sequence.
    """

    lengths: "Tensor"
    ids: "Tensor | None" = None
    vectors: "Tensor | None" = None
    values: "Tensor | None" = None
    offsets: "Tensor | None" = None


@dataclass(kw_only=True)
class Batch:
    """Tensors of B rows.

    Attributes:
        ids: int32 [B, F], columns as in the layout.
        numeric: float32 [B, N].
        label: float32 [B], 0 or 1.
        user: int64 [B], user keys (for gAUC).
        time: int64 [B], microseconds.
        row: int64 [B], position of the row in the encoded table.
        tokens: Jagged features by name.
        sequences: Histories by name.
        teacher: float32 [B], the FM's predicted probability, where distillation is on.
    """

    ids: "Tensor"
    numeric: "Tensor"
    label: "Tensor"
    user: "Tensor"
    time: "Tensor"
    row: "Tensor"
    tokens: dict[str, Jagged] = field(default_factory=dict)
    sequences: dict[str, Sequence] = field(default_factory=dict)
    teacher: "Tensor | None" = None

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: Any, *, non_blocking: bool = False) -> "Batch":
        """The same batch with every tensor on `device`."""
        return map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def to_kjt(self, layout: "Layout", sequences: "Iterable[SequenceLayout]" = ()) -> Any:
        """All ids as a `torchrec.KeyedJaggedTensor`; see `recfm.data.kjt.kjt_parts` for its keys.

        Args:
            layout: Of the batches that this one is from (`batches.layout`).
            sequences: Of the jagged histories to add.

        Raises:
            RecfmError: torchrec is not installed.
            DataError: The layout is of another batch, or a sequence is padded.
        """
        from recfm.data.kjt import to_kjt

        return to_kjt(self, layout, sequences)


def map_tensors(value: Any, move: Any) -> Any:
    """The same structure with `move` applied to every tensor in it, in the order of the fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: map_tensors(getattr(value, f.name), move) for f in dataclasses.fields(value)}
        return type(value)(**fields)
    if isinstance(value, dict):
        return {name: map_tensors(item, move) for name, item in value.items()}
    return None if value is None else move(value)
