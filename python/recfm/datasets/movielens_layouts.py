"""The file layouts in which MovieLens travels, each read into the same three tables.

Layout        | files                                   | read by
raw 100K      | u.data u.user u.item                    | `_read_100k`
raw 1M        | ratings.dat users.dat movies.dat        | `_read_1m`
raw latest    | ratings.csv movies.csv                  | `_read_latest`
RecBole       | NAME.inter NAME.user NAME.item          | `_read_recbole`
Parquet       | events.parquet users movies             | `_read_events_parquet`
Parquet       | ratings.parquet users items             | `_read_ratings_parquet`

The tables leave here with canonical column names and raw values; `recfm.datasets.movielens` checks and joins
them. The movie table always has `year` (Int64, null where unknown) and `genres` (List(String), empty where
unknown).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recfm.datasets import tables
from recfm.errors import DataError

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_RATING = ["user_id", "movie_id", "rating", "time"]
_USER = ["user_id", "gender", "age", "occupation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """Raw tables of one data set, with the files they came from (for messages)."""

    ratings: pl.DataFrame
    ratings_path: Path
    users: pl.DataFrame | None
    users_path: Path | None
    movies: pl.DataFrame
    movies_path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A layout: `files` are ratings, users (if the layout has them), movies; `*.ext` means one such file.

    `header` says that the ratings file is text whose first line names the columns.
    """

    title: str
    files: tuple[str, ...]
    read: Callable[[list[Path]], Tables]
    text: bool = True
    header: bool = False

    def find(self, folder: Path) -> list[Path | None]:
        """Return for each of `files` its path in `folder`, or None."""
        found: list[Path | None] = []
        for pattern in self.files:
            hits = sorted(folder.glob(pattern))
            found.append(hits[0] if len(hits) == 1 and hits[0].is_file() else None)
        return found


