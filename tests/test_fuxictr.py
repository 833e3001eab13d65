"""FuxiCTR's configuration files, self-written in its layout, as schemas, models and training settings."""

import copy
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import yaml

import recfm
from recfm import from_fuxictr
from recfm.data.batches import Batches
from recfm.datasets import ctr, frappe, taobao
from recfm.errors import ConfigError, SchemaError
from recfm.models import zoo
from recfm.models.layers import embedding_parameters, initialise
from recfm.schema import Categorical, Numeric, Tokens
from recfm.train.losses import LabelLoss

FIELDS = ["user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]
FRAPPE = {
    "frappe_x1": {
        "data_root": "../data/Frappe/",
        "data_format": "csv",
        "train_data": "Frappe_x1/train.csv",
        "valid_data": "Frappe_x1/valid.csv",
        "test_data": "Frappe_x1/test.csv",
        "min_categr_count": 1,
        "feature_cols": [{"active": True, "dtype": "float", "name": FIELDS, "type": "categorical"}],
        "label_col": {"dtype": "float", "name": "label"},
    }
}
BASE = {
    "model_root": "./checkpoints/",
    "num_workers": 3,
    "verbose": 1,
    "early_stop_patience": 2,
    "pickle_feature_encoder": True,
    "save_best_only": True,
    "eval_steps": None,
    "debug_mode": False,
    "group_id": None,
    "use_features": None,
    "feature_specs": None,
    "feature_config": None,
}
TRAINING = {
    "dataset_id": "frappe_x1",
    "loss": "binary_crossentropy",
    "metrics": ["AUC", "logloss"],
    "task": "binary_classification",
    "optimizer": "adam",
    "learning_rate": 1.0e-3,
    "embedding_regularizer": 0.05,
    "net_regularizer": 0,
    "batch_size": 4096,
    "embedding_dim": 10,
    "epochs": 100,
    "shuffle": True,
    "seed": 2021,
    "monitor": "AUC",
    "monitor_mode": "max",
}
DNN = {
    "model": "DNN", "hidden_units": [400, 400, 400], "hidden_activations": "relu", "net_dropout": 0.2,
    "batch_norm": True,
}  # fmt: skip
MODELS = {
    "DNN": (DNN, {"dim": 10, "hidden": [400, 400, 400], "dropout": 0.2, "batch_norm": True}),
    "DeepFM": (DNN | {"model": "DeepFM"}, {"dim": 10, "hidden": [400] * 3, "dropout": 0.2, "batch_norm": True}),
    "DCNv2": (
        {
            "model": "DCNv2", "model_structure": "parallel", "use_low_rank_mixture": False, "low_rank": 32,
            "num_experts": 4, "stacked_dnn_hidden_units": [500, 500, 500], "num_cross_layers": 4, "net_dropout": 0.4,
            "parallel_dnn_hidden_units": [400, 400, 400], "dnn_activations": "relu", "batch_norm": True,
        },
        {
            "dim": 10, "structure": "parallel", "cross_layers": 4, "hidden": [400] * 3, "dropout": 0.4,
            "batch_norm": True,
        },
    ),
    "DLRM": (
        {
            "model": "DLRM", "top_mlp_units": [400, 400], "bottom_mlp_units": [400], "top_mlp_activations": "ReLU",
            "bottom_mlp_activations": "ReLU", "top_mlp_dropout": 0.4, "bottom_mlp_dropout": 0.4,
            "interaction_op": "cat", "batch_norm": True,
        },
        {
            "dim": 10, "hidden": [400, 400], "bottom": [400], "dropout": 0.4, "interaction": "cat",
            "batch_norm": True,
        },
    ),
    "FinalMLP": (
        {
            "model": "FinalMLP", "mlp1_hidden_units": [400], "mlp1_hidden_activations": "relu", "mlp1_dropout": 0.4,
            "mlp1_batch_norm": True, "mlp2_hidden_units": [100], "mlp2_hidden_activations": "relu",
            "mlp2_dropout": 0.4, "mlp2_batch_norm": True, "use_fs": True, "fs_hidden_units": [400],
            "fs1_context": ["user"], "fs2_context": ["item"], "num_heads": 5,
        },
        {
            "dim": 10, "hidden1": [400], "hidden2": [100], "dropout1": 0.4, "dropout2": 0.4, "batch_norm1": True,
            "batch_norm2": True, "act": "relu", "gates": True, "gate_hidden": [400], "gate1": ["user"],
            "gate2": ["item"], "heads": 5,
        },
    ),
    "WuKong": (
        {
            "model": "WuKong", "num_wukong_layers": 3, "lcb_features": 40, "fmb_features": 30, "fmp_rank_k": 8,
            "fmb_mlp_units": [32, 32], "fmb_mlp_activations": "relu", "mlp_hidden_units": [64],
            "mlp_hidden_activations": "relu", "mlp_batch_norm": False, "layer_norm": True, "net_dropout": 0.1,
        },
        {
            "dim": 10, "layers": 3, "linear_rows": 40, "fm_rows": 30, "rank": 8, "fm_hidden": [32, 32],
            "hidden": [64], "fm_dropout": 0.1, "dropout": 0.0,
        },
    ),
    "FM": ({"model": "FM"}, {"dim": 10}),
    "FmFM": ({"model": "FmFM", "field_interaction_type": "vectorized"}, {"dim": 10, "pairs": "vector"}),
    "xDeepFM": (
        DNN | {"model": "xDeepFM", "cin_hidden_units": [16, 16]},
        {"dim": 10, "hidden": [400] * 3, "dropout": 0.2, "batch_norm": True, "cin": [16, 16]},
    ),
    "MaskNet": (
        {
            "model": "MaskNet", "dnn_hidden_units": [50, 40], "dnn_hidden_activations": "relu",
            "model_type": "ParallelMaskNet", "parallel_num_blocks": 3, "parallel_block_dim": 50,
            "reduction_ratio": 1, "emb_layernorm": True, "net_layernorm": True, "net_dropout": 0.1,
        },
        {
            "dim": 10, "hidden": [50, 40], "kind": "parallel", "blocks": 3, "block_width": 50, "reduction": 1,
            "embedding_norm": True, "norm": True, "dropout": 0.1, "act": "relu",
        },
    ),
    "AutoInt": (
        {
            "model": "AutoInt", "dnn_hidden_units": [400], "dnn_activations": "relu", "net_dropout": 0.1,
            "num_heads": 2, "attention_layers": 3, "attention_dim": 64, "use_residual": True, "batch_norm": False,
            "layer_norm": False, "use_scale": True, "use_wide": False,
        },
        {
            "dim": 10, "hidden": [400], "act": "relu", "dropout": 0.1, "heads": 2, "layers": 3, "width": 64,
            "residual": True, "batch_norm": False, "norm": False, "scale": True, "wide": False,
        },
    ),
    "AFN": (
        {
            "model": "AFN", "logarithmic_neurons": 100, "afn_hidden_units": [400], "afn_activations": "relu",
            "afn_dropout": 0.1, "ensemble_dnn": False, "dnn_hidden_units": [400], "dnn_activations": "relu",
            "dnn_dropout": 0, "batch_norm": False,
        },
        {
            "dim": 10, "neurons": 100, "product_hidden": [400], "product_dropout": 0.1, "hidden": [],
            "dropout": 0, "batch_norm": False, "act": "relu",
        },
    ),
}  # fmt: skip
TAOBAO = {
    "taobaoad_x1": {
        "data_root": "../data/Taobao/",
        "data_format": "csv",
        "train_data": "train.csv",
        "valid_data": "test.csv",
        "test_data": "test.csv",
        "min_categr_count": 10,
        "feature_cols": [
            {"name": "group_id", "type": "meta", "preprocess": "copy_from(userid)", "remap": False},
            {"name": [*sum(taobao._SIDES.values(), ())], "dtype": "str", "type": "categorical"},
            {"name": "price", "active": True, "dtype": "float", "type": "numeric"},
            *(
                {"name": name, "type": "sequence", "max_len": 50, "padding": "pre", "share_embedding": of}
                for name, of in taobao._HISTORIES.items()
            ),
        ],
        "label_col": {"name": "clk", "dtype": "float"},
    }
}  # fmt: skip
ON_TAOBAO = {
    "dataset_id": "taobaoad_x1", "group_id": "group_id", "monitor": {"AUC": 1, "gAUC": 1}, "embedding_dim": 32,
    "embedding_regularizer": "5e-06", "batch_size": 8192, "early_stop_patience": 1,
}  # fmt: skip


DIN = {
    "model": "DIN", "dnn_hidden_units": [512, 256, 128], "dnn_activations": "relu", "net_dropout": 0.1,
    "batch_norm": False, "attention_hidden_units": [512, 256], "attention_hidden_activations": "ReLU",
    "attention_output_activation": None, "attention_dropout": 0.4, "din_use_softmax": False,
    "din_target_field": ("cate_id", "brand", "btag"), "din_sequence_field": ("cate_his", "brand_his", "btag_his"),
    "feature_specs": [{"feature_encoder": None, "name": ["cate_his", "brand_his", "btag_his"]}],
}  # fmt: skip
FIELDS_OF = {"target_field": "cate_id", "sequence_field": "cate_his"}
SEQUENCE_MODELS = {
    "DIN": (
        DIN,
        {
            "dim": 32, "hidden": [512, 256, 128], "act": "relu", "dropout": 0.1, "batch_norm": False,
            "attention_hidden": [512, 256], "attention_act": "relu", "attention_dropout": 0.4, "softmax": False,
            "behaviours": [["cate_his", "brand_his", "btag_his"]],
        },
    ),
    "DIEN": (
        {
            "model": "DIEN", "dnn_hidden_units": [64], "dnn_activations": "Dice", "net_dropout": 0,
            "dien_target_field": ["cate_id", "brand"], "dien_sequence_field": ["cate_his", "brand_his"],
            "dien_neg_seq_field": [], "gru_type": "AUGRU", "enable_sum_pooling": True,
            "attention_type": "dot_attention", "attention_hidden_units": [80, 40], "attention_activation": "ReLU",
            "attention_dropout": 0, "use_attention_softmax": True, "aux_hidden_units": [100, 50],
            "aux_activation": "ReLU", "aux_loss_alpha": 0, "batch_norm": True,
        },
        {
            "dim": 32, "hidden": [64], "act": "dice", "dropout": 0, "sum_pooling": True, "attention": "dot",
            "attention_hidden": [80, 40], "attention_act": "relu", "attention_dropout": 0, "softmax": True,
            "auxiliary_hidden": [100, 50], "auxiliary": 0, "batch_norm": True,
            "behaviours": [["cate_his"], ["brand_his"]],
        },
    ),
    "DMIN": (
        FIELDS_OF
        | {
            "model": "DMIN", "dnn_hidden_units": [64], "dnn_activations": "Dice", "net_dropout": 0,
            "aux_hidden_units": [100, 50], "aux_activation": "ReLU", "neg_seq_field": None,
            "enable_sum_pooling": False, "use_behavior_refiner": True, "num_heads": 4,
            "attention_hidden_units": [80, 40], "attention_activation": "ReLU", "attention_dropout": 0,
            "aux_loss_lambda": 0, "use_pos_emb": False, "pos_emb_dim": 8, "batch_norm": False,
            "bn_only_once": False, "layer_norm": True,
        },
        {
            "dim": 32, "hidden": [64], "act": "dice", "dropout": 0, "auxiliary_hidden": [100, 50],
            "sum_pooling": False, "refiner": True, "heads": 4, "attention_hidden": [80, 40],
            "attention_act": "relu", "attention_dropout": 0, "auxiliary": 0, "position_dim": 0,
            "batch_norm": False, "norm": True, "behaviours": [["cate_his"]],
        },
    ),
    "DMR": (
        FIELDS_OF
        | {
            "model": "DMR", "dnn_hidden_units": [64], "dnn_activations": "relu", "net_dropout": 0,
            "batch_norm": True, "bn_only_once": False, "neg_seq_field": None, "context_field": None,
            "attention_hidden_units": [80, 40], "attention_activation": "ReLU", "attention_dropout": 0,
            "enable_sum_pooling": False, "enable_u2i_rel": True, "enable_i2i_rel": False, "aux_loss_beta": 0,
            "use_pos_emb": True, "pos_emb_dim": 8,
        },
        {
            "dim": 32, "hidden": [64], "act": "relu", "dropout": 0, "batch_norm": True,
            "attention_hidden": [80, 40], "attention_act": "relu", "attention_dropout": 0,
            "sum_pooling": False, "user_to_item": True, "item_to_item": False, "auxiliary": 0,
            "position_dim": 8, "behaviours": [["cate_his"]],
        },
    ),
    "BST": (
        {
            "model": "BST", "dnn_hidden_units": [64], "dnn_activations": "relu", "num_heads": 4,
            "stacked_transformer_layers": 1, "attention_dropout": 0, "net_dropout": 0, "layer_norm": True,
            "use_residual": True, "bst_target_field": "cate_id", "bst_sequence_field": "cate_his",
            "seq_pooling_type": "mean", "use_position_emb": True, "use_causal_mask": False, "batch_norm": False,
        },
        {
            "dim": 32, "hidden": [64], "act": "relu", "heads": 4, "layers": 1, "attention_dropout": 0,
            "dropout": 0, "norm": True, "residual": True, "pooling": "mean", "positions": True,
            "batch_norm": False, "behaviours": [["cate_his"]],
        },
    ),
}  # fmt: skip


def experiment(given: dict, **changes) -> dict:
    return {"Base": BASE, "exp": TRAINING | given | changes}


def known(name: str) -> bool:
    return from_fuxictr.__globals__["MODELS"][name].name in zoo.MODELS


def in_zoo(names):
    """Each name, skipped while its model is not in the zoo."""
    return [
        pytest.param(n, marks=pytest.mark.skipif(not known(n), reason=f"no {n} in the zoo")) for n in names
    ]


@pytest.mark.parametrize("name", in_zoo(MODELS))
def test_models_of_the_zoo(name):
    given, expected = MODELS[name]
    imported = from_fuxictr(FRAPPE, experiment(given))
    assert imported.settings == expected
    zoo.model_config(imported.model, imported.settings)
    assert imported.schema.features == tuple(
        Categorical(name=feature.name, side="context") for feature in frappe.schema().features
    )
    assert imported.schema.user is None


def test_older_names_of_wukong():
    old = {
        "model": "WuKong", "num_layers": 3, "compression_dim": 40, "fmb_dim": 30, "project_dim": 8,
        "fmb_units": [32, 32], "hidden_activations": "relu", "mlp_hidden_units": [64], "dropout_rate": 0.1,
    }  # fmt: skip
    new = MODELS["WuKong"][0]
    assert from_fuxictr(FRAPPE, experiment(old)).settings == from_fuxictr(FRAPPE, experiment(new)).settings
    assert from_fuxictr(FRAPPE, experiment(new, mlp_batch_norm=True)).settings["batch_norm"] is True


def test_training_settings_are_those_of_the_benchmark():
    imported = from_fuxictr(FRAPPE, experiment(DNN))
    assert imported.train == {
        "epochs": 100,
        "batch_size": 4096,
        "learning_rate": 1e-3,
        "optimizer": "adam",
        "embedding_l2": 0.05,
        "network_l2": 0.0,
        "clip_norm": 10.0,
        "schedule": "plateau",
        "schedule_factor": 0.1,
        "min_learning_rate": 1e-6,
        "patience": 2,
        "min_delta": 1e-6,
        "monitor": "auc",
        "seed": 2021,
    }
    assert imported.init == {"linear": "xavier_normal", "embedding_std": 1e-4}
    assert imported.notes == ()
    assert imported.data["valid"].as_posix() == "Frappe_x1/valid.csv"


@pytest.mark.parametrize(
    ("change", "key", "expected"),
    [
        ({"embedding_regularizer": "l2(1.e-5)"}, "embedding_l2", 1e-5),
        ({"embedding_regularizer": None}, "embedding_l2", 0.0),
        ({"net_regularizer": "1e-06"}, "network_l2", 1e-6),
        ({"monitor": {"AUC": 1, "gAUC": 1}}, "monitor", "auc+gauc"),
        ({"monitor": "gAUC"}, "monitor", "gauc"),
        ({"monitor": "logloss", "monitor_mode": "min"}, "monitor", "logloss"),
        ({"reduce_lr_on_plateau": False}, "schedule", "constant"),
        ({"max_gradient_norm": 5}, "clip_norm", 5.0),
        ({"early_stop_patience": 4}, "patience", 4),
    ],
)
def test_training_settings_that_differ(change, key, expected):
    assert from_fuxictr(FRAPPE, experiment(DNN, **change)).train[key] == expected


def test_what_is_not_quite_the_same_is_a_note():
    imported = from_fuxictr(FRAPPE, experiment(DNN, monitor={"AUC": 1, "logloss": -1}))
    assert imported.train["monitor"] == "auc"
    assert any("followed by AUC alone" in note for note in imported.notes)
    fm = {"model": "DNN", "regularizer": 0.01, "embedding_initializer": "partial(nn.init.normal_, std=0.01)"}
    both = experiment(DNN | fm)
    del both["exp"]["embedding_regularizer"], both["exp"]["net_regularizer"]
    imported = from_fuxictr(FRAPPE, both)
    assert imported.train["embedding_l2"] == imported.train["network_l2"] == 0.01
    assert imported.init["embedding_std"] == 0.01


def test_taobao_has_the_features_of_its_loader():
    imported = from_fuxictr(TAOBAO, experiment(DNN, **ON_TAOBAO))
    ours = taobao.schema()
    assert imported.schema.user == ours.user == "userid"
    assert {(f.name, f.min_count) for f in imported.schema.of_kind(Categorical)} == {
        (f.name, f.min_count) for f in ours.of_kind(Categorical)
    }
    assert imported.schema.of_kind(Tokens) == ours.of_kind(Tokens)
    assert [f.name for f in imported.schema.of_kind(Numeric)] == ["price"]
    assert imported.train["embedding_l2"] == 5e-6
    assert imported.train["monitor"] == "auc+gauc"
    text = " | ".join(imported.notes)
    for part in ("'price' is standardised", "share_embedding", "validation rows are the test rows"):
        assert part in text


@pytest.mark.parametrize("name", in_zoo(SEQUENCE_MODELS))
def test_sequence_models_of_the_zoo(name):
    given, expected = SEQUENCE_MODELS[name]
    imported = from_fuxictr(TAOBAO, experiment(ON_TAOBAO, **given))
    assert imported.settings == expected
    zoo.model_config(imported.model, imported.settings)
    sides = {feature.name: feature.side for feature in imported.schema.of_kind(Categorical)}
    assert sides["cate_id"] == "item"
    assert sides["userid"] == "user"


@pytest.mark.parametrize("name", in_zoo(["DIN"]))
@pytest.mark.parametrize(
    "written", ["!!python/tuple [cate_his, brand_his, btag_his]", "\"('cate_his', 'brand_his', 'btag_his')\""]
)
def test_fields_of_one_behaviour_are_a_tuple(name, written, tmp_path):
    given = experiment(ON_TAOBAO, **SEQUENCE_MODELS[name][0])
    del given["exp"]["din_sequence_field"]
    given["exp"]["din_target_field"] = "('cate_id', 'brand', 'btag')"
    text = yaml.safe_dump(given["exp"]).replace("\n", "\n    ")
    (tmp_path / "model.yaml").write_text(f"exp:\n    {text}\n    din_sequence_field: {written}\n")
    imported = from_fuxictr(TAOBAO, tmp_path / "model.yaml")
    assert imported.settings["behaviours"] == [["cate_his", "brand_his", "btag_his"]]


@pytest.mark.parametrize("name", in_zoo(["DIN"]))
@pytest.mark.parametrize(
    ("target", "sequence", "message"),
    [
        ("brand", "cate_his", "sequence_field 'cate_his' is compared with 'brand'.*share_embedding: brand"),
        ("cate_id", ["cate_his", "brand_his"], "do not match: give pairs"),
        ("cate_id", "('cate_his'", "no list of field names"),
    ],
)
def test_behaviours_that_do_not_fit_are_refused(name, target, sequence, message):
    with pytest.raises(ConfigError, match=message):
        from_fuxictr(
            TAOBAO,
            experiment(ON_TAOBAO, **DIN | {"din_target_field": target, "din_sequence_field": sequence}),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "FinalNet"}, r"'exp' has model 'FinalNet', which recfm lacks; the nearest is Final"),
        (
            {"hidden_activations": "Dice", "gatez": 1, "loss": "focal"},
            r"'exp'.*focal.*hidden_activations is 'Dice'.*gatez",
        ),
        ({"task": "regression"}, "task is 'regression', recfm has binary_classification"),
        ({"embedding_regularizer": "l1(0.1)"}, "embedding_regularizer is .*recfm has L2 only"),
        ({"embedding_initializer": "uniform"}, "embedding_initializer is 'uniform'"),
        ({"optimizer": "ftrl"}, "optimizer is 'ftrl', recfm has adam"),
        ({"eval_steps": 100}, "eval_steps is 100, recfm has None"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast': give a number"),
        ({"dataset_id": "criteo"}, r"no data set 'criteo'.*pass dataset_id, one of frappe_x1"),
        ({"use_features": ["user", "taste"]}, "use_features has 'taste', which is no feature"),
        ({"hidden_units": [0]}, "model dnn.*hidden"),
    ],
)
def test_what_has_no_counterpart_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_fuxictr(FRAPPE, experiment(DNN, **changes))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            {"name": "x", "type": "categorical", "preprocess": "convert_hour"},
            "column 'x' is made by 'convert_hour'",
        ),
        ({"name": "x", "type": "embedding"}, "column 'x' is of type 'embedding'"),
        ({"name": "x", "type": "categorical", "vocab_size": 9}, "column 'x': key 'vocab_size' is unknown"),
        (
            {"name": "x", "type": "categorical", "embedding_dim": 4},
            "column 'x' has an embedding_dim of its own",
        ),
        (
            {"name": "x", "type": "categorical", "category_processor": "hash_bucket"},
            "category_processor 'hash_bucket'",
        ),
        ({"name": "x", "type": "sequence", "splitter": ","}, "column 'x' is split at ','"),
        (
            {"name": "x", "type": "sequence", "feature_encoder": "layers.MaskedSumPooling()"},
            "recfm takes the mean",
        ),
        ({"type": "categorical"}, "which has no name"),
    ],
)
def test_columns_without_a_counterpart_are_refused(column, message):
    dataset = copy.deepcopy(FRAPPE)
    dataset["frappe_x1"]["feature_cols"].append(column)
    with pytest.raises(ConfigError, match=message):
        from_fuxictr(dataset, experiment(DNN))


