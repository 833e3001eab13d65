"""The benchmark layouts on made-up files, and Frappe's real rows where they are at hand."""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recfm.data.batches import Batches
from recfm.data.folder import EncodedFolder
from recfm.datasets import (
    amazon,
    avazu,
    criteo,
    ctr,
    ctr_files,
    frappe,
    kuaivideo,
    microvideo,
    movielens_tags,
    taobao,
)
from recfm.errors import ConfigError, DataError
from recfm.schema import Categorical, Numeric, Tokens

FRAPPE = Path(__file__).resolve().parents[2] / "shared" / "data" / "frappe"
FIELDS = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
SPLITS = ("train", "valid", "test")


def csv_of(folder: Path, name: str, columns: dict[str, list]) -> None:
    pl.DataFrame(columns).write_csv(folder / f"{name}.csv")


def frappe_rows(rows: int = 12) -> dict[str, list]:
    return {"label": [i % 2 for i in range(rows)]} | {
        name: [100 * place + (i + place) % 5 for i in range(rows)] for place, name in enumerate(FIELDS)
    }


def libfm(columns: dict[str, list], *, negative: int) -> str:
    lines = []
    for label, *ids in zip(*columns.values(), strict=True):
        lines.append(" ".join([str(label or negative), *(f"{i}:1" for i in ids)]))
    return "\n".join(lines) + "\n"


LAYOUTS = {
    "csv": [f"{split}.csv" for split in SPLITS],
    "libsvm": [f"{split}.libsvm" for split in SPLITS],
    "libfm": [f"frappe.{split}.libfm" for split in ("train", "validation", "test")],
    "parquet": [f"{split}.parquet" for split in SPLITS],
    "redrawn": ["train_redrawn.parquet", "valid.parquet", "test.parquet"],
}


def write_frappe(folder: Path, layout: str) -> None:
    folder.mkdir()
    for name, rows in zip(LAYOUTS[layout], (12, 5, 4), strict=True):
        columns, path = frappe_rows(rows), folder / name
        if name.endswith(".csv"):
            pl.DataFrame(columns).write_csv(path)
        elif name.endswith(".parquet"):
            pl.DataFrame(columns).with_columns(pl.all().cast(pl.Int16)).write_parquet(path)
        else:
            path.write_text(libfm(columns, negative=-1 if layout == "libfm" else 0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_frappe_is_the_same_table(layout, tmp_path):
    for name in ("csv", layout):
        if not (tmp_path / name).exists():
            write_frappe(tmp_path / name, name)
    data = frappe.load(tmp_path / layout, check=False)
    reference = frappe.load(tmp_path / "csv", check=False)
    for split, rows in zip(SPLITS, (12, 5, 4), strict=True):
        found = getattr(data, split).collect()
        assert len(found) == rows
        assert found.equals(getattr(reference, split).collect())
    assert data.notes == (("train negatives re-drawn",) if layout == "redrawn" else ())
    train, _, test = ctr.encode_ctr(data)
    assert train.label.tolist() == [i % 2 for i in range(12)]
    assert sum(column.rows for column in train.layout.categorical) == 10 * (5 + 2)
    assert (test.ids >= 2).all()
    assert test.user.tolist() == [0, 1, 2, 3]
    assert not test.time.any()


def test_values_that_only_later_rows_have_are_out_of_vocabulary(tmp_path):
    write_frappe(tmp_path / "f", "csv")
    columns = frappe_rows(5)
    columns["city"][3] = 7777
    csv_of(tmp_path / "f", "valid", columns)
    _, valid, _ = ctr.encode_ctr(frappe.load(tmp_path / "f", check=False))
    assert valid.ids[:, valid.layout.position("city")].tolist().index(1) == 3


def test_files_are_compared_with_their_published_md5(tmp_path, monkeypatch):
    write_frappe(tmp_path / "f", "csv")
    train = tmp_path / "f" / "train.csv"
    found = hashlib.md5(train.read_bytes()).hexdigest()
    with pytest.raises(
        DataError, match=rf"train.csv' has md5 {found}.*{frappe.MD5['train.csv']}.*check=False"
    ):
        frappe.load(tmp_path / "f")
    unchecked = frappe.load(tmp_path / "f", check=False)
    assert [check.verified for check in unchecked.checks] == [False] * 3
    published = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in (tmp_path / "f").iterdir()}
    monkeypatch.setattr(frappe, "MD5", published)
    assert [check.verified for check in frappe.load(tmp_path / "f").checks] == [True] * 3


def test_every_published_md5_is_one():
    for table in (frappe.MD5, movielens_tags.MD5, taobao.MD5, amazon.MD5, kuaivideo.MD5, microvideo.MD5):
        assert all(len(bytes.fromhex(md5)) == 16 for md5 in table.values())
    every = [md5 for table in (*criteo.MD5.values(), *avazu.MD5.values()) for md5 in table.values()]
    assert len(set(every)) == 12
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in every)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (f / "train.csv").unlink(),
            "no Frappe_x1 in .*looked for train.csv, valid.csv, test.csv; ",
        ),
        (lambda f: (f / "valid.csv").write_text(""), "valid.csv' is empty"),
        (lambda f: (f / "test.csv").write_text("label,user\n1,2\n"), "has no column 'item'"),
        (lambda f: (f / "train.csv").write_text("label,usr\n1,2\n"), "no column 'user'; did you mean 'usr'"),
    ],
)
def test_files_that_are_not_there_or_not_whole_are_named(change, message, tmp_path):
    write_frappe(tmp_path / "f", "csv")
    change(tmp_path / "f")
    with pytest.raises(DataError, match=message):
        frappe.load(tmp_path / "f", check=False)


