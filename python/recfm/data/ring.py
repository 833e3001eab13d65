"""Pinned buffers between the thread that makes batches and the GPU that uses them."""

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from recfm.data.batch import Batch, map_tensors

if TYPE_CHECKING:  # importing recfm.data must not import torch
    from torch import Tensor

POLL = 0.1  # seconds after which a waiting thread looks whether it is still wanted


class Ring(Protocol):
    """The way of a batch from the thread that makes it (`stage`) to the loop that uses it (`send`)."""

    def stage(self, batch: Batch, stop: threading.Event) -> tuple[int, Batch] | None:
        """A slot and the batch in it; None if `stop` was set while all slots were taken."""
        ...

    def send(self, slot: int, batch: Batch) -> Batch:
        """The batch on the device."""
        ...


class Direct:
    """Host memory as it is, copied by the caller where another device is asked for."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def stage(self, batch: Batch, stop: threading.Event) -> tuple[int, Batch] | None:
        """The batch itself."""
        del stop
        return 0, batch

    def send(self, slot: int, batch: Batch) -> Batch:
        """The batch on the device."""
        del slot
        return batch if self._device is None else batch.to(self._device)


class PinnedRing:
    """Pinned slots, taken by the producer and given back once their batch has left for the GPU.

    The copy to the GPU does not wait, so a slot comes back with an event recorded behind its copy, and the
    producer waits for that event before it writes into the slot again.

    Args:
        device: Where batches go.
        slots: Number of slots.
        pin: Makes an uninitialised pinned tensor like the one given.
        record: Records an event behind the copies made so far; it has `synchronize()`.
    """

    def __init__(
        self, device: Any, slots: int, pin: Callable[["Tensor"], "Tensor"], record: Callable[[], Any]
    ) -> None:
        self._device, self._pin, self._record = device, pin, record
        self._buffers: list[list[Tensor]] = [[] for _ in range(slots)]
        self._free: queue.Queue[tuple[int, Any]] = queue.Queue()
        for slot in range(slots):
            self._free.put((slot, None))

    def stage(self, batch: Batch, stop: threading.Event) -> tuple[int, Batch] | None:
        """Copy the batch into a free slot; None if `stop` was set while there was none."""
        while not stop.is_set():
            try:
                slot, left = self._free.get(timeout=POLL)
            except queue.Empty:
                continue
            if left is not None:
                left.synchronize()
            return slot, self._filled(slot, batch)
        return None

    def send(self, slot: int, batch: Batch) -> Batch:
        """Start the copy on the caller's stream and give the slot back with an event behind it."""
        sent = batch.to(self._device, non_blocking=True)
        self._free.put((slot, self._record()))
        return sent

    def _filled(self, slot: int, batch: Batch) -> Batch:
        """The batch in the slot's buffers, which grow as they have to."""
        old, new = iter(self._buffers[slot]), []

        def into(tensor: "Tensor") -> "Tensor":
            flat, buffer = tensor.reshape(-1), next(old, None)
            if buffer is None or buffer.dtype != flat.dtype or len(buffer) < len(flat):
                buffer = self._pin(flat)
            new.append(buffer)
            return buffer[: len(flat)].copy_(flat).view(tensor.shape)

        staged: Batch = map_tensors(batch, into)
        self._buffers[slot] = new
        return staged


def ring_for(device: Any, *, slots: int) -> Ring:
    """Pinned buffers for a CUDA device, none for any other."""
    import torch

    if device is None or torch.device(device).type != "cuda":
        return Direct(device)
    return PinnedRing(
        device,
        slots,
        pin=lambda like: torch.empty_like(like, device="cpu", pin_memory=True),
        record=lambda: torch.cuda.current_stream(device).record_event(),
    )