def test_columns_with_one():
    dataset = copy.deepcopy(FRAPPE)
    dataset["frappe_x1"]["feature_cols"] += [
        {"name": "age", "type": "categorical", "category_processor": "quantile_bucket", "num_buckets": 7},
        {"name": "price", "type": "numeric", "normalizer": "StandardScaler", "source": "item"},
        {"name": "tags", "type": "sequence", "max_len": 5, "source": "item"},
        {"name": "image", "type": "categorical", "pretrained_emb": "image.h5"},
        {"name": "gone", "active": False, "type": "categorical"},
    ]
    imported = from_fuxictr(dataset, experiment(DNN))
    assert imported.schema.features[10:] == (
        Numeric(name="age", side="context", transform="quantile", buckets=7),
        Numeric(name="price", side="item"),
        Tokens(name="tags", side="item", max_length=5),
    )
    text = " | ".join(imported.notes)
    assert "'tags': of longer lists the last 5 ids stay; FuxiCTR keeps the first" in text
    assert "'image' reads vectors of 'image.h5' and is left out" in text


def test_a_shared_feature_that_is_not_there():
    dataset = copy.deepcopy(FRAPPE)
    dataset["frappe_x1"]["feature_cols"].append({"name": "h", "type": "sequence", "share_embedding": "itme"})
    with pytest.raises(SchemaError, match="'h' shares 'itme'"):
        from_fuxictr(dataset, experiment(DNN))


