"""A FuxiCTR data set configuration as a schema and files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recfm.errors import ConfigError
from recfm.schema import Categorical, Feature, Numeric, Schema, Side, Tokens

_FILES = {"train_data": "train", "valid_data": "valid", "test_data": "test"}
_NO_EFFECT = {
    "data_root", "dataset_id", "data_block_size", "rebuild_dataset", "pickle_feature_encoder", "use_hdf5",
    "data_format", "feature_cols", "label_col", "min_categr_count", "group_id", "num_workers", *_FILES,
}  # fmt: skip
_COLUMN_KEYS = {
    "name", "active", "dtype", "type", "source", "min_categr_count", "preprocess", "remap", "fill_na", "na_value",
    "normalizer", "category_processor", "num_buckets", "splitter", "max_len", "padding", "share_embedding",
    "embedding_dim", "feature_encoder", "pretrained_emb", "freeze_emb", "pretrain_usage", "pretrain_dim", "encoder",
}  # fmt: skip
_COPY = re.compile(r"copy_from\((.+)\)")
_POOLED = (None, "layers.MaskedAveragePooling()", "MaskedAveragePooling")


@dataclass
class Reading:
    """What is found while a configuration is read.

    Attributes:
        refused: What cannot be imported, one for each key.
        notes: What is imported, but is not quite the same.
    """

    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def raise_refused(self, what: str) -> None:
        """Name all that was refused at once.

        Raises:
            ConfigError: There is something.
        """
        if self.refused:
            raise ConfigError(f"{what} cannot be imported: {'; '.join(self.refused)}")


def read_schema(
    dataset: Mapping[str, Any],
    *,
    targets: tuple[str, ...],
    embedding_dim: Any,
    group_id: str | None,
    use_features: list[str] | None,
    specs: Mapping[str, Mapping[str, Any]],
    reading: Reading,
) -> Schema:
    """Features and keys of a data set configuration.

    Args:
        dataset: The configuration of one data set.
        targets: Features that the model compares histories with: they are the item's.
        embedding_dim: The model's.
        group_id: The column that groups gAUC.
        use_features: The model's choice of features; None for all.
        specs: The model's `feature_specs` by feature, which override those of the data set.
        reading: Takes what is refused or differs.

    Raises:
        ConfigError: There are no features or no label.
        SchemaError: The features do not fit together.
    """
    reading.refused += [f"dataset key '{key}' is unknown" for key in dataset if key not in _NO_EFFECT]
    labels = dataset.get("label_col")
    labels = [labels] if isinstance(labels, Mapping) else labels
    if not isinstance(labels, list) or len(labels) != 1 or "name" not in labels[0]:
        raise ConfigError(f"label_col is {dataset.get('label_col')!r}: give one column with a name")
    columns = _columns(dataset, specs)
    copied = {c["name"]: _COPY.fullmatch(str(c.get("preprocess"))) for c in columns}
    user = group_id
    if user is not None and (match := copied.get(user)):
        user = match[1].strip()
    count = int(number(dataset.get("min_categr_count", 1), "min_categr_count"))
    features: list[Feature] = []
    for column in columns:
        if column.get("active", True) is False or column.get("type") == "meta":
            continue
        if use_features is not None and column["name"] not in use_features:
            continue
        feature = _feature(column, count, user, targets, embedding_dim, reading)
        if feature is not None:
            features.append(feature)
    names = {feature.name for feature in features}
    reading.refused += [
        f"use_features has '{n}', which is no feature" for n in use_features or () if n not in names
    ]
    reading.raise_refused("the FuxiCTR data set")
    if any(isinstance(f, Tokens | Categorical) and f.shares for f in features):
        reading.notes.append(
            "share_embedding: counts of both columns are added before the minimum count; FuxiCTR keeps what reaches it "
            "in either"
        )
    return Schema(user=user, label=str(labels[0]["name"]), features=tuple(features))


def files_of(dataset: Mapping[str, Any], reading: Reading) -> dict[str, Path]:
    """Paths as they are written, by split."""
    found = {ours: Path(str(dataset[key])) for key, ours in _FILES.items() if dataset.get(key)}
    kind = dataset.get("data_format", "csv")
    if kind not in ("csv", "parquet"):
        reading.notes.append(
            f"data_format {kind}: recfm reads csv and Parquet, so the files must be converted"
        )
    if "valid" in found and found.get("valid") == found.get("test"):
        reading.notes.append(
            "the validation rows are the test rows: early stopping selects the best test epoch"
        )
    return found


def number(value: Any, key: str) -> float:
    """A number, which YAML takes for a string where its exponent has no dot (5e-06).

    Raises:
        ConfigError: It is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{key} is {value!r}: give a number") from None


