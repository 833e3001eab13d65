"""Data-parallel training: the same call to `Trainer.fit` in every process that torchrun starts.

    torchrun --nproc-per-node 2 train.py
    # in train.py, where one process would write Batches(table, rows, batch_size=1024):
    train = Batches(table, rows, batch_size=1024, **shard())
    valid = Batches(table, valid_rows, batch_size=1024, shuffle=False, **shard())
    Trainer(config, folder="run").fit(model, train, valid)

Each process trains on its shard, gradients are averaged (DistributedDataParallel), metrics are those of all rows,
exactly. The first process writes checkpoints and logs; all of them read a checkpoint, so the folder must be shared.
"""

import atexit
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from recfm.errors import ConfigError
from recfm.train.metrics import StreamingMetrics


def shard() -> dict[str, int]:
    """`rank` and `world_size` of this process, for `Batches`; 0 and 1 outside of torchrun."""
    rank, size = _place()
    return {"rank": rank, "world_size": size}


@dataclass(frozen=True)
class World:
    """The processes of a fit. With one, every method gives back what it got.

    Attributes:
        rank: This process, from 0.
        size: How many there are.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and logs and runs callbacks."""
        return self.rank == 0

    def wrap(self, objective: nn.Module) -> nn.Module:
        """A module whose backward pass averages gradients over the processes; all start with the first's weights."""
        if self.size == 1:
            return objective
        return nn.parallel.DistributedDataParallel(objective)

    def mean(self, values: list[float]) -> list[float]:
        """The mean of each number over the processes; NaN and infinity of one of them reach all."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(summed)
        return (summed / self.size).tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def merged(self, metrics: StreamingMetrics) -> StreamingMetrics:
        """The rows of all processes."""
        return metrics if self.size == 1 else StreamingMetrics.merged(self.gather(metrics))

    def copy_from_first(self, module: nn.Module, *, parameters: bool = True) -> None:
        """Give every process the first one's tensors: all of them, or the buffers alone."""
        if self.size > 1:
            for tensor in module.state_dict().values() if parameters else module.buffers():
                distributed.broadcast(tensor, 0)

    def check_shard(self, batches: Any, what: str) -> None:
        """Refuse batches that are not this process's shard.

        Raises:
            ConfigError: They are cut for another number of processes, or are another process's.
        """
        rank, size = getattr(batches, "rank", 0), getattr(batches, "world_size", 1)
        if (rank, size) != (self.rank, self.size):
            raise ConfigError(
                f"the {what} batches are shard {rank} of {size}, but this is process {self.rank} of {self.size}: "
                "build them with Batches(..., **recfm.train.distributed.shard())"
            )


def join(device: str) -> World:
    """The processes that torchrun started: an existing process group, or one that later fits use too.

    Args:
        device: "cuda" stands for the GPU of the local rank.

    Raises:
        ConfigError: torchrun's variables are incomplete.
    """
    rank, size = _place()
    place = torch.device(device)
    if device == "cuda" and size > 1:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(place)
    if size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
        atexit.register(
            _leave
        )  # not after each fit: a group cannot be joined again while others still leave it
    return World(rank, size, place)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _place() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        return 0, 1
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        raise ConfigError(
            f"RANK is {os.environ.get('RANK')!r} and WORLD_SIZE is {os.environ.get('WORLD_SIZE')!r}: "
            "start the processes with torchrun, or unset both"
        ) from None
    return rank, size
