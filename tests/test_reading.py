"""Tables of any kind come in pieces: every row once, in order, and again on the next reading."""

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.data.reading import TableReader
from recfm.errors import DataError, SchemaError

COLUMNS = ["b", "a"]


def table(rows, start=0):
    numbers = range(start, start + rows)
    columns = {"a": list(numbers), "b": [f"x{i}" for i in numbers], "c": [0] * rows}
    return pl.DataFrame(columns, schema={"a": pl.Int64, "b": pl.String, "c": pl.Int64})


def assert_pieces(source, expected, rows):
    for _ in range(2):
        pieces = list(source.pieces(rows))
        assert [len(piece) for piece in pieces[:-1]] == [rows] * (len(pieces) - 1)
        assert 0 < len(pieces[-1]) <= rows
        assert pl.concat(pieces).equals(expected.select(COLUMNS))
        assert source.rows == len(expected)


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 30), min_size=1, max_size=5), rows=st.integers(1, 40))
def test_record_batches_are_cut_and_joined(cuts, rows):
    batches, start = [], 0
    for cut in cuts:
        batches.append(table(cut, start).to_arrow())
        start += cut
    whole = pa.concat_tables(batches)
    if start:
        assert_pieces(TableReader(whole, COLUMNS), pl.from_arrow(whole), rows)


@pytest.mark.parametrize("rows", [1, 7, 100, 1000])
def test_every_kind_of_table_gives_the_same_pieces(tmp_path, rows):
    parts = [table(60), table(41, 60)]
    whole = pl.concat(parts)
    folder = tmp_path / "parts"
    folder.mkdir()
    for place, part in enumerate(parts):
        pq.write_table(part.to_arrow(), folder / f"{place}.parquet", row_group_size=13)
    arrow = whole.to_arrow()
    for events in (
        whole,
        whole.lazy(),
        folder,
        str(folder / "*.parquet"),
        arrow,
        lambda: pa.RecordBatchReader.from_batches(arrow.schema, arrow.to_batches(max_chunksize=17)),
    ):
        assert_pieces(TableReader(events, COLUMNS), whole, rows)


def test_duckdb_relations_are_tables():
    duckdb = pytest.importorskip("duckdb", reason="duckdb comes with the bench extra")
    frame = table(50)
    relation = duckdb.sql("select * from frame order by a")
    assert_pieces(TableReader(relation, COLUMNS), frame, 20)


def test_a_stream_that_is_gone_is_an_error_not_an_empty_table():
    arrow = table(5).to_arrow()
    source = TableReader(pa.RecordBatchReader.from_batches(arrow.schema, arrow.to_batches()), COLUMNS)
    assert sum(map(len, source.pieces(10))) == 5
    with pytest.raises(DataError, match="function that makes it"):
        list(source.pieces(10))


def test_files_that_disagree_are_named(tmp_path):
    table(5).write_parquet(tmp_path / "a.parquet")
    table(5).with_columns(pl.col("a").cast(pl.String)).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet.* other columns or dtypes"):
        list(TableReader(tmp_path, COLUMNS).pieces(10))


def test_a_file_that_is_cut_short_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    table(1000).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.parquet.* cannot be read as Parquet"):
        TableReader(path, COLUMNS)


def test_a_query_without_the_column_is_refused():
    with pytest.raises(SchemaError, match="lacks a column"):
        list(TableReader(table(5).lazy().drop("b"), COLUMNS).pieces(10))


@pytest.mark.parametrize(
    ("names", "extra"),
    [
        (["a", "a"], pa.array([1, 2])),
        (["a", "b"], pa.array([pa.MonthDayNano([1, 2, 3])] * 2)),
    ],
    ids=["a name twice", "a type that Polars lacks"],
)
def test_an_arrow_table_that_polars_cannot_hold_is_refused(names, extra):
    given = pa.Table.from_arrays([pa.array([1, 2]), extra], names=names)
    with pytest.raises(DataError, match="the Arrow table cannot be read"):
        list(TableReader(given, ["a"]).pieces(10))


@pytest.mark.parametrize("path", ["~there-is-nobody-of-this-name/x", "a\0b"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(DataError, match=r"no path|no event table"):
        TableReader(path, ["a"])