def _columns(dataset: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    given = dataset.get("feature_cols")
    if not isinstance(given, list) or not given:
        raise ConfigError(f"feature_cols is {given!r}: give a list of columns")
    columns = []
    for entry in given:
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise ConfigError(f"feature_cols has {entry!r}, which has no name")
        names = entry["name"] if isinstance(entry["name"], list) else [entry["name"]]
        columns += [{**entry, **specs.get(str(name), {}), "name": str(name)} for name in names]
    return columns


def _feature(
    column: Mapping[str, Any],
    count: int,
    user: str | None,
    targets: tuple[str, ...],
    embedding_dim: Any,
    reading: Reading,
) -> Feature | None:
    name, kind = column["name"], column.get("type", "categorical")
    reading.refused += [
        f"column '{name}': key '{key}' is unknown" for key in column if key not in _COLUMN_KEYS
    ]
    if "pretrained_emb" in column:
        reading.notes.append(
            f"'{name}' reads vectors of '{column['pretrained_emb']}' and is left out: join them with "
            "recfm.datasets.vectors"
        )
        return None
    if column.get("preprocess"):
        reading.refused.append(
            f"column '{name}' is made by '{column['preprocess']}': make it yourself and remove the key"
        )
    if column.get("embedding_dim", embedding_dim) != embedding_dim:
        reading.refused.append(f"column '{name}' has an embedding_dim of its own")
    if column.get("remap") is False:
        reading.refused.append(f"column '{name}' has remap false: recfm fits a vocabulary")
    side = _side(column, user, targets)
    count = int(number(column.get("min_categr_count", count), "min_categr_count"))
    shares = column.get("share_embedding")
    ids = {"shares": shares} if shares else {"min_count": count}
    if kind == "categorical":
        processor = column.get("category_processor")
        if processor == "quantile_bucket":
            buckets = int(number(column.get("num_buckets", 10), "num_buckets"))
            return Numeric(name=name, side=side, transform="quantile", buckets=buckets)
        if processor:
            reading.refused.append(f"column '{name}' has category_processor '{processor}'")
        return Categorical(name=name, side=side, **ids)
    if kind == "sequence":
        return _sequence(column, side, ids, reading)
    if kind == "numeric":
        scaler = column.get("normalizer")
        if scaler != "StandardScaler":
            reading.notes.append(
                f"'{name}' is standardised; FuxiCTR reads it {'as it is' if scaler is None else f'after {scaler}'}"
            )
        return Numeric(name=name, side=side)
    reading.refused.append(f"column '{name}' is of type '{kind}'")
    return None


def _sequence(column: Mapping[str, Any], side: Side, ids: Any, reading: Reading) -> Tokens:
    name, length = column["name"], int(number(column.get("max_len") or 0, "max_len"))
    if column.get("splitter", "^") != "^":
        reading.refused.append(
            f"column '{name}' is split at '{column['splitter']}': recfm's reader splits at '^'"
        )
    if length and column.get("padding", "post") != "pre":
        reading.notes.append(f"'{name}': of longer lists the last {length} ids stay; FuxiCTR keeps the first")
    encoder = column.get("feature_encoder")
    if encoder not in _POOLED:
        reading.refused.append(f"column '{name}' has feature_encoder '{encoder}': recfm takes the mean")
    return Tokens(name=name, side=side, max_length=length or None, **ids)


def _side(column: Mapping[str, Any], user: str | None, targets: tuple[str, ...]) -> Side:
    source = column.get("source")
    if source in ("user", "item"):
        side: Side = source
        return side
    if column["name"] in targets:
        return "item"
    return "user" if column["name"] == user or column.get("type") == "sequence" else "context"
