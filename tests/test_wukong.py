"""Wukong: the exact checks 1 to 5 and 8 of the method notes, and the whole model against plain loops."""

import math

import pytest
import torch
from torch import nn

from model_helpers import LABELLED, LAYOUT, make_batch
from recfm.errors import ConfigError
from recfm.models.wukong import PRESETS, Wukong, WukongConfig, WukongLayer

B = 5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def config(**sizes):
    return WukongConfig(**({"dim": 4, "fm_rows": 3, "linear_rows": 2, "rank": 2, "fm_hidden": (7,)} | sizes))


def layer(rows, **sizes):
    """A layer in float64 whose norms have affine parts that matter."""
    built = WukongLayer(rows, config(**sizes)).double()
    for norm in (built.norm_fm, built.norm):
        nn.init.normal_(norm.weight, mean=1.0)
        nn.init.normal_(norm.bias)
    return built


def rows_of(n, dim=4):
    return torch.randn(B, n, dim, dtype=torch.float64)


def interactions(built, x):
    """What the FM block hands to its norm, as [B, n, k]."""
    caught = []
    handle = built.norm_fm.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    built(x)
    handle.remove()
    return caught[0].view(B, x.shape[1], -1)


# ---- one layer -------------------------------------------------------------------------------------------------


def test_the_optimised_fm_equals_the_plain_one_projected():
    x, built = rows_of(6), layer(6)
    plain = torch.stack([torch.stack([torch.stack([a @ b for b in e]) for a in e]) for e in x])  # X X^T
    torch.testing.assert_close(interactions(built, x), plain @ built.projection.T)


def test_with_the_identity_as_projection_the_fm_is_all_inner_products():
    x, built = rows_of(6), layer(6, rank=6)
    with torch.no_grad():
        built.projection.copy_(torch.eye(6))
    torch.testing.assert_close(interactions(built, x), x @ x.transpose(1, 2))


@pytest.mark.parametrize(("rows", "projected"), [(6, True), (5, False), (4, True), (1, True)])
def test_a_residual_projection_only_where_the_number_of_rows_changes(rows, projected):
    built = layer(rows)
    assert (built.residual is not None) == projected
    assert built(rows_of(rows)).shape == (B, 5, 4)


@pytest.mark.parametrize("rows", [5, 8])
def test_a_layer_equals_its_formula(rows):
    x, built = rows_of(rows), layer(rows)
    flat = (x @ x.transpose(1, 2) @ built.projection.T).reshape(B, -1)
    flat = nn.functional.layer_norm(flat, flat.shape[1:], built.norm_fm.weight, built.norm_fm.bias)
    hidden = (flat @ built.mlp.hidden_0[0].weight.T + built.mlp.hidden_0[0].bias).clamp(min=0)
    fmb = (hidden @ built.mlp.out.weight.T + built.mlp.out.bias).view(B, 3, 4)
    lcb = torch.stack([built.compress @ example for example in x])
    residual = x if rows == 5 else torch.stack([built.residual @ example for example in x])
    total = torch.cat([fmb, lcb], dim=1) + residual
    mean, variance = total.mean(dim=2, keepdim=True), total.var(dim=2, unbiased=False, keepdim=True)
    out = (total - mean) / (variance + 1e-5).sqrt() * built.norm.weight + built.norm.bias
    torch.testing.assert_close(built(x), out)


def test_linear_compression_by_the_identity_keeps_the_rows():
    x, built = rows_of(6), layer(6, linear_rows=6)
    built.norm = nn.Identity()
    with torch.no_grad():
        built.compress.copy_(torch.eye(6))
        built.residual.zero_()
    assert torch.equal(built(x)[:, 3:], x)


