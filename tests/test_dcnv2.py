"""DCN-V2: cross layers and structures in NumPy, the degree of the crosses, and two published parameter counts."""

import numpy as np
import pytest
import torch

from model_helpers import LABELLED, LAYOUT, VECTORS
from recfm.models.dcnv2 import CrossNet, DCNv2, DCNv2Config
from zoo_checks import (
    CRITEO,
    FRAPPE,
    affine_relu,
    array,
    check_a_second_head_attaches,
    check_dropout_and_batch_norm,
    check_every_parameter_learns,
    check_one_row_at_a_time,
    check_refused,
    flat_by_hand,
    model_and_batch,
    pooled_by_hand,
    rows_by_hand,
)

STRUCTURES = ["parallel", "stacked", "cross"]


def cross_by_hand(cross, x0):
    """x_{l+1}[i] = x_0[i] (sum_j W[i, j] x_l[j] + b[i]) + x_l[i], W = U V^T where the rank is low."""
    x = x0
    for layer in cross.layers:
        if isinstance(layer, torch.nn.Sequential):
            weight, bias = array(layer[1].weight) @ array(layer[0].weight), array(layer[1].bias)
        else:
            weight, bias = array(layer.weight), array(layer.bias)
        x = np.array(
            [
                x0[i] * (sum(weight[i][j] * x[j] for j in range(len(x))) + bias[i]) + x[i]
                for i in range(len(x))
            ]
        )
    return x


@pytest.mark.parametrize("past", [None, VECTORS, LABELLED], ids=["plain", "vectors", "ids"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("rank", [0, 2])
def test_the_logit_is_a_linear_map_of_crosses_and_the_mlp(structure, rank, past):
    model, batch = model_and_batch(
        "dcnv2",
        3,
        past=past,
        dim=2,
        structure=structure,
        rank=rank,
        cross_layers=2,
        hidden=[5, 4],
        bottom=[3, 6],
    )
    found, rows = array(model(batch)), rows_by_hand(model.embedding, batch)
    for b in range(len(batch)):
        x0 = flat_by_hand(rows[b], pooled_by_hand(model, batch, b))
        crossed = cross_by_hand(model.cross, x0)
        if structure == "cross":
            hidden = crossed
        elif structure == "stacked":
            hidden = affine_relu(model.mlp, crossed)
        else:
            hidden = np.concatenate([crossed, affine_relu(model.mlp, x0)])
        assert found[b] == pytest.approx(float(affine_relu(model.head, hidden)[0]), rel=1e-9)


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_l_crosses_up_to_l_plus_one_features(depth, rank):
    torch.manual_seed(0)
    cross = CrossNet(6, depth, rank=rank).double()
    x, points = torch.randn(2, 6, dtype=torch.float64), range(depth + 3)
    with torch.no_grad():
        values = array(torch.stack([cross(s * x) for s in points]))
    differences = np.diff(values, n=depth + 1, axis=0)
    assert np.abs(differences).max() > 1e-6, "the highest order is reached"
    assert np.abs(np.diff(differences, axis=0)).max() < 1e-9 * np.abs(values).max()
    assert not values[0].any(), "no constant term"


def test_a_low_rank_layer_with_full_rank_factors_is_a_full_layer():
    torch.manual_seed(0)
    full, low = CrossNet(4, 1), CrossNet(4, 1, rank=4)
    with torch.no_grad():
        low.layers[0][0].weight.copy_(torch.eye(4))
        low.layers[0][1].weight.copy_(full.layers[0].weight)
        low.layers[0][1].bias.copy_(full.layers[0].bias)
    x = torch.randn(7, 4)
    torch.testing.assert_close(low(x), full(x))


def test_rows_of_the_wukong_papers_criteo_table_decode_exactly():
    config = DCNv2Config(dim=128, structure="stacked", cross_layers=2, hidden=(2048,) * 4, bottom=(512, 256))
    with torch.device("meta"):
        model = DCNv2(CRITEO, config)
    assert model.flat_width == 27 * 128
    assert sum(p.numel() for p in model.parameters()) == 26_179_364_097


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        # The logs of BARS' DCNv2_frappe_x1_001 and CrossNetv2_frappe_x1_003.
        ({"structure": "parallel", "cross_layers": 4, "hidden": (400,) * 3, "batch_norm": True}, 458_391),
        ({"structure": "cross", "cross_layers": 2}, 74_191),
    ],
    ids=["parallel", "cross"],
)
def test_the_benchmarks_settings_give_its_number_of_parameters(settings, parameters):
    model = DCNv2(FRAPPE, DCNv2Config(dim=10, dropout=0.4, **settings))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("structure", STRUCTURES)
def test_dcnv2_keeps_what_every_model_keeps(structure):
    check_every_parameter_learns("dcnv2", dim=4, structure=structure, hidden=[8], bottom=[5])
    check_one_row_at_a_time("dcnv2", dim=4, structure=structure, batch_norm=True)
    check_a_second_head_attaches("dcnv2", dim=4, structure=structure)
    if structure != "cross":
        check_dropout_and_batch_norm("dcnv2", dim=4, structure=structure)


def test_low_rank_layers_learn_too():
    check_every_parameter_learns("dcnv2", dim=4, rank=3)


def test_the_cross_network_alone_has_no_mlp():
    assert not [n for n, _ in DCNv2(LAYOUT, DCNv2Config(structure="cross")).named_parameters() if "mlp" in n]


@pytest.mark.parametrize(
    "wrong",
    [{name: 0} for name in ("dim", "cross_layers")]
    + [{"rank": -1}, {"hidden": ()}, {"bottom": (0,)}, {"structure": "serial"}, {"dropout": 1.5}],
    ids=str,
)
def test_unusable_sizes_are_refused(wrong):
    check_refused(DCNv2Config, wrong)
