"""Objectives: distillation as section 3.4 has it (checks 5 and 6), and what each head may learn from."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from model_helpers import LAYOUT, VECTORS, changed, make_batch
from recfm.errors import ConfigError, DataError
from recfm.models.deepfm import DeepFM, DeepFMConfig
from recfm.models.dnn import DNN, DNNConfig
from recfm.models.wukong import Wukong, WukongConfig
from recfm.train.losses import DistillConfig, DistilledLoss, LabelLoss

MODELS = {
    "dnn": lambda **extra: DNN(LAYOUT, DNNConfig(dim=4, hidden=(8,)), **extra),
    "deepfm": lambda **extra: DeepFM(LAYOUT, DeepFMConfig(dim=4, hidden=(8,)), **extra),
    "wukong": lambda **extra: Wukong(LAYOUT, WukongConfig(dim=4, layers=1, hidden=(8,)), **extra),
}
of_every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
BATCH = make_batch(16, dtype=torch.float64)


def objective(make, **kd):
    torch.manual_seed(0)
    return DistilledLoss(make().double(), DistillConfig(**kd)).double()


def gradients(module, loss):
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return dict(zip(names, found, strict=True))


def silence_serving_head(loss):
    """After this the label's loss has no gradient into the backbone: what is left there is distillation's."""
    for parameter in loss.model.head.parameters():
        torch.nn.init.zeros_(parameter)


@of_every_model
def test_label_loss_is_cross_entropy_on_the_label(make):
    model = make().double()
    probability = model(BATCH).sigmoid()
    by_hand = -(BATCH.label * probability.log() + (1 - BATCH.label) * (1 - probability).log()).mean()
    torch.testing.assert_close(LabelLoss(model)(BATCH), by_hand)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.floats(0, 8),
    st.floats(0, 5),
    st.sampled_from([0, 1, 5]),
)
def test_the_loss_is_two_cross_entropies_on_label_and_capped_soft_label(scores, alpha, gamma, beta):
    loss = objective(MODELS["dnn"], label_scale=alpha, weight=gamma, gradient_scale=beta)
    batch = make_batch(len(scores), dtype=torch.float64)
    batch = changed(batch, teacher=torch.tensor(scores, dtype=torch.float64))
    soft = torch.tensor([min(1.0, alpha * score) for score in scores], dtype=torch.float64)
    hidden = loss.model.backbone(batch)
    on_label = bce(loss.model.head(hidden)[:, 0], batch.label)
    on_teacher = bce(loss.distill_head(hidden)[:, 0], soft)
    torch.testing.assert_close(loss(batch), on_label + gamma * on_teacher)


def backbone_and_head(make, beta):
    loss = objective(make, gradient_scale=beta, weight=2.0)
    if isinstance(
        loss.model, DeepFM
    ):  # the wide logit reaches the serving head unweighted: give it no label loss
        batch = changed(BATCH, label=loss.model(BATCH).sigmoid().detach())
    else:
        silence_serving_head(loss)
        batch = BATCH
    found = gradients(loss, loss(batch))
    backbone = {n: g for n, g in found.items() if n.startswith("model.") and not n.startswith("model.head")}
    return backbone, {n: g for n, g in found.items() if n.startswith("distill_head")}


@pytest.mark.parametrize("beta", [0.25, 4.0, 5.0, 0.0])
@of_every_model
def test_the_backbone_gets_the_distillation_gradient_times_beta(make, beta):
    plain, _ = backbone_and_head(make, 1.0)
    scaled, _ = backbone_and_head(make, beta)
    assert any(gradient.abs().max() > 1e-6 for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(scaled[name], beta * gradient, rtol=1e-9, atol=1e-14)
        if beta in (0.25, 4.0) and make is not MODELS["deepfm"]:  # powers of two lose no bits
            assert torch.equal(scaled[name], beta * gradient)


@pytest.mark.parametrize("beta", [0.0, 5.0])
@of_every_model
def test_the_distillation_heads_own_weights_are_not_scaled(make, beta):
    _, plain = backbone_and_head(make, 1.0)
    _, scaled = backbone_and_head(make, beta)
    assert all(torch.equal(scaled[name], plain[name]) for name in plain)
    assert all(gradient.any() for gradient in plain.values())


@of_every_model
def test_the_serving_head_learns_nothing_from_the_fm(make):
    loss = objective(make, label_scale=5.0, weight=10.0, gradient_scale=5.0)
    found = gradients(loss, loss(BATCH))
    other = gradients(loss, loss(changed(BATCH, teacher=1 - BATCH.teacher)))
    alone = gradients(loss, bce(loss.model(BATCH), BATCH.label))
    heads = [name for name in found if name.startswith("model.head")]
    assert heads
    for name in heads:
        assert torch.equal(found[name], other[name])
        torch.testing.assert_close(found[name], alone[name])
    assert any(not torch.equal(found[name], other[name]) for name in found if name not in heads)


@of_every_model
def test_the_distillation_head_learns_nothing_from_the_label(make):
    loss = objective(make)
    found = gradients(loss.distill_head, loss(BATCH))
    other = gradients(loss.distill_head, loss(changed(BATCH, label=1 - BATCH.label)))
    assert all(torch.equal(found[name], other[name]) for name in found)


@of_every_model
def test_the_served_model_has_no_second_head(make):
    loss = objective(make)
    assert loss.model.state_dict().keys() == make().state_dict().keys()
    logits = loss.model.head(loss.model.backbone(BATCH))[:, 0]
    assert torch.equal(loss.model(BATCH), logits)


def after_steps(make, distil, *, steps, sequences=()):
    """Weights of the served model after some steps from seed 7."""
    torch.manual_seed(7)
    model = make(sequences=sequences)
    loss = DistilledLoss(model, DistillConfig(weight=0.0)) if distil else LabelLoss(model)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2, weight_decay=0.01)
    for k in range(steps):
        optimizer.zero_grad()
        loss(make_batch(16, seed=k, past=sequences[0] if sequences else None)).backward()
        optimizer.step()
    return copy.deepcopy(model.state_dict())


@pytest.mark.parametrize("sequences", [(), (VECTORS,)], ids=["plain", "history"])
@pytest.mark.parametrize("steps", [0, 5])
@of_every_model
def test_distilling_with_weight_zero_is_the_baseline_bit_for_bit(make, steps, sequences):
    plain = after_steps(make, False, steps=steps, sequences=sequences)
    distilled = after_steps(make, True, steps=steps, sequences=sequences)
    assert plain.keys() == distilled.keys()
    assert all(torch.equal(plain[name], distilled[name]) for name in plain)


def test_a_second_head_does_not_disturb_the_dropout_of_the_first():
    def make(sequences):
        return DNN(LAYOUT, DNNConfig(dim=4, hidden=(8,), dropout=0.3), sequences=sequences)

    plain = after_steps(make, False, steps=3)
    distilled = after_steps(make, True, steps=3)
    assert all(torch.equal(plain[name], distilled[name]) for name in plain)


def test_distilling_without_a_teacher_is_refused():
    with pytest.raises(DataError, match="teacher"):
        objective(MODELS["dnn"])(changed(BATCH, teacher=None))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["label_scale", "weight", "gradient_scale"])
def test_unusable_factors_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        DistillConfig(**{name: value})
