"""Parameters and FLOPs: formulas of each model worked out by hand, two published figures, and that nothing changes."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from model_helpers import COUNTS, IDS, LABELLED, LAYOUT, VECTORS, make_batch
from recfm.data.batch import Batch
from recfm.errors import ConfigError, DataError
from recfm.history.tap import Tap
from recfm.models.count import count
from recfm.models.dcnv2 import DCNv2, DCNv2Config
from recfm.models.dlrm import DLRM, DLRMConfig
from recfm.models.fm import FM
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.wukong import Wukong, WukongConfig
from recfm.models.xdeepfm import XDeepFM, XDeepFMConfig
from recfm.models.zoo import MODELS, build_model
from recfm.train.losses import LabelLoss
from zoo_checks import CRITEO

N = 7  # rows of LAYOUT for a foundation model: four categorical, two token rows, one of all numbers
NUMBERS = 3


def chain(*widths):
    """Multiply-adds of linear maps in a row."""
    return sum(a * b for a, b in itertools.pairwise(widths))


def biased(*widths):
    """Parameters of linear maps with biases in a row."""
    return sum(a * b + b for a, b in itertools.pairwise(widths))


def tables(dim):
    """Parameters of LAYOUT's tables."""
    return (7 + 5 + 6 + 4 + 6 + 4) * dim


def trained(multiply_adds, fed_by_data):
    """Training FLOPs: six for each multiply-add, less two for each of a layer whose input needs no gradient."""
    return 6 * multiply_adds - 2 * fed_by_data


def numeric_row(dim):
    """The MLP that makes one row of all numbers, of width 2 d: its widths."""
    return (NUMBERS, 2 * dim, dim)


# ---- formulas --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "hidden"), [(4, (8,)), (6, (9, 5, 3))])
@pytest.mark.parametrize("rows", [1, 5])
def test_dnn(dim, hidden, rows):
    model = build_model("dnn", LAYOUT, {"dim": dim, "hidden": list(hidden), "batch_norm": True})
    cost = count(model, make_batch(rows))
    top, first = (N * dim, *hidden, 1), numeric_row(dim)
    assert cost.embedding_parameters == tables(dim)
    assert cost.dense_parameters == biased(*top) + biased(*first) + 2 * sum(hidden)
    assert cost.multiply_adds == chain(*top) + chain(*first)
    assert cost.training_flops == trained(cost.multiply_adds, NUMBERS * 2 * dim)


@pytest.mark.parametrize("structure", ["parallel", "stacked", "cross"])
@pytest.mark.parametrize(("rank", "bottom"), [(0, ()), (3, (5, 7))])
def test_dcnv2(structure, rank, bottom):
    config = DCNv2Config(dim=4, structure=structure, cross_layers=2, rank=rank, hidden=(9, 5), bottom=bottom)
    cost = count(DCNv2(LAYOUT, config, viewer="fm"), make_batch(6))
    width, first = N * 4, (NUMBERS, *(bottom or (8,)), 4)
    crosses = 2 * (2 * width * rank if rank else width * width)
    mlp = () if structure == "cross" else (width, 9, 5)
    head = {"cross": width, "stacked": 5, "parallel": width + 5}[structure]
    assert cost.embedding_parameters == tables(4)
    assert cost.dense_parameters == crosses + 2 * width + biased(*mlp) + head + 1 + biased(*first)
    assert cost.multiply_adds == crosses + chain(*mlp) + head + chain(*first)
    assert cost.training_flops == trained(cost.multiply_adds, NUMBERS * first[1])


