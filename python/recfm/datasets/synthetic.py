"""A click log whose truth is known: planted interactions of orders 1 to 4 between its fields, and the noise floor.

Every field draws its ids from a Zipf law, independently. Id i of field f has a latent vector v_f[i] of k numbers. A
term of order m belongs to m fields and one latent dimension, and is the product of those m numbers. The logit is

    bias + scale * sum_m sqrt(share_m) * mean-square-normalised sum of the terms of order m

and the label is 1 with probability p = flip + (1 - 2 flip) * sigmoid(logit). The latent vectors are centred and
whitened under each field's own id law, so all terms have mean 0 and variance 1 and are uncorrelated: share_m is exactly
the part of the logit's variance that only interactions of order m explain; no model of lower order can have it.

Because p is known, so is the best that any model can reach on given rows: the metrics of p itself.
"""

import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfm.config import Strict, check_range
from recfm.data.encode import Encoded
from recfm.errors import ConfigError
from recfm.layout import Column, Layout
from recfm.schema import Categorical, Schema, Side
from recfm.train.metrics import Metrics, evaluate

BLOCK_ROWS = 65_536
"""Rows that one random stream makes; part of what a seed means."""
_START = 1_700_000_000_000_000
"""Time of the first event, microseconds since 1970; one event a second follows."""
_FIRST_ID = 2
"""Ids of an encoded table begin after padding and out of vocabulary."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(Strict):
    """Everything that decides a synthetic log, byte for byte."""

    rows: int = 2_000_000
    seed: int = 0
    """Of the truth and of the rows."""
    vocabulary: tuple[int, ...] = (400, 300, 200, 120, 80, 60, 40, 30, 20, 12)
    """Ids of each field; the first is the user's, the second the item's."""
    zipf: float = 1.0
    """Id number i (from 1) of a field has probability proportional to i^-zipf."""
    latent: int = 2
    """k, latent numbers of each id."""
    terms: tuple[int, ...] = (10, 8, 6, 4)
    """Groups of fields that interact, for the orders 1, 2, ...; each gives k terms."""
    shares: tuple[float, ...] = (0.2, 0.3, 0.25, 0.25)
    """Part of the logit's variance that each order has; they add up to 1."""
    scale: float = 2.0
    """Standard deviation of the logit."""
    bias: float = -1.0
    """Mean of the logit."""
    flip: float = 0.0
    """Chance that a label is turned over: noise beyond that of the draw."""
    train: float = 0.8
    """Part of the rows, the earliest, to train on."""
    valid: float = 0.1
    """Part of the rows, those that follow, to validate on; what is left is the test period."""

    def __post_init__(self) -> None:
        check_range(self, "rows", low=100)
        check_range(self, "seed", low=0, high=2**63 - 1)
        check_range(self, "latent", low=1, high=64)
        check_range(self, "vocabulary", low=self.latent + 2)
        check_range(self, "terms", low=0)
        check_range(self, "shares", low=0, high=1)
        check_range(self, "zipf", low=0, high=4)
        check_range(self, "scale", low=0, high=20)
        check_range(self, "bias", low=-20, high=20)
        check_range(self, "flip", low=0, high=0.5)
        check_range(self, "train", "valid", low=1e-3, high=0.998)
        if len(self.vocabulary) < 2:
            raise ConfigError("vocabulary has one field: give at least two, the user's and the item's")
        if len(self.shares) != len(self.terms) or len(self.shares) > len(self.vocabulary):
            raise ConfigError(
                f"shares has {len(self.shares)} orders, terms {len(self.terms)} and there are "
                f"{len(self.vocabulary)} fields: give one of each for every order, at most one order a field"
            )
        if not math.isclose(sum(self.shares), 1, abs_tol=1e-9):
            raise ConfigError(f"shares add up to {sum(self.shares):g}: they must add up to 1")
        for order, (share, terms) in enumerate(zip(self.shares, self.terms, strict=True), start=1):
            groups = math.comb(len(self.vocabulary), order)
            if terms > groups or (share > 0 and terms == 0):
                raise ConfigError(
                    f"terms of order {order} is {terms}: there are 1 to {groups} groups of fields"
                )
        if self.train + self.valid >= 1:
            raise ConfigError(f"train = {self.train} and valid = {self.valid} leave no test rows")


@dataclass(frozen=True, kw_only=True)
class SyntheticLog:
    """A synthetic log, in order of time, one event a second.

    Attributes:
        encoded: The events as numbers, ready for `Batches`: fields `user`, `item`, `field_2`, ... as ids
            (id = 2 + rank in the Zipf law).
        probability: float64 [n], the true probability of label 1.
        train: int64, the rows to train on; `valid` and `test` follow in time.
    """

    config: SyntheticConfig
    encoded: Encoded
    probability: NDArray[np.float64]
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]

    def floor(self, rows: NDArray[np.int64]) -> Metrics:
        """Metrics of the true probabilities on these rows: in expectation no model does better.

        Raises:
            MetricError: All labels of the rows are the same.
        """
        return evaluate(self.encoded.label[rows], self.probability[rows], self.encoded.user[rows])

    def frame(self) -> pl.DataFrame:
        """The log as an event table: `time` (Datetime), `label`, and each field's ids as integers from 0."""
        names = [column.name for column in self.encoded.layout.categorical]
        ids = {name: self.encoded.ids[:, i] - _FIRST_ID for i, name in enumerate(names)}
        time = pl.Series("time", self.encoded.time).cast(pl.Datetime("us"))
        return pl.DataFrame([time]).with_columns(
            pl.Series("label", self.encoded.label.astype(np.int8)),
            **{name: pl.Series(values) for name, values in ids.items()},
        )


