"""Side tables: joined by key they are, byte for byte, the same features repeated in every row."""

import pickle

import numpy as np
import polars as pl
import pytest

from batch_helpers import assert_same
from recfm._core import KeyIndex
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.side import SideEncoder
from recfm.errors import DataError, SchemaError
from recfm.schema import Categorical, Numeric, Schema, Tokens
from table_helpers import refused

OF_USERS = (Categorical(name="city", side="user"), Numeric(name="age", side="user", transform="log"))
OF_ITEMS = (
    Numeric(name="price", side="item"),
    Tokens(name="tags", side="item"),
    Categorical(name="brand", side="item", buckets=20),
)
OWN = (Categorical(name="hour", side="context"), Tokens(name="words", side="context"))
KEYS = {"user": "user", "item": "item", "time": "time", "label": "label"}


def tables(rows=300, users=20, items=15, seed=0, name=str):
    """Events, users and items; keys are strings for users, integers for items."""
    rng = np.random.default_rng(seed)
    user_frame = pl.DataFrame(
        {
            "user": [name(u) for u in range(users)],
            "city": [f"city{u % 4}" for u in range(users)],
            "age": pl.Series([20.0 + u if u % 5 else None for u in range(users)]),
        }
    )
    item_frame = pl.DataFrame(
        {
            "item": np.arange(items) * 7 - 3,
            "price": rng.normal(size=items),
            "tags": pl.Series([["a", "b", "c"][: i % 4] for i in range(items)], dtype=pl.List(pl.String)),
            "brand": [f"brand{i % 3}" for i in range(items)],
        }
    )
    events = pl.DataFrame(
        {
            "user": [name(u) for u in rng.integers(0, users, rows)],
            "item": rng.integers(0, items, rows) * 7 - 3,
            "time": np.sort(rng.integers(0, 1000, rows)),
            "label": rng.integers(0, 2, rows),
            "hour": rng.integers(0, 24, rows),
            "words": pl.Series([["x", "y"][: i % 3] for i in range(rows)], dtype=pl.List(pl.String)),
        }
    )
    return events, user_frame, item_frame


@pytest.mark.parametrize("name", [str, int])
def test_joined_features_are_the_repeated_ones(name):
    events, users, items = tables(name=name)
    repeated = events.join(users, on="user", maintain_order="left").join(
        items, on="item", maintain_order="left"
    )
    schema = Schema(**KEYS, features=OWN + OF_USERS + OF_ITEMS)
    flat = Encoder(schema).fit(repeated[:200]).transform(repeated)
    own = Encoder(Schema(**KEYS, features=OWN)).fit(events[:200]).transform(events)
    sides = [
        SideEncoder(by="user", key="user", features=OF_USERS).fit(repeated[:200]).transform(users),
        SideEncoder(by="item", key="item", features=OF_ITEMS).fit(repeated[:200]).transform(items),
    ]
    options = {"batch_size": 32, "seed": 3}
    joined, plain = (
        Batches(own, np.arange(300), sides=sides, **options),
        Batches(flat, np.arange(300), **options),
    )
    assert joined.layout == plain.layout == flat.layout
    for one, other in zip(joined.epoch(1), plain.epoch(1), strict=True):
        assert_same(one, other)
    assert_same(joined.batch(1, 4), plain.batch(1, 4))


def test_a_key_that_is_not_there_is_unknown():
    events, _users, items = tables()
    own = Encoder(Schema(**KEYS, features=OWN)).fit(events).transform(events)
    side = SideEncoder(by="item", key="item", features=OF_ITEMS).fit(items).transform(items[:5])
    batch = Batches(own, np.arange(300), batch_size=300, shuffle=False, sides=[side]).batch(0, 0)
    known = np.isin(own.item, items["item"][:5].to_numpy())
    assert 0 < known.sum() < 300
    brand, price = batch.ids[:, 1].numpy(), batch.numeric[:, 0].numpy()
    assert (brand[~known] == 1).all()
    assert (brand[known] > 1).all()
    assert (price[~known] == 0).all()
    assert (price[known] != 0).all()
    lengths = batch.tokens["tags"].offsets.diff().numpy()
    assert (lengths[~known] == 0).all()
    assert lengths[known].any()


def test_keys_of_another_type_are_refused_not_joined_to_nothing():
    features = (Categorical(name="genre", side="item"),)
    schema = Schema(
        user="user",
        item="item",
        time="time",
        label="label",
        features=(Categorical(name="item", side="item"),),
    )
    events = pl.DataFrame({"user": [1, 2], "item": [7, 8], "time": [1, 2], "label": [0, 1]})
    encoded = Encoder(schema).fit(events).transform(events)
    frame = pl.DataFrame({"item": ["7", "8"], "genre": ["a", "b"]})
    side = SideEncoder(by="item", key="item", features=features).fit(frame).transform(frame)
    with pytest.raises(DataError, match="none of 2 events has its item in the side table's column 'item'"):
        Batches(encoded, batch_size=2, sides=[side])


def test_a_side_table_survives_a_pickle():
    _, users, _ = tables()
    side = SideEncoder(by="user", key="user", features=OF_USERS).fit(users).transform(users)
    again = pickle.loads(pickle.dumps(side))
    keys = side.keys[::-1].copy()
    assert again.take(keys).ids.tolist() == side.take(keys).ids.tolist()
    assert len(again) == 20


def test_what_is_no_side_table_is_refused():
    events, _users, items = tables()
    encoder = SideEncoder(by="item", key="item", features=OF_ITEMS).fit(items)
    twice = refused(DataError, lambda: encoder.transform(pl.concat([items, items[3:4]])))
    assert twice == "column 'item' holds the key 18 in rows 3 and 15: a side table has one row for each key"
    assert "'item'" in refused(SchemaError, lambda: encoder.transform(items.drop("item")))
    assert "price" in refused(SchemaError, lambda: encoder.transform(items.drop("price")))
    assert "list" in refused(SchemaError, lambda: encoder.transform([items]))
    message = refused(SchemaError, lambda: SideEncoder(by="user", key="user", features=OF_ITEMS))
    assert "'price' is of the item" in message
    assert "by is 'movie'" in refused(
        SchemaError, lambda: SideEncoder(by="movie", key="m", features=OF_ITEMS)
    )
    own = Encoder(Schema(**KEYS, features=OWN)).fit(events).transform(events)
    side = encoder.transform(items)
    assert "two tables have a feature 'brand'" in refused(
        SchemaError, lambda: Batches(own, np.arange(9), batch_size=4, sides=[side, side])
    )


def test_keys_are_numbered_from_one():
    rng = np.random.default_rng(0)
    keys = rng.permutation(
        np.concatenate([rng.integers(-(2**63), 2**63 - 1, 5000), [0, -(2**63), 2**63 - 1]])
    )
    index = KeyIndex(keys, name="user")
    asked = np.concatenate([rng.choice(keys, 9000), [1, 2, 3]])
    places = {key: place for place, key in enumerate(keys.tolist(), start=1)}
    assert index.rows(asked).tolist() == [places.get(key, 0) for key in asked.tolist()]
    assert len(index) == len(keys)
    assert "`keys` must be" in refused(DataError, lambda: KeyIndex(keys.astype(np.int32), name="user"))
    assert "`keys` must be" in refused(DataError, lambda: index.rows(asked[::2]))
