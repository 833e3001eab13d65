"""Vocabularies: parity with a counting loop, every Arrow layout, and errors that say what to do."""

from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from recfm._core import Hasher, Vocab, VocabBuilder, encode_ids
from recfm.errors import DataError, SchemaError

INT_TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
STR_TYPES = [pa.string(), pa.large_string(), pa.string_view()]

small_ints = st.lists(st.none() | st.integers(0, 9), max_size=40)
any_ints = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=40)
words = st.lists(st.none() | st.sampled_from(["", "a", "b", "ä", "z", "日本", "🙂", "a\0"]), max_size=40)
junk = st.integers(0, 3)


def chunked(values, dtype, cuts=(), before=0, after=0):
    """A column of many chunks, each a slice out of the middle of a larger buffer."""
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    filler = "junk" if dtype in STR_TYPES else 7
    chunks = []
    for start, stop in pairwise(bounds):
        padded = pa.array([filler] * before + list(values[start:stop]) + [None] * after, dtype)
        chunks.append(padded.slice(before, stop - start))
    return pa.chunked_array(chunks, dtype)


def assert_fits(column, values, min_count=1):
    vocab = Vocab.fit(column, name="x", min_count=min_count)
    order = oracles.vocab_order(values, min_count)
    assert vocab.values() == [value for value, _ in order]
    assert vocab.counts().tolist() == [count for _, count in order]
    assert len(vocab) == len(order) + 2
    ids = vocab.encode(column)
    assert ids.dtype == np.int32
    assert ids.tolist() == oracles.encode(order, values)
    return vocab


@settings(deadline=None)
@given(values=any_ints | small_ints, min_count=st.integers(1, 4))
def test_integers_match_the_oracle(values, min_count):
    vocab = assert_fits(pl.Series("x", values, dtype=pl.Int64), values, min_count)
    assert vocab.kind == "int"


@settings(deadline=None)
@given(values=words | st.lists(st.text(max_size=4), max_size=20), min_count=st.integers(1, 3))
def test_strings_match_the_oracle(values, min_count):
    vocab = assert_fits(pl.Series("x", values, dtype=pl.String), values, min_count)
    assert vocab.kind == "str"


@pytest.mark.parametrize("dtype", INT_TYPES + STR_TYPES, ids=str)
@settings(deadline=None, max_examples=25)
@given(
    data=st.data(),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    before=junk,
    after=junk,
    codes=st.booleans(),
)
def test_every_layout_reads_the_same(dtype, data, cuts, before, after, codes):
    values = data.draw(words if dtype in STR_TYPES else small_ints)
    column = chunked(values, dtype, cuts, before, after)
    if codes and dtype != pa.string_view():  # pyarrow cannot dictionary-encode views
        column = column.dictionary_encode()
    assert_fits(column, values)


@settings(deadline=None)
@given(values=words)
def test_polars_categories_are_strings(values):
    column = pl.Series("x", values, dtype=pl.String)
    for dtype in (pl.Categorical, pl.Enum(sorted({v for v in values if v is not None} | {"unused"}))):
        assert_fits(column.cast(dtype), values)
        assert_fits(column.cast(dtype)[1:], values[1:])


def test_booleans_are_zero_and_one():
    values = [True, None, False, True]
    column = pl.Series("x", values)
    assert Vocab.fit(column, name="x").values() == [1, 0]
    assert_fits(column[1:], [None, 0, 1])


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String, pl.Categorical, pl.Null], ids=str)
@pytest.mark.parametrize("values", [[], [None, None]], ids=["empty", "all-null"])
def test_columns_without_values(dtype, values):
    column = pl.Series("x", values, dtype=dtype)
    vocab = Vocab.fit(column, name="x")
    assert (len(vocab), vocab.values()) == (2, [])
    assert vocab.kind == ("str" if dtype in (pl.String, pl.Categorical) else "int")
    assert vocab.encode(column).tolist() == [1] * len(values)


def test_lists_of_nothing_are_empty():
    for lists in ([[], []], [[None], None]):
        ids, offsets = Vocab.fit(pl.Series([1]), name="x").encode_lists(pl.Series(lists))
        elements, bounds = oracles.jagged(lists)
        assert (ids.tolist(), offsets.tolist()) == ([1] * len(elements), bounds)


def test_a_column_without_chunks_keeps_its_type():
    assert Vocab.fit(pa.chunked_array([], pa.string()), name="x").kind == "str"


def test_an_array_and_a_table_of_one_column_are_columns():
    for column in (
        pa.array(["a", "b", "a"]),
        pa.table({"x": ["a", "b", "a"]}),
        pl.DataFrame({"x": ["a", "b", "a"]}),
    ):
        assert_fits(column, ["a", "b", "a"])


def garbage_lists(size):
    """Three lists of two elements of which the middle one is null but has elements all the same."""
    elements, mask = pa.array([1, 2, 3, 4, 5, 6]), pa.array([False, True, False])
    if size is None:
        return pa.ListArray.from_arrays(pa.array([0, 2, 4, 6], pa.int32()), elements, mask=mask)
    return pa.FixedSizeListArray.from_arrays(elements, size, mask=mask)