def generate(config: SyntheticConfig | None = None) -> SyntheticLog:
    """Make the log; the same bytes for the same config on any number of threads."""
    config = config or SyntheticConfig()
    truth = _Truth(config)
    blocks = range(-(-config.rows // BLOCK_ROWS))
    with ThreadPoolExecutor(int(os.environ.get("RECFM_NUM_THREADS") or os.cpu_count() or 1)) as pool:
        ids, logit, draw = (np.concatenate(part) for part in zip(*pool.map(truth.block, blocks), strict=True))
    probability = config.flip + (1 - 2 * config.flip) / (1 + np.exp(-logit))
    n = config.rows
    first, second = (int(n * share + 1e-6) for share in (config.train, config.train + config.valid))
    schema = _schema(config)
    encoded = Encoded(
        schema=schema,
        layout=_layout(config, schema),
        ids=ids + np.int32(_FIRST_ID),
        numeric=np.zeros((n, 0), np.float32),
        tokens={},
        user=ids[:, 0].astype(np.int64),
        item=ids[:, 1].astype(np.int64),
        time=_START + np.arange(n, dtype=np.int64) * 1_000_000,
        label=(draw < probability).astype(np.float32),
    )
    return SyntheticLog(
        config=config,
        encoded=encoded,
        probability=probability,
        train=np.arange(first),
        valid=np.arange(first, second),
        test=np.arange(second, n),
    )


class _Truth:
    """What is planted: id laws, latent numbers, and which fields interact."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        stream = self._stream(0)
        self.laws = [_zipf(size, config.zipf) for size in config.vocabulary]
        self.latent = [_whitened(stream.uniform(-1, 1, (len(law), config.latent)), law) for law in self.laws]
        self.groups: list[tuple[tuple[int, ...], NDArray[np.float64]]] = []
        """Fields of a group and the weights [k] of its terms."""
        for order, (share, terms) in enumerate(zip(config.shares, config.terms, strict=True), start=1):
            every = list(itertools.combinations(range(len(self.laws)), order))
            chosen = stream.permutation(len(every))[:terms]
            weights = stream.normal(size=(terms, config.latent))
            weights *= math.sqrt(share) / max(math.sqrt((weights**2).sum()), 1e-300)
            self.groups += [(every[at], weight) for at, weight in zip(chosen, weights, strict=True)]

    @cached_property
    def edges(self) -> list[NDArray[np.float64]]:
        """Cumulative id laws."""
        return [np.cumsum(law)[:-1] for law in self.laws]

    def _stream(self, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.config.seed, number]))

    def block(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
        """Ids [m, F], logits [m] and the uniform draws [m] of the labels of one block of rows."""
        m = min(BLOCK_ROWS, self.config.rows - number * BLOCK_ROWS)
        uniform = self._stream(1 + number).random((BLOCK_ROWS, len(self.laws) + 1))[:m]
        ids = np.empty((m, len(self.laws)), np.int32)
        for field, edges in enumerate(self.edges):
            ids[:, field] = np.searchsorted(edges, uniform[:, field], side="right")
        values = [latent[ids[:, field]] for field, latent in enumerate(self.latent)]  # each [m, k]
        logit = np.zeros(m)
        for fields, weights in self.groups:
            product = values[fields[0]] * weights
            for field in fields[1:]:
                product = product * values[field]
            logit += product.sum(axis=1)
        return ids, self.config.bias + self.config.scale * logit, uniform[:, -1]


def _zipf(size: int, exponent: float) -> NDArray[np.float64]:
    law = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    return law / law.sum()


def _whitened(raw: NDArray[np.float64], law: NDArray[np.float64]) -> NDArray[np.float64]:
    """Latent numbers [V, k] with mean 0 and the identity as covariance under the id law."""
    centred = raw - law @ raw
    factor = np.linalg.cholesky(centred.T @ (centred * law[:, None]))
    return np.linalg.solve(factor, centred.T).T


def _names(config: SyntheticConfig) -> list[str]:
    return ["user", "item", *(f"field_{i}" for i in range(2, len(config.vocabulary)))]


def _side(position: int) -> Side:
    return ("user", "item")[position] if position < 2 else "context"


def _schema(config: SyntheticConfig) -> Schema:
    features = tuple(Categorical(name=name, side=_side(i)) for i, name in enumerate(_names(config)))
    return Schema(user="user", item="item", time="time", label="label", features=features)


def _layout(config: SyntheticConfig, schema: Schema) -> Layout:
    columns = tuple(
        Column(name=name, rows=size + _FIRST_ID, side=_side(i))
        for i, (name, size) in enumerate(zip(_names(config), config.vocabulary, strict=True))
    )
    return Layout(categorical=columns, tokens=(), numeric=())
