"""What a resumed fit needs besides weights: the same data, and the state of random generators."""

from pathlib import Path

import numpy as np
import torch

from recfm import _core
from recfm.data.batch import Batch
from recfm.errors import DataError


def digests(batch: Batch) -> dict[str, str]:
    """XXH3 of each column of a batch: another vocabulary of the same size shows here."""
    columns = {f"id column {i}": batch.ids[:, i] for i in range(batch.ids.shape[1])}
    columns |= {f"tokens '{name}'": jagged.values for name, jagged in batch.tokens.items()}
    columns |= {"numbers": batch.numeric, "labels": batch.label}
    return {
        name: f"{_core.checksum(np.frombuffer(column.cpu().numpy().tobytes(), np.uint8)):016x}"
        for name, column in columns.items()
    }


def refuse_data(saved: dict[str, str], mine: dict[str, str], folder: Path) -> None:
    """Refuse to go on with other data.

    Raises:
        DataError: Columns of the first batch differ.
    """
    differ = [name for name in saved if saved[name] != mine.get(name)]
    if differ:
        raise DataError(
            f"'{folder}' was trained on other rows or with another vocabulary: {', '.join(differ[:3])} of the "
            "first batch differ: resume with the table, the encoder and the seed of the run"
        )


def rng_state() -> dict[str, torch.Tensor]:
    """States of torch's generators, by device."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor], rank: int) -> None:
    """Put back the states of one process."""
    torch.set_rng_state(state[f"cpu.{rank}"])
    if f"cuda.{rank}" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[f"cuda.{rank}"])
