"""The pipeline's parts: what each period may see, what the log holds, what trains on which rows."""

import dataclasses
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest

from model_helpers import LABELLED_HISTORY, planted, planted_schema, tiny_config
from recfm import loop
from recfm.controls import SEQUENCE, VARIANTS
from recfm.data.encode import Encoder
from recfm.errors import ConfigError, LeakError, SchemaError
from recfm.history.compress import Autoencoder
from recfm.history.log import EmbeddingLog
from recfm.history.score import fingerprint, log_embeddings
from recfm.history.tap import Tap
from recfm.models.deepfm import DeepFM
from recfm.models.dnn import DNN
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.progress import NoProgress
from recfm.schema import Categorical, History, Tokens
from recfm.train.losses import DistillConfig
from recfm.train.trainer import TrainConfig, predict

EVENTS = planted(users=60, events=20)
CONFIG = tiny_config(fm_train=TrainConfig(epochs=2, batch_size=128, learning_rate=1e-2),
                     vm_train=TrainConfig(epochs=2, batch_size=128, learning_rate=1e-2))  # fmt: skip
BY_NAME = {variant.name: variant for variant in VARIANTS}


class Spy(NoProgress):
    """Notes every stage and how many steps it has."""

    def __init__(self):
        self.stages = []

    @contextmanager
    def stage(self, name, doing, seed):
        steps = []
        yield lambda done, total, loss: steps.append((done, total))
        self.stages.append((name, doing, seed, steps[-1]))


@pytest.fixture(scope="module")
def prepared():
    return loop.prepare(EVENTS, planted_schema(), CONFIG)


@pytest.fixture(scope="module")
def logged(prepared, tmp_path_factory):
    """The FM's run, its log, and the log's folder."""
    folder = tmp_path_factory.mktemp("fm") / "log"
    run, log = loop.train_and_log(prepared, CONFIG, 0, folder, NoProgress())
    return run, log, folder


# ---- events and periods ----------------------------------------------------------------------------------------


def test_vocabularies_know_the_fms_training_rows_only():
    late = EVENTS.with_columns(
        item=pl.when(pl.col("time") > 0.6 * pl.col("time").max()).then(pl.col("item") + 100).otherwise("item")
    )
    prepared = loop.prepare(late, planted_schema(), CONFIG)
    ids, periods = prepared.encoded.ids[:, 0], prepared.periods
    assert (ids[periods.fm] > 1).all()
    assert (ids[periods.test] == 1).all()
    fitted = Encoder(planted_schema()).fit(late[periods.fm]).transform(late)
    assert np.array_equal(fitted.ids, prepared.encoded.ids)


def test_the_vm_never_reads_what_the_schema_keeps_from_it(prepared):
    assert list(loop.own_histories(prepared.encoded, "fm")) == ["seen"]
    assert loop.own_histories(prepared.encoded, "vm") == {}
    shared = loop.prepare(EVENTS, planted_schema(History(name="mine", of=("item",))), CONFIG)
    assert list(loop.own_histories(shared.encoded, "vm")) == ["mine"]


def test_a_history_keeps_its_length_and_delay():
    slow = History(name="slow", of=("item",), length=7, delay=60.0, labels=True, seen_by="fm")
    prepared = loop.prepare(EVENTS, planted_schema(slow), CONFIG)
    found = loop.own_histories(prepared.encoded, "fm")["slow"]
    assert (found.past.length, found.past.delay) == (7, 60.0)
    assert (found.layout.length, found.layout.ids, found.layout.labels) == (7, ("item",), True)


def test_the_fm_and_the_vm_pool_as_configured(prepared):
    layouts = [history.layout for history in loop.own_histories(prepared.encoded, "fm").values()]
    config = tiny_config(
        fm_history=HistoryEncoderConfig(pooling="sum", width=5), history=HistoryEncoderConfig(width=6)
    )
    fm, vm = loop.build_fm(prepared, config, layouts), loop.build_vm(prepared, config, layouts)
    assert fm.histories[0].config == config.fm_history
    assert vm.histories[0].config == config.history


@pytest.mark.parametrize(("vm", "kind"), [("dnn", DNN), ("deepfm", DeepFM)])
def test_the_configured_vm_is_built(prepared, vm, kind):
    assert type(loop.build_vm(prepared, tiny_config(vm=vm), [])) is kind


