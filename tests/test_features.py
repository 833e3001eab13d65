"""From ids to embedding rows: parity with a computation per feature and row, and what a vertical model never sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_helpers import LAYOUT, changed, make_batch
from recfm.data.batch import Jagged
from recfm.errors import SchemaError
from recfm.layout import Column, Layout
from recfm.models.deepfm import DeepFM
from recfm.models.dnn import DNN
from recfm.models.features import FeatureEmbedding
from recfm.models.wukong import Wukong

UNHURRIED = settings(deadline=None, max_examples=40)
SECRETS = ["secret", "notes", "hidden"]  # one categorical, one token, one numeric feature with seen_by="fm"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def seen(columns, viewer):
    return [c for c in columns if viewer == "fm" or c.seen_by == "both"]


def expected_rows(embedding, batch, layout, viewer):
    """[B, n, d], one feature and one row at a time."""
    weight, start, tables = embedding.weight, 0, {}
    for column in seen(layout.categorical, viewer) + seen(layout.tokens, viewer):
        tables[column.name] = weight[start : start + column.rows]
        start += column.rows
    assert start == len(weight)
    examples = []
    for b in range(len(batch)):
        rows = [tables[c.name][batch.ids[b, i]] for i, c in enumerate(layout.categorical) if c.name in tables]
        for column in seen(layout.tokens, viewer):
            jagged = batch.tokens[column.name]
            ids = jagged.values[jagged.offsets[b] : jagged.offsets[b + 1]].tolist()
            total = sum((tables[column.name][i] for i in ids), torch.zeros(weight.shape[1]).to(weight))
            rows.append(total / max(len(ids), 1))
        numbers = [
            batch.numeric[b, i]
            for i, c in enumerate(layout.numeric)
            if c.name in {s.name for s in seen(layout.numeric, viewer)}
        ]
        if numbers:
            first, _, second = embedding.numeric
            hidden = (first.weight @ torch.stack(numbers) + first.bias).clamp(min=0)
            rows.append(second.weight @ hidden + second.bias)
        examples.append(torch.stack(rows))
    return torch.stack(examples)


@pytest.mark.parametrize("viewer", ["fm", "vm"])
def test_rows_equal_a_computation_per_feature(viewer):
    embedding = FeatureEmbedding(LAYOUT, 4, viewer=viewer, std=1.0).double()
    batch = make_batch(9, dtype=torch.float64)
    rows = embedding(batch)
    assert rows.shape == (9, len(embedding), 4)
    torch.testing.assert_close(rows, expected_rows(embedding, batch, LAYOUT, viewer))


columns = st.lists(st.tuples(st.integers(2, 6), st.sampled_from(["both", "fm"])), max_size=3)


@UNHURRIED
@given(columns, columns, columns, st.sampled_from(["fm", "vm"]), st.integers(0, 99))
def test_any_layout_equals_a_computation_per_feature(categorical, tokens, numeric, viewer, seed):
    layout = Layout(
        categorical=tuple(Column(name=f"c{i}", rows=n, side="item", seen_by=s) for i, (n, s) in enumerate(categorical)),
        tokens=tuple(Column(name=f"t{i}", rows=n, side="item", seen_by=s) for i, (n, s) in enumerate(tokens)),
        numeric=tuple(Column(name=f"n{i}", rows=0, side="item", seen_by=s) for i, (_, s) in enumerate(numeric)),
    )  # fmt: skip
    if not seen((*layout.categorical, *layout.tokens, *layout.numeric), viewer):
        return  # refused; tested below
    embedding = FeatureEmbedding(layout, 2, viewer=viewer, std=1.0).double()
    batch = make_batch(4, seed=seed, layout=layout, dtype=torch.float64)
    torch.testing.assert_close(embedding(batch), expected_rows(embedding, batch, layout, viewer))


@UNHURRIED
@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=6))
def test_token_rows_are_means_and_zero_for_an_empty_list(lists):
    embedding = FeatureEmbedding(LAYOUT, 3, viewer="vm", std=1.0).double()
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])])
    values = torch.tensor([i for ids in lists for i in ids], dtype=torch.int32)
    batch = make_batch(len(lists), dtype=torch.float64)
    batch.tokens["genres"] = Jagged(values=values, offsets=torch.tensor(offsets))
    rows = embedding(batch)[:, [c.name for c in embedding.columns].index("genres")]
    for row, ids in zip(rows, lists, strict=True):
        mean = embedding.table("genres")[ids].mean(dim=0) if ids else torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(row, mean)


def test_repeated_tokens_count_as_often_as_they_occur():
    embedding = FeatureEmbedding(LAYOUT, 3, viewer="vm", std=1.0)
    batch = make_batch(1)
    batch.tokens["genres"] = Jagged(
        values=torch.tensor([2, 2, 3], dtype=torch.int32), offsets=torch.tensor([0, 3])
    )
    table = embedding.table("genres")
    torch.testing.assert_close(embedding(batch)[0, 3], (2 * table[2] + table[3]) / 3)


def test_tables_are_views_that_tile_the_fused_one():
    embedding = FeatureEmbedding(LAYOUT, 3, viewer="fm")
    tables = [embedding.table(c.name) for c in (*LAYOUT.categorical, *LAYOUT.tokens)]
    assert torch.equal(torch.cat(tables), embedding.weight)
    assert all(
        t.untyped_storage().data_ptr() == embedding.weight.untyped_storage().data_ptr() for t in tables
    )
    with pytest.raises(SchemaError, match="nobody"):
        embedding.table("nobody")


def change(batch, name):
    """The batch with every value of one feature changed."""
    if name in batch.tokens:
        values = torch.tensor([1, 2, 3, 1] * len(batch), dtype=torch.int32)
        other = Jagged(values=values, offsets=4 * torch.arange(len(batch) + 1))
        return changed(batch, tokens=batch.tokens | {name: other})
    names = [c.name for c in LAYOUT.categorical]
    if name in names:
        ids = batch.ids.clone()
        i = names.index(name)
        ids[:, i] = (ids[:, i] + 1) % LAYOUT.categorical[i].rows
        return changed(batch, ids=ids)
    numeric = batch.numeric.clone()
    numeric[:, [c.name for c in LAYOUT.numeric].index(name)] += 1.0
    return changed(batch, numeric=numeric)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("model", [DNN, DeepFM, Wukong])
def test_what_only_the_fm_sees_moves_the_fm_and_never_a_vm(model, name):
    batch = make_batch(8)
    vm, fm = model(LAYOUT, viewer="vm").eval(), model(LAYOUT, viewer="fm").eval()
    other = change(batch, name)
    assert torch.equal(vm(batch), vm(other))
    assert (fm(batch) != fm(other)).all()


@pytest.mark.parametrize("name", ["item", "user", "place", "genres", "price", "age"])
def test_every_feature_that_both_see_moves_a_vm(name):
    batch, vm = make_batch(8), DNN(LAYOUT).eval()
    assert (vm(batch) != vm(change(batch, name))).all()


def test_a_vm_has_no_weights_for_what_only_the_fm_sees():
    fm, vm = FeatureEmbedding(LAYOUT, 3, viewer="fm"), FeatureEmbedding(LAYOUT, 3, viewer="vm")
    assert len(fm.weight) - len(vm.weight) == 6 + 4  # "secret" and "notes"
    assert (fm.numeric[0].in_features, vm.numeric[0].in_features) == (3, 2)
    assert vm.item_width == 2 * 3  # "item" and "genres"
    assert fm.item_width == 3 * 3


def test_no_numeric_features_means_no_numeric_row():
    layout = Layout(categorical=LAYOUT.categorical, tokens=(), numeric=())
    embedding = FeatureEmbedding(layout, 3, viewer="vm")
    assert embedding.numeric is None
    assert embedding(make_batch(2, layout=layout)).shape == (2, 3, 3)


def test_a_viewer_who_sees_nothing_is_refused():
    layout = Layout(categorical=LAYOUT.categorical[2:3], tokens=(), numeric=())
    with pytest.raises(SchemaError):
        FeatureEmbedding(layout, 3, viewer="vm")


def test_item_rows_are_the_candidates_rows_side_by_side():
    embedding = FeatureEmbedding(LAYOUT, 2, viewer="fm")
    rows = torch.arange(2 * 7 * 2.0).view(2, 7, 2)  # item, user, secret, place, genres, notes, numbers
    expected = torch.cat([rows[:, 0], rows[:, 2], rows[:, 4]], dim=1)
    assert torch.equal(embedding.item_rows(rows), expected)
