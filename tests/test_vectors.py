"""Pretrained vectors from HDF5, joined to batches by key."""

import sys

import numpy as np
import polars as pl
import pytest

from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.datasets import ctr, vectors
from recfm.errors import ConfigError, DataError
from recfm.models.features import FeatureEmbedding
from recfm.schema import Categorical, Schema

FRAME = pl.DataFrame({"item": ["7", "8", "9", "7"], "colour": [1, 2, 1, 2], "label": [0, 1, 0, 1]})
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def encoded():
    schema = Schema(item="item", label="label", features=(Categorical(name="colour", side="context"),))
    return Encoder(schema).fit(FRAME).transform(FRAME)


@pytest.mark.parametrize("keys", [[8, 7], ["8", "7"]])
def test_vectors_are_joined_by_key_and_are_zero_where_there_is_none(keys):
    side = vectors.vector_table(pl.Series(keys), VALUES, by="item", name="image", like=pl.String)
    batches = Batches(encoded(), batch_size=4, shuffle=False, sides=[side])
    assert [column.name for column in batches.layout.numeric] == ["image_0", "image_1", "image_2"]
    batch = batches.batch(0, 0)
    assert np.array_equal(batch.numeric.numpy(), [VALUES[1], VALUES[0], np.zeros(3), VALUES[1]])
    rows = FeatureEmbedding(batches.layout, 4, viewer="fm", numeric="mlp", numeric_hidden=())
    assert rows(batch).shape == (4, 2, 4)


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        ([1, 2, 3], VALUES, "image: 3 keys and values of shape"),
        ([1, 1], VALUES, "image"),
        ([1, None], VALUES, "image: 1 keys are missing"),
        ([1, 2], np.array([[1.0], [np.nan]], np.float32), "image: the vector of key 2 is not finite"),
    ],
)
def test_vectors_that_cannot_be_joined_are_refused(keys, values, message):
    with pytest.raises(DataError, match=message):
        vectors.vector_table(pl.Series(keys), values, by="item", name="image")


def test_without_h5py_the_command_to_install_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install 'recfm\[h5\]'"):
        vectors.read_vectors(tmp_path / "x.h5")


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="h5py is not installed")


@pytest.mark.parametrize("keys", [[3, 1], [b"3", b"1"]])
def test_h5_files_are_read(h5py, keys, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["key"], file["value"] = keys, VALUES.astype(np.float64)
    found, values = vectors.read_vectors(tmp_path / "x.h5")
    assert found.cast(pl.String).to_list() == ["3", "1"]
    assert values.dtype == np.float32
    assert np.array_equal(values, VALUES)


def test_h5_files_of_another_kind_are_refused(h5py, tmp_path):
    (tmp_path / "text.h5").write_text("no")
    for name, content in (("lacks.h5", {"key": [1]}), ("flat.h5", {"key": [1, 2], "value": [1.0, 2.0]})):
        with h5py.File(tmp_path / name, "w") as file:
            for key, value in content.items():
                file[key] = value
    for name in ("text.h5", "lacks.h5", "flat.h5", "absent.h5"):
        with pytest.raises(DataError, match=name):
            vectors.read_vectors(tmp_path / name)


def test_kuaivideo_comes_with_its_vectors(h5py, tmp_path):
    rows = {"timestamp": [1, 2, 3], "user_id": [1, 1, 2], "item_id": [0, 1, 0], "is_click": [0, 1, 1]}
    frame = pl.DataFrame(rows | {"pos_items": ["0^1"] * 3, "neg_items": [None] * 3})
    for split in ("train", "test"):
        frame.write_csv(tmp_path / f"{split}.csv")
    with h5py.File(tmp_path / "item_visual_emb_dim64.h5", "w") as file:
        file["key"], file["value"] = [0, 1], np.eye(2, 64)
    data = ctr.load("kuaivideo_x1", tmp_path, check=False, protocol="bars")
    batches = Batches(ctr.encode_ctr(data).train, batch_size=3, shuffle=False, sides=data.sides)
    assert batches.batch(0, 0).numeric[:, :2].tolist() == [[1, 0], [0, 1], [1, 0]]
