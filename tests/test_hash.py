"""Hashed ids: the published XXH3, frozen values, and the same rules for nulls and lists as vocabularies."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from recfm._core import Hasher, hash_keys, seed_of
from recfm.errors import DataError, SchemaError

GOLDEN = json.loads((Path(__file__).parent / "assets" / "hash.json").read_text())

ints = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=30)
strings = st.lists(st.none() | st.text(max_size=300), max_size=30)


def test_frozen_values_never_change():
    for name, seed in GOLDEN["seeds"].items():
        assert seed_of(name) == seed
    for case in GOLDEN["ids"]:
        assert (
            Hasher(name=case["name"], buckets=case["buckets"]).encode(pl.Series(case["values"])).tolist()
            == case["ids"]
        )
    assert hash_keys(pl.Series(GOLDEN["keys"]["values"]), name="user").tolist() == GOLDEN["keys"]["keys"]


@settings(deadline=None)
@given(values=ints | strings, name=st.text(max_size=20), buckets=st.integers(3, 2**31 - 1))
def test_ids_are_those_of_the_xxhash_package(values, name, buckets):
    xxhash = pytest.importorskip("xxhash")
    seed = xxhash.xxh3_64_intdigest(name.encode())
    assert seed_of(name) == seed

    def bucket(value):
        if value is None:
            return oracles.UNKNOWN
        return oracles.FIRST + xxhash.xxh3_64_intdigest(oracles.key_bytes(value), seed) % (buckets - 2)

    dtype = pl.String if any(isinstance(value, str) for value in values) else pl.Int64
    ids = Hasher(name=name, buckets=buckets).encode(pl.Series("x", values, dtype=dtype))
    assert ids.dtype == np.int32
    assert ids.tolist() == [bucket(value) for value in values]


@settings(deadline=None)
@given(values=st.lists(st.text(max_size=20), max_size=20))
def test_string_keys_are_those_of_the_xxhash_package(values):
    xxhash = pytest.importorskip("xxhash")
    keys = hash_keys(pl.Series("user", values, dtype=pl.String), name="user")
    assert keys.view(np.uint64).tolist() == [xxhash.xxh3_64_intdigest(value.encode()) for value in values]


@settings(deadline=None)
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_integer_keys_are_themselves(values):
    assert hash_keys(pl.Series("user", values, dtype=pl.Int64), name="user").tolist() == values


def test_an_integer_hashes_the_same_in_every_width():
    expected = Hasher(name="x", buckets=1000).encode(pa.array([3, 100])).tolist()
    for dtype in (pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.uint64()):
        assert Hasher(name="x", buckets=1000).encode(pa.array([3, 100], dtype)).tolist() == expected


def test_a_dictionary_hashes_like_its_values():
    column = pl.Series("x", ["a", None, "b", "a"])
    expected = Hasher(name="x", buckets=1000).encode(column)
    assert (Hasher(name="x", buckets=1000).encode(column.cast(pl.Categorical)) == expected).all()
    assert expected[0] == expected[3] != expected[2]


def test_lists_hash_by_element():
    lists = [["a", "b"], None, [], ["b", None]]
    elements, offsets = oracles.jagged(lists)
    ids, bounds = Hasher(name="x", buckets=100).encode_lists(pl.Series("x", lists))
    assert bounds.tolist() == offsets
    assert ids.tolist() == Hasher(name="x", buckets=100).encode(pl.Series("x", elements)).tolist()


def test_a_null_key_names_its_row_across_chunks():
    column = pa.chunked_array([["a", "b"], ["c", None]])
    with pytest.raises(DataError, match="column 'user' is null in row 3"):
        hash_keys(column, name="user")


@pytest.mark.parametrize("buckets", [2, 0, -5, 2**31])
def test_buckets_out_of_range_are_refused(buckets):
    with pytest.raises(SchemaError, match=f"column 'x': buckets is {buckets}"):
        Hasher(name="x", buckets=buckets).encode(pl.Series([1]))


def test_other_types_are_refused():
    with pytest.raises(SchemaError, match="column 'x' has dtype Float32"):
        Hasher(name="x", buckets=10).encode(pl.Series([1.0], dtype=pl.Float32))
    with pytest.raises(SchemaError, match="column 'x' has dtype Int64: tokens need a list"):
        Hasher(name="x", buckets=10).encode_lists(pl.Series([1]))
    with pytest.raises(SchemaError, match="column 'user' has dtype Float64"):
        hash_keys(pl.Series([1.0]), name="user")