@pytest.mark.parametrize("interaction", ["dot", "cat", "sum"])
def test_dlrm(interaction):
    config = DLRMConfig(dim=4, bottom=(6, 5), hidden=(9, 3), interaction=interaction)
    cost = count(DLRM(LAYOUT, config, viewer="fm"), make_batch(6))
    inputs = {"dot": N * (N - 1) // 2 + 4, "cat": N * 4, "sum": 4}[interaction]
    products = N * 4 * N if interaction == "dot" else 0
    first, top = (NUMBERS, 6, 5, 4), (inputs, 9, 3, 1)
    assert cost.dense_parameters == biased(*first) + biased(*top)
    assert cost.multiply_adds == chain(*first) + products + chain(*top)
    assert cost.training_flops == trained(cost.multiply_adds, NUMBERS * 6)


@pytest.mark.parametrize(
    "sizes",
    [
        {"layers": 1, "fm_rows": 3, "linear_rows": 4, "rank": 2, "fm_hidden": (9,)},
        {"layers": 3, "fm_rows": 5, "linear_rows": 1, "rank": 3, "fm_hidden": (6, 6)},
        {"layers": 2, "fm_rows": 4, "linear_rows": 4, "rank": 1, "fm_hidden": (5, 5, 5)},
    ],
    ids=str,
)
def test_wukong(sizes):
    """Section 4 of the method notes: static Y, a residual projection where the number of rows changes."""
    c = WukongConfig(dim=4, hidden=(10, 6), **sizes)
    cost = count(Wukong(LAYOUT, c), make_batch(6))
    d, k, n_out, h, m = c.dim, c.rank, c.fm_rows + c.linear_rows, c.fm_hidden[0], len(c.fm_hidden)
    operations = parameters = 0
    for n in (N, *[n_out] * (c.layers - 1)):
        changes = n != n_out
        operations += 2 * n * d * k + n * k * h + (m - 1) * h * h + h * c.fm_rows * d
        operations += c.linear_rows * n * d + (n_out * n * d if changes else 0)
        parameters += n * k + (n * k * h + h) + (m - 1) * (h * h + h) + (h * c.fm_rows * d + c.fm_rows * d)
        parameters += c.linear_rows * n + (n_out * n if changes else 0) + 2 * n * k + 2 * d
    top, first = (n_out * d, 10, 6, 1), numeric_row(d)
    assert cost.dense_parameters == parameters + biased(*top) + biased(*first)
    assert cost.multiply_adds == operations + chain(*top) + chain(*first)
    assert cost.training_flops == trained(cost.multiply_adds, NUMBERS * 2 * d)


def test_xdeepfm_and_factorization_machines():
    config = XDeepFMConfig(dim=4, cin=(5, 3), hidden=(9,))
    cost = count(XDeepFM(LAYOUT, config, viewer="fm"), make_batch(6))
    cin = 4 * (N * N * 5 + 5 * N * 3)
    assert cost.multiply_adds == cin + chain(N * 4, 9) + 5 + 3 + 9 + chain(*numeric_row(4))
    assert cost.embedding_parameters == tables(4) + tables(1) + NUMBERS
    assert count(FM(LAYOUT), make_batch(6)).multiply_adds == 0, "an FM multiplies element by element"
    fields = N - 1 + NUMBERS  # each number is one; all pairs are one square of blocks
    found = count(build_model("fmfm", LAYOUT, {"dim": 4}), make_batch(6)).multiply_adds
    assert found == (fields * 4) ** 2


@pytest.mark.parametrize(
    "past", [VECTORS, IDS, LABELLED, COUNTS], ids=["vectors", "ids", "labelled", "counts"]
)
def test_history(past):
    """What the encoder adds to a DNN: projections of events and query, the scoring MLP and the weighted sum."""
    h, a, d, items = 6, 5, 4, 2  # the vertical model sees the item's id and genres
    history = HistoryEncoderConfig(width=h, attention_hidden=a)
    with_past = build_model(
        "dnn", LAYOUT, {"dim": d, "hidden": [8]}, viewer="vm", sequences=[past], history=history
    )
    plain = build_model("dnn", LAYOUT, {"dim": d, "hidden": [8]}, viewer="vm")
    batch = make_batch(3, past=past, lengths=[5, 0, 2])
    added = count(with_past, batch).multiply_adds - count(plain, batch).multiply_adds - h * 8
    if past.counts_only:
        assert added == 2 * h
    else:
        event = past.dim or d * (len(past.ids) + past.labels)
        assert added == 5 * (event * h + 2 * h * a + a + h) + items * d * h + h * a


# ---- the published figures -------------------------------------------------------------------------------------


def meta_batch(layout, rows):
    return Batch(
        ids=torch.zeros(rows, len(layout.categorical), dtype=torch.int32),
        numeric=torch.zeros(rows, len(layout.numeric)),
        label=torch.zeros(rows),
        user=torch.zeros(rows),
        time=torch.zeros(rows),
        row=torch.zeros(rows),
    )


def test_the_wukong_papers_criteo_rows():
    with torch.device("meta"):
        dlrm = DLRM(CRITEO, DLRMConfig(dim=128, bottom=(512, 256), hidden=(512, 512)))
        sizes = DCNv2Config(
            dim=128, structure="stacked", cross_layers=2, hidden=(2048,) * 4, bottom=(512, 256)
        )
        dcnv2, batch = DCNv2(CRITEO, sizes), meta_batch(CRITEO, 4)
        found = count(dlrm, batch)
        assert (found.parameters, found.multiply_adds) == (26_136_307_201, 771_712)
        assert found.embedding_parameters == 204_184_585 * 128
        assert found.training_flops == 4_616_960  # printed: 4.62 MFLOP
        found = count(dcnv2, batch)
        assert found.parameters == 26_179_364_097
        assert found.training_flops == 6 * 43_721_216 - 2 * 13 * 512
        assert found.training_flops == pytest.approx(262.35e6, rel=2e-4)  # printed, above what the sizes give


# ---- what it works on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_of_the_zoo_can_be_counted(name):
    model = build_model(name, LAYOUT, sequences=[LABELLED])
    batch = make_batch(4, past=LABELLED)
    cost = count(model, batch)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert 2 * cost.forward_flops < cost.training_flops <= 3 * cost.forward_flops
    if name in ("deepfm", "dnn", "wukong"):  # the loss adds no product
        assert count(LabelLoss(model), batch).training_flops == cost.training_flops


class Over(nn.Module):
    """Any function of a batch's numbers [B, 3] with some parameters."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, batch):
        return self.run(self, batch.numeric)


def over(forward, **parts):
    return count(Over(forward, **parts), make_batch(4))


def test_products_of_every_kind_are_counted():
    grid, vector = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(3))
    assert over(lambda m, x: x @ m.w, w=grid).multiply_adds == 15
    assert over(lambda m, x: torch.einsum("bi,io->bo", x, m.w), w=grid).multiply_adds == 15
    assert over(lambda m, x: x @ m.w, w=vector).multiply_adds == 3
    assert over(lambda m, x: torch.addmv(x[:, 0], x, m.w), w=vector).multiply_adds == 3
    assert over(lambda m, x: x[:, 0] @ x[:, 1] * m.w, w=vector).multiply_adds == 1
    assert over(lambda m, x: torch.bmm(x[:, :, None], x[:, None]) * m.w, w=vector).multiply_adds == 9
    assert over(lambda m, x: x * m.w, w=vector).multiply_adds == 0
    assert over(lambda m, x: m.c(x.unsqueeze(1)), c=nn.Conv1d(1, 2, 3)).multiply_adds == 6


def test_attention_and_recurrent_layers_are_counted():
    def attend(module, x):
        rows = module.up(x.unsqueeze(2))  # [B, 3, 8]
        return functional.scaled_dot_product_attention(rows, rows, rows)

    cost = over(attend, up=nn.Linear(1, 8))
    assert cost.multiply_adds == 3 * 8 + 2 * 3 * 3 * 8
    assert cost.training_flops > 2.5 * cost.forward_flops

    heads = nn.MultiheadAttention(8, 2, batch_first=True)
    cost = over(lambda m, x: m.heads(*[m.up(x.unsqueeze(2))] * 3)[0], up=nn.Linear(1, 8), heads=heads)
    assert cost.multiply_adds == 3 * 8 + 4 * 3 * 8 * 8 + 2 * 3 * 3 * 8
    for kind, gates in ((nn.GRU, 3), (nn.LSTM, 4)):
        cost = over(lambda m, x: m.cells(x.unsqueeze(2))[0], cells=kind(1, 5, batch_first=True))
        assert cost.multiply_adds == 3 * gates * (5 + 25)
        assert 2 * cost.forward_flops < cost.training_flops <= 3 * cost.forward_flops


def test_only_gradients_that_training_needs_are_counted():
    layers = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 5)}
    assert over(lambda m, x: m.b(m.a(x)), **layers).training_flops == 2 * (3 * 32 - 12)
    layers["a"].requires_grad_(
        requires_grad=False
    )  # frozen: no weight gradient there, no input gradient above it
    assert over(lambda m, x: m.b(m.a(x)), **layers).training_flops == 2 * (12 + 2 * 20)
    layers["b"].requires_grad_(requires_grad=False)
    assert over(lambda m, x: m.b(m.a(x)), **layers).training_flops == 2 * 32


def test_a_table_of_its_own_kind_ends_the_backward_pass():
    class Table(nn.Module):
        """Looks rows up by indexing, which no hook on lookups sees."""

        is_embedding_table = True

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(9, 4))

        def forward(self, ids):
            return self.weight[ids]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.up = Table(), nn.Linear(4, 6)

        def forward(self, batch):
            return self.up(self.table(batch.ids[:, 0].long()))

    cost = count(Model(), make_batch(4))
    assert (cost.embedding_parameters, cost.dense_parameters) == (36, 30)
    assert cost.training_flops == 6 * 24


# ---- modules ---------------------------------------------------------------------------------------------------


def test_the_parts_add_up_and_are_named_as_the_model_names_them():
    model = Wukong(LAYOUT, WukongConfig(dim=4, layers=2), sequences=[LABELLED])
    cost = count(model, make_batch(4, past=LABELLED))
    assert list(cost.modules) == [name for name, _ in model.named_modules()]
    top = [name for name, _ in model.named_children()]
    assert sum(cost.modules[name].multiply_adds for name in top) == cost.modules[""].multiply_adds
    assert sum(cost.modules[name].dense_parameters for name in top) == cost.dense_parameters
    inner = ("layers.0.mlp", "layers.1.mlp")
    assert all(cost.modules[name].multiply_adds > 0 for name in inner)
    assert cost.modules["layers.0.norm"].multiply_adds == 0
    assert cost.modules["histories"].multiply_adds == cost.modules["histories.0"].multiply_adds > 0
    assert cost.modules["embedding"].embedding_parameters == tables(4)


def test_the_table_has_a_line_for_each_part():
    lines = count(build_model("dnn", LAYOUT, {"hidden": [8, 4]}), make_batch(4)).table(depth=2).splitlines()
    assert lines[0].split() == ["module", "dense", "embedding", "multiply-adds"]
    parts = ["(all)", "embedding", "embedding.numeric", "mlp", "mlp.hidden_0", "mlp.hidden_1", "head"]
    assert [line.split()[0] for line in lines[1:]] == parts
    assert lines[-1].split() == ["head", "5", "0", "4"]
    assert len({len(line) for line in lines}) == 1


# ---- nothing changes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_counting_changes_nothing_about_the_model(grad):
    model = build_model("dnn", LAYOUT, {"batch_norm": True, "dropout": 0.5}, sequences=[LABELLED])
    model.train()
    model.mlp.hidden_1.eval()  # a part that someone froze
    batch = make_batch(8, past=LABELLED)
    model(batch).sum().backward()
    before = copy.deepcopy(model)
    modes = {name: m.training for name, m in model.named_modules()}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    hooks = {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in model.named_modules()}
    generator, flags = torch.get_rng_state(), (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled)
    with torch.set_grad_enabled(grad):
        once, again = count(model, batch), count(model, batch)
        assert torch.is_grad_enabled() == grad
    assert once == again
    assert once.training_flops > 2 * once.forward_flops
    assert {name: m.training for name, m in model.named_modules()} == modes
    assert hooks == {
        name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in model.named_modules()
    }
    assert torch.equal(torch.get_rng_state(), generator)
    assert flags == (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled)
    for (name, value), old in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(value, old), name
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters())


def test_a_model_that_fails_is_left_as_it_was():
    model = Over(lambda _m, _x: 1 / 0, part=nn.Linear(2, 2))
    generator = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        count(model, make_batch(4))
    assert model.training
    assert model.part.training
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_model_that_draws_numbers_does_not_move_the_generator():
    generator = torch.get_rng_state()
    model = Over(lambda m, x: m.up(x * torch.rand(())), up=nn.Linear(3, 2))
    after_build = torch.get_rng_state()
    assert not torch.equal(after_build, generator)
    count(model, make_batch(4))
    assert torch.equal(torch.get_rng_state(), after_build)


def test_no_gradient_of_a_table_is_made():
    model, made = build_model("deepfm", LAYOUT, sequences=[LABELLED]), []
    for table in (model.embedding, model.first_order.features, model.histories[0].label):
        table.weight.register_hook(made.append)
    count(model, make_batch(4, past=LABELLED))
    assert made == []


def test_a_tap_on_the_model_still_works():
    model, batch = build_model("dnn", LAYOUT), make_batch(4)
    with Tap(model, ["mlp.hidden_0"]) as tap:
        count(model, batch)
        model(batch)
        assert tap.activations().shape == (4, 64)


# ---- bad input -------------------------------------------------------------------------------------------------


def test_an_empty_batch_is_refused():
    with pytest.raises(DataError, match="no rows"):
        count(build_model("dnn", LAYOUT), make_batch(0))


def test_a_model_without_a_tensor_is_refused():
    with pytest.raises(ConfigError, match="Over gives a tuple"):
        over(lambda _m, x: (x, x))