@settings(deadline=None)
@given(
    lists=st.lists(
        st.none() | st.lists(st.sampled_from(["a", "b", "c"]) | st.none(), max_size=4), max_size=12
    ),
    start=st.integers(0, 5),
    large=st.booleans(),
)
def test_lists_match_the_oracle(lists, start, large):
    dtype = (pa.large_list if large else pa.list_)(pa.string())
    seen = lists[start:]
    elements, offsets = oracles.jagged(seen)
    order = oracles.vocab_order(elements)
    for column in (pa.array(lists, dtype)[start:], pl.Series("x", lists, dtype=pl.List(pl.String))[start:]):
        vocab = Vocab.fit(column, name="x")
        assert vocab.counts().tolist() == [count for _, count in order]
        ids, bounds = vocab.encode_lists(column)
        assert (ids.dtype, bounds.dtype) == (np.int32, np.int64)
        assert ids.tolist() == oracles.encode(order, elements)
        assert bounds.tolist() == offsets


@pytest.mark.parametrize("size", [None, 2], ids=["list", "fixed-size-list"])
def test_elements_of_a_null_list_are_nobodys(size):
    column = garbage_lists(size)
    vocab = Vocab.fit(column, name="x")
    assert vocab.values() == [1, 2, 5, 6]
    ids, offsets = vocab.encode_lists(column)
    assert (ids.tolist(), offsets.tolist()) == ([2, 3, 4, 5], [0, 2, 2, 4])
    ids, offsets = vocab.encode_lists(column.slice(1))
    assert (ids.tolist(), offsets.tolist()) == ([4, 5], [0, 0, 2])


def test_polars_arrays_and_lists_of_categories_are_lists():
    vocab = Vocab.fit(pl.Series(["a", "b", "a"]), name="x")
    for dtype in (pl.Array(pl.String, 2), pl.List(pl.Categorical)):
        ids, offsets = vocab.encode_lists(pl.Series("x", [["a", "b"], None, ["new", "a"]], dtype=dtype))
        assert (ids.tolist(), offsets.tolist()) == ([2, 3, 1, 2], [0, 2, 2, 4])


@settings(deadline=None)
@given(values=words)
def test_a_stored_vocabulary_encodes_the_same(values):
    column = pl.Series("x", values, dtype=pl.String)
    vocab = Vocab.fit(column, name="x")
    stored = Vocab.from_values(pl.Series(vocab.values(), dtype=pl.String), vocab.counts(), name="x")
    assert stored.values() == vocab.values()
    assert (stored.counts() == vocab.counts()).all()
    assert (stored.encode(column) == vocab.encode(column)).all()


@pytest.mark.parametrize(
    ("values", "counts", "message"),
    [
        (["a", "a"], [2, 1], "value 1: it occurs before"),
        (["a", None], [2, 1], "value 1: it is null"),
        (["a", "b"], [1, 2], "value 1: its count is above the one before"),
        (["a", "b"], [1, 0], "value 1: its count is below 1"),
        (["a"], [2, 1], "`values` has 1 rows but `counts` has 2"),
    ],
)
def test_values_that_no_fit_gives_are_refused(values, counts, message):
    with pytest.raises(DataError, match=message):
        Vocab.from_values(pl.Series(values), np.array(counts), name="x")


