"""How FuxiCTR's sequence models are called here: their keys, and which lists of ids are past events."""

import ast
from collections.abc import Mapping
from typing import Any

from recfm.errors import ConfigError
from recfm.fuxictr_models import Model, Settings, choose
from recfm.schema import Schema, Tokens

_PREFIXES = ("", "din_", "dien_", "bst_")
_FIELDS = tuple(f"{prefix}{field}" for prefix in _PREFIXES for field in ("target_field", "sequence_field"))
_LONGEST = 100  # what the models read unless they are told
_SHARED = {
    "embedding_dim": "dim",
    "dnn_hidden_units": "hidden",
    "net_dropout": "dropout",
    "batch_norm": "batch_norm",
    "attention_dropout": "attention_dropout",
    "enable_sum_pooling": "sum_pooling",
}
_NONE: tuple[Any, ...] = (None, [], "")


def _activations(given: Mapping[str, Any], out: Settings) -> None:
    if "dnn_activations" in given:
        out["act"] = str(given["dnn_activations"]).lower()
    for key in ("attention_hidden_activations", "attention_activation"):
        if key in given:
            out["attention_act"] = str(given[key]).lower()


def _dien(given: Mapping[str, Any], out: Settings) -> None:
    _activations(given, out)
    kinds = {"bilinear_attention": "bilinear", "dot_attention": "dot", "din_attention": "din"}
    choose(given, out, "attention_type", "attention", kinds)


def _dmin(given: Mapping[str, Any], out: Settings) -> None:
    _activations(given, out)
    if not given.get("use_pos_emb", True):
        out["position_dim"] = 0


def _act_only(given: Mapping[str, Any], out: Settings) -> None:
    if "dnn_activations" in given:
        out["act"] = str(given["dnn_activations"]).lower()


_ACT_KEYS = ("dnn_activations", "attention_hidden_activations", "attention_activation")

MODELS: dict[str, Model] = {
    "DIN": Model(
        name="din",
        keys={**_SHARED, "attention_hidden_units": "attention_hidden", "din_use_softmax": "softmax"},
        fixed={"attention_output_activation": (None,)},
        unused=(*_FIELDS, *_ACT_KEYS),
        finish=_activations,
    ),
    "DIEN": Model(
        name="dien",
        keys={
            **_SHARED,
            "attention_hidden_units": "attention_hidden",
            "use_attention_softmax": "softmax",
            "aux_loss_alpha": "auxiliary",
            "aux_hidden_units": "auxiliary_hidden",
        },
        fixed={"gru_type": ("AUGRU",), "dien_neg_seq_field": _NONE, "aux_activation": ("ReLU",)},
        unused=(*_FIELDS, *_ACT_KEYS, "attention_type"),
        finish=_dien,
    ),
    "DMIN": Model(
        name="dmin",
        keys={
            **_SHARED,
            "attention_hidden_units": "attention_hidden",
            "num_heads": "heads",
            "use_behavior_refiner": "refiner",
            "layer_norm": "norm",
            "pos_emb_dim": "position_dim",
            "aux_loss_lambda": "auxiliary",
            "aux_hidden_units": "auxiliary_hidden",
        },
        fixed={"neg_seq_field": _NONE, "bn_only_once": (False,), "aux_activation": ("ReLU",)},
        unused=(*_FIELDS, *_ACT_KEYS, "use_pos_emb"),
        finish=_dmin,
    ),
    "DMR": Model(
        name="dmr",
        keys={
            **_SHARED,
            "attention_hidden_units": "attention_hidden",
            "enable_u2i_rel": "user_to_item",
            "enable_i2i_rel": "item_to_item",
            "pos_emb_dim": "position_dim",
            "aux_loss_beta": "auxiliary",
        },
        fixed={
            "neg_seq_field": _NONE,
            "context_field": _NONE,
            "bn_only_once": (False,),
            "use_pos_emb": (True,),
        },
        unused=(*_FIELDS, *_ACT_KEYS),
        finish=_activations,
    ),
    "BST": Model(
        name="bst",
        keys={
            **_SHARED,
            "num_heads": "heads",
            "stacked_transformer_layers": "layers",
            "use_position_emb": "positions",
            "use_residual": "residual",
            "layer_norm": "norm",
            "seq_pooling_type": "pooling",
        },
        fixed={"use_causal_mask": (False,)},
        unused=(*_FIELDS, "dnn_activations"),
        finish=_act_only,
    ),
}


def fields(given: Mapping[str, Any], which: str) -> list[tuple[str, ...]]:
    """Field names of each behaviour: `which` is "target_field" or "sequence_field".

    A list holds behaviours; a tuple, also written as text, holds the fields of one.
    """
    found = [given[key] for key in _FIELDS if key.endswith(which) and given.get(key) is not None]
    if not found:
        return []
    value = _literal(found[0])
    behaviours = [_literal(one) for one in value] if isinstance(value, list) else [value]
    return [
        tuple(str(name) for name in one) if isinstance(one, list | tuple) else (str(one),)
        for one in behaviours
    ]


def behaviours(given: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The settings `behaviours` and, where lists are long, `length`.

    Raises:
        ConfigError: A sequence does not share the table of the feature that it is compared with.
    """
    targets, sequences = fields(given, "target_field"), fields(given, "sequence_field")
    if [len(one) for one in targets] != [len(one) for one in sequences]:
        raise ConfigError(f"target_field {targets} and sequence_field {sequences} do not match: give pairs")
    tokens = {feature.name: feature for feature in schema.of_kind(Tokens)}
    lengths = [0]
    for target, names in zip(targets, sequences, strict=True):
        for of, name in zip(target, names, strict=True):
            if name not in tokens or tokens[name].shares != of:
                raise ConfigError(
                    f"sequence_field '{name}' is compared with '{of}': make it a sequence with share_embedding: {of}"
                )
            lengths.append(tokens[name].max_length or 0)
    out: dict[str, Any] = {"behaviours": [list(names) for names in sequences]}
    if max(lengths) > _LONGEST:
        out["length"] = max(lengths)
    return out


def _literal(value: Any) -> Any:
    if isinstance(value, str) and value.strip().startswith(("(", "[")):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise ConfigError(f"{value!r} is no list of field names") from None
    return value
