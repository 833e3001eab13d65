"""Batches for users of `torch.utils.data.DataLoader`."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from recfm.data.batch import Batch
from recfm.data.batches import Batches
from recfm.errors import DataError


class BatchDataset(IterableDataset[Batch]):
    """Whole batches of one epoch; give it to a DataLoader with `batch_size=None`.

    Worker w of n makes batches w, w + n, w + 2n, ..., so none comes twice and a DataLoader yields them in the
    order of `Batches.epoch`. `recfm.data.loader.Loader` does the same with one thread and without copies of the
    table; take this where something else asks for a DataLoader.

    Example:
        >>> dataset = BatchDataset(batches)                                          # doctest: +SKIP
        >>> loader = DataLoader(dataset, batch_size=None, num_workers=2,
        ...                     multiprocessing_context="spawn")                     # doctest: +SKIP
        >>> dataset.set_epoch(1)                                                     # doctest: +SKIP
    """

    def __init__(self, batches: Batches, *, epoch: int = 0) -> None:
        self.batches = batches
        self._epoch = torch.tensor(epoch).share_memory_()  # type: ignore[no-untyped-call]  # persistent workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Serve this epoch from the next loop on, in workers too."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Batches per epoch, over all workers."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """This worker's batches."""
        worker, epoch = get_worker_info(), int(self._epoch)
        if worker is None:
            yield from self.batches.epoch(epoch)
            return
        for k in range(worker.id, len(self.batches), worker.num_workers):
            yield self.batches.batch(epoch, k)

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker is sent.

        Raises:
            DataError: The batches join histories, whose index stays in its process.
        """
        if self.batches.sequences:
            raise DataError(
                f"sequence '{next(iter(self.batches.sequences))}' cannot be sent to a DataLoader worker: "
                "use num_workers=0, or recfm.data.loader.Loader"
            )
        return self.__dict__
