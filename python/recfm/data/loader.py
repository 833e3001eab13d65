"""Batches made ahead of time by one thread, on the device where the model is, resumable at any batch."""

import os
import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

from recfm.data.batch import Batch
from recfm.data.ring import POLL, Ring, ring_for
from recfm.errors import DataError, RecfmError

_JOIN = 0.5  # seconds that closing waits for a thread that is busy making a batch


class BatchSource(Protocol):
    """What a loader needs: `Batches`, or anything else that gives batch k of an epoch by its number."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start` on."""
        ...


class Loader:
    """Iterates over one epoch at a time; a thread makes the next batches while the caller uses this one.

    Each `for batch in loader` serves what is left of the current epoch and moves on to the next one. All heavy
    work happens in Rust with the interpreter lock released, so one Python thread is enough. On CUDA a batch goes
    through pinned memory and its copy to the GPU does not wait.

    Args:
        batches: Where the batches come from.
        prefetch: Batches that are made ahead, at most.
        device: Where to put them; None leaves them where they are.
        start: (epoch, k), the first batch to serve.

    Raises:
        DataError: `prefetch` is below 1, or `start` is no batch.

    Example:
        >>> loader = Loader(batches, device="cuda")              # doctest: +SKIP
        >>> for epoch in range(3):                               # doctest: +SKIP
        ...     for batch in loader:
        ...         train(batch)
        ...         checkpoint["data"] = loader.state_dict()
    """

    def __init__(
        self, batches: BatchSource, *, prefetch: int = 4, device: Any = None, start: tuple[int, int] = (0, 0)
    ) -> None:
        if prefetch < 1:
            raise DataError(f"prefetch is {prefetch}: at least one batch must be made ahead")
        self.batches, self.prefetch, self.device = batches, prefetch, device
        self._pid = os.getpid()
        self._running: weakref.ref[_Epoch] | None = None
        self._move_to(*start)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """What is left of the current epoch. A loader feeds one loop: a new one ends that before."""
        _refuse_fork(self._pid)
        self.close()
        running = _Epoch(self)
        self._running = weakref.ref(running)  # a loop that is left drops its iterator, and with it the thread
        return running

    def state_dict(self) -> dict[str, int]:
        """Where the caller is: `epoch`, `batch` (the next one), and what the batches are a function of."""
        return {"epoch": self._epoch, "batch": self._next, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was taken; the batches that follow are the same bytes.

        Raises:
            DataError: The state is of batches with another seed, size, shard or order, or lacks a key.
        """
        mine = self._identity()
        for name, value in mine.items():
            if state.get(name) != value:
                raise DataError(
                    f"the state was taken with {name} {state.get(name)}, but these batches have {value}: "
                    "build them as they were"
                )
        if not {"epoch", "batch"} <= state.keys():
            raise DataError(f"the state has keys {sorted(state)}: it must come from state_dict()")
        self.close()
        self._move_to(state["epoch"], state["batch"])

    def close(self) -> None:
        """End the thread, if one is running; the next loop starts a new one."""
        running = self._running and self._running()
        if running:
            running.close()

    def _identity(self) -> dict[str, int]:
        names = ("seed", "batch_size", "shuffle", "rank", "world_size", "num_pools", "rows_digest")
        found = {name: int(getattr(self.batches, name)) for name in names if hasattr(self.batches, name)}
        return {"batches": len(self.batches), **found}

    def _move_to(self, epoch: int, k: int) -> None:
        if epoch < 0 or not 0 <= k < len(self.batches):
            raise DataError(
                f"batch {k} of epoch {epoch} does not exist: an epoch has {len(self.batches)} batches"
            )
        self._epoch, self._next = epoch, k

    def _served(self) -> None:
        self._next += 1
        if self._next == len(self.batches):
            self._epoch, self._next = self._epoch + 1, 0


class _Epoch(Iterator[Batch]):
    """The rest of one epoch, its thread and its queue."""

    def __init__(self, loader: Loader) -> None:
        self._loader, self._pid = loader, os.getpid()
        self._ring = ring_for(loader.device, slots=loader.prefetch + 1)
        self._stop = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=loader.prefetch)
        # The thread knows nothing of this iterator, so that dropping the iterator can end it.
        made = loader.batches.epoch(loader._epoch, start=loader._next)
        self._thread = threading.Thread(
            target=_produce,
            args=(made, self._ring, self._queue, self._stop),
            name="recfm-loader",
            daemon=True,
        )
        self._thread.start()

    def __next__(self) -> Batch:
        _refuse_fork(self._pid)
        while True:
            if self._stop.is_set():
                raise StopIteration
            try:
                item = self._queue.get(timeout=POLL)
                break
            except queue.Empty:
                continue
            except BaseException:  # Ctrl-C ends the thread too
                self.close()
                raise
        if not isinstance(item, tuple):
            self.close()
            if item is None:
                raise StopIteration
            raise item
        batch = self._ring.send(*item)
        self._loader._served()
        return batch

    def close(self) -> None:
        """Stop the thread; one that is busy with a batch ends by itself when that is done."""
        self._stop.set()
        if self._pid == os.getpid() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN)

    def __del__(self) -> None:
        if hasattr(self, "_thread"):
            self.close()


def _produce(made: Iterator[Batch], ring: Ring, out: "queue.Queue[Any]", stop: threading.Event) -> None:
    """Put (slot, batch) pairs into the queue, then None, or the error that ended it."""

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                out.put(item, timeout=POLL)
                return True
            except queue.Full:
                continue
        return False

    try:
        for batch in made:
            staged = ring.stage(batch, stop)
            if staged is None or not put(staged):
                return
        put(None)
    except BaseException as error:  # the caller raises it
        put(error)


def _refuse_fork(pid: int) -> None:
    if pid != os.getpid():
        raise RecfmError(
            f"this loader was made in process {pid} and its thread stayed there: "
            "make a loader after the fork, or start processes with 'spawn'"
        )
