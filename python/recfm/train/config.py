"""How a model is trained: every setting of a fit, checked before it starts."""

from dataclasses import dataclass
from typing import Literal

import torch

from recfm.config import Strict, check_range
from recfm.errors import ConfigError

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("constant", "plateau", "cosine")
MONITORS = ("ne", "logloss", "auc", "gauc", "auc+gauc")
PRECISIONS = ("fp32", "bf16", "fp16")

Monitor = Literal["ne", "logloss", "auc", "gauc", "auc+gauc"]


@dataclass(kw_only=True, slots=True)
class TrainConfig(Strict):
    """How a model is trained.

    The protocol of BARS is `optimizer="adam"`, `embedding_l2`, `network_l2`, `clip_norm=10`, `schedule="plateau"`,
    `patience=2`, `min_delta=1e-6` and `monitor="auc"` (or "auc+gauc").

    Raises:
        ConfigError: A value is unknown or out of range, or two settings exclude each other.
    """

    epochs: int = 5
    """At most so many passes over the rows."""
    batch_size: int = 1024
    """Rows per batch, for whoever builds the `Batches`; the trainer takes those as they are."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    """Decoupled (AdamW), on every parameter."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """"adam" is torch's fused kernel, the fastest; "adamw" its plain one, whose bits committed results rest on."""
    embedding_l2: float = 0.0
    """lambda of (lambda / 2) ||E||^2 over whole embedding tables: lambda * E joins the gradient at each step."""
    network_l2: float = 0.0
    """The same on every other parameter."""
    clip_norm: float = 0.0
    """Largest norm of the whole gradient, L2 terms included (as in FuxiCTR); 0 = no limit."""
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    """"plateau" multiplies the rate by `schedule_factor` after each epoch that is no better than the best before;
    "cosine" lets it fall to `min_learning_rate` over all epochs."""
    warmup_steps: int = 0
    """The rate rises linearly over so many steps; the first one has learning_rate / warmup_steps."""
    schedule_factor: float = 0.1
    min_learning_rate: float = 1e-6
    """No schedule goes below it; a warm-up starts wherever it starts."""
    patience: int = 1
    """Stop after so many epochs in a row without a better `monitor`."""
    min_delta: float = 0.0
    """An epoch is better if it beats the best by more than this."""
    monitor: Monitor = "ne"
    """The validation metric that decides; ne and logloss fall, the others rise."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the forward pass (autocast); weights and optimiser stay float32. fp16 scales the loss."""
    compile: bool = False
    """Compile the forward and backward pass (torch.compile); needs a C++ compiler on CPU."""
    seed: int | None = None
    """Seed of dropout, set when a fit starts (plus the rank); None leaves torch's generators as they are. Weights
    are drawn when the model is built, and the order of the rows belongs to `Batches`."""
    checkpoint_every: int = 0
    """Steps between checkpoints, where there is a folder; there is one after each epoch in any case."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_range(self, "epochs", "batch_size", "patience", low=1)
        check_range(self, "learning_rate", low=1e-12, high=1e3)
        check_range(self, "weight_decay", "embedding_l2", "network_l2", "clip_norm", low=0, high=1e3)
        check_range(self, "schedule_factor", "min_learning_rate", "min_delta", low=0, high=1)
        check_range(self, "warmup_steps", "checkpoint_every", low=0)
        if self.seed is not None:
            check_range(self, "seed", low=0, high=2**62)
        choices = {
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "monitor": MONITORS,
            "precision": PRECISIONS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: use {', '.join(known)}")
        if self.weight_decay and self.optimizer != "adamw":
            raise ConfigError(
                f"weight_decay is {self.weight_decay:g}, but only adamw decouples it and optimizer is "
                f"{self.optimizer!r}: use network_l2 and embedding_l2"
            )
        _check_device(self.device)


def _check_device(device: str) -> None:
    if not isinstance(device, str):
        raise ConfigError(f"device is {device!r}: give a name such as 'cpu' or 'cuda'")
    try:
        torch.empty(0, device=device).cpu()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device '{device}' cannot be used ({reason}): use cpu, or see `recfm doctor`"
        ) from None
