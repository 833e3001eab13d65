"""FuxiCTR's experiments here: its two YAML files become a schema, a model of the zoo and training settings.

    imported = from_fuxictr("config/dataset_config.yaml", "config/model_config.yaml", expid="DCNv2_frappe_x1_007")
    data = imported.read()                       # a CtrData, from the files that the configuration names
    train, valid, test = encode_ctr(data)
    model = build_model(imported.model, train.layout, imported.settings)
    initialise(model, **imported.init)

Nothing is dropped in silence: keys without a counterpart are refused in one error, and what is taken over but is not
quite the same is in `notes`.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recfm.errors import ConfigError
from recfm.fuxictr_behaviours import MODELS as SEQUENCE_MODELS
from recfm.fuxictr_behaviours import behaviours, fields
from recfm.fuxictr_models import MODELS as PLAIN_MODELS
from recfm.fuxictr_models import Model
from recfm.fuxictr_schema import Reading, files_of, number, read_schema
from recfm.schema import Numeric, Schema

if TYPE_CHECKING:
    from recfm.datasets.ctr import CtrData

MODELS = {**PLAIN_MODELS, **SEQUENCE_MODELS}
_NO_EFFECT = {
    "model", "model_id", "model_root", "dataset_id", "num_workers", "workers", "verbose", "gpu", "use_hdf5", "debug",
    "debug_mode", "pickle_feature_encoder", "metrics", "base_config", "base_expid", "version", "ordered_features",
    "partition_block_size", "data_format", "data_root",
}  # fmt: skip
_READ = {
    "optimizer", "learning_rate", "embedding_regularizer", "net_regularizer", "regularizer", "batch_size", "epochs",
    "seed", "monitor", "monitor_mode", "early_stop_patience", "patience", "reduce_lr_on_plateau", "max_gradient_norm",
    "embedding_initializer", "group_id", "use_features", "feature_specs", "feature_config",
}  # fmt: skip
_MUST_BE: dict[str, tuple[Any, ...]] = {
    "task": ("binary_classification", "classification"),
    "loss": ("binary_crossentropy", "binary_cross_entropy"),
    "shuffle": (True,),
    "save_best_only": (True,),
    "eval_steps": (None,),
    "eval_interval": (1,),
    "every_x_epochs": (1,),
    "eval_interval_epochs": (1,),
}
_MONITORS = {("auc",): "auc", ("gauc",): "gauc", ("auc", "gauc"): "auc+gauc", ("logloss",): "logloss"}
_STD = re.compile(r".*normal_?.*std\s*=\s*([0-9.eE+-]+).*")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An experiment of FuxiCTR.

    Attributes:
        schema: Features and keys.
        data: Paths of train, valid and test, as the configuration has them.
        model: Name of the model in `recfm.models.zoo`.
        settings: Its settings, as `model_config` reads them.
        train: Settings of the trainer, FuxiCTR's own protocol included (plateau schedule, clipping, L2 as a loss).
        init: For `recfm.models.layers.initialise`: FuxiCTR's initial weights.
        notes: What is not quite the same.
    """

    schema: Schema
    data: dict[str, Path]
    model: str
    settings: dict[str, Any]
    train: dict[str, Any]
    init: dict[str, Any]
    notes: tuple[str, ...]

    def read(self, folder: str | Path = ".") -> "CtrData":
        """The data set, from csv or Parquet files.

        Args:
            folder: What relative paths start from.

        Raises:
            ConfigError: The configuration names no such files.
            DataError: A file is missing or lacks a column.
        """
        from recfm.fuxictr_data import read

        return read(self, Path(folder))


