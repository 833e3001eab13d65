"""Pooling of past events: parity with loops over rows and events, and what must not reach the pooled vector."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_helpers import COUNTS, IDS, LABELLED, LAYOUT, VECTORS, changed, make_batch
from recfm.data.batch import Sequence
from recfm.errors import ConfigError, SchemaError
from recfm.layout import Layout
from recfm.models.features import FeatureEmbedding
from recfm.models.history_encoder import HistoryEncoder, HistoryEncoderConfig

POOLINGS = ["sum", "mean", "attention"]
SEQUENCES = [VECTORS, IDS, LABELLED]
pooled_somehow = pytest.mark.parametrize("pooling", POOLINGS)
of_anything = pytest.mark.parametrize("past", SEQUENCES, ids=["vectors", "ids", "labelled"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(past, pooling="attention"):
    """Embedding and encoder in float64, every weight of a size that matters."""
    embedding = FeatureEmbedding(LAYOUT, 4, viewer="vm", std=1.0).double()
    encoder = HistoryEncoder(
        past, embedding, HistoryEncoderConfig(pooling=pooling, width=3, attention_hidden=6)
    )
    encoder = encoder.double()
    if past is not COUNTS and pooling == "attention":
        torch.nn.init.normal_(encoder.position)
    return embedding, encoder


def batch_of(past, rows=8, **options):
    return make_batch(rows, past=past, dtype=torch.float64, **options)


def pool(encoder, batch, embedding):
    return encoder(batch, embedding(batch), embedding)


def event_vectors(encoder, batch, embedding, b):
    """[length, d] of row b: what each real event holds before the encoder's linear map."""
    past, n = batch.sequences["past"], int(batch.sequences["past"].lengths[b])
    if past.vectors is not None:
        return past.vectors[b, :n]
    tables = [embedding.table(name) for name in encoder.sequence.ids]
    tables += [encoder.label.weight] if encoder.sequence.labels else []
    rows = [torch.cat([table[past.ids[b, k, i]] for i, table in enumerate(tables)]) for k in range(n)]
    return torch.stack(rows) if rows else torch.zeros(0, encoder.event.in_features).double()


def din_weights(encoder, query, events):
    """DIN: softmax of an MLP on [q, s, q - s, q * s], its first layer one 4h -> a linear map.

    The encoder keeps three maps; any share of them may sit on q - s, so a random one is put there.
    """
    on_difference = torch.randn_like(encoder.from_event.weight)
    first = torch.cat(
        [
            encoder.from_query.weight - on_difference,
            encoder.from_event.weight + on_difference,
            on_difference,
            encoder.from_product.weight,
        ],
        dim=1,
    )
    scores = []
    for event in events:
        together = torch.cat([query, event, query - event, query * event])
        hidden = (first @ together + encoder.from_query.bias).clamp(min=0)
        scores.append(encoder.score.weight[0] @ hidden + encoder.score.bias[0])
    largest = max(scores)
    exponentials = [(score - largest).exp() for score in scores]
    return [value / sum(exponentials) for value in exponentials]


def expected(encoder, batch, embedding):
    pooled = []
    for b in range(len(batch)):
        vectors = event_vectors(encoder, batch, embedding, b)
        events = [encoder.event.weight @ vector + encoder.event.bias for vector in vectors]
        if not events:
            pooled.append(torch.zeros(3).double())
            continue
        weights = [1.0] * len(events) if encoder.config.pooling == "sum" else [1 / len(events)] * len(events)
        if encoder.config.pooling == "attention":
            events = [event + encoder.position[k] for k, event in enumerate(events)]
            query = encoder.query(embedding.item_rows(embedding(batch))[b])
            weights = din_weights(encoder, query, events)
        pooled.append(sum(weight * event for weight, event in zip(weights, events, strict=True)))
    return torch.stack(pooled)


@pooled_somehow
@of_anything
def test_pooling_equals_loops_over_events(past, pooling):
    embedding, encoder = build(past, pooling)
    batch = batch_of(past)
    torch.testing.assert_close(pool(encoder, batch, embedding), expected(encoder, batch, embedding))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
    st.sampled_from(SEQUENCES),
    st.sampled_from(POOLINGS),
    st.integers(0, 999),
)
def test_pooling_equals_loops_for_any_lengths(lengths, past, pooling, seed):
    embedding, encoder = build(past, pooling)
    batch = batch_of(past, len(lengths), lengths=lengths, seed=seed)
    torch.testing.assert_close(pool(encoder, batch, embedding), expected(encoder, batch, embedding))


@pooled_somehow
@of_anything
def test_a_row_does_not_depend_on_the_longest_history_beside_it(past, pooling):
    embedding, encoder = build(past, pooling)
    batch = batch_of(past, 4, lengths=[3, 0, 5, 1])
    before = pool(encoder, batch, embedding)
    batch.sequences["past"].lengths = torch.tensor([3, 0, 0, 1])
    after = pool(encoder, batch, embedding)
    torch.testing.assert_close(after[[0, 1, 3]], before[[0, 1, 3]])
    assert not after[2].any()


@pytest.mark.parametrize("filler", [7.0, 1e30, float("inf"), float("nan")])
@pooled_somehow
def test_padded_vectors_change_nothing(pooling, filler):
    embedding, encoder = build(VECTORS, pooling)
    batch = batch_of(VECTORS)
    before = pool(encoder, batch, embedding)
    past = batch.sequences["past"]
    padded = torch.arange(5).unsqueeze(0) >= past.lengths.unsqueeze(1)
    past.vectors[padded] = filler
    after = pool(encoder, batch, embedding)
    assert torch.equal(before, after)
    after.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("past", [IDS, LABELLED], ids=["ids", "labelled"])
