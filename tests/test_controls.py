"""What each variant of the VM reads: the same past events, shown as z, as noise, as ids or only counted."""

import numpy as np
import pytest

import oracles
from recfm.controls import SEQUENCE, VARIANTS, Variant, extra_sequence
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.errors import ConfigError
from recfm.history.log import LogRows
from recfm.loop import own_histories
from recfm.schema import Categorical, History, Schema

LENGTH, DELAY = 4, 5400.0
RAW = ("movie_id", "user_id")
BY_NAME = {variant.name: variant for variant in VARIANTS}
NONE = ("vm", "vm+kd", "control:vm-all-periods")


@pytest.fixture(scope="module")
def encoded(make_events):
    frame, schema = make_events(400, users=6, items=20)
    return Encoder(schema).fit(frame[:150]).transform(frame)


@pytest.fixture(scope="module", params=[np.float32, np.float16], ids=["f32", "f16"])
def log(request, encoded):
    """Rows 150 and later, logged in another order than the table's."""
    rng = np.random.default_rng(0)
    event = rng.permutation(np.arange(150, 400))
    return LogRows(
        user=encoded.user[event],
        time=encoded.time[event],
        event=event,
        score=rng.random(250, np.float32),
        z=rng.uniform(-0.5, 0.5, (250, 6)).astype(request.param),
    )


def sequence_of(name, log, encoded, seed=0, delay=DELAY, tested_from=2**62):
    return extra_sequence(
        BY_NAME[name], log, encoded, RAW, length=LENGTH, delay=delay, seed=seed, tested_from=tested_from
    )


def values_of(name, log, encoded, seed=0, tested_from=2**62):
    return sequence_of(name, log, encoded, seed, tested_from=tested_from).past.index.values


def test_the_variants_are_those_of_the_report():
    assert list(BY_NAME) == [
        "vm",
        "vm+kd",
        "vm+loopfm",
        "vm+kd+loopfm",
        "control:random-event",
        "control:random-item",
        "control:count",
        "control:score",
        "control:raw-ids",
        "control:raw-ids+labels",
        "control:vm-all-periods",
    ]
    assert [name for name, variant in BY_NAME.items() if variant.distil] == ["vm+kd", "vm+kd+loopfm"]
    assert [name for name, variant in BY_NAME.items() if variant.all_periods] == ["control:vm-all-periods"]


@pytest.mark.parametrize("name", NONE)
def test_the_plain_vm_reads_no_sequence(name, log, encoded):
    assert sequence_of(name, log, encoded) is None


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in NONE])
@pytest.mark.parametrize("delay", [0.0, DELAY])
def test_a_sequence_holds_the_users_newest_past_events_of_the_log(name, delay, log, encoded):
    """For every row, inside the log or before it: the contents, oldest and newest, of a plain loop over the log."""
    extra = sequence_of(name, log, encoded, delay=delay)
    batch = Batches(
        encoded, np.arange(400), batch_size=400, shuffle=False, sequences={SEQUENCE: extra.past}
    ).batch(0, 0)
    sequence = batch.sequences[SEQUENCE]
    user, time = log.user.tolist(), log.time.tolist()
    nonempty = 0
    for row in range(400):
        length = 10**6 if name == "control:count" else LENGTH
        query = int(encoded.user[row]), int(encoded.time[row])
        past = oracles.history(user, time, *query, length, round(delay * 1e6))
        assert sequence.lengths[row] == len(past)
        nonempty += bool(past)
        for content in (sequence.ids, sequence.vectors):
            if content is not None:
                assert content[row, : len(past)].tolist() == extra.past.index.values[past].tolist()
                assert not content[row, len(past) :].any()
    assert 100 < nonempty < 260
    assert (sequence.ids is None and sequence.vectors is None) == (name == "control:count")


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in NONE])
def test_the_layout_says_what_the_batch_holds(name, log, encoded):
    extra = sequence_of(name, log, encoded)
    layout, values = extra.layout, extra.past.index.values
    assert (layout.name, layout.length, extra.past.length, extra.past.delay) == (
        SEQUENCE,
        LENGTH,
        LENGTH,
        DELAY,
    )
    assert layout.counts_only == extra.past.counts_only == (name == "control:count") == (values is None)
    assert layout.labels == (name == "control:raw-ids+labels")
    if name.startswith("control:raw-ids"):
        assert values.dtype == np.int32
        assert layout.dim == 0
        assert len(layout.ids) + layout.labels == values.shape[1]
    elif values is not None:
        assert layout.dim == values.shape[1]
        assert layout.ids == ()


@pytest.mark.parametrize("name", ["vm+loopfm", "vm+kd+loopfm"])
def test_loopfm_reads_z_as_it_was_logged(name, log, encoded):
    values = values_of(name, log, encoded)
    assert values.dtype == log.z.dtype
    assert (values == log.z).all()


def test_the_score_control_reads_the_score_alone(log, encoded):
    values = values_of("control:score", log, encoded)
    assert values.shape == (250, 1)
    assert (values[:, 0] == log.score).all()


