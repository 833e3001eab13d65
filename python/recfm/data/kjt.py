"""Ids of a batch in the order of torchrec's `KeyedJaggedTensor`."""

import importlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from recfm.data.batch import Batch
from recfm.errors import DataError, RecfmError
from recfm.layout import Layout, SequenceLayout


def kjt_parts(
    batch: Batch, layout: Layout, sequences: Iterable[SequenceLayout] = ()
) -> tuple[list[str], Tensor, Tensor]:
    """Keys, values and lengths: key by key, and within a key row by row.

    Keys are the categorical features, the token features, then `<sequence>.<feature>` for each feature of each
    sequence and `<sequence>.label` where it shows labels, newest event first. Numeric features and vectors are no
    ids and are left out.

    Args:
        batch: B rows.
        layout: Of the batches that it is from.
        sequences: Of the jagged histories to add.

    Returns:
        K keys, values int32 [total], lengths int64 [K * B].

    Raises:
        DataError: The layout is of another batch, or a sequence is padded, of vectors or not there.
    """
    if batch.ids.shape[1] != len(layout.categorical) or batch.tokens.keys() != {
        c.name for c in layout.tokens
    }:
        raise DataError(
            f"the batch has {batch.ids.shape[1]} categorical columns and tokens {sorted(batch.tokens)}, the layout "
            f"{len(layout.categorical)} and {sorted(c.name for c in layout.tokens)}: give `batches.layout`"
        )
    rows = len(batch)
    keys = [column.name for column in layout.categorical]
    values = [batch.ids.t().reshape(-1)]
    lengths = [torch.ones(len(keys) * rows, dtype=torch.int64, device=batch.ids.device)]
    for column in layout.tokens:
        tokens = batch.tokens[column.name]
        keys.append(column.name)
        values.append(tokens.values)
        lengths.append(tokens.offsets.diff())
    for sequence in sequences:
        found = batch.sequences.get(sequence.name)
        of = [*sequence.ids, *(["label"] if sequence.labels else [])]
        if found is None or found.values is None or found.values.shape[1] != len(of):
            raise DataError(
                f"sequence '{sequence.name}' has no jagged {', '.join(of) or 'ids'} here: "
                "build its PastEvents with jagged=True, over an index with those ids"
            )
        keys += [f"{sequence.name}.{name}" for name in of]
        values.append(found.values.t().reshape(-1))
        lengths += [found.lengths] * len(of)
    return keys, torch.cat(values), torch.cat(lengths)


def to_kjt(batch: Batch, layout: Layout, sequences: Iterable[SequenceLayout] = ()) -> Any:
    """`kjt_parts` as a `torchrec.KeyedJaggedTensor`.

    Raises:
        RecfmError: torchrec is not installed.
        DataError: As `kjt_parts`.
    """
    try:
        torchrec = importlib.import_module("torchrec.sparse.jagged_tensor")
    except ImportError:
        raise RecfmError(
            "torchrec is not installed: pip install torchrec with the version that fits your torch, "
            "or use recfm.data.kjt.kjt_parts"
        ) from None
    keys, values, lengths = kjt_parts(batch, layout, sequences)
    return torchrec.KeyedJaggedTensor(keys=keys, values=values, lengths=lengths)