def from_fuxictr(
    dataset_config: str | Path | Mapping[str, Any],
    model_config: str | Path | Mapping[str, Any],
    *,
    dataset_id: str | None = None,
    expid: str | None = None,
) -> Imported:
    """Import an experiment of FuxiCTR.

    Args:
        dataset_config: Its dataset_config.yaml, or what is in it.
        model_config: Its model_config.yaml, or what is in it.
        dataset_id: Which data set; None takes the experiment's.
        expid: Which experiment; None where there is only one.

    Raises:
        ConfigError: A file or entry is missing, the model is not in the zoo, or keys have no counterpart; all such
            keys are named at once.
        SchemaError: The features do not fit together.
    """
    experiments, reading = _mapping(model_config, "model_config"), Reading()
    expid, given = _experiment(experiments, expid)
    datasets = _mapping(dataset_config, "dataset_config")
    dataset = _dataset(datasets, dataset_id or given.get("dataset_id"))
    found = MODELS.get(str(given.get("model")))
    if found is None:
        near = difflib.get_close_matches(str(given.get("model")), MODELS, n=1, cutoff=0)
        raise ConfigError(
            f"experiment '{expid}' has model {given.get('model')!r}, which recfm lacks; the nearest is {near[0]} "
            f"(there are {', '.join(MODELS)})"
        )
    settings = _settings(found, given, reading)
    train, init = _training(given, reading), _initial(given, reading)
    reading.raise_refused(f"experiment '{expid}'")
    schema = read_schema(
        dataset,
        targets=tuple(name for target in fields(given, "target_field") for name in target),
        embedding_dim=given.get("embedding_dim"),
        group_id=given.get("group_id") or dataset.get("group_id"),
        use_features=given.get("use_features"),
        specs=_specs(given),
        reading=reading,
    )
    if settings.pop("bottom_mlp_dropout", 0) and schema.of_kind(Numeric):
        raise ConfigError("bottom_mlp_dropout: recfm's dlrm has dropout in the top MLP only")
    if schema.of_kind(Numeric) and found.name != "dlrm":
        reading.notes.append(
            "numbers become one embedding row; FuxiCTR gives each a vector, times the number"
        )
    if str(given["model"]) in SEQUENCE_MODELS:
        settings |= behaviours(given, schema)
    data = files_of(dataset, reading)
    _check_settings(found.name, settings)
    return Imported(
        schema=schema,
        data=data,
        model=found.name,
        settings=settings,
        train=train,
        init=init,
        notes=(*reading.notes, *found.notes),
    )


def _mapping(source: str | Path | Mapping[str, Any], what: str) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    path = Path(source).expanduser()
    if path.is_dir():
        path = path / f"{what}.yaml"
    try:
        import yaml
    except ImportError:
        raise ConfigError("reading YAML needs PyYAML: pip install 'recfm[fuxictr]'") from None
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _loader(yaml))
    except FileNotFoundError:
        raise ConfigError(f"there is no {what} file '{path}'") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"'{path}' cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"'{path}' holds {type(content).__name__}, not entries by name")
    return content