@pytest.mark.parametrize(
    ("column", "dtype", "advice"),
    [
        (pl.Series([1.5]), "Float64", "use Numeric or cast it"),
        (pl.Series([1]).cast(pl.Date), "Date32", "cast it"),
        (pl.Series([1]).cast(pl.Datetime("us")), "Timestamp", "cast it"),
        (pl.Series([b"a"]), "Binary", "cast it"),
        (pl.Series([{"a": 1, "b": 2}]), "Struct", "one of its fields"),
        (pl.Series([["a"]]), "LargeList", "use Tokens"),
        (pl.DataFrame({"a": [1], "b": [2]}), "Struct", "one of its fields"),
        (np.array([1]), "ndarray", "polars Series"),
        ([1], "list", "polars Series"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_types_are_refused_by_name(column, dtype, advice):
    vocab = Vocab.fit(pl.Series([1]), name="price")
    with pytest.raises(SchemaError, match=f"column 'price' has dtype {dtype}.*: .*{advice}"):
        vocab.encode(column)


def test_single_values_are_no_lists():
    vocab = Vocab.fit(pl.Series([1]), name="tags")
    with pytest.raises(SchemaError, match="column 'tags' has dtype Int64: tokens need a list"):
        vocab.encode_lists(pl.Series([1]))
    with pytest.raises(SchemaError, match="column 'tags' has dtype Float64"):
        vocab.encode_lists(pl.Series([[1.5]]))


def test_kinds_do_not_mix():
    with pytest.raises(
        SchemaError, match="'item' holds int values, but its vocabulary was fitted on str values"
    ):
        Vocab.fit(pl.Series(["1"]), name="item").encode(pl.Series([1]))


def test_an_unsigned_integer_too_large_is_named():
    values = pl.Series([1, 2**63], dtype=pl.UInt64)
    with pytest.raises(DataError, match=f"column 'item' holds {2**63}, more than a signed"):
        Vocab.fit(values, name="item")


def test_a_threshold_below_one_is_refused():
    with pytest.raises(SchemaError, match="min_count is 0"):
        Vocab.fit(pl.Series([1]), name="item", min_count=0)


@settings(deadline=None)
@given(values=any_ints | words, cuts=st.lists(st.integers(0, 40), max_size=3), min_count=st.integers(1, 3))
def test_pieces_add_up_to_the_whole_and_workers_merge(values, cuts, min_count):
    dtype = pl.String if any(isinstance(value, str) for value in values) else pl.Int64
    whole = Vocab.fit(pl.Series(values, dtype=dtype), name="x", min_count=min_count)
    pieces, workers = VocabBuilder(name="x"), VocabBuilder(name="x")
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    for start, stop in pairwise(bounds):
        part = pl.Series(values[start:stop], dtype=dtype)
        pieces.add(part)
        worker = Vocab.fit(part, name="x")
        workers.add(pl.Series(worker.arrow_values(), dtype=dtype), worker.counts())
    for builder in (pieces, workers):
        vocab = builder.finish(min_count=min_count)
        assert vocab.values() == whole.values()
        assert vocab.counts().tolist() == whole.counts().tolist()
        assert (
            vocab.encode(pl.Series(values, dtype=dtype)).tolist()
            == whole.encode(pl.Series(values, dtype=dtype)).tolist()
        )


def test_a_builder_refuses_what_does_not_fit():
    builder = VocabBuilder(name="shop")
    builder.add(pl.Series([None, None]))
    assert len(builder) == 0
    builder.add(pl.Series(["a", "b", "a"]))
    assert len(builder) == 2
    assert builder.nbytes > 0
    with pytest.raises(SchemaError, match=r"'shop' holds int values.*fitted on str"):
        builder.add(pl.Series([1]))
    with pytest.raises(DataError, match="`values` has 1 rows but `counts` has 2"):
        builder.add(pl.Series(["a"]), np.array([1, 2]))
    with pytest.raises(DataError, match="`counts` is -1"):
        builder.add(pl.Series(["a"]), np.array([-1]))
    with pytest.raises(SchemaError, match="min_count is 0"):
        builder.finish(min_count=0)
    assert builder.finish().values() == ["a", "b"]


def test_values_leave_as_arrow():
    vocab = Vocab.fit(pl.Series(["b", "ä", "b", ""]), name="x")
    assert pl.Series(vocab.arrow_values()).to_list() == vocab.values() == ["b", "", "ä"]
    assert pa.array(Vocab.fit(pl.Series([5, 5, -1]), name="x").arrow_values()).to_pylist() == [5, -1]


@settings(deadline=None, max_examples=30)
@given(values=any_ints | small_ints, spread=st.sampled_from([1, 3, 10**12]))
def test_dense_and_scattered_integers_encode_alike(values, spread):
    values = [None if value is None else value % 1000 * spread for value in values]
    order = oracles.vocab_order(values)
    vocab = Vocab.fit(pl.Series(values, dtype=pl.Int64), name="x")
    asked = [*values, -1, 10**15, 2**63 - 1, -(2**63)]
    assert vocab.encode(pl.Series(asked, dtype=pl.Int64)).tolist() == oracles.encode(order, asked)


def test_many_columns_at_once_are_the_columns_one_by_one():
    rng = np.random.default_rng(0)
    rows = 10_000
    frame = pl.DataFrame(
        {
            "near": rng.integers(0, 500, rows),
            "far": rng.integers(0, 500, rows) * 10**12,
            "text": [f"a text of some length {i}" for i in rng.integers(0, 300, rows)],
            "short": [str(i) for i in rng.integers(0, 300, rows)],
        }
    ).with_columns(key=pl.col("text").cast(pl.Categorical), null=pl.when(pl.col("near") > 250).then("short"))
    frame = pl.concat([frame, frame.head(0), frame.head(777)], rechunk=False)
    encoders = [Vocab.fit(frame[name].head(5000), name=name) for name in frame.columns]
    encoders[1] = Hasher(name="far", buckets=100)
    out = np.empty((len(frame), len(encoders)), np.int32)
    encode_ids([frame[name] for name in frame.columns], encoders, out)
    for place, name in enumerate(frame.columns):
        assert (out[:, place] == encoders[place].encode(frame[name])).all()
    with pytest.raises(DataError, match=r"`out` must be of 6 columns"):
        encode_ids([frame[name] for name in frame.columns], encoders, out[:, :5].copy())
    with pytest.raises(DataError, match=r"column 'near' has 10777 rows, but the table has 9"):
        encode_ids([frame["near"]], encoders[:1], np.empty((9, 1), np.int32))
