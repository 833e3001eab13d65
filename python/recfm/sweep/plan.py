"""A sweep file as the list of runs that it stands for.

[[runs]]
model = "dnn"
settings = { hidden = [400, 400] }
grid = { dropout = [0.1, 0.2], "train.learning_rate" = [1e-3, 3e-3] }     # four settings
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recfm.config import Strict, parse, read_toml
from recfm.errors import ConfigError
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.zoo import model_config, preset
from recfm.sweep.data import DataSection
from recfm.train.trainer import TrainConfig

Selection = Literal["auc", "gauc", "logloss", "ne"]


@dataclass(kw_only=True, slots=True)
class InitConfig(Strict):
    """How weights are drawn: `recfm.models.layers.initialise`."""

    linear: Literal["torch", "xavier_normal"] = "torch"
    embedding_std: float | None = None


@dataclass(kw_only=True, slots=True)
class RunEntry(Strict):
    """One `[[runs]]` table: a model, and what of it varies."""

    model: str
    """A key of `recfm.models.zoo.MODELS`."""
    label: str = ""
    """How tables call it; the model's name by default."""
    family: str = ""
    """Settings of one family compete in the selection and share a curve in the plot; by default the model's name."""
    preset: str = ""
    """Named settings of the model to start from."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the defaults (or the preset) of the model's config."""
    train: dict[str, Any] = field(default_factory=dict)
    """What differs from the file's `[train]`."""
    init: dict[str, Any] = field(default_factory=dict)
    """What differs from the file's `[init]`."""
    history: dict[str, Any] = field(default_factory=dict)
    """What differs from the file's `[history]`."""
    grid: dict[str, Any] = field(default_factory=dict)
    """Lists of values by key: a model setting, or `train.KEY`, `init.KEY`, `history.KEY`, `preset`; the runs are their
    product."""
    seeds: tuple[int, ...] = ()
    """Instead of the file's."""


@dataclass(kw_only=True, slots=True)
class SweepFile(Strict):
    """A `recfm sweep` file."""

    data: DataSection
    runs: tuple[RunEntry, ...]
    name: str = ""
    """Heading of the tables; the file's name by default."""
    schema: dict[str, Any] | None = None
    """Keys and features: `recfm.Schema`."""
    train: dict[str, Any] = field(default_factory=dict)
    """`TrainConfig`, for every run."""
    init: dict[str, Any] = field(default_factory=dict)
    """`InitConfig`, for every run."""
    history: dict[str, Any] = field(default_factory=dict)
    """`HistoryEncoderConfig`: how models pool histories, where the schema has some."""
    seeds: tuple[int, ...] = (0,)
    select: Selection = "auc"
    """Metric of the *validation* rows that marks the best setting of each family. There is no way to ask for test."""
    evaluate_test: bool = False
    """Measure the test rows too: for final runs, never for a search."""
    out: str = ""
    """Folder of the results; by default runs/NAME-OF-THE-FILE."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of the sweep, to be run for each of its seeds.

    Attributes:
        label: Unique in its sweep.
        config: The model's config dataclass.
    """

    label: str
    family: str
    model: str
    config: Any
    train: TrainConfig
    init: InitConfig
    history: HistoryEncoderConfig
    seeds: tuple[int, ...]

    def identity(self) -> dict[str, Any]:
        """Everything that decides a run's numbers besides data, seed and code; plain values."""
        known = {
            "model": self.model,
            "settings": dataclasses.asdict(self.config),
            "train": dataclasses.asdict(self.train),
            "init": dataclasses.asdict(self.init),
            "history": dataclasses.asdict(self.history),
        }
        plain: dict[str, Any] = json.loads(json.dumps(known))  # lists for tuples, as files hold them
        return plain

    def key(self, seed: int, data: str, *, evaluate_test: bool) -> str:
        """Name of the run's result file."""
        known = {**self.identity(), "seed": seed, "data": data, "evaluate_test": evaluate_test}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:20]


def shipped() -> dict[str, Path]:
    """The sweep files that come with recfm, by name."""
    files = {path.stem: path for path in (Path(__file__).parents[1] / "sweeps").glob("*.toml")}
    return dict(sorted(files.items()))


