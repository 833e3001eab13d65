"""MovieLens layouts, checks and fetching, on made-up files; nothing here needs the network."""

import functools
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfm.datasets import download, movielens, movielens_fetch, tables
from recfm.datasets.movielens_layouts import GENRES_100K
from recfm.errors import ConfigError, DataError, DownloadError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data in {SHARED}")

# user, movie, stars, seconds; rows 2 and 4 tie in time
RATINGS = [(1, 10, 5, 300), (2, 20, 3, 100), (1, 30, 4, 200), (3, 10, 1, 100), (2, 30, 2, 250)]
USERS = [(1, 24, "M", "7"), (2, 53, "F", "0"), (3, 18, "F", "12")]
# movie, title without year, year, genres
MOVIES = [
    (10, "Toys, and: Story", 1995, ["Animation", "Children's", "Comedy"]),
    (20, "Café Été", 1971, ["Drama"]),
    (30, "unknown", None, []),
]


def titled(title: str, year: int | None) -> str:
    return title if year is None else f"{title} ({year})"


def write_100k(folder: Path) -> None:
    lines = ["\t".join(map(str, row)) for row in RATINGS]
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    users = [f"{user}|{age}|{gender}|{job}|00000" for user, age, gender, job in USERS]
    (folder / "u.user").write_text("\n".join(users) + "\n")
    items = []
    for movie, title, year, genres in MOVIES:
        flags = [str(int(name in genres or (name == "unknown" and not genres))) for name in GENRES_100K]
        released = "" if year is None else f"01-Jan-{year}"
        items.append("|".join([str(movie), titled(title, year), released, "", "", *flags]))
    (folder / "u.item").write_bytes(("\n".join(items) + "\n").encode("latin-1"))


def write_1m(folder: Path) -> None:
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in RATINGS))
    users = [f"{user}::{gender}::{age}::{job}::00000\n" for user, age, gender, job in USERS]
    (folder / "users.dat").write_text("".join(users))
    items = [f"{m}::{titled(t, y)}::{'|'.join(g) or 'unknown'}\n" for m, t, y, g in MOVIES]
    (folder / "movies.dat").write_bytes("".join(items).encode("latin-1"))


def write_latest(folder: Path) -> None:
    ratings = "userId,movieId,rating,timestamp\r\n" + "".join(
        f"{u},{m},{r}.0,{t}\r\n" for u, m, r, t in RATINGS
    )
    (folder / "ratings.csv").write_bytes(ratings.encode())
    items = [f'{m},"{titled(t, y)}",{"|".join(g) or "(no genres listed)"}\n' for m, t, y, g in MOVIES]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(items), encoding="utf-8")


def write_recbole(folder: Path) -> None:
    ratings = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    ratings += "".join("\t".join(map(str, row)) + "\n" for row in RATINGS)
    (folder / "ml-100k.inter").write_text(ratings)
    users = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    (folder / "ml-100k.user").write_text(
        users + "".join(f"{u}\t{a}\t{g}\t{j}\t00000\n" for u, a, g, j in USERS)
    )
    items = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    items += "".join(f"{m}\t{t}\t{y or 'unkonwn'}\t{' '.join(g) or 'unknown'}\n" for m, t, y, g in MOVIES)
    (folder / "ml-100k.item").write_text(items, encoding="utf-8")


def write_events_parquet(folder: Path) -> None:
    time = [datetime.fromtimestamp(row[3], UTC).replace(tzinfo=None) for row in RATINGS]
    events = {"user_id": [r[0] for r in RATINGS], "movie_id": [r[1] for r in RATINGS]}
    labels = pl.Series([int(r[2] >= 4) for r in RATINGS], dtype=pl.Int8)
    frame = pl.DataFrame({**events, "label": labels, "time": pl.Series(time, dtype=pl.Datetime("us"))})
    frame.cast({"user_id": pl.Int16, "movie_id": pl.Int16}).write_parquet(folder / "events.parquet")
    write_users(folder)
    items = {
        "movie_id": [m[0] for m in MOVIES],
        "title": [titled(m[1], m[2]) for m in MOVIES],
        "genres": ["|".join(m[3]) for m in MOVIES],
    }
    pl.DataFrame(items).write_parquet(folder / "movies.parquet")


