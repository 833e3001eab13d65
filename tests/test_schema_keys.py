"""Tables without users, items or time: keys are zeros, and whatever would need one says so."""

import numpy as np
import polars as pl
import pytest

from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.folder import EncodedFolder
from recfm.data.side import SideEncoder
from recfm.errors import SchemaError
from recfm.history.index import HistoryIndex, PastEvents, joint_key
from recfm.loop import LoopConfig, prepare
from recfm.schema import Categorical, History, Numeric, Schema
from recfm.train.metrics import evaluate

ITEM = Categorical(name="item", side="item")
COLOUR = Categorical(name="colour", side="context")
KEYS = {"user": "user", "item": "item", "time": "time"}
BARE = Schema(label="label", features=(COLOUR,))


def without(*roles: str, features: tuple = (ITEM, COLOUR)) -> Schema:
    keys = {role: name for role, name in KEYS.items() if role not in roles}
    return Schema(**keys, label="label", features=features)


@pytest.fixture
def frame() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "user": rng.integers(0, 5, 60),
            "item": rng.integers(0, 9, 60),
            "time": np.arange(60),
            "label": (np.arange(60) % 3 == 0).astype(np.int8),
            "colour": pl.Series(["red", "blue", None])[rng.integers(0, 3, 60).tolist()],
        }
    )


def test_a_schema_without_keys_is_equal_after_json_and_toml():
    assert Schema.from_json(BARE.to_json()) == BARE
    assert (
        Schema.from_dict(
            {"label": "label", "features": [{"kind": "categorical", "name": "colour", "side": "context"}]}
        )
        == BARE
    )
    assert BARE.columns() == ["label", "colour"]
    assert without("time").columns() == ["user", "item", "label", "colour"]


@pytest.mark.parametrize("role", ["user", "item", "time"])
def test_a_key_that_is_not_there_is_zeros_and_changes_nothing_else(frame, role):
    schema, whole = without(role), without()
    encoded = Encoder(schema).fit(frame).transform(frame.drop(role) if role != "item" else frame)
    reference = Encoder(whole).fit(frame).transform(frame)
    assert getattr(encoded, role).dtype == np.int64
    assert not getattr(encoded, role).any()
    for name in {"user", "item", "time", "ids", "label"} - {role}:
        assert np.array_equal(getattr(encoded, name), getattr(reference, name)), name


def test_batches_know_whether_there_are_users(frame, tmp_path):
    for schema, has_users in ((BARE, False), (without(), True)):
        encoder = Encoder(schema).fit(frame)
        folder = encoder.encode(frame, tmp_path / str(has_users))
        assert isinstance(folder, EncodedFolder)
        for table in (encoder.transform(frame), folder):
            batches = Batches(table, batch_size=16)
            assert batches.has_users is has_users
            assert sum(len(batch) for batch in batches.epoch(0)) == 60
    again = EncodedFolder(tmp_path / "False")
    assert again.schema == BARE
    assert not again.read().user.any()


def test_gauc_is_none_without_users(frame):
    label = frame["label"].to_numpy()
    found = evaluate(label, np.linspace(0, 1, 60))
    assert found.gauc is None
    assert found.auc == evaluate(label, np.linspace(0, 1, 60), frame["user"].to_numpy()).auc


@pytest.mark.parametrize("role", ["user", "time"])
def test_a_history_feature_needs_user_and_time(role):
    with pytest.raises(SchemaError, match=f"history 'seen' needs the {role} of each event.*set {role}="):
        without(role, features=(ITEM, History(name="seen", of=("item",))))


def test_histories_are_refused_where_no_event_is_before_another(frame):
    encoded = Encoder(without("time")).fit(frame).transform(frame)
    # With every time equal, the strict past is empty: the index itself cannot know that the times mean nothing.
    index = HistoryIndex(encoded.user, encoded.time, encoded.history_ids(("item",), labels=False))
    start, stop = index.window(encoded.user, encoded.time, length=10)
    assert np.array_equal(start, stop)
    own = joint_key(encoded.user, encoded.item)
    for key in ("user", "item", own):
        with pytest.raises(SchemaError, match="sequence 'seen' needs the time of each event"):
            Batches(encoded, batch_size=8, sequences={"seen": PastEvents(index=index, key=key)})


@pytest.mark.parametrize("role", ["user", "item"])
def test_a_sequence_by_a_key_that_is_not_there_is_refused(frame, role):
    encoded = Encoder(without(role, features=(COLOUR,))).fit(frame).transform(frame)
    index = HistoryIndex(encoded.user, encoded.time, encoded.ids)
    with pytest.raises(SchemaError, match=f"sequence 'seen' needs the {role} of each event"):
        Batches(encoded, batch_size=8, sequences={"seen": PastEvents(index=index, key=role)})


@pytest.mark.parametrize("role", ["user", "item"])
def test_a_side_table_by_a_key_that_is_not_there_is_refused(frame, role):
    encoded = Encoder(without(role, features=(COLOUR,))).fit(frame).transform(frame)
    sides = pl.DataFrame({"key": np.arange(9), "weight": np.arange(9.0)})
    encoder = SideEncoder(by=role, key="key", features=[Numeric(name="weight", side=role)])
    with pytest.raises(SchemaError, match=f"the side table with key 'key' needs the {role}"):
        Batches(encoded, batch_size=8, sides=[encoder.fit(sides).transform(sides)])


@pytest.mark.parametrize("role", ["user", "time"])
def test_the_loop_needs_users_and_time(frame, role):
    with pytest.raises(SchemaError, match=f"needs the {role} of each event"):
        prepare(frame, without(role), LoopConfig())


@pytest.mark.parametrize("role", ["user", "time"])
def test_ray_partitions_need_users_and_time(frame, role, tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from recfm import ray as recfm_ray

    encoder = Encoder(without(role)).fit(frame)
    del ray
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recfm_ray, "_ray", lambda _: None)  # refused before Ray is asked for anything
        with pytest.raises(SchemaError, match=f"partitioned by user.*needs the {role}"):
            recfm_ray.encode(None, encoder, tmp_path / "out", partitions=2)
    assert not (tmp_path / "out").exists()
