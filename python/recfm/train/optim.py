"""Optimisers, their L2 terms, and the learning rate as a function of the step.

A fit works with a list of optimisers: one for all parameters today; embedding tables with an optimiser of their own
get a second one in `build_optimizers`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from recfm.models.layers import embedding_parameters
from recfm.train.config import TrainConfig


def build_optimizers(module: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """The optimisers of every parameter of `module` that learns.

    Each parameter group has two entries of ours: `base_lr`, the rate that the schedule scales, and `l2`, which
    `add_l2` reads. Embedding tables are a group of their own.

    Args:
        module: The objective: the model and what else is trained with it.
        config: Rates and penalties.
    """
    tables = {id(parameter) for parameter in embedding_parameters(module)}
    embedding: list[nn.Parameter] = []
    network: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (embedding if id(parameter) in tables else network).append(parameter)
    groups = [
        {"params": parameters, "l2": l2, "base_lr": config.learning_rate}
        for parameters, l2 in ((embedding, config.embedding_l2), (network, config.network_l2))
        if parameters
    ]
    return [_dense(groups, config)] if groups else []


def _dense(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    rate = config.learning_rate
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=config.weight_decay)


def add_l2(optimizers: Sequence[Optimizer]) -> None:
    """Add l2 * w to the gradient of each group that has an L2 term, rows that the batch does not touch included.

    It comes before the clipping of gradients, as where the penalty is a part of the loss.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            l2 = group.get("l2", 0.0)
            if not l2:
                continue
            with torch.no_grad():
                for parameter in group["params"]:
                    if parameter.grad is None:
                        parameter.grad = parameter.detach() * l2
                    else:
                        parameter.grad.add_(parameter, alpha=l2)


class Schedule:
    """Sets the learning rate of every group before each step.

        rate(step) = base * warm-up(step) * (cosine(step) | factor ** epochs without progress)

    Args:
        optimizers: Their groups have a `base_lr`.
        config: What schedule.
        total: Steps in all, which the cosine ends with.
    """

    def __init__(self, optimizers: Sequence[Optimizer], config: TrainConfig, total: int) -> None:
        self._optimizers, self._config, self._total = optimizers, config, total
        self._decays = 0

    def set(self, step: int) -> float:
        """Sets the rates for a step (from 0) and returns that of a group with the config's base rate."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:  # loading a state replaces the groups
                group["lr"] = self._rate(group.get("base_lr", self._config.learning_rate), step)
        return self._rate(self._config.learning_rate, step)

    def stalled(self) -> None:
        """An epoch was no better than the best."""
        self._decays += 1

    def state_dict(self) -> dict[str, int]:
        """What `load_state_dict` takes."""
        return {"decays": self._decays}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a state."""
        self._decays = state["decays"]

    def _rate(self, base: float, step: int) -> float:
        config, rate = self._config, base
        floor = min(base, config.min_learning_rate)
        if config.schedule == "plateau":
            for _ in range(self._decays):
                rate = max(rate * config.schedule_factor, floor)
        elif config.schedule == "cosine":
            done = max(0, step - config.warmup_steps) / max(1, self._total - config.warmup_steps)
            rate = floor + (base - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return rate * (step + 1) / config.warmup_steps if step < config.warmup_steps else rate