def write_users(folder: Path) -> None:
    columns = {"user_id": [], "age": [], "gender": [], "occupation": []}
    for row in USERS:
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    frame = pl.DataFrame(columns).with_columns(
        pl.col("age").cast(pl.Int8), pl.col("occupation").cast(pl.Int8)
    )
    frame.write_parquet(folder / "users.parquet")


def write_ratings_parquet(folder: Path) -> None:
    names = ["user_id", "item_id", "rating", "timestamp"]
    frame = pl.DataFrame(RATINGS, schema=names, orient="row").cast({"rating": pl.Int8, "timestamp": pl.Int32})
    frame.write_parquet(folder / "ratings.parquet")
    write_users(folder)
    items = {
        "item_id": [m[0] for m in MOVIES],
        "movie_title": [m[1] for m in MOVIES],
        "release_year": [str(m[2] or "V") for m in MOVIES],
        "class": [" ".join(m[3]) for m in MOVIES],
    }
    pl.DataFrame(items).write_parquet(folder / "items.parquet")


WRITERS = [write_100k, write_1m, write_latest, write_recbole, write_events_parquet, write_ratings_parquet]


@pytest.mark.parametrize("write", WRITERS)
def test_layouts_agree(write, tmp_path):
    write(tmp_path)
    data = movielens.load(tmp_path)
    order = [1, 3, 2, 4, 0]
    users = {user: (gender, age, job) for user, age, gender, job in USERS}
    movies = {movie: (year, genres) for movie, _, year, genres in MOVIES}
    expected = pl.DataFrame(
        [
            {
                "user_id": user,
                "movie_id": movie,
                "rating": float(stars),
                "label": int(stars >= 4),
                "time": datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None),
                **dict(zip(["gender", "age", "occupation"], users[user], strict=True)),
                **dict(zip(["year", "genres"], movies[movie], strict=True)),
            }
            for user, movie, stars, seconds in (RATINGS[i] for i in order)
        ],
        schema_overrides={"label": pl.Int8, "time": pl.Datetime("us"), "year": pl.Int64},
    )
    if write is write_latest:
        expected = expected.drop("gender", "age", "occupation")
    if write is write_events_parquet:
        expected = expected.drop("rating")
    assert data.events.schema == expected.schema
    assert data.events.to_dicts() == expected.to_dicts()
    assert data.name == tmp_path.name
    assert data.source.endswith(f"in {tmp_path.name}")
    assert str(tmp_path) not in data.source  # reports are shown to others
    assert "Harper" in data.acknowledgement


def test_threshold(tmp_path):
    write_100k(tmp_path)
    assert movielens.load(tmp_path, threshold=3).events["label"].to_list() == [1, 0, 1, 0, 1]
    with pytest.raises(ConfigError, match="threshold is 6"):
        movielens.load(tmp_path, threshold=6)


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Toy Story (1995)", 1995),
        ("Land (1995) (V)", 1995),
        ("Show (2006–2007)", 2006),  # noqa: RUF001
        ("2001: A Space Odyssey", None),
        ("Ends early (19", None),
    ],
)
def test_year_from_title(title, year, tmp_path):
    write_latest(tmp_path)
    movies = f'movieId,title,genres\n10,"{title}",Comedy\n20,a,b\n30,a,b\n'
    (tmp_path / "movies.csv").write_text(movies, encoding="utf-8")
    events = movielens.load(tmp_path).events
    assert events.filter(pl.col("movie_id") == 10)["year"].to_list() == [year] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\t10\t6\t300", r"u\.data, row 6: rating is 6\.0, expected a rating of 0\.5 to 5"),
        ("1\t10\tnan\t300", r"row 6: rating is 'nan'"),
        ("1\t10\t\t300", "row 6: rating is missing"),
        ("x\t10\t5\t300", "row 6: user_id is 'x', expected an integer id"),
        ("9\t10\t5\t300", r"row 6: user_id is 9, expected a user of u\.user"),
        ("1\t99\t5\t300", r"row 6: movie_id is 99, expected a movie of u\.item"),
        ("1\t10\t5", "row 6: time is missing"),
        ("1\t10\t5\t300000000000000", "row 6: time is .300000000000000., expected seconds since 1970"),
        ("1\t10\t5\t300\t1", r"u\.data is not a table separated by"),
    ],
)
def test_bad_rating_is_named(line, message, tmp_path):
    write_100k(tmp_path)
    with (tmp_path / "u.data").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        movielens.load(tmp_path)


