"""The frozen FM: fitted on its own period alone, never scoring it, and blind to an event's label and future."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.data.batches import Batches
from recfm.errors import LeakError
from recfm.history.compress import Autoencoder
from recfm.history.log import EmbeddingLog
from recfm.history.score import fingerprint, log_embeddings
from recfm.history.tap import Tap
from recfm.loop import LoopConfig, build_fm, own_histories, prepare
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.wukong import WukongConfig

TINY = LoopConfig(
    z_dim=3,
    z_hidden=4,
    length=5,
    fm=WukongConfig(dim=4, layers=1, fm_rows=2, linear_rows=2, rank=2, fm_hidden=(4,), hidden=(8, 4)),
    fm_history=HistoryEncoderConfig(width=4, attention_hidden=4),
)


def test_what_comes_after_the_fms_training_rows_fits_nothing(make_events):
    frame, events_schema = make_events(400)
    prepared = prepare(frame, events_schema, TINY)
    first_unseen = int(prepared.periods.fm_validation.min())
    train, later = frame[:first_unseen], frame[first_unseen:]
    replaced = later.with_columns(
        movie_id=pl.col("movie_id") * 0 + 7777,
        occupation=pl.lit("astronaut"),
        year=pl.col("year") * 1000,
        liked=1 - pl.col("liked"),
        genres=pl.concat_list(pl.lit("Western")),
    )
    again = prepare(pl.concat([train, replaced]), events_schema, TINY)
    assert again.encoded.layout == prepared.encoded.layout
    for name in ("ids", "numeric", "user", "item", "time", "label"):
        one, other = getattr(prepared.encoded, name), getattr(again.encoded, name)
        assert (one[:first_unseen] == other[:first_unseen]).all(), name
    assert (again.encoded.ids[first_unseen:, 1] == 1).all()  # unseen in training: out of vocabulary


@settings(deadline=None, max_examples=40)
@given(
    first=st.integers(-5, 5),
    span=st.integers(0, 5),
    time=st.lists(st.integers(-10, 20), min_size=1, max_size=6),
)
def test_the_log_takes_exactly_what_is_later_than_the_fms_period(tmp_path_factory, first, span, time):
    folder = tmp_path_factory.mktemp("log")
    log = EmbeddingLog.create(folder, fm="f", dim=1, trained=(first, first + span))
    n = len(time)
    rows = {"user": np.zeros(n, np.int64), "time": np.array(time), "event": np.arange(n)}
    rows |= {"score": np.full(n, 0.5, np.float32), "z": np.zeros((n, 1), np.float32)}
    before = (folder / "manifest.json").read_bytes()
    if min(time) > first + span:
        log.append(**rows)
        assert EmbeddingLog.open(folder).read().time.tolist() == time
    else:
        with pytest.raises(LeakError, match="not later than the FM's training period"):
            log.append(**rows)
        assert (folder / "manifest.json").read_bytes() == before
        assert not list(folder.glob("segment-*"))
        assert len(log) == len(EmbeddingLog.open(folder).read()) == 0


def scored(prepared, rows, folder, *, trained=None):
    """The log that an untrained FM with labelled histories writes of these rows."""
    torch.manual_seed(0)
    histories = own_histories(prepared.encoded, "fm")
    model = build_fm(prepared, TINY, [history.layout for history in histories.values()])
    with torch.no_grad():  # an untrained FM says nearly the same of everything; make it say more
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    pasts = {name: history.past for name, history in histories.items()}
    batches = Batches(prepared.encoded, rows, batch_size=64, shuffle=False, sequences=pasts)
    with Tap(model, ["mlp.hidden_0"]) as tap:
        model(batches.batch(0, 0))
        autoencoder = Autoencoder(tap.activations().shape[1], TINY.z_dim, hidden=TINY.z_hidden)
        trained = trained or prepared.periods.fm_trained(prepared.encoded.time)
        log = EmbeddingLog.create(folder, fm=fingerprint(model, autoencoder), dim=TINY.z_dim, trained=trained)
        log_embeddings(log, model, tap, autoencoder, batches)
    return EmbeddingLog.open(folder).read()


def test_an_event_is_scored_without_its_label_and_without_its_future(make_events, tmp_path):
    frame, events_schema = make_events(300, users=5)
    prepared = prepare(frame, events_schema, TINY)
    rows = prepared.periods.logged
    before = scored(prepared, rows, tmp_path / "before")
    flipped = int(rows[len(rows) // 2])
    label = frame["liked"].to_list()
    label[flipped] = 1 - label[flipped]
    changed = prepare(frame.with_columns(liked=pl.Series(label, dtype=pl.Int8)), events_schema, TINY)
    after = scored(changed, rows, tmp_path / "after")
    user, time = prepared.encoded.user, prepared.encoded.time
    sees = (user[rows] == user[flipped]) & (time[rows] > time[flipped])
    differs = (np.abs(before.z - after.z).max(axis=1) > 1e-5) | (np.abs(before.score - after.score) > 1e-5)
    assert differs.any()
    assert not differs[~sees].any()
    np.testing.assert_array_equal(before.event, rows)


@pytest.mark.parametrize("row", ["fm", "fm_validation"])
def test_an_fm_does_not_score_what_it_trained_on(make_events, tmp_path, row):
    frame, events_schema = make_events(300)
    prepared = prepare(frame, events_schema, TINY)
    rows = np.append(prepared.periods.logged, getattr(prepared.periods, row)[-1])
    with pytest.raises(LeakError, match=f"1 of {len(rows)} events are not later.*event {rows[-1]}"):
        scored(prepared, rows, tmp_path)
    assert len(EmbeddingLog.open(tmp_path)) == 0
    assert not list(tmp_path.glob("segment-*"))


def test_the_refusal_comes_before_the_work(make_events, tmp_path):
    frame, events_schema = make_events(300)
    prepared = prepare(frame, events_schema, TINY)
    log = EmbeddingLog.create(
        tmp_path, fm="f", dim=3, trained=prepared.periods.fm_trained(prepared.encoded.time)
    )
    batches = Batches(prepared.encoded, prepared.periods.fm[-5:], batch_size=5)
    calls = []
    model = torch.nn.Linear(1, 1)
    model.register_forward_pre_hook(lambda *_: calls.append("ran"))
    with Tap(torch.nn.Sequential(model), ["0"]) as tap, pytest.raises(LeakError):
        log_embeddings(log, model, tap, Autoencoder(1, 3), batches, on_batch=lambda *_: calls.append("batch"))
    assert calls == []
