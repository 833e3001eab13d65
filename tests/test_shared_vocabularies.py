"""Features that share a vocabulary: one table, one numbering, fitted on all of their columns."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.fit import Fitting
from recfm.errors import SchemaError
from recfm.models.features import FeatureEmbedding
from recfm.schema import Categorical, Numeric, Schema, Tokens

ITEM = Categorical(name="item", side="item", min_count=2)
SEEN = Tokens(name="seen", side="user", shares="item", max_length=3)
LAST = Categorical(name="last", side="user", shares="item")
FRAME = pl.DataFrame(
    {
        "item": [7, 7, 8, 9],
        "last": [9, None, 5, 5],
        "seen": [[8, 7], [], None, [6, 8, 8, 7]],
        "label": [1, 0, 1, 0],
    }
)


def schema_of(*features) -> Schema:
    return Schema(label="label", features=features)


@pytest.mark.parametrize("order", [(ITEM, SEEN, LAST), (LAST, SEEN, ITEM)])
def test_the_vocabulary_counts_every_column(order):
    encoded = Encoder(schema_of(*order)).fit(FRAME).transform(FRAME)
    # 7: 2 + 2 times, 8: 1 + 3, 9: 1 + 1, 5: 2; 6 once, which is below min_count. Ties by value.
    number = {7: 2, 8: 3, 5: 4, 9: 5}
    item, last = encoded.layout.position("item"), encoded.layout.position("last")
    assert encoded.ids[:, item].tolist() == [number[7], number[7], number[8], number[9]]
    assert encoded.ids[:, last].tolist() == [number[9], 1, number[5], number[5]]
    values, offsets = encoded.tokens["seen"]
    assert offsets.tolist() == [0, 2, 2, 2, 5]
    assert values.tolist() == [number[8], number[7], number[8], number[8], number[7]]


ids = st.integers(0, 6)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.none() | ids, st.none() | st.lists(ids, max_size=4)), min_size=1, max_size=20),
    min_count=st.integers(1, 4),
    split=st.integers(0, 20),
)
def test_shared_ids_are_those_of_one_count_over_both_columns(rows, min_count, split):
    items, lists = zip(*rows, strict=True)
    frame = pl.DataFrame(
        {"item": pl.Series(items, dtype=pl.Int64), "seen": pl.Series(lists, dtype=pl.List(pl.Int64))}
    ).with_columns(label=pl.lit(0))
    counts = Counter(value for value in items if value is not None)
    counts.update(value for values in lists for value in values or ())
    kept = sorted((value for value in counts if counts[value] >= min_count), key=lambda v: (-counts[v], v))
    number = {value: 2 + place for place, value in enumerate(kept)}
    schema = schema_of(
        Categorical(name="item", side="item", min_count=min_count),
        Tokens(name="seen", side="user", shares="item"),
    )
    fitting = Fitting(schema)
    for part in (frame[:split], frame[split:]):
        if len(part):
            fitting.add(part)
    encoded = Encoder(schema, fitting.finish()).transform(frame)
    assert encoded.ids[:, 0].tolist() == [number.get(value, 1) for value in items]
    assert encoded.tokens["seen"][0].tolist() == [number.get(v, 1) for values in lists for v in values or ()]


def test_the_layout_names_one_table():
    layout = Encoder(schema_of(ITEM, SEEN, LAST)).fit(FRAME).layout
    columns = (*layout.categorical, *layout.tokens)
    assert {column.table for column in columns} == {"item"}
    assert {column.rows for column in columns} == {6}
    assert {column.name: column.shares for column in columns} == {"item": "", "last": "item", "seen": "item"}


def test_models_hold_the_table_once():
    encoded = Encoder(schema_of(ITEM, SEEN, LAST)).fit(FRAME).transform(FRAME)
    embedding = FeatureEmbedding(encoded.layout, 4, viewer="fm")
    assert embedding.weight.shape == (6, 4)
    rows = embedding(Batches(encoded, batch_size=4, shuffle=False).batch(0, 0))
    assert torch.equal(rows[3, 0], rows[0, 1])  # item 9 and last 9


@pytest.mark.parametrize("buckets", [None, 16])
def test_the_encoder_is_the_same_after_its_files_and_from_pieces(buckets, tmp_path):
    owner = Categorical(name="item", side="item", buckets=buckets)
    encoder = Encoder(schema_of(owner, SEEN, LAST)).fit(FRAME)
    again = Encoder.from_files(encoder.files().__getitem__)
    folder = encoder.encode(FRAME, tmp_path / "encoded").read()
    pieces = Encoder(encoder.schema).fit(FRAME.lazy()).transform(FRAME)
    expected = encoder.transform(FRAME)
    for found in (again.transform(FRAME), folder, pieces):
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.tokens["seen"][0], expected.tokens["seen"][0])
        assert found.layout == expected.layout
    assert [name for name in encoder.files() if name.startswith("vocab")] == (
        [] if buckets else ["vocab-000-item.parquet"]
    )


def test_schemas_that_share_nothing_are_written_as_before():
    assert "shares" not in schema_of(ITEM).to_json()
    shared = schema_of(ITEM, SEEN)
    assert Schema.from_json(shared.to_json()) == shared


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ((ITEM, Tokens(name="seen", side="user", shares="itme")), "'seen' shares 'itme'.*known: item"),
        ((ITEM, LAST, Tokens(name="seen", side="user", shares="last")), "'last', which itself shares 'item'"),
        (
            (ITEM, Tokens(name="seen", side="user", shares="seen")),
            "shares 'seen', which itself shares 'seen'",
        ),
        (
            (ITEM, Numeric(name="price", side="item"), Tokens(name="seen", side="user", shares="price")),
            "known: item",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(features, message):
    with pytest.raises(SchemaError, match=message):
        schema_of(*features)


@pytest.mark.parametrize("setting", [{"min_count": 3}, {"buckets": 9}])
def test_the_owner_sets_count_and_buckets(setting):
    with pytest.raises(SchemaError, match="shares the vocabulary of 'item': set min_count and buckets there"):
        Tokens(name="seen", side="user", shares="item", **setting)


def test_columns_of_two_kinds_cannot_share():
    frame = FRAME.with_columns(last=pl.Series(["a", "b", "c", "d"]))
    with pytest.raises(SchemaError, match="item"):
        Encoder(schema_of(ITEM, LAST)).fit(frame)