def test_bad_values_are_named_with_their_split(tmp_path):
    write_frappe(tmp_path / "f", "csv")
    for column, value, message in (("city", "oops", "oops"), ("label", 2, "holds 2 in row 4")):
        columns = {name: [str(v) for v in values] for name, values in frappe_rows(5).items()}
        columns[column][4] = str(value)
        csv_of(tmp_path / "f", "valid", columns)
        with pytest.raises(DataError, match=f"frappe_x1, valid rows: .*{message}"):
            ctr.encode_ctr(frappe.load(tmp_path / "f", check=False))


@pytest.mark.parametrize("cut", [2, 20])
def test_a_libfm_file_that_was_cut_off_is_refused(tmp_path, cut):
    write_frappe(tmp_path / "f", "libsvm")
    file = tmp_path / "f" / "train.libsvm"
    file.write_text(file.read_text().rstrip()[:-cut])
    with pytest.raises(DataError, match=r"frappe_x1, train rows: .*failed in column '\w+' for 1 out of"):
        ctr.encode_ctr(frappe.load(tmp_path / "f"))


def test_a_libfm_file_of_another_width_is_refused(tmp_path):
    write_frappe(tmp_path / "f", "libsvm")
    (tmp_path / "f" / "valid.libsvm").write_text("1 1:1 2:1\n")
    with pytest.raises(DataError, match="row 1: 3 fields, expected 11"):
        frappe.load(tmp_path / "f")