def test_the_raw_id_controls_read_ids_and_labels(log, encoded):
    plain, labelled = (values_of(f"control:raw-ids{tail}", log, encoded) for tail in ("", "+labels"))
    expected = [encoded.ids[log.event, encoded.layout.position(name)] for name in RAW]
    assert plain.T.tolist() == [column.tolist() for column in expected]
    assert labelled[:, :2].tolist() == plain.tolist()
    assert labelled[:, 2].tolist() == (encoded.label[log.event] + 1).astype(int).tolist()
    assert set(labelled[:, 2].tolist()) == {1, 2}


def test_random_vectors_of_events_have_the_spread_of_z_and_nothing_else_of_it(log, encoded):
    values = values_of("control:random-event", log, encoded)
    assert values.shape == log.z.shape
    assert np.abs(values).max() <= 1
    assert values.std() == pytest.approx(log.z.astype(np.float64).std(), rel=0.1)
    assert len(np.unique(values, axis=0)) == 250
    correlation = np.corrcoef(values.ravel(), log.z.astype(np.float64).ravel())[0, 1]
    assert abs(correlation) < 0.1
    assert (values_of("control:random-event", log, encoded, seed=0) == values).all()
    assert (values_of("control:random-event", log, encoded, seed=1) != values).any()


def test_random_vectors_of_items_are_one_per_item(log, encoded):
    values, items = values_of("control:random-item", log, encoded), encoded.item[log.event]
    assert values.shape == log.z.shape
    vectors = {int(item): values[items == item] for item in np.unique(items)}
    assert all((rows == rows[0]).all() for rows in vectors.values())
    assert len({tuple(rows[0]) for rows in vectors.values()}) == len(vectors) == 20


@pytest.mark.parametrize("name", ["control:random-event", "control:random-item"])
def test_not_even_the_spread_of_noise_comes_from_the_test_period(name, log, encoded):
    tested_from = int(np.median(log.time))
    early = log.time < tested_from
    vectors = {}
    for changed, z in (("none", log.z), ("late", log.z * early[:, None]), ("early", log.z * ~early[:, None])):
        other = LogRows(user=log.user, time=log.time, event=log.event, score=log.score, z=z)
        vectors[changed] = values_of(name, other, encoded, tested_from=tested_from)
    assert (vectors["late"] == vectors["none"]).all()
    assert (vectors["early"] == 0).all()
    assert vectors["none"].std() == pytest.approx(log.z[early].astype(np.float64).std(), rel=0.2)


def test_only_loopfm_and_the_spread_of_noise_depend_on_z(log, encoded):
    """With z shuffled among the events, no control changes: none of them reads what the FM learned."""
    order = np.random.default_rng(1).permutation(250)
    shuffled = LogRows(user=log.user, time=log.time, event=log.event, score=log.score, z=log.z[order])
    for name in BY_NAME:
        if name in NONE or name == "control:count":
            continue
        same = np.allclose(values_of(name, log, encoded), values_of(name, shuffled, encoded))
        assert same == ("loopfm" not in name), name


def test_labels_are_read_by_the_labelled_control_alone(make_events, log, encoded):
    frame, schema = make_events(400, users=6, items=20)
    flipped = frame.with_columns(liked=1 - frame["liked"])
    other = Encoder(schema).fit(flipped[:150]).transform(flipped)
    for name in BY_NAME:
        if name in NONE or name == "control:count":
            continue
        same = (values_of(name, log, encoded) == values_of(name, log, other)).all()
        assert same == (name != "control:raw-ids+labels"), name


def test_an_unknown_variant_is_refused(log, encoded):
    with pytest.raises(ConfigError, match="'control:dream'"):
        extra_sequence(
            Variant(name="control:dream"), log, encoded, RAW, length=4, delay=0.0, seed=0, tested_from=0
        )


def test_histories_of_the_fm_stay_with_the_fm(encoded):
    fm, vm = own_histories(encoded, "fm"), own_histories(encoded, "vm")
    assert list(fm) == ["watched"]
    assert fm["watched"].layout.labels
    assert vm == {}


def test_a_feature_called_label_and_the_labels_of_a_history_are_two_columns(make_events):
    frame, _ = make_events(60)
    schema = Schema(
        user="user_id",
        item="movie_id",
        time="timestamp",
        label="liked",
        features=(
            Categorical(name="label", side="item"),
            History(name="past", of=("label",), labels=True, length=3),
        ),
    )
    frame = frame.with_columns(label=frame["movie_id"])
    encoded = Encoder(schema).fit(frame).transform(frame)
    past = own_histories(encoded, "vm")["past"]
    assert (past.layout.ids, past.layout.labels) == (("label",), True)
    assert past.past.index.values.T.tolist() == [
        encoded.ids[:, 0].tolist(),
        (encoded.label + 1).astype(int).tolist(),
    ]
    assert past.past.index.values[:, 0].max() > 2
