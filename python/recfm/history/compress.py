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
    """e [B, D] -> (e - mean) / deviation, by running statistics of the training batches.

    Unlike batch normalisation it uses the running statistics in training too, so a batch of one row is fine and
    training and scoring see the same map.
    """

    mean: Tensor  # [D]
    square: Tensor  # [D]
    weight: Tensor  # how much of the averages is filled, from 0 to 1

    def __init__(self, width: int, *, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("square", torch.zeros(width))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, e_BD: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(e_BD.mean(dim=0), self.momentum)
            self.square.lerp_(e_BD.square().mean(dim=0), self.momentum)
            self.weight.lerp_(torch.ones_like(self.weight), self.momentum)
        filled = self.weight.clamp(min=1e-6)
        mean = self.mean / filled
        variance = (self.square / filled - mean.square()).clamp(min=1e-4)
        return ((e_BD - mean) / variance.sqrt()).clamp(-_LARGEST, _LARGEST)


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