@pytest.mark.parametrize(
    ("features", "of"),
    [
        ([LABELLED_HISTORY], ("item",)),
        ([Categorical(name="kind", side="item")], ("item",)),
        ([Categorical(name="kind", side="item"), History(name="h", of=("kind", "item"))], ("kind", "item")),
        ([Categorical(name="kind", side="item", seen_by="fm"),
          History(name="h", of=("kind",), seen_by="fm")], ("item",)),
        ([Categorical(name="kind", side="item", seen_by="fm"),
          History(name="h", of=("kind", "item"), seen_by="fm")], ("item",)),
    ],
    ids=["history", "no history", "two ids", "fm only", "partly fm only"],
)  # fmt: skip
def test_raw_id_controls_show_only_what_the_vm_may_see(features, of):
    assert loop.raw_ids(planted_schema(*features)) == of


@pytest.mark.parametrize(
    "features",
    [(Categorical(name="user", side="user"),), (Tokens(name="tags", side="item"),)],
    ids=["no item", "tokens only"],
)
def test_a_schema_without_an_item_id_for_the_controls_is_refused_before_any_training(features):
    schema = dataclasses.replace(planted_schema(), features=features)
    with pytest.raises(SchemaError, match="item"):
        loop.prepare(EVENTS.with_columns(tags=pl.concat_list("item")), schema, CONFIG)


def test_the_name_of_the_logged_sequence_is_reserved():
    with pytest.raises(SchemaError, match=SEQUENCE):
        loop.prepare(EVENTS, planted_schema(History(name=SEQUENCE, of=("item",))), CONFIG)


def test_an_unknown_tap_is_refused_before_any_training():
    with pytest.raises(ConfigError, match=r"no layer 'mlp.hiden_0'.*mlp\.hidden_0"):
        loop.prepare(EVENTS, planted_schema(), tiny_config(taps=("mlp.hiden_0",)))


@pytest.mark.parametrize("taps", [("history_rows",), ("histories.0", "embedding", "layers.0")], ids=str)
def test_every_layer_of_the_fm_can_be_tapped(taps, tmp_path):
    config = tiny_config(taps=taps, fm_train=TrainConfig(epochs=1))
    prepared = loop.prepare(EVENTS, planted_schema(), config)
    _, log = loop.train_and_log(prepared, config, 0, tmp_path / "log", NoProgress())
    assert log.read().z.shape == (len(prepared.periods.logged), 4)


# ---- the log ---------------------------------------------------------------------------------------------------


def test_the_log_holds_every_later_event_once_and_none_the_fm_saw(prepared, logged):
    _, log, folder = logged
    rows, periods, time = log.read(), prepared.periods, prepared.encoded.time
    assert sorted(rows.event) == sorted(periods.logged)
    assert set(rows.event).isdisjoint(periods.fm)
    assert set(rows.event).isdisjoint(periods.fm_validation)
    first, last = EmbeddingLog.open(folder).trained
    assert first == time[periods.fm].min()
    assert last == time[periods.fm_validation].max()
    assert last < rows.time.min()
    assert np.array_equal(rows.time, time[rows.event])
    assert np.array_equal(rows.user, prepared.encoded.user[rows.event])


def test_logged_values_are_probabilities_and_bounded_vectors(logged):
    _, log, _ = logged
    rows = log.read()
    assert rows.z.shape == (len(rows), CONFIG.z_dim)
    assert np.abs(rows.z).max() <= 1
    assert rows.z.std(axis=0).min() > 1e-4, "a dimension that never moves says nothing"
    assert 0 <= rows.score.min() < rows.score.max() <= 1


def test_an_fm_cannot_log_rows_it_trained_on(prepared, logged):
    _, log, _ = logged
    row = prepared.periods.fm_validation[-1:]
    one = np.zeros(1, np.float32)
    with pytest.raises(LeakError):
        log.append(
            user=row, time=prepared.encoded.time[row], event=row, score=one, z=np.zeros((1, 4), np.float32)
        )


def test_scores_are_nan_where_nothing_was_logged(prepared, logged):
    score = loop.scores_by_row(logged[1].read(), len(prepared.encoded))
    assert np.isfinite(score[prepared.periods.logged]).all()
    assert np.isnan(score[prepared.periods.fm]).all()