def detect(folder: Path) -> tuple[Layout, list[Path]]:
    """Return the layout whose files are all in `folder`, and these files.

    Raises:
        DataError: There is no such folder, or no complete layout in it; lists the files looked for.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    looked = []
    for layout in LAYOUTS:
        found = layout.find(folder)
        paths = [path for path in found if path is not None]
        if len(paths) == len(found):
            return layout, paths
        missing = [name for name, path in zip(layout.files, found, strict=True) if path is None]
        hint = f" (only {', '.join(missing)} missing)" if paths else ""
        looked.append(f"{layout.title}: {', '.join(layout.files)}{hint}")
    raise DataError(f"no MovieLens files in {folder}; looked for " + "; ".join(looked))


def _year(title: pl.Expr) -> pl.Expr:
    """Year from a title such as "Toy Story (1995)", "Foo (1995) (V)" or "Bar (2006-2007)"; else null."""
    return title.str.extract(r".*\((\d{4})(?:\D\d{0,4})?\)", 1).cast(pl.Int64)


def _split(genres: pl.Expr, separator: str) -> pl.Expr:
    named = genres.fill_null("").str.replace_all("(no genres listed)", "", literal=True).str.split(separator)
    return named.list.eval(pl.element().filter(~pl.element().is_in(["", "unknown"])))


def _bundle(
    paths: list[Path], ratings: pl.DataFrame, users: pl.DataFrame | None, movies: pl.DataFrame
) -> Tables:
    return Tables(
        ratings=ratings,
        ratings_path=paths[0],
        users=users,
        users_path=None if users is None else paths[1],
        movies=movies,
        movies_path=paths[-1],
    )


def _read_100k(paths: list[Path]) -> Tables:
    ratings = tables.read_text(paths[0], separator="\t", columns=_RATING)
    columns = ["user_id", "age", "gender", "occupation", "zip_code"]
    users = tables.read_text(paths[1], separator="|", columns=columns, encoding="latin-1").select(_USER)
    columns = ["movie_id", "title", "released", "video", "url", *GENRES_100K]
    items = tables.read_text(paths[2], separator="|", columns=columns, encoding="latin-1")
    for name in GENRES_100K:
        tables.refuse(~items[name].fill_null("").is_in(["0", "1"]), items[name], paths[2], what="0 or 1")
    flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES_100K if name != "unknown"]
    movies = items.select(
        "movie_id",
        _year(pl.col("title"))
        .fill_null(pl.col("released").str.extract(r"(\d{4})$", 1).cast(pl.Int64))
        .alias("year"),
        pl.concat_list(flags).list.drop_nulls().alias("genres"),
    )
    return _bundle(paths, ratings, users, movies)


def _titled(items: pl.DataFrame) -> pl.DataFrame:
    return items.select(
        "movie_id", _year(pl.col("title")).alias("year"), _split(pl.col("genres"), "|").alias("genres")
    )


def _read_1m(paths: list[Path]) -> Tables:
    ratings = tables.read_text(paths[0], separator="::", columns=_RATING)
    users = tables.read_text(paths[1], separator="::", columns=[*_USER, "zip_code"], encoding="latin-1")
    items = tables.read_text(
        paths[2], separator="::", columns=["movie_id", "title", "genres"], encoding="latin-1"
    )
    return _bundle(paths, ratings, users.select(_USER), _titled(items))


def _read_latest(paths: list[Path]) -> Tables:
    ratings = tables.read_text(paths[0], separator=",", quote='"')
    ratings = tables.require(ratings, ["userId", "movieId", "rating", "timestamp"], paths[0])
    ratings.columns = _RATING
    items = tables.read_text(paths[1], separator=",", quote='"')
    items = tables.require(items, ["movieId", "title", "genres"], paths[1]).rename({"movieId": "movie_id"})
    return _bundle(paths, ratings, None, _titled(items))


def _read_recbole(paths: list[Path]) -> Tables:
    frames = []
    for path in paths:
        frame = tables.read_text(path, separator="\t")
        frame.columns = [name.rsplit(":", 1)[0] for name in frame.columns]
        frames.append(frame)
    return _spaced(paths, *frames)


def _spaced(paths: list[Path], ratings: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame) -> Tables:
    """RecBole's columns: `item_id`, `release_year` (sometimes junk), genres joined by spaces in `class`."""
    ratings = tables.require(ratings, ["user_id", "item_id", "rating", "timestamp"], paths[0])
    ratings.columns = _RATING
    if "class" not in items.columns and "genre" in items.columns:
        items = items.rename({"genre": "class"})
    items = tables.require(items, ["item_id", "movie_title", "release_year", "class"], paths[2])
    movies = items.select(
        pl.col("item_id").alias("movie_id"),
        pl.col("release_year")
        .cast(pl.String)
        .str.extract(r"^(\d{4})$", 1)
        .cast(pl.Int64)
        .fill_null(_year(pl.col("movie_title")))
        .alias("year"),
        _split(pl.col("class"), " ").alias("genres"),
    )
    return _bundle(paths, ratings, tables.require(users, _USER, paths[1]), movies)


def _read_events_parquet(paths: list[Path]) -> Tables:
    events, users, items = (tables.read_parquet(path) for path in paths)
    events = tables.require(events, ["user_id", "movie_id", "label", "time"], paths[0])
    items = tables.require(items, ["movie_id", "title", "genres"], paths[2])
    return _bundle(paths, events, tables.require(users, _USER, paths[1]), _titled(items))


def _read_ratings_parquet(paths: list[Path]) -> Tables:
    return _spaced(paths, *(tables.read_parquet(path) for path in paths))


LAYOUTS = (
    Layout(title="MovieLens 100K files", files=("u.data", "u.user", "u.item"), read=_read_100k),
    Layout(title="MovieLens 1M files", files=("ratings.dat", "users.dat", "movies.dat"), read=_read_1m),
    Layout(
        title="MovieLens latest files", files=("ratings.csv", "movies.csv"), read=_read_latest, header=True
    ),
    Layout(
        title="RecBole atomic files", files=("*.inter", "*.user", "*.item"), read=_read_recbole, header=True
    ),
    Layout(
        title="Parquet with labels",
        files=("events.parquet", "users.parquet", "movies.parquet"),
        read=_read_events_parquet,
        text=False,
    ),
    Layout(
        title="Parquet with ratings",
        files=("ratings.parquet", "users.parquet", "items.parquet"),
        read=_read_ratings_parquet,
        text=False,
    ),
)
