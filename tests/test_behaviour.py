"""Past events in every form, and what every sequence model must do with them."""

import dataclasses

import numpy as np
import pytest
import torch

from behaviour_helpers import (
    CANDIDATE,
    HISTORIES,
    IDS,
    KINDS,
    LABELLED,
    PLAIN,
    TOKENS,
    VECTORS,
    batch_of,
    histories,
    layout_of,
    make,
)  # fmt: skip
from recfm.data.batch import Jagged, Sequence
from recfm.errors import DataError, SchemaError
from recfm.layout import Column, Layout, SequenceLayout
from recfm.models.attention import masked_softmax, next_event_loss, sees_itself_and_older
from recfm.models.behaviour import token_groups, turned
from recfm.models.zoo import build_model
from recfm.train.checks import model_layout
from recfm.train.losses import DistillConfig, DistilledLoss, LabelLoss
from recfm.train.sparse import row_optimizer

MIXED = [3, 0, 6, 1, 2, 0, 5]
FORMS = ["ids", "labelled", "vectors", "tokens"]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def model_and_batch(kind, form, lengths=MIXED, **options):
    layout, sequences = layout_of(form)
    return make(kind, layout=layout, sequences=sequences), batch_of(histories(lengths), form=form, **options)


@every_kind
def test_both_forms_of_the_same_past_give_the_same_logits(kind):
    padded, _ = model_and_batch(kind, "ids")
    jagged, _ = model_and_batch(kind, "tokens")
    jagged.load_state_dict(padded.state_dict())
    past = histories(MIXED)
    torch.testing.assert_close(jagged(batch_of(past, form="tokens")), padded(batch_of(past)))


@every_kind
def test_a_jagged_sequence_reads_as_the_padded_one(kind):
    model, batch = model_and_batch(kind, "ids")
    expected = model(batch)
    past = histories(MIXED)
    values = torch.tensor(np.concatenate(past), dtype=torch.int32)
    offsets = torch.tensor(np.concatenate([[0], np.cumsum(MIXED)]))
    batch.sequences["past"] = Sequence(lengths=torch.tensor(MIXED), values=values, offsets=offsets)
    torch.testing.assert_close(model(batch), expected)


@every_kind
@pytest.mark.parametrize("form", FORMS[:3])
@pytest.mark.parametrize("training", [False, True], ids=["serving", "training"])
def test_padding_reaches_neither_the_logits_nor_the_gradients(kind, form, training):
    model, clean = model_and_batch(kind, form)
    _, dirty = model_and_batch(kind, form, garbage=float("nan") if form == "vectors" else 1_000_000)
    model.train(training)
    gradients = []
    for batch in (clean, dirty):
        model.zero_grad()
        logits = model(batch)
        more = model.auxiliary_loss()
        (logits.square().sum() + (0.0 if more is None else more)).backward()
        gradients.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*gradients, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)


@every_kind
@every_form
def test_a_row_does_not_depend_on_the_rows_beside_it(kind, form):
    model, batch = model_and_batch(kind, form)
    alone = [model(_row(batch, b, one, form)) for b, one in enumerate(histories(MIXED))]
    torch.testing.assert_close(torch.cat(alone), model(batch), rtol=1e-5, atol=1e-5)


def _row(batch, b, one, form):
    own = batch_of([one], form=form)
    return dataclasses.replace(own, ids=batch.ids[b : b + 1])


@pytest.mark.parametrize("kind", ["dien", "din", "dmin", "dmr"])
@every_form
def test_without_events_the_interest_is_zero(kind, form):
    model, batch = model_and_batch(kind, form)
    rows = model.embedding(batch)
    interest, _ = model.read(0, model.behaviours[0](batch, rows, model.embedding), batch)
    empty = torch.tensor(MIXED) == 0
    assert not interest[empty].any()
    assert interest[~empty].any(dim=1).all()