def test_files(tmp_path):
    (tmp_path / "dataset_config.yaml").write_text(yaml.safe_dump(FRAPPE))
    both = experiment(DNN) | {"other": TRAINING | DNN | {"net_dropout": 0.5}}
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(both))
    imported = from_fuxictr(tmp_path, tmp_path / "model_config.yaml", expid="other")
    assert imported.settings["dropout"] == 0.5
    assert imported == from_fuxictr(FRAPPE["frappe_x1"], BASE | both["other"])
    with pytest.raises(ConfigError, match="expid is not given: use one of exp, other"):
        from_fuxictr(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="there is no experiment 'third'"):
        from_fuxictr(tmp_path, tmp_path, expid="third")
    with pytest.raises(ConfigError, match="there is no model_config file"):
        from_fuxictr(tmp_path, tmp_path / "absent.yaml")
    for text, message in (("a: [1", "cannot be read as YAML"), ("- 1", "holds list, not entries by name")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            from_fuxictr(tmp_path / "bad.yaml", tmp_path, expid="exp")


def test_without_pyyaml_the_command_to_install_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match=r"pip install 'recfm\[fuxictr\]'"):
        from_fuxictr(tmp_path, tmp_path)


def test_importing_recfm_and_fuxictr_loads_no_torch():
    code = "import sys, recfm, recfm.fuxictr; assert 'torch' not in sys.modules and 'yaml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert recfm.from_fuxictr is from_fuxictr


def test_two_steps_of_an_imported_experiment(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "Frappe_x1").mkdir()
    for split in ("train", "valid", "test"):
        columns = {"label": rng.integers(0, 2, 40)} | {name: rng.integers(0, 9, 40) for name in FIELDS}
        pl.DataFrame(columns).write_csv(tmp_path / "Frappe_x1" / f"{split}.csv")
    imported = from_fuxictr(FRAPPE, experiment(DNN, hidden_units=[8], batch_size=20))
    train, _, _ = ctr.encode_ctr(imported.read(tmp_path))
    model = zoo.build_model(imported.model, train.layout, imported.settings)
    initialise(model, **imported.init)
    (table,) = embedding_parameters(model)
    assert 5e-5 < table.std().item() < 2e-4
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    batches, loss = Batches(train, batch_size=imported.train["batch_size"], shuffle=False), LabelLoss(model)
    losses = []
    for _ in range(10):
        for batch in batches.epoch(0):
            value = loss(batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    assert len(batches) == 2
    assert losses[-1] < losses[0]
