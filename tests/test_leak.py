"""No row sees its own future: through the encoder, the histories, the batches and the log of a frozen FM."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.controls import VARIANTS, extra_sequence
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.history.log import LogRows
from recfm.loop import own_histories, raw_ids
from recfm.schema import Categorical, History, Numeric, Schema, Tokens

DELAYS = [0, 1, 3]
RANDOM = (
    "control:random-event",
    "control:random-item",
)  # drawn by place in the log: only their events can be compared
users, items, times, labels = st.integers(0, 2), st.integers(0, 4), st.integers(-5, 10), st.integers(0, 1)
events = st.lists(st.tuples(users, items, times, labels), min_size=1, max_size=25)


def schema(delay):
    return Schema(
        user="user",
        item="item",
        time="time",
        label="label",
        features=(
            Categorical(name="item", side="item"),
            Categorical(name="user", side="user", buckets=50),
            Numeric(name="price", side="item"),
            Tokens(name="tags", side="item"),
            History(name="seen", of=("item",), length=4, delay=float(delay)),
            History(
                name="judged", of=("item", "user"), labels=True, length=3, delay=float(delay), seen_by="fm"
            ),
        ),
    )


def table(world):
    user, item, time, label = (list(column) for column in zip(*world, strict=True))
    return pl.DataFrame({"user": user, "item": item, "time": time, "label": label}).with_columns(
        price=pl.col("item") * 1.5, tags=pl.concat_list(pl.col("item"), pl.col("item") + 1)
    )


TRAIN = table([(0, i, -100 + i, i % 2) for i in range(5)])


def served(world, rows, delay):
    """Everything that batches hold for these rows of a world: all features, all histories, all variants."""
    encoded = Encoder(schema(delay)).fit(TRAIN).transform(table(world))
    user, item, time, _ = (np.array(column) for column in zip(*world, strict=True))
    logged = np.flatnonzero(time >= 0)  # the FM's own period comes before
    made_of = (7 * user + 3 * item + time)[
        logged
    ]  # what the FM says of an event: any function but of its label
    log = LogRows(
        user=encoded.user[logged],
        time=encoded.time[logged],
        event=logged,
        score=(made_of % 50 / 50).astype(np.float32),
        z=np.sin(made_of[:, None] + np.arange(2)).astype(np.float16),
    )
    pasts = {name: extra.past for name, extra in own_histories(encoded, "fm").items()}
    for variant in VARIANTS if len(logged) else ():
        raw = raw_ids(encoded.schema)
        extra = extra_sequence(
            variant, log, encoded, raw, length=3, delay=float(delay), seed=0, tested_from=5_000_000
        )
        if extra:
            pasts[variant.name] = extra.past
    batch = Batches(encoded, np.array(rows), batch_size=len(rows), shuffle=False, sequences=pasts).batch(0, 0)
    out = {
        "ids": batch.ids,
        "numeric": batch.numeric,
        "label": batch.label,
        "user": batch.user,
        "time": batch.time,
    }
    out |= {f"tokens {name}": jagged.values.reshape(len(rows), 2) for name, jagged in batch.tokens.items()}
    for name, sequence in batch.sequences.items():
        out[f"{name} lengths"] = sequence.lengths
        for content in (sequence.ids, sequence.vectors):
            if content is not None:
                out[name] = content
    return {name: tensor.tolist() for name, tensor in out.items()}


def assert_unchanged(before, after, *, but=()):
    for name in before.keys() | after.keys():
        if name in but:
            continue
        one, other = before.get(name), after.get(name)
        if one is None or other is None:  # nothing was logged in one of the worlds, so nothing was to be seen
            seen = (one or other) if "lengths" in name else []
            assert not any(seen)
        else:
            assert one == other, name


@settings(deadline=None, max_examples=150)
@given(data=st.data(), world=events, moment=times, delay=st.sampled_from(DELAYS))
def test_changing_what_comes_later_changes_no_earlier_row(data, world, moment, delay):
    """Delete, move, relabel, replace and add events at or after the moment: rows up to moment + delay stay."""
    after, kept = [], []
    later = st.tuples(users, items, st.integers(moment, moment + 9), labels)
    for position, event in enumerate(world):
        fate = data.draw(st.sampled_from(["keep", "delete", "change"])) if event[2] >= moment else "keep"
        if fate == "keep":
            kept.append((position, event))
        after += {"keep": [event], "delete": [], "change": [data.draw(later)]}[fate]
    # `after` still holds the kept events in their order, wherever others are put between them.
    for addition in data.draw(st.lists(later, max_size=5)):
        after.insert(data.draw(st.integers(0, len(after))), addition)
    protected = [(position, event) for position, event in kept if event[2] <= moment + delay]
    if not protected:
        return
    then, rows = 0, []
    for position, event in kept:
        then = after.index(event, then) + 1
        if (position, event) in protected:
            rows.append(then - 1)
    before = served(world, [position for position, _ in protected], delay)
    assert_unchanged(before, served(after, rows, delay), but=RANDOM)


@settings(deadline=None, max_examples=100)
@given(world=events, flipped=st.integers(0, 24), delay=st.sampled_from(DELAYS))
def test_a_label_reaches_only_strictly_later_rows(world, flipped, delay):
    flipped %= len(world)
    user, item, time, label = world[flipped]
    other = [*world[:flipped], (user, item, time, 1 - label), *world[flipped + 1 :]]
    rows = [i for i, event in enumerate(world) if event[2] <= time + delay]
    before, after = served(world, rows, delay), served(other, rows, delay)
    own = rows.index(flipped)
    assert after["label"].pop(own) == 1 - before["label"].pop(own)
    assert_unchanged(before, after)


def test_a_label_does_reach_a_later_row():
    world = [(0, 1, 0, 0), (0, 2, 1, 0), (1, 2, 1, 0)]
    changed = [(0, 1, 0, 1), *world[1:]]
    for delay, reached in ((0, True), (1, False)):
        before, after = served(world, [1, 2], delay), served(changed, [1, 2], delay)
        different = {name for name in before if before[name] != after[name]}
        assert different == ({"judged", "control:raw-ids+labels"} if reached else set())
        assert before["judged"][1] == after["judged"][1]  # another user's row


@settings(deadline=None, max_examples=40)
@given(
    world=st.lists(st.tuples(users, items, labels), min_size=1, max_size=20),
    time=st.integers(0, 10),
    delay=st.sampled_from(DELAYS),
)
def test_events_of_one_moment_never_see_each_other(world, time, delay):
    seen = served([(u, i, time, y) for u, i, y in world], range(len(world)), delay)
    lengths = [values for name, values in seen.items() if "lengths" in name]
    assert len(lengths) == 2 + 8
    assert not np.any(lengths)


@settings(deadline=None, max_examples=60)
@given(world=events, delay=st.sampled_from(DELAYS))
def test_a_row_sees_every_event_that_is_strictly_before_and_no_other(world, delay):
    seen = served(world, range(len(world)), delay)
    for i, (user, _, time, _) in enumerate(world):
        past = [e for e in world if e[0] == user and e[2] < time - delay]
        assert seen["seen lengths"][i] == min(4, len(past))
        if "control:count lengths" in seen:
            assert seen["control:count lengths"][i] == sum(e[2] >= 0 for e in past)