def find_file(name: str | Path) -> Path:
    """The file itself, or one that comes with recfm.

    Raises:
        ConfigError: There is neither.
    """
    path = Path(name)
    if path.exists():
        return path
    if str(name) in shipped():
        return shipped()[str(name)]
    raise ConfigError(f"there is no sweep file '{name}': give a TOML file, or one of {', '.join(shipped())}")


def read_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepFile:
    """A sweep file with dotted overrides such as "train.epochs=3" applied.

    Raises:
        ConfigError: The file is missing or not TOML, or a key or value is wrong.
    """
    return parse(SweepFile, read_toml(path, overrides), what=str(path))


def settings_of(sweep: SweepFile) -> list[Setting]:
    """Every setting of the sweep, grids expanded, presets resolved, all values checked.

    Raises:
        ConfigError: A model, preset or key is unknown, a value is out of range, a grid is empty, two settings are
            the same or have one label, or no seed is given.
    """
    if not sweep.runs:
        raise ConfigError("the sweep has no [[runs]]: give at least one, with its model")
    out: list[Setting] = []
    for number, entry in enumerate(sweep.runs):
        out += _expanded(entry, sweep, where=f"runs[{number}]")
    seen: dict[str, str] = {}
    labels: set[str] = set()
    for setting in out:
        known = json.dumps(setting.identity(), sort_keys=True)
        if known in seen:
            raise ConfigError(f"runs '{seen[known]}' and '{setting.label}' are the same setting: remove one")
        if setting.label in labels:
            raise ConfigError(f"two runs are labelled '{setting.label}': give each `label` once")
        seen[known] = setting.label
        labels.add(setting.label)
    return out


def _expanded(entry: RunEntry, sweep: SweepFile, *, where: str) -> Iterator[Setting]:
    seeds = entry.seeds or sweep.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**62 for seed in seeds):
        raise ConfigError(
            f"{where}: seeds are {list(seeds)}: give at least one, each once, from 0 to 2^62 - 1"
        )
    axes = dict(_axes(entry.grid, where))
    for point in itertools.product(*axes.values()):
        values = dict(zip(axes, point, strict=True))
        varied: dict[str, dict[str, Any]] = {"settings": {}, "train": {}, "init": {}, "history": {}}
        for key, value in values.items():
            section, _, name = key.rpartition(".")
            if section not in ("", *varied):
                raise ConfigError(
                    f"{where}: grid key '{key}': use settings.KEY, train.KEY, init.KEY, history.KEY or preset"
                )
            if key != "preset":
                varied[section or "settings"][name] = value

        def merged(section: str, varied: dict[str, dict[str, Any]] = varied) -> dict[str, Any]:
            return {**getattr(sweep, section), **getattr(entry, section), **varied[section]}

        chosen = values.get("preset", entry.preset)
        base = preset(entry.model, chosen) if chosen else {}
        suffix = " ".join(f"{key.removeprefix('settings.')}={_short(value)}" for key, value in values.items())
        label = entry.label or (f"{entry.model}-{entry.preset}" if entry.preset else entry.model)
        yield Setting(
            label=f"{label} {suffix}".strip(),
            family=entry.family or entry.model,
            model=entry.model,
            config=model_config(entry.model, {**base, **entry.settings, **varied["settings"]}),
            train=parse(TrainConfig, merged("train"), what=f"{where}, section [train]"),
            init=parse(InitConfig, merged("init"), what=f"{where}, section [init]"),
            history=parse(HistoryEncoderConfig, merged("history"), what=f"{where}, section [history]"),
            seeds=seeds,
        )


def _axes(grid: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Keys and their values; a nested table stands for dotted keys."""
    for key, values in grid.items():
        if isinstance(values, Mapping):
            yield from _axes(values, where, f"{prefix}{key}.")
        elif not isinstance(values, list):
            raise ConfigError(f"{where}: grid key '{prefix}{key}' is {values!r}: give a list of values")
        elif not values:
            raise ConfigError(f"{where}: grid key '{prefix}{key}' has no values, so there is nothing to run")
        else:
            yield prefix + key, values


def _short(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace('"', "")