def test_no_folder_no_data_set_no_option(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*Frappe_x1 was unpacked"):
        frappe.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no data set 'frape'.*frappe_x1"):
        ctr.load("frape", tmp_path)
    with pytest.raises(ConfigError, match=r"Frappe_x1.*protocol"):
        ctr.load("Frappe_x1", tmp_path, protocol="bars")


def test_movielens_tags(tmp_path):
    for split in SPLITS:
        columns = {"label": [1, 0, 0], "user_id": [1, 1, 2], "item_id": [10, 11, 10], "tag_id": [20, 21, 22]}
        csv_of(tmp_path, split, columns)
        (tmp_path / f"{split}.libsvm").write_text(libfm(columns, negative=0))
    csv = ctr.encode_ctr(ctr.load("movielenslatest_x1", tmp_path, check=False))
    for split in SPLITS:
        (tmp_path / f"{split}.csv").unlink()
    text = ctr.encode_ctr(ctr.load("movielenslatest_x1", tmp_path))
    assert np.array_equal(csv.train.ids, text.train.ids)
    assert csv.train.item.tolist() == [10, 11, 10]


def criteo_rows(label: str) -> dict[str, list]:
    return (
        {label: [0, 1, 0, 1]}
        | {f"I{i}": [None, 1, 3, 100] for i in range(1, 14)}
        | {f"C{i}": ["68fd1e64", None, "68fd1e64", "abc"] for i in range(1, 27)}
    )


@pytest.mark.parametrize("version", ["x1", "x4"])
def test_criteo(version, tmp_path):
    for split in SPLITS:
        csv_of(tmp_path, split, criteo_rows("label" if version == "x1" else "Label"))
    data = ctr.load(f"criteo_{version}", tmp_path, check=False)
    assert data.schema.user is data.schema.item is data.schema.time is None
    assert data.embedding_dim == {"x1": 10, "x4": 16}[version]
    assert {f.min_count for f in data.schema.of_kind(Categorical)} == {{"x1": 1, "x4": 10}[version]}
    train, _, _ = ctr.encode_ctr(data)
    assert not Batches(train, batch_size=2).has_users
    if version == "x1":
        assert train.numeric.shape == (4, 13)
        assert train.ids[:, 0].tolist() == [2, 1, 2, 3]
    else:
        # floor(log(x)^2) above 2: log(3)^2 = 1.2, log(100)^2 = 21.2; missing is 0.
        assert data.train.collect()["I1"].to_list() == [0, 1, 1, 21]
        assert train.numeric.shape == (4, 0)
        logged = criteo.load(tmp_path, version="x4", setting="002", numbers="log", check=False)
        assert logged.embedding_dim == 40
        assert {f.transform for f in logged.schema.of_kind(Numeric)} == {"log"}
        assert ctr.encode_ctr(logged).train.numeric.shape == (4, 13)


def test_avazu(tmp_path):
    for split in SPLITS:
        csv_of(tmp_path, split, {"label": [0, 1]} | {f"feat_{i}": ["a", "b"] for i in range(1, 23)})
    train, _, _ = ctr.encode_ctr(ctr.load("avazu_x1", tmp_path, check=False))
    assert train.ids.shape == (2, 22)
    ids = {name: ["a", "b"] for name in avazu._X4}
    for split in SPLITS:
        csv_of(tmp_path, split, {"id": ["9", "8"], "click": [0, 1], "hour": ["14102600", "14102723"]} | ids)
    data = ctr.load("avazu_x4", tmp_path, setting="002", check=False)
    rows = data.train.collect()
    assert rows["hour"].to_list() == ["00", "23"]
    assert rows["weekday"].to_list() == [0, 1]  # 26 October 2014 was a Sunday
    assert rows["weekend"].to_list() == [1, 0]
    assert "id" not in rows.columns
    assert ctr.encode_ctr(data).train.ids.shape == (2, 24)
    with pytest.raises(ConfigError, match="setting is '003': use 001 or 002"):
        avazu.load(tmp_path, version="x4", setting="003")


SEQUENCES = {
    "taobaoad_x1": (
        {"clk": [0, 1] * 10, "price": [float(i) for i in range(20)]}
        | {name: [f"{name}{i % 2}" for i in range(20)] for names in taobao._SIDES.values() for name in names}
        | {
            "cate_his": ["cate_id0^cate_id1"] * 19 + [""],
            "brand_his": ["brand1"] * 20,
            "btag_his": [None] * 20,
        },
        taobao,
    ),
    "amazonelectronics_x1": (
        {"label": [0, 1] * 10, "user_id": list(range(20)), "item_id": [i % 4 for i in range(20)]}
        | {"cate_id": [i % 2 for i in range(20)], "item_history": ["3^2"] * 20, "cate_history": ["1^0"] * 20},
        amazon,
    ),
    "kuaivideo_x1": (
        {
            "timestamp": list(range(20)),
            "user_id": [i % 3 for i in range(20)],
            "item_id": [i % 2 for i in range(20)],
        }
        | {"is_click": [0, 1] * 10, "is_like": [0] * 20, "pos_items": ["0^1^0"] * 20, "neg_items": [""] * 20},
        kuaivideo,
    ),
    "microvideo1.7m_x1": (
        {
            "timestamp": list(range(20)),
            "user_id": [i % 3 for i in range(20)],
            "item_id": [i % 4 for i in range(20)],
        }
        | {"cate_id": [i % 2 for i in range(20)], "is_click": [0, 1] * 10}
        | {"clicked_items": ["0^3"] * 20, "clicked_categories": ["0^1"] * 20},
        microvideo,
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_sequence_sets(name, kind, tmp_path):
    columns, module = SEQUENCES[name]
    for split, rows in (("train", 20), ("test", 6)):
        frame = pl.DataFrame(columns).head(rows)
        if kind == "csv":
            frame.write_csv(tmp_path / f"{split}.csv")
        else:
            lists = [f.name for f in module.schema().of_kind(Tokens)]
            frame = frame.with_columns(pl.col(lists).cast(pl.String).str.split("^"))
            frame.write_parquet(tmp_path / f"{split}.parquet")
    options = {"vectors": False} if "video" in name else {}
    honest = ctr.load(name, tmp_path, check=False, **options)
    assert [len(getattr(honest, split).collect()) for split in SPLITS] == [18, 2, 6]
    assert (
        pl.concat([honest.train, honest.valid])
        .collect()
        .equals(ctr.load(name, tmp_path, check=False, protocol="bars", **options).train.collect())
    )
    assert "protocol honest" in honest.notes[0]
    bars = ctr.load(name, tmp_path, check=False, protocol="bars", **options)
    assert bars.valid is bars.test
    assert "validation rows are the test rows" in bars.notes[0]
    splits = ctr.encode_ctr(bars)
    assert splits.valid is splits.test
    assert len(splits.train) == 20
    for column in splits.train.layout.tokens:
        owner = next(c for c in splits.train.layout.categorical if c.name == column.table)
        assert owner.rows == column.rows
    with pytest.raises(ConfigError, match="protocol is 'best': use honest or bars"):
        ctr.load(name, tmp_path, check=False, protocol="best", **options)


def test_taobao_lists_use_the_table_of_what_they_hold(tmp_path):
    columns, _ = SEQUENCES["taobaoad_x1"]
    for split in ("train", "test"):
        csv_of(tmp_path, split, columns)
    train, _, _ = ctr.encode_ctr(taobao.load(tmp_path, protocol="bars", check=False))
    values, offsets = train.tokens["cate_his"]
    assert offsets[-2:].tolist() == [38, 38]  # an empty field is an empty list
    cate = train.ids[:, train.layout.position("cate_id")]
    assert values[:2].tolist() == [cate[0], cate[1]]
    assert {c.name: c.shares for c in train.layout.tokens} == {
        "cate_his": "cate_id",
        "brand_his": "brand",
        "btag_his": "btag",
    }


def test_sets_larger_than_memory_go_to_a_folder(tmp_path):
    write_frappe(tmp_path / "f", "csv")
    data = frappe.load(tmp_path / "f", check=False)
    on_disk = ctr.encode_ctr(data, folder=tmp_path / "encoded")
    in_memory = ctr.encode_ctr(data)
    for disk, memory in zip(on_disk, in_memory, strict=True):
        assert isinstance(disk, EncodedFolder)
        assert np.array_equal(disk.read().ids, memory.ids)


@pytest.mark.skipif(not FRAPPE.is_dir(), reason=f"no real data in {FRAPPE}")
def test_the_real_frappe():
    data = frappe.load(FRAPPE)
    assert data.notes == (frappe.REDRAWN,)
    train, valid, test = ctr.encode_ctr(data)
    assert [len(split) for split in (train, valid, test)] == [202_027, 57_722, 28_860]
    values = pl.concat([data.train, data.valid, data.test]).select(pl.col(FIELDS).n_unique()).collect()
    assert values.sum_horizontal().item() == 5_382
    seen = data.train.select(pl.col(FIELDS).n_unique()).collect().sum_horizontal().item()
    assert sum(column.rows for column in train.layout.categorical) == seen + 20
    assert int(train.label.sum()) == 67_604


def test_checks_of_files_without_a_published_md5_read_nothing(tmp_path):
    path = tmp_path / "x.parquet"
    assert ctr_files.verify([path], {}, check=True) == (
        ctr_files.Check(file="x.parquet", published="", found=""),
    )
