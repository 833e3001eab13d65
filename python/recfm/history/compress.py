"""The autoencoder that turns tapped activations into z (LoopFM section 3.2).

    z = tanh(enc(standardise(sg(e)))),   L_AE = mean ||standardise(e) - dec(z)||^2

It is co-trained with the FM: `e` arrives detached (`Tap` does that), so L_AE never reaches the FM.

Shape legend: B rows, D width of the tapped activations, d width of z.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGEST = 10.0  # standard deviations: a unit that was dead in training must not explode when it first fires


class RunningStandardise(nn.Module):
    """e [B, D] -> (e - mean) / deviation, by exponential averages over the training batches.

    Unlike batch normalisation it uses the running statistics in training too, so a batch of one row is fine and
    training and scoring see the same map.
    """

    mean: Tensor  # [D]
    variance: Tensor  # [D]
    weight: Tensor  # how much of the averages is filled, from 0 to 1

    def __init__(self, width: int, *, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, e_BD: Tensor) -> Tensor:
        if self.training:
            self._update(e_BD)
        deviation = self.variance.clamp(min=1e-4).sqrt()
        return ((e_BD - self.mean) / deviation).clamp(-_LARGEST, _LARGEST)

    def _update(self, e_BD: Tensor) -> None:
        self.weight += self.momentum * (1 - self.weight)
        rate = self.momentum / self.weight  # 1 for the first batch: the averages start without a bias to zero
        step = e_BD.mean(dim=0) - self.mean
        self.mean += rate * step
        # Around the mean, not as a difference of squares, which float32 loses for units with a large mean.
        self.variance += rate * (e_BD.var(dim=0, correction=0) + (1 - rate) * step.square() - self.variance)


class Autoencoder(nn.Module):
    """e [B, D] -> z [B, d] in [-1, 1].

    Args:
        width: D.
        dim: d.
        hidden: Hidden units of encoder and decoder.
    """

    def __init__(self, width: int, dim: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.standardise = RunningStandardise(width)
        self.encoder = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, dim), nn.Tanh())
        self.decoder = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, activations: Tensor) -> Tensor:
        """z [B, d]."""
        return self.encoder(self.standardise(activations.detach()))

    def loss(self, activations: Tensor) -> Tensor:
        """Mean squared reconstruction error of the standardised activations, a scalar."""
        target = self.standardise(activations.detach())
        return functional.mse_loss(self.decoder(self.encoder(target)), target)
