"""What a model is trained for. An objective owns a model and maps a batch to a scalar loss.

Shape legend: B rows, w width of the backbone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recfm.config import Strict, check_range
from recfm.data.batch import Batch
from recfm.errors import ConfigError, DataError
from recfm.history.compress import Autoencoder
from recfm.history.tap import Tap
from recfm.models.ranker import Ranker


def auxiliary_loss(model: nn.Module) -> Tensor | float:
    """What a model adds to its own loss in this step, already weighted: 0 where it has no `auxiliary_loss()`."""
    ask = getattr(model, "auxiliary_loss", None)
    found: Tensor | None = ask() if ask is not None else None
    return 0.0 if found is None else found


class Objective(nn.Module):
    """Maps a batch to a scalar loss and owns the model that is evaluated and served, as `model`.

    `Trainer.fit` takes any subclass; what else it holds (heads, an autoencoder) is trained with the model.
    """

    model: nn.Module

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def refuse_shape(logits: Tensor, batch: Batch) -> None:
    """Refuse what is not one logit per row.

    Raises:
        ConfigError: The shape is not [B].
    """
    if logits.shape != batch.label.shape:
        raise ConfigError(
            f"the model gave a tensor of shape {list(logits.shape)} for {len(batch)} rows: it must give one "
            "logit per row, [B]; a module that gives a loss must be a recfm.train.losses.Objective"
        )


class LabelLoss(Objective):
    """Binary cross-entropy on the label, and the model's auxiliary loss where it has one."""

    def forward(self, batch: Batch) -> Tensor:
        logits = self.model(batch)
        refuse_shape(logits, batch)
        on_label = functional.binary_cross_entropy_with_logits(logits, batch.label)
        return on_label + auxiliary_loss(self.model)


@dataclass(kw_only=True, slots=True)
class DistillConfig(Strict):
    """The ExFM auxiliary head, as LoopFM uses it (section 3.4). The paper's ad data has (5, 10, 5)."""

    label_scale: float = 1.0
    """alpha: the soft label is min(1, alpha * y_F); above 1 only where clicks are rare."""
    weight: float = 1.0
    """gamma: weight of the distillation loss."""
    gradient_scale: float = 1.0
    """beta: factor on the distillation head's gradient into the backbone."""

    def __post_init__(self) -> None:
        check_range(self, "label_scale", "weight", "gradient_scale", low=0, high=1e6)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return gradient * ctx.scale, None


class DistilledLoss(Objective):
    """One backbone, two heads: the serving head sees only the label, the distillation head only the FM's score.

        loss = BCE(serve, y) + gamma * BCE(distil(scale_gradient(hidden, beta)), min(1, alpha * y_F))

    The distillation head belongs to the objective, not to the model: what is served is the model alone.
    """

    model: Ranker

    def __init__(self, model: Ranker, config: DistillConfig | None = None) -> None:
        super().__init__(model)
        self.config = config or DistillConfig()
        # Drawing this head must not move the generator: with weight 0 the training is the baseline's, bit for bit.
        with torch.random.fork_rng(devices=[]):
            self.distill_head = model.make_head()

    def forward(self, batch: Batch) -> Tensor:
        if batch.teacher is None:
            raise DataError("the batch has no FM score to distil: pass `teacher` to Batches")
        hidden_Bw = self.model.backbone(batch)
        served = self.model.head(hidden_Bw).squeeze(-1)
        distilled = self.distill_head(_ScaleGradient.apply(hidden_Bw, self.config.gradient_scale)).squeeze(-1)
        soft_label = (self.config.label_scale * batch.teacher).clamp(max=1.0)
        on_label = functional.binary_cross_entropy_with_logits(served, batch.label)
        on_teacher = functional.binary_cross_entropy_with_logits(distilled, soft_label)
        return on_label + auxiliary_loss(self.model) + self.config.weight * on_teacher


class FoundationLoss(Objective):
    """The FM's own loss plus its autoencoder's; the tap cuts the gradient between them."""

    def __init__(self, model: nn.Module, tap: Tap, autoencoder: Autoencoder) -> None:
        super().__init__(model)
        self.tap, self.autoencoder = tap, autoencoder

    def forward(self, batch: Batch) -> Tensor:
        on_label = functional.binary_cross_entropy_with_logits(self.model(batch), batch.label)
        return on_label + auxiliary_loss(self.model) + self.autoencoder.loss(self.tap.activations())