@pooled_somehow
def test_padded_ids_change_nothing(past, pooling):
    embedding, encoder = build(past, pooling)
    batch = batch_of(past)
    before = pool(encoder, batch, embedding)
    past = batch.sequences["past"]
    past.ids[torch.arange(5).unsqueeze(0) >= past.lengths.unsqueeze(1)] = 2
    assert torch.equal(before, pool(encoder, batch, embedding))


@pytest.mark.parametrize("lengths", [[0, 2, 5], [0, 0, 0]], ids=["some", "all"])
@pytest.mark.parametrize("past", [*SEQUENCES, COUNTS], ids=["vectors", "ids", "labelled", "counts"])
@pooled_somehow
def test_an_empty_history_is_the_zero_vector_with_finite_gradients(past, pooling, lengths):
    embedding, encoder = build(past, pooling)
    pooled = pool(encoder, batch_of(past, 3, lengths=lengths), embedding)
    assert torch.equal(pooled[0], torch.zeros(3).double())
    assert (pooled.abs().sum(dim=1) > 0).tolist() == [n > 0 for n in lengths]
    pooled.square().sum().backward()
    gradients = [p.grad for p in (*encoder.parameters(), *embedding.parameters()) if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pooled_somehow
def test_order_matters_only_through_positions(pooling):
    embedding, encoder = build(VECTORS, pooling)
    batch, order = batch_of(VECTORS, 4, lengths=[5, 5, 5, 5]), torch.tensor([3, 0, 4, 1, 2])
    past = batch.sequences["past"]
    shuffled = changed(
        batch, sequences={"past": Sequence(lengths=past.lengths, vectors=past.vectors[:, order])}
    )
    before = pool(encoder, batch, embedding)
    if pooling == "attention":
        assert (pool(encoder, shuffled, embedding) - before).abs().max() > 1e-3
        with torch.no_grad():
            encoder.position.copy_(encoder.position[order])
    torch.testing.assert_close(pool(encoder, shuffled, embedding), before)


def test_positions_start_at_zero_so_order_says_nothing_at_first():
    embedding = FeatureEmbedding(LAYOUT, 4, viewer="vm")
    assert not HistoryEncoder(VECTORS, embedding, HistoryEncoderConfig()).position.any()


def test_only_the_candidates_features_make_the_query():
    embedding, encoder = build(VECTORS)
    batch = batch_of(VECTORS, lengths=[5] * 8)
    before = pool(encoder, batch, embedding)
    others = batch.ids.clone()
    others[:, [1, 3]] = 1  # user and place
    same = changed(batch, ids=others, numeric=batch.numeric + 1, label=1 - batch.label, time=batch.time + 9)
    assert torch.equal(pool(encoder, same, embedding), before)
    item = batch.ids.clone()
    item[:, 0] = (item[:, 0] + 1) % 7
    assert (pool(encoder, changed(batch, ids=item), embedding) != before).any(dim=1).all()


def test_ids_share_the_candidates_table():
    embedding, encoder = build(IDS, "sum")
    assert {name for name, _ in encoder.named_parameters()} == {"event.weight", "event.bias"}
    batch = batch_of(IDS, 2, lengths=[2, 1])
    batch.sequences["past"].ids[0, :2, 0] = torch.tensor([6, 4], dtype=torch.int32)
    batch.sequences["past"].ids[1, :1, 0] = 4
    encoder(batch, embedding(batch).detach(), embedding).sum().backward()
    start = embedding.starts["item"]
    touched = embedding.weight.grad[start : start + 7].abs().sum(dim=1) > 0
    assert touched.tolist() == [False, False, False, False, True, False, True]


def test_the_label_of_a_past_event_has_its_own_vector():
    embedding, encoder = build(LABELLED)
    assert encoder.label.weight.shape == (3, 4)
    batch = batch_of(LABELLED, 3, lengths=[0, 2, 4])
    before = pool(encoder, batch, embedding)
    past = batch.sequences["past"]
    flipped = past.ids.clone()
    flipped[..., 1] = torch.where(flipped[..., 1] > 0, 3 - flipped[..., 1], 0)
    other = changed(batch, sequences={"past": Sequence(lengths=past.lengths, ids=flipped)})
    assert (pool(encoder, other, embedding) != before).any(dim=1).tolist() == [False, True, True]


def test_counts_are_read_on_a_log_scale_and_without_a_cap():
    embedding, encoder = build(COUNTS)
    batch = batch_of(COUNTS, 4, lengths=[0, 1, 7, 5000])
    columns = torch.tensor([[0.0, 0], [2, 1], [8, 1], [5001, 1]]).double()
    columns[1:, 0] = columns[1:, 0].log()
    pooled = columns @ encoder.event.weight.T + encoder.event.bias
    pooled[0] = 0
    torch.testing.assert_close(pool(encoder, batch, embedding), pooled)


@pooled_somehow
def test_an_empty_batch_gives_no_rows(pooling):
    embedding, encoder = build(VECTORS, pooling)
    assert pool(encoder, batch_of(VECTORS, 0), embedding).shape == (0, 3)


def test_attention_without_a_candidate_feature_is_refused():
    layout = Layout(categorical=LAYOUT.categorical[1:2], tokens=(), numeric=())
    embedding = FeatureEmbedding(layout, 4, viewer="vm")
    with pytest.raises(SchemaError, match="item"):
        HistoryEncoder(VECTORS, embedding, HistoryEncoderConfig())
    assert HistoryEncoder(VECTORS, embedding, HistoryEncoderConfig(pooling="sum")).width == 32


@pytest.mark.parametrize("wrong", [{"pooling": "max"}, {"width": 0}, {"attention_hidden": -1}])
def test_unusable_configs_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}|pooling"):
        HistoryEncoderConfig(**wrong)
