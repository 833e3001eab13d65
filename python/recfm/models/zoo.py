"""Every ranking model by name, for config files and sweeps."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from recfm.config import Strict, parse
from recfm.errors import ConfigError
from recfm.layout import Layout, SequenceLayout
from recfm.models.afn import AFN, AFNConfig
from recfm.models.autoint import AutoInt, AutoIntConfig
from recfm.models.bst import BST, BSTConfig
from recfm.models.dcnv2 import DCNv2, DCNv2Config
from recfm.models.deepfm import DeepFM, DeepFMConfig
from recfm.models.dien import DIEN, DIENConfig
from recfm.models.din import DIN, DINConfig
from recfm.models.dlrm import DLRM, DLRMConfig
from recfm.models.dmin import DMIN, DMINConfig
from recfm.models.dmr import DMR, DMRConfig
from recfm.models.dnn import DNN, DNNConfig
from recfm.models.features import Viewer
from recfm.models.finalmlp import FinalMLP, FinalMLPConfig
from recfm.models.fm import FM, FMConfig
from recfm.models.fmfm import FmFM, FmFMConfig
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.masknet import MaskNet, MaskNetConfig
from recfm.models.ranker import Ranker
from recfm.models.wukong import Wukong, WukongConfig
from recfm.models.xdeepfm import XDeepFM, XDeepFMConfig

MODELS: dict[str, tuple[type[Ranker], type[Strict]]] = {
    "afn": (AFN, AFNConfig),
    "autoint": (AutoInt, AutoIntConfig),
    "bst": (BST, BSTConfig),
    "dcnv2": (DCNv2, DCNv2Config),
    "deepfm": (DeepFM, DeepFMConfig),
    "dien": (DIEN, DIENConfig),
    "din": (DIN, DINConfig),
    "dlrm": (DLRM, DLRMConfig),
    "dmin": (DMIN, DMINConfig),
    "dmr": (DMR, DMRConfig),
    "dnn": (DNN, DNNConfig),
    "finalmlp": (FinalMLP, FinalMLPConfig),
    "fm": (FM, FMConfig),
    "fmfm": (FmFM, FmFMConfig),
    "masknet": (MaskNet, MaskNetConfig),
    "wukong": (Wukong, WukongConfig),
    "xdeepfm": (XDeepFM, XDeepFMConfig),
}


def model_config(name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """The config dataclass of a model from plain values, as a TOML file holds them.

    Raises:
        ConfigError: There is no such model, or a setting is unknown or out of range.
    """
    return parse(_entry(name)[1], dict(settings or {}), what=f"model {name}")


def build_model(
    name: str,
    layout: Layout,
    config: Any = None,
    *,
    viewer: Viewer = "fm",
    sequences: Sequence[SequenceLayout] = (),
    history: HistoryEncoderConfig | None = None,
) -> Ranker:
    """A model of the zoo.

    Args:
        name: A key of `MODELS`.
        layout: What the batches hold.
        config: The model's config dataclass, or a mapping of settings; None for the defaults.
        viewer: "vm" hides features with `seen_by="fm"`.
        sequences: Histories that the batches carry.
        history: How those are pooled, in models that pool them.

    Raises:
        ConfigError: There is no such model, or the config is another model's.
    """
    model, kind = _entry(name)
    if config is None or isinstance(config, Mapping):
        config = model_config(name, config)
    if not isinstance(config, kind):
        raise ConfigError(f"model {name} takes a {kind.__name__}, not {type(config).__name__}")
    build: Any = model
    return build(layout, config, viewer=viewer, sequences=sequences, history=history)


def preset(model: str, name: str) -> Any:
    """A named config of a model: an entry of `PRESETS`, a dict of settings by name in the model's module.

    Raises:
        ConfigError: There is no such model, or it has no preset of that name.
    """
    known: Mapping[str, Any] = getattr(sys.modules[_entry(model)[0].__module__], "PRESETS", {})
    if name not in known:
        have = f"use one of {', '.join(known)}" if known else "it has none, so give `settings`"
        raise ConfigError(f"model {model} has no preset '{name}': {have}")
    return model_config(model, known[name])


def _entry(name: str) -> tuple[type[Ranker], type[Strict]]:
    if name not in MODELS:
        raise ConfigError(f"there is no model '{name}': use one of {', '.join(sorted(MODELS))}")
    return MODELS[name]
