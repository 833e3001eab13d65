"""MovieLens (Harper and Konstan 2015) as one table of events: who rated which film, when, liked or not.

    from recfm.datasets import movielens
    data = movielens.load("ml-100k")          # from the cache, fetched on first use
    data = movielens.load("/data/ml-1m")      # or from a folder, any of six layouts

MovieLens is free for research, must be acknowledged and may not be redistributed: recfm ships none of it.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recfm.datasets import movielens_layouts as layouts
from recfm.datasets import tables
from recfm.datasets.movielens_fetch import KNOWN, fetch, origin
from recfm.errors import ConfigError, DataError
from recfm.schema import Categorical, Feature, History, Schema, Tokens

__all__ = ["ACKNOWLEDGEMENT", "MovieLens", "fetch", "load", "schema"]

ACKNOWLEDGEMENT = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. doi:10.1145/2827872. "
    "MovieLens data is provided by GroupLens for research and may not be redistributed."
)
_SECONDS_MAX = 4_102_444_800  # the year 2100; milliseconds taken for seconds land beyond it


@dataclass(frozen=True, slots=True)
class MovieLens:
    """One MovieLens data set.

    Attributes:
        name: "ml-100k", "ml-1m" or the folder's name.
        events: One row per rating, sorted by time, ties in file order. Columns `user_id` Int64, `movie_id`
            Int64, `rating` Float64 (absent where the files only have labels), `label` Int8 (0 or 1), `time`
            Datetime("us") in UTC, then if the files have users `gender` String, `age` Int64 (years; a
            bracket's lower end in 1M), `occupation` String (1M: its numeric code as text), then `year` Int64
            (null where unknown) and `genres` List(String) (empty where unknown).
        source: Which files were read and where they came from.
        acknowledgement: The citation that any use must carry.
    """

    name: str
    events: pl.DataFrame
    source: str
    acknowledgement: str = ACKNOWLEDGEMENT


def load(
    name_or_folder: str | Path = "ml-100k", *, cache: Path | None = None, threshold: float = 4.0
) -> MovieLens:
    """Load a MovieLens data set by name or from a folder.

    Args:
        name_or_folder: "ml-100k" or "ml-1m" (see `fetch`), or a folder in any layout of `movielens_layouts`.
            Write "./ml-100k" for a folder of that name in the current directory.
        cache: Cache folder for named data sets; None takes `download.cache_folder()`.
        threshold: A rating of at least this many stars (0.5 to 5) has label 1. Files that come with labels
            keep theirs.

    Raises:
        DataError: No complete layout, or a bad value; the message names file, row and value.
        DownloadError: A named data set is neither cached nor to be had.
        ConfigError: `threshold` is outside 0.5 to 5.
    """
    if not 0.5 <= threshold <= 5:
        raise ConfigError(f"threshold is {threshold}, expected 0.5 to 5 stars")
    if isinstance(name_or_folder, str) and name_or_folder in KNOWN:
        name, folder = name_or_folder, fetch(name_or_folder, cache=cache)
    else:
        folder = Path(name_or_folder).expanduser()
        name = folder.resolve().name
        if not folder.is_dir():
            raise DataError(f"{str(name_or_folder)!r} is neither a folder nor one of {', '.join(KNOWN)}")
    layout, paths = layouts.detect(folder)
    raw = layout.read(paths)
    events = _join(raw, _events(raw, threshold)).sort("time", maintain_order=True)
    source = f"{layout.title} ({', '.join(path.name for path in paths)}) in {folder.resolve().name}"
    came = origin(folder)
    return MovieLens(name=name, events=events, source=f"{source}, {came}" if came else source)


def _events(raw: layouts.Tables, threshold: float) -> pl.DataFrame:
    frame, path = raw.ratings, raw.ratings_path
    if frame.is_empty():
        raise DataError(f"{path} has no rows")
    columns = [_id(frame["user_id"], path), _id(frame["movie_id"], path)]
    if "rating" in frame.columns:
        stars = "a rating of 0.5 to 5"
        rating = tables.cast(frame["rating"], pl.Float64, path, what=stars)
        tables.refuse((rating < 0.5) | (rating > 5), rating, path, what=stars)
        columns += [rating, (rating >= threshold).cast(pl.Int8).alias("label")]
    else:
        label = tables.cast(frame["label"], pl.Int8, path, what="0 or 1")
        tables.refuse((label < 0) | (label > 1), label, path, what="0 or 1")
        columns.append(label)
    return pl.DataFrame([*columns, _time(frame["time"], path)])


def _id(column: pl.Series, path: Path) -> pl.Series:
    return tables.cast(column, pl.Int64, path, what="an integer id")


def _time(column: pl.Series, path: Path) -> pl.Series:
    """Datetime of any unit, or seconds since 1970 as text or number, to naive UTC microseconds."""
    if isinstance(column.dtype, pl.Datetime):
        tables.refuse(column.is_null(), column, path, what="a time")
        utc = (
            column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            if column.dtype.time_zone
            else column
        )
        return utc.cast(pl.Datetime("us"))
    what = "seconds since 1970"
    seconds = tables.cast(column, pl.Float64, path, what=what)
    tables.refuse((seconds < 0) | (seconds > _SECONDS_MAX), column, path, what=what)
    return (seconds * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us")).alias("time")


def _join(raw: layouts.Tables, events: pl.DataFrame) -> pl.DataFrame:
    if raw.users is not None and raw.users_path is not None:
        users = _users(raw.users, raw.users_path)
        known = events["user_id"].is_in(users["user_id"].to_list())
        tables.refuse(~known, events["user_id"], raw.ratings_path, what=f"a user of {raw.users_path.name}")
        events = events.join(users, on="user_id", how="left", maintain_order="left")
    movies = raw.movies.with_columns(_id(raw.movies["movie_id"], raw.movies_path))
    tables.unique(movies["movie_id"], raw.movies_path)
    known = events["movie_id"].is_in(movies["movie_id"].to_list())
    tables.refuse(~known, events["movie_id"], raw.ratings_path, what=f"a movie of {raw.movies_path.name}")
    return events.join(movies, on="movie_id", how="left", maintain_order="left")


def _users(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    users = pl.DataFrame(
        [
            _id(frame["user_id"], path),
            tables.cast(frame["gender"], pl.String, path, what="a gender"),
            tables.cast(frame["age"], pl.Int64, path, what="an age in years"),
            tables.cast(frame["occupation"], pl.String, path, what="an occupation"),
        ]
    )
    tables.unique(users["user_id"], path)
    return users


def schema(data: MovieLens, *, length: int = 50) -> Schema:
    """The features used in recfm's results: what is known of film and user, no user id, no time.

    Most users of a later period are new, so a user id would only be memorised. The FM alone reads the user's
    labelled history; that is the knowledge it has to pass on.

    Args:
        data: As loaded.
        length: Newest past events that the FM reads.
    """
    known = set(data.events.columns)
    features: list[Feature] = [
        Categorical(name="movie_id", side="item"),
        Categorical(name="year", side="item"),
        Tokens(name="genres", side="item"),
    ]
    features += [
        Categorical(name=name, side="user", min_count=10)
        for name in ("gender", "age", "occupation")
        if name in known
    ]
    features.append(History(name="rated", of=("movie_id",), labels=True, length=length, seen_by="fm"))
    return Schema(user="user_id", item="movie_id", time="time", label="label", features=tuple(features))
