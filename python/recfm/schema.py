"""What the columns of an event table mean.

A schema names the key columns (`label` always; `user`, `item`, `time` where the data has them) and the features a
model may read. It is data: frozen, comparable, and it travels as JSON. `seen_by="fm"` marks a feature that only the
foundation model may read; it never reaches a vertical model.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from recfm.config import Strict, check_range, parse
from recfm.errors import SchemaError

MAX_DELAY = 9e12
"""Seconds; more does not fit in 64-bit microseconds."""
MAX_LENGTH = 100_000
"""Past events; batches hold this many slots per row."""
Side = Literal["user", "item", "context"]
SeenBy = Literal["both", "fm"]
Role = Literal["user", "item", "time"]


@dataclass(frozen=True, kw_only=True)
class Categorical(Strict):
    """One id per event: integers, strings or Polars categories.

    With `buckets` unset a vocabulary is fitted on the FM's training period (0 = padding, 1 = out of vocabulary,
    then by falling count). With `buckets` set the values are hashed with XXH3, seeded by the feature's name.

    `shares` names a categorical or token feature whose vocabulary and embedding table this one uses too. The
    vocabulary is fitted on both columns together; `min_count` and `buckets` are the other feature's.
    """

    kind: Literal["categorical"] = "categorical"
    name: str
    side: Side
    min_count: int = 1
    buckets: int | None = None
    shares: str | None = None
    seen_by: SeenBy = "both"

    def __post_init__(self) -> None:
        _check_ids(self)


@dataclass(frozen=True, kw_only=True)
class Numeric(Strict):
    """One number per event.

    `transform` says what a model reads:

    - "standard": deviations from the mean of the training period. Nulls and NaN become 0, which is the mean;
      infinities and outliers are cut at 10,000 standard deviations.
    - "log": the same of sign(x) * log1p(|x|).
    - "quantile": an id, as a categorical's: which of `buckets` equally full buckets of the training period
      (boundaries exact to one part in 4,096); nulls and NaN are id 1. Ties can leave fewer buckets.
    """

    kind: Literal["numeric"] = "numeric"
    name: str
    side: Side
    transform: Literal["standard", "log", "quantile"] = "standard"
    buckets: int = 32
    seen_by: SeenBy = "both"

    def __post_init__(self) -> None:
        if self.transform not in ("standard", "log", "quantile"):
            raise SchemaError(
                f"feature '{self.name}': transform is {self.transform!r}: use standard, log or quantile"
            )
        check_range(self, "buckets", low=2, high=1_000_000, what=f"feature '{self.name}'", error=SchemaError)


@dataclass(frozen=True, kw_only=True)
class Tokens(Strict):
    """A list of ids per event (multi-hot: genres, tags); mean-pooled by the models.

    Of a list longer than `max_length` the last ids stay: sequences are logged oldest first, so these are the newest.
    `shares` is as for `Categorical`.
    """

    kind: Literal["tokens"] = "tokens"
    name: str
    side: Side
    min_count: int = 1
    buckets: int | None = None
    shares: str | None = None
    max_length: int | None = None
    seen_by: SeenBy = "both"

    def __post_init__(self) -> None:
        _check_ids(self)
        if self.max_length is not None:
            check_range(self, "max_length", low=1, what=f"feature '{self.name}'", error=SchemaError)


def _check_ids(feature: Categorical | Tokens) -> None:
    what = f"feature '{feature.name}'"
    check_range(feature, "min_count", low=1, what=what, error=SchemaError)
    if feature.buckets is not None:
        check_range(feature, "buckets", low=3, what=what, error=SchemaError)
    if feature.shares is not None and (feature.min_count != 1 or feature.buckets is not None):
        raise SchemaError(
            f"{what} shares the vocabulary of '{feature.shares}': set min_count and buckets there, not here"
        )


def vocabulary_of(feature: Categorical | Tokens) -> str:
    """The feature whose vocabulary and table this one uses: itself, or the one it shares."""
    return feature.shares or feature.name


@dataclass(frozen=True, kw_only=True)
class History(Strict):
    """The user's own past events as a sequence of raw ids, newest first, strictly before `time - delay`.

    `of` names categorical features of the past event; `labels=True` adds the past event's label as one more id
    (1 = negative, 2 = positive). `delay` is in seconds.
    """

    kind: Literal["history"] = "history"
    name: str
    of: tuple[str, ...]
    labels: bool = False
    length: int = 50
    delay: float = 0.0
    seen_by: SeenBy = "both"

    def __post_init__(self) -> None:
        given: object = self.of
        if isinstance(given, str):
            raise SchemaError(f"history '{self.name}': of is {given!r}, give a list of feature names")
        object.__setattr__(self, "of", tuple(self.of))


class _ByKind:
    """Tells pydantic to pick a feature's class by its `kind`; imported only when a file is parsed."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Field

        return handler.generate_schema(Annotated[source, Field(discriminator="kind")])


Feature: TypeAlias = Annotated[Categorical | Numeric | Tokens | History, _ByKind()]


