"""What can go wrong inside a step, said in terms of columns and parameters."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recfm.data.batch import Batch
from recfm.errors import DataError
from recfm.layout import Layout, SequenceLayout

_NAMED = 3  # parameters that a message names


def model_layout(model: nn.Module) -> Layout | None:
    """What batches the model was built for, if one of its modules says so."""
    for module in model.modules():
        found = getattr(module, "layout", None)
        if isinstance(found, Layout):
            return found
    return None


class IdCheck:
    """Refuses ids that no row of an embedding table stands for.

    A fused table would silently answer with a row of the next feature, so torch's own check is not enough. Every
    batch is checked on the CPU, which costs some microseconds. On a GPU a look at each batch would wait for all
    work before it, so there only the first batch is checked.

    Args:
        layout: Of the model's tables.
        sequences: Of the batches' padded id sequences.
    """

    def __init__(self, layout: Layout, sequences: Sequence[SequenceLayout] = ()) -> None:
        self._layout, self._sequences, self._checked = layout, sequences, False
        self._highest = np.array([column.rows - 1 for column in layout.categorical], np.int64)
        self._rows = {column.name: column.rows for column in layout.categorical}

    def __call__(self, batch: Batch) -> None:
        """Check a batch.

        Raises:
            DataError: An id is below 0 or beyond its table. It names the column, the id and the table's rows.
        """
        if batch.label.device.type != "cpu" and self._checked:
            return
        self._checked = True
        self._check_ids(batch.ids.cpu())
        for column in self._layout.tokens:
            if column.name in batch.tokens:
                _check(batch.tokens[column.name].values.cpu(), column.rows, f"column '{column.name}'")
        for sequence in self._sequences:
            self._check_sequence(batch, sequence)

    def _check_ids(self, ids_BF: Tensor) -> None:
        columns = self._layout.categorical
        if ids_BF.shape[1] != len(columns):
            raise DataError(
                f"a batch has {ids_BF.shape[1]} id columns, but the model was built for {len(columns)}: "
                "build it with the layout of the batches"
            )
        # As unsigned numbers, negative ids are beyond every table: one pass finds both. NumPy's is the faster one.
        found = ids_BF.int().contiguous().numpy().view(np.uint32)
        if found.size and bool((found.max(axis=0) > self._highest).any()):
            for i, column in enumerate(columns):
                _check(ids_BF[:, i], column.rows, f"column '{column.name}'")

    def _check_sequence(self, batch: Batch, sequence: SequenceLayout) -> None:
        found = batch.sequences.get(sequence.name)
        ids = None if found is None else found.ids if found.ids is not None else found.values
        if not sequence.ids or ids is None or ids.is_floating_point():
            return
        sizes = [self._rows.get(name, 0) for name in sequence.ids] + [3] * sequence.labels
        names = [*sequence.ids, "label"]
        for i, size in enumerate(sizes):
            if size:
                _check(ids[..., i].cpu(), size, f"column '{names[i]}' of the history '{sequence.name}'")


def id_check(module: nn.Module, layout: Layout | None = None) -> IdCheck | None:
    """The check of a module's tables; of `layout` where it does not say what it was built for."""
    seen = model_layout(module) or layout
    sequences = {
        found
        for part in module.modules()
        if isinstance(found := getattr(part, "sequence", None), SequenceLayout)
    }
    return None if seen is None else IdCheck(seen, tuple(sequences))


def beyond_a_table(module: nn.Module, batch: Batch, error: IndexError) -> DataError:
    """What torch's error means in a module that does not say what it was built for."""
    sizes = [
        f"{name} has {part.num_embeddings:,} rows"
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag)
    ]
    highest = batch.ids.amax(0).tolist() if batch.ids.numel() else []
    return DataError(
        f"an id of the batch is beyond an embedding table of the model ({error}): {'; '.join(sizes)}; "
        f"the columns of the batch go up to {highest}: build the model for these batches"
    )


def _check(ids: Tensor, rows: int, where: str) -> None:
    if not ids.numel():
        return
    low, high = (int(found) for found in ids.aminmax())
    if low < 0 or high >= rows:
        raise DataError(
            f"{where} holds the id {low if low < 0 else high}, but its embedding table has {rows:,} rows "
            f"(ids 0 to {rows - 1:,}): encode the rows with the vocabulary that the model was built for"
        )


def largest_gradients(module: nn.Module) -> str:
    """The parameters with the largest gradients, those that are not finite first; "" if there are no gradients."""
    found = []
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            values = parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
            found.append((name, float(values.float().norm())))
    found.sort(key=lambda one: (torch.isfinite(torch.tensor(one[1])).item(), -one[1]))
    return ", ".join(f"{name} (norm {norm:.3g})" for name, norm in found[:_NAMED])