@every_kind
@every_form
def test_nobody_may_have_a_past(kind, form):
    model, batch = model_and_batch(kind, form, lengths=[0, 0, 0])
    model.train()
    loss = LabelLoss(model)(batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_kind
@every_form
def test_the_past_matters(kind, form):
    model, batch = model_and_batch(kind, form)
    _, other = model_and_batch(kind, form, lengths=[6, 1, 5, 2, 1, 3, 4])
    assert not torch.isclose(model(batch), model(other)).any()


@every_kind
def test_order_matters_where_a_model_has_time(kind):
    """The same events the other way round: only DIN, and BST without positions, cannot tell."""
    past = histories([3, 4, 6])
    forth, back = batch_of(past), batch_of([one[::-1] for one in past])
    model = make(kind)
    same = torch.isclose(model(forth), model(back), rtol=1e-4, atol=1e-4)
    assert same.all() if kind == "din" else not same.any()
    if kind == "bst":
        unplaced = make(kind, positions=False)
        torch.testing.assert_close(unplaced(forth), unplaced(back))


@every_kind
@every_form
def test_only_the_newest_events_are_read(kind, form):
    layout, sequences = layout_of(form)
    model = make(kind, layout=layout, sequences=sequences, length=2)
    past = histories([6, 3, 1])
    newest = [one[:2] for one in past]
    oldest = [one[-2:] for one in past]
    torch.testing.assert_close(model(batch_of(past, form=form)), model(batch_of(newest, form=form)))
    assert not torch.isclose(model(batch_of(past, form=form)), model(batch_of(oldest, form=form)))[:2].any()


@every_kind
def test_a_past_label_is_read(kind):
    model, batch = model_and_batch(kind, "labelled", lengths=[3, 0, 4])
    before = model(batch)
    ids = batch.sequences["past"].ids
    ids[..., 2] = torch.where(ids[..., 2] > 0, 3 - ids[..., 2], 0)
    assert torch.isclose(before, model(batch)).tolist() == [False, True, False]


@every_kind
@every_form
def test_every_parameter_learns(kind, form):
    model, batch = model_and_batch(kind, form, lengths=[6, 5, 0, 4, 3, 6] * 6)
    model.train()
    loss = LabelLoss(model)(batch)
    loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    before_softmax = (".mlp.out.bias",) if kind in ("din", "dien", "dmin", "dmr") else ()
    keys = (".inputs.bias",)
    assert [name for name in silent if not name.endswith((*before_softmax, *keys))] == []


@every_kind
def test_token_histories_are_no_embedding_rows_unless_asked_for(kind):
    assert len(make(kind, layout=TOKENS, sequences=()).embedding) == len(CANDIDATE)
    model = make(kind, layout=TOKENS, sequences=(), pooled_too=True)
    assert [column.name for column in model.embedding.columns] == ["item", "cate", "user", "items", "cates"]
    assert model(batch_of(histories(MIXED), form="tokens")).isfinite().all()


@every_kind
def test_a_model_without_any_sequence_is_refused(kind):
    with pytest.raises(SchemaError, match=f"{kind.upper()} reads a user's past events, and is given none"):
        build_model(kind, PLAIN)
    with pytest.raises(SchemaError, match="given none"):
        build_model(kind, PLAIN, sequences=[SequenceLayout(name="count", counts_only=True)])


@every_kind
def test_a_counts_only_sequence_may_come_besides(kind):
    count = SequenceLayout(name="count", counts_only=True)
    model = make(kind, sequences=(IDS, count))
    batch = batch_of(histories(MIXED))
    batch.sequences["count"] = Sequence(lengths=torch.tensor([40, 0, 2, 1, 7, 0, 9]))
    before = model(batch)
    batch.sequences["count"].lengths += 5
    assert not torch.isclose(before, model(batch)).any()


@every_kind
def test_sum_pooling_adds_the_sum_and_its_product_with_the_candidate(kind):
    plain, pooled = make(kind), make(kind, sum_pooling=True)
    width = pooled.mlp.hidden_0[0].weight.shape[1]
    assert width == plain.mlp.hidden_0[0].weight.shape[1] + 2 * 8
    batch, seen = batch_of(histories(MIXED)), {}
    pooled.mlp.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    pooled(batch)
    table = pooled.embedding
    for b, one in enumerate(histories(MIXED)):
        total = sum(
            (torch.cat([table.table("item")[i], table.table("cate")[c]]) for i, c in one), torch.zeros(8)
        )
        target = torch.cat([table.table("item")[batch.ids[b, 0]], table.table("cate")[batch.ids[b, 1]]])
        torch.testing.assert_close(seen["x"][b, -16:], torch.cat([total, total * target]))


@every_kind
def test_the_vertical_model_never_reads_a_history_of_the_foundation_model(kind):
    hidden = tuple(dataclasses.replace(column, seen_by="fm") for column in HISTORIES)
    layout = Layout(categorical=CANDIDATE, tokens=hidden, numeric=())
    with pytest.raises(SchemaError, match="given none"):
        build_model(kind, layout, viewer="vm")
    assert build_model(kind, layout, viewer="fm").behaviours


@every_kind
def test_past_events_of_a_feature_that_the_model_does_not_see_are_refused(kind):
    columns = (dataclasses.replace(CANDIDATE[0], seen_by="fm"), *CANDIDATE[1:])
    with pytest.raises(SchemaError, match="'item', which this model does not see"):
        build_model(kind, Layout(categorical=columns, tokens=(), numeric=()), viewer="vm", sequences=[IDS])


def test_vectors_need_an_item_feature():
    layout = Layout(categorical=CANDIDATE[2:], tokens=(), numeric=())
    with pytest.raises(SchemaError, match="side 'item'"):
        build_model("din", layout, sequences=[VECTORS])


def test_a_batch_without_what_its_layout_says_is_refused():
    model = make("din")
    batch = batch_of(histories([2, 1]), form="vectors")
    with pytest.raises(DataError, match="'past' of the batch has no ids"):
        model(batch)


def test_token_features_of_one_event_must_be_as_long():
    model = make("din", layout=TOKENS, sequences=())
    batch = batch_of(histories([2, 1]), form="tokens")
    batch.tokens["cates"] = Jagged(values=batch.tokens["cates"].values, offsets=torch.tensor([0, 1, 3]))
    with pytest.raises(DataError, match="'items' and 'cates' are read as one"):
        model(batch)


def _tokens(**shares):
    columns = tuple(Column(name=name, rows=9, side="user", shares=share) for name, share in shares.items())
    return Layout(categorical=CANDIDATE, tokens=columns, numeric=())


@pytest.mark.parametrize(
    ("tokens", "named", "groups"),
    [
        ({"a": "item", "b": "cate"}, (), [["a", "b"]]),
        ({"pos": "item", "neg": "item"}, (), [["pos"], ["neg"]]),
        ({"p": "item", "n": "item", "pc": "cate", "nc": "cate"}, (), [["p", "pc"], ["n", "nc"]]),
        ({"a": "item", "tags": "", "b": "cate"}, (), [["a", "b"]]),
        ({"a": "item", "b": "cate"}, (("b",),), [["b"]]),
        ({"a": "item", "b": "cate"}, (("a",), ("b",)), [["a"], ["b"]]),
        ({"tags": ""}, (), []),
        ({"a": "b", "b": ""}, (), []),
    ],
    ids=str,
)  # fmt: skip
def test_which_token_features_make_one_event(tokens, named, groups):
    found = token_groups(_tokens(**tokens), named)
    assert [[column.name for column in group] for group in found] == groups


@pytest.mark.parametrize("name", ["tags", "item", "nothing"])
def test_a_behaviour_of_no_such_feature_is_refused(name):
    with pytest.raises(SchemaError, match=f"'{name}'.*those are: a"):
        token_groups(_tokens(a="item", tags=""), ((name,),))


def test_a_token_feature_left_out_of_the_behaviours_stays_a_row():
    model = make("din", layout=TOKENS, sequences=(), behaviours=(("items",),))
    assert [column.name for column in model.embedding.columns] == ["item", "cate", "user", "cates"]
    assert model.event_widths == [4]


@every_kind
def test_two_behaviours_are_two_interests(kind):
    layout = Layout(
        categorical=CANDIDATE,
        tokens=tuple(Column(name=name, rows=9, side="user", shares="item") for name in ("liked", "skipped")),
        numeric=(),
    )
    model = make(kind, layout=layout, sequences=())
    batch = batch_of(histories([3, 2]), form="tokens")
    liked, other = batch.tokens["items"], batch_of(histories([3, 2], seed=9), form="tokens").tokens["items"]
    batch.tokens = {"liked": liked, "skipped": other}
    before = model(batch)
    batch.tokens = {"liked": other, "skipped": liked}
    assert not torch.isclose(before, model(batch)).any()


def test_turning_is_undone_by_turning():
    x = torch.arange(12.0).view(2, 3, 2) + 1
    mask = torch.tensor([[True, True, False], [True, True, True]])
    back = turned(x, mask)
    assert back[0].tolist() == [[3, 4], [1, 2], [0, 0]]
    assert back[1].tolist() == [[11, 12], [9, 10], [7, 8]]
    assert torch.equal(turned(back, mask), x * mask.unsqueeze(2))


def test_a_masked_softmax_is_a_softmax_of_what_is_real():
    scores = torch.tensor([[1.0, 2.0, float("nan")], [5.0, float("nan"), 4.0]])
    found = masked_softmax(
        scores.nan_to_num(99.0), torch.tensor([[True, True, False], [False, False, False]])
    )
    torch.testing.assert_close(found[0, :2], torch.tensor([1.0, 2.0]).softmax(0))
    assert found[0, 2] == 0
    assert not found[1].any()


def test_an_event_sees_itself_and_what_came_before():
    mask = torch.tensor([[True, True, False]])
    assert sees_itself_and_older(mask)[0].tolist() == [
        [True, True, False], [False, True, False], [False, False, True],
    ]  # fmt: skip


def test_the_next_event_loss_against_a_loop():
    rng = np.random.default_rng(0)
    states, events = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2))
    lengths, weights = [4, 1, 3], rng.normal(size=4)
    linear = torch.nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weights).view(1, 4))
    steps = [(b, i) for b in range(3) for i in range(1, lengths[b])]  # event i - 1 came after event i
    total = 0.0
    for k, (b, i) in enumerate(steps):
        other_b, other_i = steps[(k - len(steps) // 2) % len(steps)]
        yes = weights @ np.concatenate([states[b, i], events[b, i - 1]])
        no = weights @ np.concatenate([states[b, i], events[other_b, other_i - 1]])
        total += np.log1p(np.exp(-yes)) + np.log1p(np.exp(no))
    mask = torch.arange(4) < torch.tensor(lengths).unsqueeze(1)
    found = next_event_loss(linear, torch.tensor(states), torch.tensor(events), mask)
    assert found.item() == pytest.approx(total / len(steps))


@pytest.mark.parametrize("kind", ["dien", "dmin", "dmr"])
def test_the_auxiliary_loss_joins_the_objective_in_training_only(kind):
    model, batch = make(kind), batch_of(histories([6, 5, 4, 3]))
    without = make(kind, auxiliary=0.0)
    without.load_state_dict(model.state_dict(), strict=False)
    objective = LabelLoss(model)
    assert torch.equal(objective(batch), LabelLoss(without)(batch))  # evaluation
    assert model.auxiliary_loss() is None
    model.train()
    without.train()
    plain, added = LabelLoss(without)(batch), objective(batch)
    model(batch)
    auxiliary = model.auxiliary_loss()
    assert auxiliary > 0
    torch.testing.assert_close(added, plain + auxiliary)
    assert model.auxiliary_loss() is None  # it is given out once
    doubled = make(kind, auxiliary=1.0).train()
    doubled.load_state_dict(model.state_dict())
    doubled(batch)
    torch.testing.assert_close(doubled.auxiliary_loss(), 2 * auxiliary)


@pytest.mark.parametrize("kind", ["dien", "dmin", "dmr"])
def test_the_auxiliary_loss_joins_distillation_too(kind):
    model, batch = make(kind).train(), batch_of(histories([6, 5, 4, 3]))
    objective = DistilledLoss(model, DistillConfig(weight=0.0))
    torch.testing.assert_close(objective(batch), LabelLoss(model)(batch))


@every_kind
def test_a_second_head_attaches_to_the_backbone(kind):
    model, batch = make(kind), batch_of(histories(MIXED))
    hidden = model.backbone(batch)
    assert model.make_head()(hidden).shape == (len(MIXED), 1)
    DistilledLoss(model.train())(batch).backward()


@every_kind
def test_a_labelled_sequence_of_the_foundation_model_trains_with_tokens_beside(kind):
    model = make(kind, layout=TOKENS, sequences=(LABELLED,), viewer="fm")
    batch = batch_of(histories(MIXED), form="labelled")
    batch.tokens = batch_of(histories(MIXED, seed=3), form="tokens").tokens
    assert len(model.behaviours) == 2
    assert model(batch).isfinite().all()


@every_kind
def test_a_model_says_what_batches_it_was_built_for(kind):
    assert (
        model_layout(make(kind, layout=TOKENS, sequences=())) == TOKENS
    )  # what its checkpoints are compared with


@pytest.mark.parametrize("form", ["ids", "tokens"])
@every_kind
def test_past_events_train_sparse_tables(kind, form):
    source = {"layout": TOKENS, "sequences": ()} if form == "tokens" else {}
    batch = batch_of(histories([3, 0, 5]), form=form)
    dense, sparse = make(kind, **source), make(kind, **source)
    row_optimizer("rowwise_adagrad", sparse, lr=0.1)
    for model in (dense, sparse):
        model(batch).sum().backward()
    found = sparse.embedding.weight.grad
    assert found.is_sparse
    torch.testing.assert_close(found.to_dense(), dense.embedding.weight.grad)