@dataclass(frozen=True, kw_only=True)
class Schema(Strict):
    """Key columns and features of an event table (one row per impression).

    Args:
        user: Column of the user key, integers or strings; None where there are no users, and then no gAUC, no
            histories and no features joined by user.
        item: Column of the item key, integers or strings; None where there are no items.
        time: Column of the event time: Datetime, or integers in `time_unit` since any epoch. None where the events
            have none: nothing is then before anything else, so they have no histories and no periods.
        label: Column of the label, 0 or 1.
        features: What models may read. The user and item keys are features only if listed here too.
        time_unit: Unit of an integer time column.

    Raises:
        SchemaError: Two features have one name, a history names an unknown feature or needs a key that is None, a
            feature shares what cannot be shared, or a feature is the label.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    label: str
    features: tuple[Feature, ...]
    time_unit: Literal["s", "ms", "us", "ns"] = "s"

    def __post_init__(self) -> None:
        given: object = self.features
        if not isinstance(given, list | tuple):  # a list is what one writes first
            raise SchemaError(f"features is {given!r}: give a list of features")
        object.__setattr__(self, "features", tuple(given))
        for feature in self.features:
            if not isinstance(feature, Categorical | Numeric | Tokens | History):
                raise SchemaError(f"{feature!r} is no feature: use Categorical, Numeric, Tokens or History")
        keys = self.key_columns()
        for key in keys:
            if keys.count(key) > 1:
                raise SchemaError(
                    f"column '{key}' has two roles: user, item, time and label must be four columns"
                )
        names = [f.name for f in self.features]
        for name in names:
            if names.count(name) > 1:
                raise SchemaError(f"two features are named '{name}': rename or remove one")
        if self.label in names:
            raise SchemaError(
                f"feature '{self.label}' is the label itself: a model that reads it learns nothing else"
            )
        if not any(not isinstance(f, History) for f in self.features):
            raise SchemaError("the schema has no feature besides histories: add at least the item id")
        categorical = {f.name: f for f in self.features if isinstance(f, Categorical)}
        self._check_shared()
        for history in (f for f in self.features if isinstance(f, History)):
            for role in ("user", "time"):
                self.require(role, f"history '{history.name}'")
            if not history.of:
                raise SchemaError(
                    f"history '{history.name}' is of nothing: name categorical features in `of`"
                )
            for name in history.of:
                if name not in categorical:
                    known = ", ".join(sorted(categorical)) or "none"
                    raise SchemaError(
                        f"history '{history.name}' is of '{name}', which is no categorical feature (known: {known})"
                    )
                if history.seen_by == "both" and categorical[name].seen_by == "fm":
                    raise SchemaError(
                        f"history '{history.name}' would show the VM feature '{name}', which only the FM may see: "
                        "set the history's seen_by to 'fm'"
                    )
            check_range(
                history, "length", low=1, high=MAX_LENGTH, what=f"history '{history.name}'", error=SchemaError
            )
            check_range(
                history, "delay", low=0, high=MAX_DELAY, what=f"history '{history.name}'", error=SchemaError
            )

    def _check_shared(self) -> None:
        owners = {f.name: f for f in self.features if isinstance(f, Categorical | Tokens)}
        for feature in owners.values():
            if feature.shares is None:
                continue
            owner = owners.get(feature.shares)
            if owner is None:
                known = ", ".join(sorted(owners.keys() - {feature.name})) or "none"
                raise SchemaError(
                    f"feature '{feature.name}' shares '{feature.shares}', which is no categorical or token feature "
                    f"(known: {known})"
                )
            if owner.shares is not None:
                raise SchemaError(
                    f"feature '{feature.name}' shares '{owner.name}', which itself shares '{owner.shares}': name the "
                    "feature that has the vocabulary"
                )

    def key_columns(self) -> list[str]:
        """The key columns that there are: user, item, time, label."""
        return [key for key in (self.user, self.item, self.time, self.label) if key is not None]

    def require(self, role: Role, what: str) -> str:
        """The column of a key.

        Args:
            role: Which one.
            what: What needs it, for the message.

        Raises:
            SchemaError: The schema has none.
        """
        column = self.user if role == "user" else self.item if role == "item" else self.time
        if column is None:
            raise SchemaError(
                f"{what} needs the {role} of each event, but the schema has none: set {role}=..."
            )
        return column

    def columns(self) -> list[str]:
        """Names of every column that the schema reads, keys first, without repeats."""
        return list(
            dict.fromkeys(self.key_columns() + [f.name for f in self.features if not isinstance(f, History)])
        )

    def of_kind(self, kind: type[Any]) -> tuple[Any, ...]:
        """Features of one class, in schema order."""
        return tuple(f for f in self.features if isinstance(f, kind))

    def to_json(self) -> str:
        """The schema as a JSON object; `from_json` reads it back equal."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain values; `from_dict` reads it back equal."""
        fields = dataclasses.asdict(self)
        for feature in fields["features"]:
            if feature.get("shares", "") is None:  # as files were written before features could share
                del feature["shares"]
        return fields

    @staticmethod
    def from_json(text: str) -> "Schema":
        """Read a schema written by `to_json`.

        Raises:
            SchemaError: The text is not such a schema.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"schema is not JSON: {error}") from None
        return Schema.from_dict(fields)

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> "Schema":
        """Build a schema from plain values, as a TOML or JSON file holds them.

        Raises:
            SchemaError: A key is missing or unknown, or a value does not fit.
        """
        return parse(Schema, fields, what="schema", error=SchemaError)