def _loader(yaml: Any) -> Any:
    """A safe loader that also knows tuples, which FuxiCTR's files write as `!!python/tuple [a, b]`."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    def pair(loader: Any, node: Any) -> tuple[Any, ...]:
        return tuple(loader.construct_sequence(node))

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", pair)
    return Loader


def _experiment(experiments: Mapping[str, Any], expid: str | None) -> tuple[str, Mapping[str, Any]]:
    if "model" in experiments:  # one experiment, as a flat mapping
        return expid or str(experiments.get("model_id", experiments["model"])), experiments
    names = [name for name, entry in experiments.items() if name != "Base" and isinstance(entry, Mapping)]
    if expid is None and len(names) == 1:
        expid = names[0]
    if expid not in names:
        asked = "expid is not given" if expid is None else f"there is no experiment '{expid}'"
        raise ConfigError(f"{asked}: use one of {', '.join(names) or 'none, the file has no experiment'}")
    assert expid is not None  # it is one of the names
    return expid, {**(experiments.get("Base") or {}), **experiments[expid]}


def _dataset(datasets: Mapping[str, Any], dataset_id: str | None) -> Mapping[str, Any]:
    if "feature_cols" in datasets:
        return datasets
    names = [name for name, entry in datasets.items() if isinstance(entry, Mapping)]
    if dataset_id not in names:
        raise ConfigError(
            f"there is no data set '{dataset_id}' in the dataset config: pass dataset_id, one of {', '.join(names)}"
        )
    entry: Mapping[str, Any] = datasets[dataset_id]
    return entry


def _settings(model: Model, given: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in given.items():
        if key in model.keys:
            out[model.keys[key]] = _plain(value, key)
        elif key in model.fixed:
            _expect(key, value, model.fixed[key], reading)
        elif key in _MUST_BE:
            _expect(key, value, _MUST_BE[key], reading)
        elif key not in _NO_EFFECT | _READ and key not in model.unused:
            reading.refused.append(f"key '{key}' is unknown")
    if model.finish is not None:
        model.finish(given, out)
    return out


def _expect(key: str, value: Any, known: tuple[Any, ...], reading: Reading) -> None:
    seen = value.lower() if isinstance(value, str) else value
    if not any(seen == (k.lower() if isinstance(k, str) else k) for k in known):
        choice = ", ".join(str(k) for k in known)
        reading.refused.append(f"{key} is {value!r}, recfm has {choice}")


def _plain(value: Any, key: str) -> Any:
    if key.endswith(("_units",)) and not isinstance(value, list):
        return [value]
    if isinstance(value, str) and key.endswith(("dropout", "ratio", "rate")):
        return number(value, key)
    if key.endswith("_context") and isinstance(value, str):
        return [value]
    return value


def _training(given: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """Settings of the trainer; the keys of `TrainConfig`."""
    for key in ("learning_rate", "batch_size", "epochs"):
        if key not in given:
            raise ConfigError(f"the experiment has no {key}")
    optimizer = str(given.get("optimizer", "adam")).lower()
    _expect("optimizer", optimizer, ("adam", "adamw", "sgd"), reading)
    both = given.get("regularizer")
    plateau = given.get("reduce_lr_on_plateau", True)
    train = {
        "epochs": int(number(given["epochs"], "epochs")),
        "batch_size": int(number(given["batch_size"], "batch_size")),
        "learning_rate": number(given["learning_rate"], "learning_rate"),
        "optimizer": optimizer,
        "embedding_l2": _l2(given.get("embedding_regularizer", both), "embedding_regularizer", reading),
        "network_l2": _l2(given.get("net_regularizer", both), "net_regularizer", reading),
        "clip_norm": number(given.get("max_gradient_norm", 10.0), "max_gradient_norm"),
        "schedule": "plateau" if plateau else "constant",
        "schedule_factor": 0.1,
        "min_learning_rate": 1e-6,
        "patience": int(number(given.get("early_stop_patience", given.get("patience", 2)), "patience")),
        "min_delta": 1e-6,
        "monitor": _monitor(given, reading),
    }
    if given.get("seed") is not None:
        train["seed"] = int(number(given["seed"], "seed"))
    return train


def _l2(value: Any, key: str, reading: Reading) -> float:
    if value is None:
        return 0.0
    match = re.fullmatch(r"l2\(([^)]*)\)", str(value).strip().lower())
    if match is None and str(value).strip().lower().startswith("l1"):
        reading.refused.append(f"{key} is {value!r}, recfm has L2 only")
        return 0.0
    return number(match[1] if match else value, key)


def _monitor(given: Mapping[str, Any], reading: Reading) -> str:
    asked = given.get("monitor", "AUC")
    weights = {asked: 1} if isinstance(asked, str) else asked
    if not isinstance(weights, Mapping):
        reading.refused.append(f"monitor is {asked!r}: give a metric")
        return "auc"
    names = tuple(sorted(str(name).lower() for name in weights))
    rises = given.get("monitor_mode", "max") == "max"
    ours = _MONITORS.get(names)
    if ours is not None and set(weights.values()) == {1} and rises == (ours != "logloss"):
        return ours
    if "auc" in names and rises:
        reading.notes.append(f"monitor {asked!r} is followed by AUC alone")
        return "auc"
    reading.refused.append(f"monitor is {asked!r} with monitor_mode {given.get('monitor_mode', 'max')!r}")
    return "auc"


def _initial(given: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    std = 1e-4
    if given.get("embedding_initializer") is not None:
        match = _STD.fullmatch(str(given["embedding_initializer"]))
        if match is None:
            reading.refused.append(
                f"embedding_initializer is {given['embedding_initializer']!r}, recfm has a normal one with std"
            )
        else:
            std = number(match[1], "embedding_initializer")
    return {"linear": "xavier_normal", "embedding_std": std}


def _specs(given: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    specs = given.get("feature_specs") or given.get("feature_config") or []
    out: dict[str, Mapping[str, Any]] = {}
    for spec in specs if isinstance(specs, Sequence) else [specs]:
        if not isinstance(spec, Mapping) or "name" not in spec:
            raise ConfigError(f"feature_specs has {spec!r}, which has no name")
        names = spec["name"] if isinstance(spec["name"], list) else [spec["name"]]
        out |= {str(name): {k: v for k, v in spec.items() if k != "name"} for name in names}
    return out


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    from recfm.models import zoo

    zoo.model_config(name, settings)