def test_rows_out_of_a_layer_are_standardised_over_d():
    built = WukongLayer(6, config(dim=16)).double()
    out = built(100 * rows_of(6, dim=16))
    torch.testing.assert_close(out.mean(dim=2), torch.zeros(B, 5).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(out.var(dim=2, unbiased=False), torch.ones(B, 5).double(), atol=1e-4, rtol=0)


def test_permuting_rows_with_everything_that_reads_them_changes_nothing():
    x, built, order = rows_of(7), layer(7), torch.randperm(7)
    before = built(x)
    blocks = (torch.arange(7 * 2).view(7, 2)[order]).flatten()  # the n-blocks of the flattened FM
    with torch.no_grad():
        for weight in (built.projection, built.compress, built.residual):
            weight.copy_(weight[:, order])
        first = built.mlp.hidden_0[0].weight
        first.copy_(first[:, blocks])
        built.norm_fm.weight.copy_(built.norm_fm.weight[blocks])
        built.norm_fm.bias.copy_(built.norm_fm.bias[blocks])
    torch.testing.assert_close(built(x[:, order]), before)
    assert (built(x) - before).abs().max() > 1e-3


# ---- orders of interaction -------------------------------------------------------------------------------------


def without_norms(built):
    """A layer made of polynomials: no LN, and one linear map without bias in place of the FMB's MLP."""
    out = built.mlp.out.out_features
    built.mlp = nn.Linear(built.norm_fm.normalized_shape[0], out, bias=False).double()
    built.norm_fm = built.norm = nn.Identity()
    return built


def finite_difference(values):
    """The highest difference of evenly spaced values, relative to the size of its terms."""
    m = len(values) - 1
    terms = [(-1) ** (m - j) * math.comb(m, j) * value for j, value in enumerate(values)]
    return (sum(terms).abs() / sum(term.abs() for term in terms)).max().item()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_layer_i_holds_interactions_up_to_order_two_to_the_i_and_no_higher(depth):
    x = rows_of(6)
    model = nn.Sequential(*(without_norms(layer(6 if i == 0 else 5)) for i in range(depth)))
    order = 2**depth
    with torch.no_grad():
        values = [model(s / order * x) for s in range(order + 2)]
    assert not values[0].any(), "a polynomial without constant term"
    assert finite_difference(values) < 1e-10
    assert finite_difference(values[:-1]) > 1e-6, "and the highest order is reached"


# ---- parameters and the whole model ----------------------------------------------------------------------------


def layer_parameters(n, c):
    """Section 4 of the method notes: static Y, biases in the MLP, m hidden layers of width h."""
    m, h = len(c.fm_hidden), c.fm_hidden[0]
    n_out, n_f, n_l, k, d = c.fm_rows + c.linear_rows, c.fm_rows, c.linear_rows, c.rank, c.dim
    mlp = (n * k * h + h) + (m - 1) * (h * h + h) + (h * n_f * d + n_f * d)
    return n * k + mlp + n_l * n + (n_out * n if n != n_out else 0) + 2 * n * k + 2 * d


@pytest.mark.parametrize("n", [5, 9])
@pytest.mark.parametrize("hidden", [(7,), (6, 6), (8, 8, 8)])
def test_a_layer_has_as_many_parameters_as_the_formula_says(n, hidden):
    sizes = config(fm_hidden=hidden, rank=3)
    built = WukongLayer(n, sizes)
    assert sum(p.numel() for p in built.parameters()) == layer_parameters(n, sizes)


@pytest.mark.parametrize("sequences", [[], [LABELLED]], ids=["plain", "history"])
def test_only_the_first_layer_changes_the_number_of_rows(sequences):
    sizes = config(layers=3, hidden=(6, 5), history_rows=2)
    model = Wukong(LAYOUT, sizes, sequences=sequences)
    n = 7 + 2 * len(sequences)  # four categorical, two token rows, one numeric row
    shapes = []
    for built in model.layers:
        built.register_forward_hook(lambda _m, inputs, out: shapes.append((inputs[0].shape, out.shape)))
    model(make_batch(B, past=sequences[0] if sequences else None))
    assert shapes == [((B, n, 4), (B, 5, 4)), ((B, 5, 4), (B, 5, 4)), ((B, 5, 4), (B, 5, 4))]
    assert [built.residual is not None for built in model.layers] == [True, False, False]
    counted = [sum(p.numel() for p in built.parameters()) for built in model.layers]
    assert counted == [layer_parameters(rows, sizes) for rows in (n, 5, 5)]


@pytest.mark.parametrize("sequences", [[], [LABELLED]], ids=["plain", "history"])
def test_the_logit_is_an_mlp_over_the_last_layers_rows(sequences):
    model = Wukong(LAYOUT, config(layers=2, hidden=(6, 5)), sequences=sequences).double()
    nn.init.normal_(model.embedding.weight)
    batch = make_batch(B, past=sequences[0] if sequences else None, dtype=torch.float64)
    x = model.embedding(batch)
    for history in model.histories:
        pooled = history(batch, x, model.embedding)
        extra = pooled @ model.history_rows.weight.T + model.history_rows.bias
        x = torch.cat([x, extra.view(B, 2, 4)], dim=1)
    for built in model.layers:
        x = built(x)
    hidden = x.flatten(1)
    for block in model.mlp:
        hidden = (hidden @ block[0].weight.T + block[0].bias).clamp(min=0)
    torch.testing.assert_close(model(batch), (hidden @ model.head.weight.T + model.head.bias)[:, 0])


def test_every_parameter_learns():
    model = Wukong(LAYOUT, config(layers=2, hidden=(6,)), sequences=[LABELLED])
    nn.init.normal_(model.embedding.weight)
    model(make_batch(60, past=LABELLED)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("n", [20, 200])
def test_row_maps_start_with_variance_one_over_n(n):
    sizes = config(rank=40, linear_rows=40)
    for weight in (WukongLayer(n, sizes).projection, WukongLayer(n, sizes).compress):
        assert weight.var().item() * n == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize(
    "wrong",
    [{name: 0} for name in ("dim", "layers", "fm_rows", "linear_rows", "rank", "history_rows")]
    + [{"hidden": ()}, {"fm_hidden": (0,)}, {"dropout": 1.5}],
    ids=str,
)
def test_unusable_sizes_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        WukongConfig(**wrong)


# ---- attentive Y -----------------------------------------------------------------------------------------------


def test_an_attentive_projection_is_made_from_each_examples_own_rows():
    x, built = rows_of(6), layer(6, attentive_rows=3, attentive_hidden=(5,))
    made = built.attentive
    for b in range(B):
        rows = torch.stack([sum(made.compress[r, i] * x[b, i] for i in range(6)) for r in range(3)])
        first, last = made.mlp.hidden_0[0], made.mlp.out
        hidden = (first.weight @ rows.flatten() + first.bias).clamp(min=0)
        y_kn = (last.weight @ hidden + last.bias).view(2, 6)
        torch.testing.assert_close(interactions(built, x)[b], x[b] @ x[b].T @ y_kn.T)


def test_a_static_and_an_attentive_model_differ_only_in_the_projection():
    static, attentive = WukongLayer(6, config()), WukongLayer(6, config(attentive_rows=3))
    names = {name for name, _ in static.named_parameters()} ^ {n for n, _ in attentive.named_parameters()}
    assert {name.split(".")[0] for name in names} == {"projection", "attentive"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_grow_in_parameters(name):
    order = ["xs", "s", "m", "l", "xl", "criteo"]
    sizes = []
    for preset in order[: order.index(name) + 1][-2:]:
        with torch.device("meta"):
            model = Wukong(LAYOUT, WukongConfig(**PRESETS[preset]))
        sizes.append(sum(p.numel() for p in model.layers.parameters()))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)
