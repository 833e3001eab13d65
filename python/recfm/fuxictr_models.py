"""How models and training settings of FuxiCTR are called here.

A model of FuxiCTR is a `Model`: which of its keys become which settings of our model, which must have the one value
that our model is built for, and which change nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from recfm.errors import ConfigError

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model's keys.

    Attributes:
        name: Ours, a key of `recfm.models.zoo.MODELS`.
        keys: FuxiCTR's keys and our settings.
        fixed: Keys that must have one of these values (names in any case), because ours has no other.
        unused: Keys that change nothing.
        finish: Called with FuxiCTR's values and our settings so far, for what is no renaming; it may refuse.
        notes: In what ours differs.
    """

    name: str
    keys: Mapping[str, str]
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    finish: Callable[[Mapping[str, Any], Settings], None] | None = None
    notes: tuple[str, ...] = ()


_RELU = ("relu",)
_MLP = {
    "embedding_dim": "dim",
    "hidden_units": "hidden",
    "dnn_hidden_units": "hidden",
    "net_dropout": "dropout",
    "batch_norm": "batch_norm",
}
_MLP_ACTIVATIONS = {"hidden_activations": _RELU, "dnn_activations": _RELU}


def _fmfm(given: Mapping[str, Any], out: Settings) -> None:
    kinds = {"matrixed": "matrix", "vectorized": "vector"}
    choose(given, out, "field_interaction_type", "pairs", kinds)


def _dcnv2(given: Mapping[str, Any], out: Settings) -> None:
    kinds = {"parallel": "parallel", "stacked": "stacked", "crossnet_only": "cross"}
    choose(given, out, "model_structure", "structure", kinds)
    structure = out.get("structure", "parallel")
    if structure != "cross":
        key = f"{structure}_dnn_hidden_units"
        if key in given:
            out["hidden"] = given[key]


def _dlrm(given: Mapping[str, Any], out: Settings) -> None:
    if given.get("bottom_mlp_dropout"):
        out["bottom_mlp_dropout"] = given["bottom_mlp_dropout"]  # refused where there are numbers


def _one_activation(*keys: str) -> Callable[[Mapping[str, Any], Settings], None]:
    def finish(given: Mapping[str, Any], out: Settings) -> None:
        found = {str(given[key]).lower() for key in keys if key in given}
        if len(found) > 1:
            raise ConfigError(
                f"{' and '.join(keys)} differ ({', '.join(sorted(found))}): recfm has one for both"
            )
        if found:
            out["act"] = found.pop()

    return finish


def _afn(given: Mapping[str, Any], out: Settings) -> None:
    _one_activation("afn_activations", "dnn_activations")(given, out)
    if not given.get("ensemble_dnn", True):
        out["hidden"] = []


def _masknet(given: Mapping[str, Any], out: Settings) -> None:
    choose(given, out, "model_type", "kind", {"SerialMaskNet": "serial", "ParallelMaskNet": "parallel"})
    _one_activation("dnn_hidden_activations")(given, out)


def _wukong(given: Mapping[str, Any], out: Settings) -> None:
    if "net_dropout" in given or "dropout_rate" in given:
        out["fm_dropout"] = given.get("net_dropout", given.get("dropout_rate"))
        out["dropout"] = 0.0
    if given.get("mlp_batch_norm"):
        out["batch_norm"] = True


def choose(given: Mapping[str, Any], out: Settings, key: str, ours: str, kinds: Mapping[str, str]) -> None:
    """Set `ours` to the counterpart of one of FuxiCTR's words.

    Raises:
        ConfigError: There is none.
    """
    if key not in given:
        return
    if given[key] not in kinds:
        raise ConfigError(f"{key} is {given[key]!r}: recfm has {', '.join(kinds)}")
    out[ours] = kinds[given[key]]