def test_scoring_turns_dropout_off(prepared, tmp_path):
    histories = loop.own_histories(prepared.encoded, "fm")
    config = tiny_config(fm=dataclasses.replace(CONFIG.fm, dropout=0.9))
    fm = loop.build_fm(prepared, config, [history.layout for history in histories.values()]).train()
    later = loop.batches(prepared, prepared.periods.logged, histories, CONFIG.fm_train)
    autoencoder, trained = Autoencoder(16, 4), prepared.periods.fm_trained(prepared.encoded.time)
    log = EmbeddingLog.create(tmp_path / "log", fm=fingerprint(fm, autoencoder), dim=4, trained=trained)
    with Tap(fm, config.taps) as tap:
        log_embeddings(log, fm, tap, autoencoder, later)
    np.testing.assert_allclose(log.read().score, predict(fm, later), atol=1e-6)


# ---- training --------------------------------------------------------------------------------------------------


def test_one_seed_runs_every_variant_on_its_own_rows(prepared, tmp_path):
    spy = Spy()
    runs = loop.run_seed(prepared, CONFIG, 3, tmp_path / "log", spy)
    names = ["fm", *BY_NAME]
    assert [run.name for run in runs] == names
    assert [stage[:3] for stage in spy.stages] == [
        ("fm", "training", 3), ("fm", "logging", 3), *((name, "training", 3) for name in BY_NAME)
    ]  # fmt: skip
    totals = {name: total for name, doing, _, (_, total) in spy.stages if doing == "training"}
    sizes = {name: len(rows) for name, rows in vars(prepared.periods).items()}
    steps = {"fm": sizes["fm"], "control:vm-all-periods": sizes["fm"] + sizes["vm"]}
    assert totals == {name: 2 * -(-steps.get(name, sizes["vm"]) // 128) for name in names}


def test_only_training_rows_are_shuffled_and_by_the_runs_seed(prepared, tmp_path, monkeypatch):
    asked = []

    def spy(*arguments, **options):
        asked.append((options.get("shuffle", False), options.get("seed", 0)))
        return plain(*arguments, **options)

    plain = loop.batches
    monkeypatch.setattr(loop, "batches", spy)
    loop.run_seed(prepared, CONFIG, 3, tmp_path / "log")
    assert [seed for shuffle, seed in asked if shuffle] == [3] * 12
    assert [seed for shuffle, seed in asked if not shuffle] == [
        0
    ] * 25  # taps, log; per model validation, test


def test_nothing_is_trained_or_selected_on_the_test_period(prepared, tmp_path):
    flipped = EVENTS.with_columns(clicked=1 - pl.col("clicked"))
    rows = prepared.periods.test
    late = EVENTS.with_row_index().select(
        "user", "item", "time", clicked=pl.when(pl.col("index").is_in(rows.tolist())).then(flipped["clicked"])
        .otherwise(EVENTS["clicked"])
    )  # fmt: skip
    changed = loop.prepare(late, planted_schema(), CONFIG)
    assert not np.array_equal(changed.encoded.label, prepared.encoded.label)
    first = loop.run_seed(prepared, CONFIG, 0, tmp_path / "a")
    second = loop.run_seed(changed, CONFIG, 0, tmp_path / "b")
    for a, b in zip(first, second, strict=True):
        assert a.fit.curve == b.fit.curve, a.name
        assert a.metrics != b.metrics, a.name
    z = [EmbeddingLog.open(tmp_path / name).read().z[: len(prepared.periods.vm)] for name in ("a", "b")]
    assert np.array_equal(*z)


def test_distilling_with_weight_zero_is_the_plain_vm(prepared, logged):
    config = tiny_config(kd=DistillConfig(weight=0.0), vm_train=CONFIG.vm_train)
    rows = logged[1].read()
    plain, distilled = (
        loop.train_vm(prepared, BY_NAME[name], rows, config, 0, NoProgress()) for name in ("vm", "vm+kd")
    )
    assert plain.metrics == distilled.metrics
    assert [p["valid_ne"] for p in plain.fit.curve] == [p["valid_ne"] for p in distilled.fit.curve]
    assert plain.parameters == distilled.parameters
