"""Shared by the tests: one small event table that looks like MovieLens."""

import numpy as np
import polars as pl
import pytest

from recfm.schema import Categorical, History, Numeric, Schema, Tokens

SCHEMA = Schema(
    user="user_id",
    item="movie_id",
    time="timestamp",
    label="liked",
    features=(
        Categorical(name="user_id", side="user"),
        Categorical(name="movie_id", side="item", min_count=2),
        Categorical(name="hour", side="context", buckets=16),
        Categorical(name="occupation", side="user", seen_by="fm"),
        Numeric(name="year", side="item"),
        Numeric(name="votes", side="item", transform="log"),
        Tokens(name="genres", side="item"),
        History(name="watched", of=("movie_id",), labels=True, length=8, seen_by="fm"),
    ),
)


def _make_events(
    rows: int = 400, *, users: int = 12, items: int = 30, seed: int = 0, **columns: object
) -> tuple[pl.DataFrame, Schema]:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    taste = np.where(rng.random(items) < 0.5, 0.85, 0.25)
    # About half of the times are shared by two events or more.
    timestamp = 900_000_000 + 3600 * np.sort(rng.integers(0, rows, rows))
    genres = [["Drama", "Comedy", "War"][: int(i) % 4] for i in item]
    frame = pl.DataFrame(
        {
            "user_id": user,
            "movie_id": item,
            "timestamp": timestamp,
            "liked": (rng.random(rows) < taste[item]).astype(np.int8),
            "hour": timestamp // 3600 % 24,
            "occupation": pl.Series(["writer", "doctor", "artist"])[(user % 3).tolist()],
            "year": 1960.0 + item,
            "votes": (item**2).astype(np.float64),
            "genres": pl.Series(genres, dtype=pl.List(pl.String)),
        }
    )
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()}), SCHEMA


@pytest.fixture(scope="session")
def make_events():
    """`make_events(rows, users=, items=, seed=, **columns)`: a frame in time order, with ties, and its schema."""
    return _make_events