MODELS: dict[str, Model] = {
    "DNN": Model(name="dnn", keys=_MLP, fixed=_MLP_ACTIVATIONS),
    "YoutubeDNN": Model(name="dnn", keys=_MLP, fixed=_MLP_ACTIVATIONS),
    "FM": Model(name="fm", keys={"embedding_dim": "dim"}),
    "FmFM": Model(
        name="fmfm",
        keys={"embedding_dim": "dim"},
        fixed={"field_interaction_type": ("matrixed", "vectorized")},
        finish=_fmfm,
    ),
    "DeepFM": Model(name="deepfm", keys=_MLP, fixed=_MLP_ACTIVATIONS),
    "xDeepFM": Model(
        name="xdeepfm",
        keys={**_MLP, "cin_hidden_units": "cin", "cin_layer_units": "cin"},
        fixed=_MLP_ACTIVATIONS,
    ),
    "DCNv2": Model(
        name="dcnv2",
        keys={
            "embedding_dim": "dim",
            "num_cross_layers": "cross_layers",
            "net_dropout": "dropout",
            "batch_norm": "batch_norm",
        },
        fixed={"dnn_activations": _RELU, "use_low_rank_mixture": (False,)},
        unused=(
            "model_structure",
            "parallel_dnn_hidden_units",
            "stacked_dnn_hidden_units",
            "low_rank",
            "num_experts",
        ),
        finish=_dcnv2,
    ),
    "DLRM": Model(
        name="dlrm",
        keys={
            "embedding_dim": "dim",
            "top_mlp_units": "hidden",
            "bottom_mlp_units": "bottom",
            "top_mlp_dropout": "dropout",
            "interaction_op": "interaction",
            "batch_norm": "batch_norm",
        },
        fixed={"top_mlp_activations": _RELU, "bottom_mlp_activations": _RELU},
        unused=("bottom_mlp_dropout",),
        finish=_dlrm,
    ),
    "FinalMLP": Model(
        name="finalmlp",
        keys={
            "embedding_dim": "dim",
            "mlp1_hidden_units": "hidden1",
            "mlp2_hidden_units": "hidden2",
            "mlp1_dropout": "dropout1",
            "mlp2_dropout": "dropout2",
            "mlp1_batch_norm": "batch_norm1",
            "mlp2_batch_norm": "batch_norm2",
            "num_heads": "heads",
            "use_fs": "gates",
            "fs_hidden_units": "gate_hidden",
            "fs1_context": "gate1",
            "fs2_context": "gate2",
        },
        unused=("mlp1_hidden_activations", "mlp2_hidden_activations"),
        finish=_one_activation("mlp1_hidden_activations", "mlp2_hidden_activations"),
    ),
    "MaskNet": Model(
        name="masknet",
        keys={
            "embedding_dim": "dim",
            "dnn_hidden_units": "hidden",
            "parallel_num_blocks": "blocks",
            "parallel_block_dim": "block_width",
            "reduction_ratio": "reduction",
            "emb_layernorm": "embedding_norm",
            "net_layernorm": "norm",
            "net_dropout": "dropout",
        },
        unused=("model_type", "dnn_hidden_activations"),
        finish=_masknet,
    ),
    "AutoInt": Model(
        name="autoint",
        keys={
            **_MLP,
            "attention_layers": "layers",
            "num_heads": "heads",
            "attention_dim": "width",
            "use_scale": "scale",
            "use_residual": "residual",
            "layer_norm": "norm",
            "use_wide": "wide",
        },
        unused=("dnn_activations",),
        finish=_one_activation("dnn_activations"),
    ),
    "AFN": Model(
        name="afn",
        keys={
            "embedding_dim": "dim",
            "logarithmic_neurons": "neurons",
            "afn_hidden_units": "product_hidden",
            "afn_dropout": "product_dropout",
            "dnn_hidden_units": "hidden",
            "dnn_dropout": "dropout",
            "batch_norm": "batch_norm",
        },
        unused=("ensemble_dnn", "afn_activations", "dnn_activations"),
        finish=_afn,
    ),
    "WuKong": Model(
        name="wukong",
        keys={
            "embedding_dim": "dim",
            "num_wukong_layers": "layers",
            "num_layers": "layers",
            "lcb_features": "linear_rows",
            "compression_dim": "linear_rows",
            "fmb_features": "fm_rows",
            "fmb_dim": "fm_rows",
            "fmb_mlp_units": "fm_hidden",
            "fmb_units": "fm_hidden",
            "fmp_rank_k": "rank",
            "project_dim": "rank",
            "mlp_hidden_units": "hidden",
        },
        fixed={
            "hidden_activations": _RELU,
            "fmb_mlp_activations": _RELU,
            "mlp_hidden_activations": _RELU,
            "layer_norm": (True,),
        },
        unused=("net_dropout", "dropout_rate", "mlp_batch_norm"),
        finish=_wukong,
        notes=(
            "wukong: FuxiCTR draws Y with variance 1 (here 1/n), ends the FM block's MLP with a ReLU and gives the "
            "residual map a bias",
        ),
    ),
}
