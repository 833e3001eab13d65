"""One step of training: forward, backward, L2, clipping, update; in any precision, compiled or not."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from recfm.data.batch import Batch
from recfm.errors import ConfigError
from recfm.train.checks import beyond_a_table, id_check
from recfm.train.config import TrainConfig
from recfm.train.distributed import World
from recfm.train.optim import add_l2
from recfm.train.precision import autocast
from recfm.train.sparse import RowAdam, RowwiseAdagrad

_LOOK = 50  # steps on a GPU between looks at the losses


class Step:
    """Computes losses and updates weights.

    Args:
        objective: What is trained.
        optimizers: Of its parameters.
        config: Precision, clipping, compilation.
        world: The processes that train together.
        layout: Of the batches, where the model does not say what it was built for.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimizers: list[Optimizer],
        config: TrainConfig,
        world: World,
        layout: Any = None,
    ) -> None:
        self._objective, self._optimizers, self._config, self._world = objective, optimizers, config, world
        device = world.device.type
        self.scaler = torch.amp.GradScaler(device, enabled=config.precision == "fp16")
        dense = [o for o in optimizers if not isinstance(o, RowwiseAdagrad | RowAdam)]
        self._clipped = [p for o in dense for group in o.param_groups for p in group["params"]]
        self._l2 = any(group.get("l2") for o in optimizers for group in o.param_groups)
        wrapped = world.wrap(objective)
        self._forward: Callable[[Batch], Tensor] = torch.compile(wrapped) if config.compile else wrapped
        self._check_ids = id_check(objective, layout)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar.

        Raises:
            DataError: An id is beyond its embedding table.
            ConfigError: It cannot be compiled.
        """
        if self._check_ids:
            self._check_ids(batch)
        try:
            with autocast(self._world.device.type, self._config.precision):
                loss = self._forward(batch)
        except IndexError as error:
            raise beyond_a_table(self._objective, batch, error) from None
        except Exception as error:
            if self._config.compile and type(error).__module__.startswith("torch._"):
                why = str(error).strip().splitlines()[0]
                raise ConfigError(
                    f"compile is true, but torch.compile failed ({why}): set compile = false"
                ) from error
            raise
        if loss.ndim:
            raise ConfigError(
                f"{type(self._objective).__name__} gave a loss of shape {list(loss.shape)}: an objective must give "
                "one number, such as the mean over the rows"
            )
        return loss

    def update(self, loss: Tensor) -> None:
        """Backward pass and one step of every optimiser."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        if self._l2 or self._config.clip_norm:
            for optimizer in self._optimizers:
                self.scaler.unscale_(optimizer)
            add_l2(self._optimizers)
            if self._config.clip_norm:
                clip_grad_norm_(self._clipped, self._config.clip_norm)
        for optimizer in self._optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()


class Losses:
    """The sum of an epoch's losses. Read at once on the CPU; on a GPU every 50 steps, which waits less often.

    Args:
        world: The processes whose losses are averaged.
    """

    def __init__(self, world: World) -> None:
        self._world, self._waiting = world, list[Tensor]()
        self._look = 1 if world.device.type == "cpu" else _LOOK
        self.sum, self.count = 0.0, 0

    @property
    def mean(self) -> float:
        """Of the losses read so far."""
        return self.sum / self.count if self.count else 0.0

    def add(self, loss: Tensor) -> float | None:
        """Take a loss in; returns the first that is not finite among those that were read, if any."""
        self._waiting.append(loss.detach())
        return self.read() if len(self._waiting) >= self._look else None

    def read(self) -> float | None:
        """Read what is waiting; `count` ends before the first loss that is not finite, which is returned."""
        if not self._waiting:
            return None
        values = [self._waiting[0].item()] if self._look == 1 else torch.stack(self._waiting).tolist()
        self._waiting.clear()
        for value in self._world.mean(values):
            if not math.isfinite(value):
                return value
            self.sum += value
            self.count += 1
        return None
