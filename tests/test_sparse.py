"""Sparse embedding tables: the same forward pass and gradients as dense ones, optimisers that touch a batch's rows."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from model_helpers import IDS, LABELLED, LABELLED_HISTORY, LAYOUT, make_batch, planted_table, table_batches
from recfm.data.batch import Jagged
from recfm.errors import ConfigError, DataError, SchemaError
from recfm.layout import Column, Layout, SequenceLayout
from recfm.models.dnn import DNN, DNNConfig
from recfm.models.features import FeatureEmbedding
from recfm.models.wukong import Wukong, WukongConfig
from recfm.train.optim import build_optimizers
from recfm.train.sparse import ROW_OPTIMIZERS, RowAdam, RowwiseAdagrad, row_optimizer
from recfm.train.step import Step
from recfm.train.trainer import TrainConfig, Trainer

UNHURRIED = settings(deadline=None, max_examples=30)
SEEN = SequenceLayout(name="seen", ids=("item",), labels=True, length=LABELLED_HISTORY.length)
TABLE = "embedding.weight"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pair(past=LABELLED, dtype=torch.float32):
    """The same Wukong with dense and with sparse tables."""
    sizes = WukongConfig(dim=4, layers=1, fm_rows=2, linear_rows=2, rank=2, fm_hidden=(4,), hidden=(4,))
    dense = Wukong(LAYOUT, sizes, viewer="fm", sequences=[past]).to(dtype)
    with torch.no_grad():
        dense.embedding.weight.mul_(20)
    sparse = copy.deepcopy(dense)
    sparse.embedding.sparse = True
    return dense, sparse


def gradient(model):
    grad = model.embedding.weight.grad
    return grad.to_dense() if grad.is_sparse else grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("past", [LABELLED, IDS])
def test_logits_are_the_same_bits_and_gradients_equal(past, dtype):
    dense, sparse = pair(past, dtype)
    batch = make_batch(9, past=past, dtype=dtype)
    logits = [model(batch) for model in (dense, sparse)]
    assert torch.equal(*logits)
    for out in logits:
        (out * torch.arange(9)).sum().backward()
    assert sparse.embedding.weight.grad.layout == torch.sparse_coo
    torch.testing.assert_close(gradient(sparse), gradient(dense))
    for (name, p), q in zip(dense.named_parameters(), sparse.parameters(), strict=True):
        if name != TABLE:
            assert torch.equal(p.grad, q.grad), name


def test_gradients_of_several_batches_add_up_and_zero_grad_forgets_them():
    dense, sparse = pair()
    batches = [make_batch(9, past=LABELLED, seed=seed) for seed in (1, 2)]
    for model in (dense, sparse):
        model(make_batch(5, past=LABELLED)).sum().backward()
    optimizer, _ = row_optimizer("rowwise_adagrad", sparse, lr=0.1)
    optimizer.zero_grad()
    assert sparse.embedding.weight.grad is None
    model_before = sparse.embedding.weight.detach().clone()
    optimizer.step()  # there is nothing to do
    assert torch.equal(sparse.embedding.weight, model_before)
    dense.zero_grad()
    sparse.zero_grad()
    for model in (dense, sparse):
        for batch in batches:
            model(batch).sum().backward()
    torch.testing.assert_close(gradient(sparse), gradient(dense))


def table_of(n, dim, seed=0):
    layout = Layout(categorical=(Column(name="item", rows=n, side="item"),), tokens=(), numeric=())
    torch.manual_seed(seed)
    return FeatureEmbedding(layout, dim, viewer="fm", std=1.0, sparse=True)


@UNHURRIED
@given(st.sampled_from(sorted(ROW_OPTIMIZERS)), st.sampled_from([torch.float32, torch.float64]), st.data())
def test_steps_are_those_of_the_oracle_in_rust_and_in_torch(name, dtype, data):
    n, dim, lr, l2 = 12, 3, 0.1, data.draw(st.sampled_from([0.0, 0.2]))
    embedding = table_of(n, dim).to(dtype)
    optimizer, _ = row_optimizer(name, embedding, lr=lr, l2=l2)
    weight = embedding.weight.detach().numpy().copy()
    state = [np.zeros(n)] if name == "rowwise_adagrad" else [np.zeros((n, dim))] * 2
    for step in range(1, 4):
        ids = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), max_size=20)), dtype=torch.int32)
        pull = torch.randn(len(ids), dim, dtype=dtype)
        optimizer.zero_grad()
        (embedding.lookup(["item"], ids.unsqueeze(1)) * pull).sum().backward()
        optimizer.step()
        if name == "rowwise_adagrad":
            weight, *state = oracles.rowwise_adagrad(weight, *state, ids.numpy(), pull.numpy(), lr=lr, l2=l2)
        else:
            options = {"lr": lr, "l2": l2, "step": step}
            weight, *state = oracles.adam_rows(weight, *state, ids.numpy(), pull.numpy(), **options)
        np.testing.assert_allclose(embedding.weight.detach().numpy(), weight, rtol=1e-3, atol=1e-4)


def test_adam_on_rows_is_torchs_sparse_adam():
    ours = table_of(20, 4)
    theirs = torch.nn.Embedding(20, 4, sparse=True)
    theirs.weight.data.copy_(ours.weight.detach())
    optimizers = RowAdam([ours.weight], lr=0.05), torch.optim.SparseAdam([theirs.weight], lr=0.05)
    for _ in range(5):
        ids, pull = torch.randint(0, 20, (30,)), torch.randn(30, 4)
        for rows in (ours.lookup(["item"], ids.unsqueeze(1)), theirs(ids)):
            (rows * pull).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [RowwiseAdagrad, RowAdam])
def test_state_goes_through_a_state_dict_bit_by_bit(kind):
    def steps(embedding, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            embedding.lookup(["item"], torch.randint(0, 9, (7, 1))).square().sum().backward()
            optimizer.step()

    whole, half = table_of(9, 4), table_of(9, 4)
    torch.manual_seed(1)
    steps(whole, kind([whole.weight], lr=0.1), 6)
    torch.manual_seed(1)
    first = kind([half.weight], lr=0.1)
    steps(half, first, 3)
    saved = copy.deepcopy(first.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in saved["state"][0].values())
    second = kind([half.weight], lr=9.0)
    second.load_state_dict(saved)
    steps(half, second, 3)
    assert torch.equal(whole.weight, half.weight)


def test_a_table_is_trained_without_a_gradient_of_its_size():
    embedding = table_of(3_000_000, 2)
    optimizer = RowwiseAdagrad([embedding.weight], lr=0.1)
    before = embedding.weight.detach().clone()
    embedding.lookup(["item"], torch.tensor([[7], [2_999_999], [7]])).sum().backward()
    assert embedding.weight.grad._values().shape == (3, 2)
    optimizer.step()
    assert (embedding.weight != before).any(dim=1).nonzero().flatten().tolist() == [7, 2_999_999]
    assert optimizer.state[embedding.weight]["sum"].shape == (3_000_000,)


def test_first_values_follow_torchs_seed():
    first, same, other = table_of(100, 4, seed=1), table_of(100, 4, seed=1), table_of(100, 4, seed=2)
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)


def test_clipping_leaves_tables_out():
    batch = make_batch(9)
    moved = []
    for clip_norm in (0.0, 1e-9):
        torch.manual_seed(0)
        model = DNN(LAYOUT, viewer="fm")
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        config = TrainConfig(
            optimizer="sgd", embedding_optimizer="rowwise_adagrad", clip_norm=clip_norm, learning_rate=0.1
        )
        step = Step(model, build_optimizers(model, config), config, OneProcess())
        step.update(1e3 * model(batch).sum())
        moved.append({name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()})
    free, clipped = moved
    assert free[TABLE] == clipped[TABLE] > 0.01
    assert all(free[name] > 1e-3 and clipped[name] < 1e-9 for name in free if name != TABLE)


class OneProcess:
    device = torch.device("cpu")

    def wrap(self, module):
        return module


@pytest.mark.parametrize("name", sorted(ROW_OPTIMIZERS))
def test_a_stopped_fit_resumes_bit_by_bit(name, tmp_path):
    periods = planted_table().periods
    config = TrainConfig(
        epochs=2, learning_rate=1e-2, embedding_optimizer=name, embedding_l2=1e-3, checkpoint_every=3
    )

    def fit(folder, on_batch=None, *, resume=False):
        torch.manual_seed(3)
        model = DNN(
            planted_table().encoded.layout, DNNConfig(dim=4, hidden=(8,)), viewer="fm", sequences=[SEEN]
        )
        train, valid = table_batches(periods.vm), table_batches(periods.vm_validation, shuffle=False)
        Trainer(config, folder=folder).fit(model, train, valid, resume=resume, on_batch=on_batch)
        return model

    class PowerCutError(Exception):
        pass

    def cut(done, _total, _loss):
        if done == 5:
            raise PowerCutError

    whole = fit(tmp_path / "whole")
    with pytest.raises(PowerCutError):
        fit(tmp_path / "cut", cut)
    resumed = fit(tmp_path / "cut", resume=True)
    assert whole.embedding.sparse
    for (key, expected), found in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, found), key


def test_ids_beyond_a_table_are_named():
    embedding = FeatureEmbedding(LAYOUT, 3, viewer="vm", sparse=True)
    batch = make_batch(4)
    batch.ids[2, 1] = 5
    with pytest.raises(DataError, match=r"column 'user' holds the id 5 in row 2 of the batch.* 5 rows"):
        embedding(batch)
    batch.ids[2, 1] = 1
    batch.tokens["genres"] = Jagged(values=torch.tensor([1, 6]), offsets=torch.tensor([0, 1, 1, 2, 2]))
    with pytest.raises(DataError, match=r"column 'genres' holds the id 6.* 6 rows"):
        embedding(batch)
    with pytest.raises(DataError, match=r"column 'item' holds the id 7 in row 1.* 7 rows"):
        embedding.lookup(["item"], torch.tensor([[0], [7]]))
    with pytest.raises(SchemaError, match="no table of feature 'secret'"):
        embedding.lookup(["secret"], torch.tensor([[0]]))


def test_what_would_build_a_dense_gradient_is_refused():
    embedding = table_of(9, 4)
    with pytest.raises(ConfigError, match=r"'item' is sparse: use lookup\(\)"):
        embedding.table("item")
    with torch.no_grad():
        assert embedding.table("item").shape == (9, 4)
    embedding.weight.sum().backward()
    for kind in (RowwiseAdagrad, RowAdam):
        with pytest.raises(ConfigError, match=rf"{kind.__name__} updates .* shape \[9, 4\] has a dense one"):
            kind([embedding.weight]).step()


def test_settings_that_cannot_be_are_refused(monkeypatch):
    embedding = table_of(9, 4)
    with pytest.raises(
        ConfigError, match="embedding_optimizer is 'adagrad': use rowwise_adagrad or adam_rows"
    ):
        row_optimizer("adagrad", embedding, lr=0.1)
    with pytest.raises(
        ConfigError, match="embedding_optimizer is 'adagrad': use dense, rowwise_adagrad, adam_rows"
    ):
        TrainConfig(embedding_optimizer="adagrad")
    with pytest.raises(ConfigError, match="no FeatureEmbedding"):
        row_optimizer("adam_rows", torch.nn.Linear(2, 2), lr=0.1)
    with pytest.raises(ConfigError, match=r"lr is -0\.1"):
        RowwiseAdagrad([embedding.weight], lr=-0.1)
    with pytest.raises(ConfigError, match=r"betas is \(0\.9, 1\.0\)"):
        RowAdam([embedding.weight], betas=(0.9, 1.0))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="2 processes train together"):
        row_optimizer("adam_rows", embedding, lr=0.1)


def test_more_rows_than_int32_are_refused():
    huge = tuple(Column(name=f"c{i}", rows=2**30, side="item") for i in range(2))
    with pytest.raises(SchemaError, match="2147483648 embedding rows together"):
        FeatureEmbedding(Layout(categorical=huge, tokens=(), numeric=()), 1, viewer="fm")
