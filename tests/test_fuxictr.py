"""FuxiCTR's configuration files, self-written in its layout, as schemas, models and training settings."""

import copy
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import yaml

import recfm
from fuxictr_helpers import (
    BASE,
    DIN,
    DNN,
    FIELDS,
    FRAPPE,
    MODELS,
    ON_TAOBAO,
    SEQUENCE_MODELS,
    TAOBAO,
    TRAINING,
    experiment,
)
from recfm import from_fuxictr
from recfm.data.batches import Batches
from recfm.datasets import ctr, frappe, taobao
from recfm.errors import ConfigError, SchemaError
from recfm.models import zoo
from recfm.models.layers import embedding_parameters, initialise
from recfm.schema import Categorical, Numeric, Tokens
from recfm.train.losses import LabelLoss


@pytest.mark.parametrize("name", MODELS)
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


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_sequence_models_of_the_zoo(name):
    given, expected = SEQUENCE_MODELS[name]
    imported = from_fuxictr(TAOBAO, experiment(ON_TAOBAO, **given))
    assert imported.settings == expected
    zoo.model_config(imported.model, imported.settings)
    sides = {feature.name: feature.side for feature in imported.schema.of_kind(Categorical)}
    assert sides["cate_id"] == "item"
    assert sides["userid"] == "user"


@pytest.mark.parametrize(
    "written", ["!!python/tuple [cate_his, brand_his, btag_his]", "\"('cate_his', 'brand_his', 'btag_his')\""]
)
def test_fields_of_one_behaviour_are_a_tuple(written, tmp_path):
    given = experiment(ON_TAOBAO, **SEQUENCE_MODELS["DIN"][0])
    del given["exp"]["din_sequence_field"]
    given["exp"]["din_target_field"] = "('cate_id', 'brand', 'btag')"
    text = yaml.safe_dump(given["exp"]).replace("\n", "\n    ")
    (tmp_path / "model.yaml").write_text(f"exp:\n    {text}\n    din_sequence_field: {written}\n")
    imported = from_fuxictr(TAOBAO, tmp_path / "model.yaml")
    assert imported.settings["behaviours"] == [["cate_his", "brand_his", "btag_his"]]


@pytest.mark.parametrize(
    ("target", "sequence", "message"),
    [
        ("brand", "cate_his", "sequence_field 'cate_his' is compared with 'brand'.*share_embedding: brand"),
        ("cate_id", ["cate_his", "brand_his"], "do not match: give pairs"),
        ("cate_id", "('cate_his'", "no list of field names"),
    ],
)
def test_behaviours_that_do_not_fit_are_refused(target, sequence, message):
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