def test_duplicate_movie_and_user(tmp_path):
    write_100k(tmp_path)
    text = (tmp_path / "u.user").read_text()
    (tmp_path / "u.user").write_text(text + text.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"u\.user, row 4: user_id is 1, expected each value once"):
        movielens.load(tmp_path)


def test_bad_genre_flag(tmp_path):
    write_100k(tmp_path)
    text = (tmp_path / "u.item").read_bytes()
    (tmp_path / "u.item").write_bytes(text.replace(b"|1\n", b"|2\n").replace(b"|0\n", b"|2\n"))
    with pytest.raises(DataError, match=r"u\.item, row 1: Western is '2'"):
        movielens.load(tmp_path)


def test_missing_column(tmp_path):
    write_latest(tmp_path)
    text = (tmp_path / "ratings.csv").read_text()
    (tmp_path / "ratings.csv").write_text(text.replace("timestamp", "when"))
    with pytest.raises(DataError, match=r"ratings\.csv: no column timestamp; it has userId"):
        movielens.load(tmp_path)


@pytest.mark.parametrize("write", WRITERS)
def test_empty_files(write, tmp_path):
    write(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(b"")
        with pytest.raises(DataError, match=f"{path.name} is empty"):
            movielens.load(tmp_path)
        path.write_bytes(whole)


def test_header_only(tmp_path):
    write_latest(tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(DataError, match=r"ratings\.csv has no rows"):
        movielens.load(tmp_path)


def test_truncated_parquet(tmp_path):
    write_events_parquet(tmp_path)
    path = tmp_path / "events.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"events\.parquet is not a readable Parquet file"):
        movielens.load(tmp_path)


def test_labels_and_times_of_parquet(tmp_path):
    write_events_parquet(tmp_path)
    frame = pl.read_parquet(tmp_path / "events.parquet")
    zoned = frame.with_columns(pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"))
    before = movielens.load(tmp_path).events
    zoned.write_parquet(tmp_path / "events.parquet")
    assert movielens.load(tmp_path).events.equals(before)
    frame.with_columns(label=pl.lit(2, pl.Int8)).write_parquet(tmp_path / "events.parquet")
    with pytest.raises(
        DataError, match=r"events\.parquet, row 1: label is 2, expected 0 or 1 \(5 such rows\)"
    ):
        movielens.load(tmp_path)


def test_no_layout_lists_the_files(tmp_path):
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    with pytest.raises(
        DataError, match=r"u\.data, u\.user, u\.item \(only u\.user, u\.item missing\).*\.inter"
    ):
        movielens.load(tmp_path)
    with pytest.raises(DataError, match="neither a folder nor one of ml-100k, ml-1m"):
        movielens.load("ml-10m")


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from([10, 20, 30]),
            st.integers(1, 10).map(lambda half: half / 2),
            st.integers(0, 2**31),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_order_is_stable(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("latest")
    write_latest(folder)
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + lines)
    events = movielens.load(folder).events
    wanted = sorted(rows, key=lambda row: row[3])
    got = zip(
        events["user_id"], events["movie_id"], events["rating"], events["time"].dt.epoch("s"), strict=True
    )
    assert list(got) == wanted


def test_fraction_is_no_id():
    with pytest.raises(DataError, match=r"row 2: user_id is 1\.5"):
        tables.cast(pl.Series("user_id", [1.0, 1.5]), pl.Int64, Path("f"), what="an integer id")


# --- fetching ---


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A zip of the made-up 100K files, and the known source pointing at it; returns (zip, serve)."""
    folder = tmp_path / "site"
    folder.mkdir()
    raw = tmp_path / "raw"
    raw.mkdir()
    write_100k(raw)
    archive = folder / "ml-100k.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in raw.iterdir():
            zipped.write(path, f"ml-100k/{path.name}")
    checksums = {"md5": hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()}
    monkeypatch.delenv("RECFM_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def point(url: str, checksums=checksums) -> None:
        source = movielens_fetch.KNOWN["ml-100k"]
        made = replace(source, url=url, checksums=checksums, ratings=len(RATINGS), wheel=None)
        monkeypatch.setitem(movielens_fetch.KNOWN, "ml-100k", made)

    return archive, point


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Cut(Quiet):
    """Announces the whole file and sends half of it."""

    def copyfile(self, source, outputfile):
        whole = source.read()
        outputfile.write(whole[: len(whole) // 2])


@pytest.fixture
def serve():
    servers = []

    def start(folder: Path, handler=Quiet) -> str:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_fetch_from_site_once(made_up, serve, tmp_path, monkeypatch):
    archive, point = made_up
    point(serve(archive.parent) + "/ml-100k.zip")
    cache = tmp_path / "cache"
    folder = movielens.fetch(cache=cache)
    assert folder == cache / "ml-100k"
    assert [path.name for path in cache.iterdir()] == ["ml-100k"]
    monkeypatch.setenv("RECFM_OFFLINE", "1")
    data = movielens.load("ml-100k", cache=cache)
    assert data.events.height == len(RATINGS)
    assert data.name == "ml-100k"
    assert data.source.endswith("from the GroupLens site")


@pytest.mark.parametrize(
    ("handler", "path", "checksum", "reason"),
    [
        (Quiet, "/ml-100k.zip", {"md5": "0" * 32}, "has md5 .* expected 0000"),
        (Quiet, "/other.zip", None, "HTTP status 404"),
        (Cut, "/ml-100k.zip", None, r"got \d+ of \d+ bytes|IncompleteRead"),
    ],
)
def test_failed_fetch_leaves_nothing(handler, path, checksum, reason, made_up, serve, tmp_path):
    archive, point = made_up
    url = serve(archive.parent, handler) + path
    point(url, checksum) if checksum else point(url)
    cache = tmp_path / "cache"
    with pytest.raises(DownloadError, match=reason) as caught:
        movielens.fetch(cache=cache)
    assert f"Put the ml-100k files into {cache / 'ml-100k'}, or pass --data FOLDER." in str(caught.value)
    assert list(cache.iterdir()) == []


def test_killed_download_leaves_no_valid_cache(made_up, serve, tmp_path, monkeypatch):
    archive, point = made_up
    half_sent, finish = threading.Event(), threading.Event()

    class Hang(Quiet):
        def copyfile(self, source, outputfile):
            whole = source.read()
            outputfile.write(whole[: len(whole) // 2])
            outputfile.flush()
            half_sent.set()
            finish.wait(30)

    url = serve(archive.parent, Hang) + "/ml-100k.zip"
    cache = tmp_path / "cache"
    code = (
        "import dataclasses, pathlib, sys\n"
        "from recfm.datasets import movielens_fetch as fetching\n"
        "source = fetching.KNOWN['ml-100k']\n"
        "fetching.KNOWN['ml-100k'] = dataclasses.replace(source, url=sys.argv[1], wheel=None)\n"
        "fetching.fetch(cache=pathlib.Path(sys.argv[2]))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, url, str(cache)])
    assert half_sent.wait(30)
    child.kill()
    child.wait()
    finish.set()
    assert [path.name.startswith(".ml-100k-") for path in cache.iterdir()] == [True]
    monkeypatch.setenv("RECFM_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"cache: no folder .*ml-100k"):
        movielens.fetch(cache=cache)
    monkeypatch.delenv("RECFM_OFFLINE")
    point(serve(archive.parent) + "/ml-100k.zip")
    assert movielens.load("ml-100k", cache=cache).events.height == len(RATINGS)


def test_processes_fetching_at_once(made_up, serve, tmp_path):
    archive, point = made_up
    point(serve(archive.parent) + "/ml-100k.zip")
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: movielens.fetch(cache=cache), range(16)))
    assert set(folders) == {cache / "ml-100k"}
    assert movielens.load("ml-100k", cache=cache).events.height == len(RATINGS)


def test_unreachable_site(made_up, tmp_path):
    _, point = made_up
    point("http://127.0.0.1:1/ml-100k.zip")
    with pytest.raises(DownloadError, match=r"from the GroupLens site: .*refused"):
        movielens.fetch(cache=tmp_path)


def test_offline_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("RECFM_OFFLINE", "1")
    monkeypatch.setenv("RECFM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DownloadError, match="RECFM_OFFLINE is set") as caught:
        movielens.load("ml-100k")
    assert "GroupLens" not in str(caught.value)
    assert f"Put the ml-100k files into {tmp_path / 'cache' / 'ml-100k'}" in str(caught.value)


def test_unknown_name():
    with pytest.raises(ConfigError, match="no data set 'ml-25m'; known are ml-100k, ml-1m"):
        movielens.fetch("ml-25m")


def test_files_the_user_put_there(made_up, tmp_path, monkeypatch):
    _, point = made_up
    point("http://127.0.0.1:1/ml-100k.zip")
    monkeypatch.setenv("RECFM_OFFLINE", "1")
    folder = tmp_path / "cache" / "ml-100k"
    folder.mkdir(parents=True)
    write_100k(folder)
    assert movielens.fetch(cache=tmp_path / "cache") == folder
    text = (folder / "u.data").read_text()
    (folder / "u.data").write_text(text[: len(text) // 2])
    with pytest.raises(DownloadError, match=r"u\.data has 3 lines, expected 5"):
        movielens.fetch(cache=tmp_path / "cache")


def test_zip_the_user_put_there(made_up, tmp_path, monkeypatch):
    archive, point = made_up
    point("http://127.0.0.1:1/ml-100k.zip")
    monkeypatch.setenv("RECFM_OFFLINE", "1")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "ml-100k.zip").write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(DownloadError, match=r"ml-100k\.zip has md5"):
        movielens.fetch(cache=cache)
    (cache / "ml-100k.zip").write_bytes(archive.read_bytes())
    assert movielens.load("ml-100k", cache=cache).events.height == len(RATINGS)


def test_damaged_cache_is_fetched_again(made_up, serve, tmp_path):
    archive, point = made_up
    point(serve(archive.parent) + "/ml-100k.zip")
    cache = tmp_path / "cache"
    folder = movielens.fetch(cache=cache)
    (folder / "u.data").write_text("1\t10\t5\t300\n")
    (cache / ".ml-100k-killed" / "ml-100k").mkdir(parents=True)
    (cache / ".ml-100k-killed" / "ml-100k" / "ml-100k.zip").write_bytes(b"PK")
    assert movielens.load("ml-100k", cache=cache).events.height == len(RATINGS)
    assert len(list(cache.glob("ml-100k.replaced-*/ml-100k/u.data"))) == 1


def test_killed_before_the_manifest_is_not_valid(made_up, tmp_path, monkeypatch):
    _, point = made_up
    point("http://127.0.0.1:1/ml-100k.zip")
    monkeypatch.setenv("RECFM_OFFLINE", "1")
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    write_100k(folder)
    (folder / movielens_fetch.MANIFEST).write_text('{"origin": "x", "fi')
    with pytest.raises(DownloadError, match=r"\.recfm\.json is unreadable"):
        movielens.fetch(cache=tmp_path)


def fake_pip(monkeypatch, tmp_path, content: bytes, status: int = 0) -> None:
    """Make `_pip` a script that writes a wheel with three files of this content, or fails."""
    script = tmp_path / "pip.py"
    script.write_text(
        "import sys, zipfile\n"
        f"if {status}: print('ERROR: no such thing', file=sys.stderr); sys.exit({status})\n"
        "folder = sys.argv[sys.argv.index('--dest') + 1]\n"
        "with zipfile.ZipFile(folder + '/recbole-1.2.1-py3-none-any.whl', 'w') as zipped:\n"
        "    for kind in ('inter', 'user', 'item', 'kg'):\n"
        f"        zipped.writestr('recbole/dataset_example/ml-100k/ml-100k.' + kind, {content!r})\n"
    )
    monkeypatch.setattr(movielens_fetch, "_pip", lambda: [sys.executable, str(script)])
    monkeypatch.delenv("RECFM_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    source = movielens_fetch.KNOWN["ml-100k"]
    sums = {name: hashlib.sha256(content).hexdigest() for name in source.wheel.sha256}
    source = replace(source, url="http://127.0.0.1:1/x.zip", wheel=replace(source.wheel, sha256=sums))
    monkeypatch.setitem(movielens_fetch.KNOWN, "ml-100k", source)


def test_fetch_from_wheel(monkeypatch, tmp_path):
    fake_pip(monkeypatch, tmp_path, b"a:token\n1\n")
    folder = movielens.fetch(cache=tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == [
        ".recfm.json",
        "ml-100k.inter",
        "ml-100k.item",
        "ml-100k.user",
    ]
    assert json.loads((folder / ".recfm.json").read_text())["origin"] == "from the recbole==1.2.1 wheel"


def test_pip_fails(monkeypatch, tmp_path):
    fake_pip(monkeypatch, tmp_path, b"", status=3)
    with pytest.raises(DownloadError, match="wheel: pip failed: ERROR: no such thing"):
        movielens.fetch(cache=tmp_path / "cache")


def test_wheel_with_other_content(monkeypatch, tmp_path):
    fake_pip(monkeypatch, tmp_path, b"x")
    wheel = movielens_fetch.KNOWN["ml-100k"].wheel
    monkeypatch.setitem(wheel.sha256, "ml-100k.item", "0" * 64)
    with pytest.raises(DownloadError, match=r"ml-100k\.item has sha256"):
        movielens.fetch(cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_zip_cannot_leave_its_folder(name, tmp_path):
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(zipfile.ZipInfo(name), "x")
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(DownloadError, match="unsafe path"):
        download.unzip(archive, out)
    assert not list(tmp_path.rglob("*evil*"))


def test_zip_with_link(tmp_path):
    archive = tmp_path / "link.zip"
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(DownloadError, match="holds the link"):
        download.unzip(archive, tmp_path)


def test_truncated_and_damaged_zip(made_up, tmp_path):
    archive, _ = made_up
    whole = archive.read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.zip").write_bytes(whole[:cut])
        with pytest.raises(DownloadError, match="not a complete zip"):
            download.unzip(tmp_path / "cut.zip", tmp_path)
    damaged = bytearray(whole)
    damaged[60] ^= 0xFF
    (tmp_path / "cut.zip").write_bytes(damaged)
    with pytest.raises(DownloadError, match="not a complete zip"):
        download.unzip(tmp_path / "cut.zip", tmp_path)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RECFM_CACHE", str(tmp_path))
    assert download.cache_folder() == tmp_path
    monkeypatch.delenv("RECFM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.cache_folder() == tmp_path / "xdg" / "recfm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert download.cache_folder() == Path.home() / ".cache" / "recfm"


def test_cache_that_cannot_be_written(tmp_path, made_up):
    _, point = made_up
    point("http://127.0.0.1:1/ml-100k.zip")
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot write to the cache folder"):
        movielens.fetch(cache=tmp_path / "file" / "cache")


# --- real files, where this machine has them ---


@needs_shared
@pytest.mark.parametrize(("name", "rows", "rate"), [("ml-100k", 100_000, 0.55375), ("ml-1m", 999_611, 0.575)])
def test_real_files(name, rows, rate):
    events = movielens.load(SHARED / name).events
    assert events.height == rows
    assert events["label"].mean() == pytest.approx(rate, abs=1e-3)
    assert events["time"].is_sorted()
    assert events.drop("year").null_count().sum_horizontal().item() == 0
