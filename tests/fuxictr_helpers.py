"""FuxiCTR's configuration files, self-written in its layout, and what they mean."""

from recfm.datasets import taobao

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
