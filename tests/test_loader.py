"""The loader: the bytes of `Batches`, in order, resumable anywhere; threads that end; errors that arrive."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_helpers import assert_same, three_histories
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.loader import Loader
from recfm.data.ring import PinnedRing
from recfm.errors import DataError
from table_helpers import refused


@pytest.fixture(scope="module")
def batches(make_events):
    frame, schema = make_events(300)
    encoded = Encoder(schema).fit(frame[:150]).transform(frame)
    return Batches(encoded, np.arange(300), batch_size=32, seed=4, sequences=three_histories(encoded))


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "recfm-loader"]


@pytest.mark.parametrize("prefetch", [1, 8])
def test_epochs_follow_each_other_with_the_same_bytes(batches, prefetch):
    loader = Loader(batches, prefetch=prefetch, start=(3, 0))
    for epoch in (3, 4):
        served = list(loader)
        assert len(served) == len(loader) == 10
        for k, batch in enumerate(served):
            assert_same(batch, batches.batch(epoch, k))
    assert loader.state_dict()["epoch"] == 5
    assert threads() == []


@settings(deadline=None, max_examples=15)
@given(stop=st.integers(0, 10), epoch=st.integers(0, 5), prefetch=st.sampled_from([1, 8]))
def test_a_resumed_run_goes_on_with_the_same_bytes(batches, stop, epoch, prefetch):
    first = Loader(batches, prefetch=prefetch, start=(epoch, 0))
    running = iter(first)
    for _ in range(stop):
        next(running)
    state = first.state_dict()
    assert (state["epoch"], state["batch"]) == (epoch + stop // 10, stop % 10)
    first.close()
    resumed = Loader(batches)
    resumed.load_state_dict(state)
    wanted = [batches.batch(state["epoch"], k) for k in range(state["batch"], 10)]
    served = list(resumed)
    assert len(served) == len(wanted)
    for one, other in zip(served, wanted, strict=True):
        assert_same(one, other)


def test_a_loop_that_is_left_goes_on_where_it_was(batches):
    loader = Loader(batches, prefetch=3)
    for k, _ in enumerate(loader):
        if k == 4:
            break
    assert threads() == []
    assert [int(batch.row[0]) for batch in loader] == [int(batches.batch(0, k).row[0]) for k in range(5, 10)]


def test_a_new_loop_ends_the_one_before(batches):
    loader = Loader(batches)
    first = iter(loader)
    next(first)
    second = iter(loader)
    assert next(first, None) is None
    assert_same(next(second), batches.batch(0, 1))
    loader.close()
    assert next(second, None) is None
    assert threads() == []


class Failing:
    """Two batches, then an error."""

    def __init__(self, batches):
        self._batches = batches

    def __len__(self):
        return 5

    def epoch(self, epoch, *, start=0):
        for k in range(start, 2):
            yield self._batches.batch(epoch, k)
        raise DataError("block 7 is damaged")


def test_the_producers_error_arrives_at_its_batch(batches):
    running = iter(Loader(Failing(batches), prefetch=8))
    next(running)
    next(running)
    assert refused(DataError, lambda: next(running)) == "block 7 is damaged"
    assert next(running, None) is None
    assert threads() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefetch": 0}, "prefetch is 0"),
        ({"start": (0, 10)}, "batch 10 of epoch 0 does not exist: an epoch has 10 batches"),
        ({"start": (-1, 0)}, "batch 0 of epoch -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(batches, arguments, message):
    assert message in refused(DataError, lambda: Loader(batches, **arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "seed 5, but these batches have 4"),
        ({"batch_size": 31}, "batch_size 31"),
        ({"world_size": 2}, "world_size 2"),
        ({"batch": 99}, "batch 99 of epoch 0"),
        ({"batch": None}, "keys"),
    ],
)
def test_a_state_of_other_batches_is_refused(batches, change, message):
    state = {k: v for k, v in (Loader(batches).state_dict() | change).items() if v is not None}
    assert message in refused(DataError, lambda: Loader(batches).load_state_dict(state))


def test_a_state_of_other_rows_of_the_same_number_is_refused(make_events):
    frame, schema = make_events(300)
    encoded = Encoder(schema).fit(frame).transform(frame)
    first = Loader(Batches(encoded, (0, 100), batch_size=10))
    same = Loader(Batches(encoded, np.arange(100), batch_size=10))
    same.load_state_dict(first.state_dict())
    for other in ((100, 200), np.arange(100)[::-1].copy()):
        loader = Loader(Batches(encoded, other, batch_size=10))
        assert "rows_digest" in refused(
            DataError, lambda loader=loader: loader.load_state_dict(first.state_dict())
        )


INTERRUPTED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import conftest
import numpy as np
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.loader import Loader

frame, schema = conftest._make_events(300)
batches = Batches(Encoder(schema).fit(frame).transform(frame), np.arange(300), batch_size=32)

class Slow:
    def __len__(self):
        return 10
    def epoch(self, epoch, *, start=0):
        print("ready", flush=True)
        time.sleep(60)
        yield batches.batch(epoch, start)

loader = Loader(Slow() if sys.argv[2] == "slow" else batches)
try:
    while True:
        for batch in loader:
            print("ready", flush=True)
            if sys.argv[2] == "slow-consumer":
                time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("who", ["slow", "slow-consumer", "fast"])
def test_ctrl_c_is_answered_at_once(who):
    command = [sys.executable, "-c", INTERRUPTED, os.path.dirname(__file__), who]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "ready\n"
        drained = threading.Thread(target=lambda: lines.extend(run.stdout))
        lines: list[str] = []
        drained.start()
        time.sleep(0.2)
        run.send_signal(signal.SIGINT)
        code = run.wait(timeout=20)  # without an answer it would take a minute
        drained.join()
        # The signal may fall between the last "ready" and its line end.
        assert (code, lines[-1].removeprefix("ready"), run.stderr.read()) == (0, "interrupted\n", "")


FORKED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import conftest
import numpy as np
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.loader import Loader
from recfm.errors import RecfmError

frame, schema = conftest._make_events(300)
batches = Batches(Encoder(schema).fit(frame).transform(frame), np.arange(300), batch_size=32)
loader = Loader(batches)
running = iter(loader)
next(running)
child = os.fork()
if child == 0:
    for act in (lambda: iter(loader), lambda: next(running)):
        try:
            act()
        except RecfmError as error:
            print(type(error).__name__, error, flush=True)
    del running
    print(len(list(Loader(batches))), flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(list(running)) == 9  # the parent goes on
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_loader_made_before_a_fork_says_so_in_the_child():
    command = [sys.executable, "-W", "ignore", "-c", FORKED, os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, fresh = done.stdout.splitlines()
    assert first == second
    assert first.startswith("RecfmError this loader was made in process")
    assert fresh == "10"


class FakeGpu:
    """Copies that read their source only when the event behind them is waited for, as an idle GPU may."""

    def __init__(self):
        self.copies, self.pinned, self.waited = [], 0, 0

    def pin(self, like):
        self.pinned += 1
        return torch.full_like(like, -7)

    def record(self):
        behind = len(self.copies)
        gpu = self

        class Event:
            def synchronize(self):
                gpu.waited += 1
                for source, target in gpu.copies[:behind]:
                    target.copy_(source)
                gpu.copies[:behind] = [(t, t) for _, t in gpu.copies[:behind]]

        return Event()

    def send(self, batch):
        """What the batch will be on the device."""
        from recfm.data.batch import map_tensors

        def late(tensor):
            target = torch.full_like(tensor, -9)
            self.copies.append((tensor, target))
            return target

        return map_tensors(batch, late)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_slot_is_not_written_before_its_copy_ended(batches, slots, monkeypatch):
    gpu, never = FakeGpu(), threading.Event()
    ring = PinnedRing("cuda", slots, gpu.pin, gpu.record)
    monkeypatch.setattr("recfm.data.batch.Batch.to", lambda self, device, *, non_blocking: gpu.send(self))
    sent = [ring.send(*ring.stage(batches.batch(0, k), never)) for k in range(len(batches))]
    gpu.record().synchronize()
    for k, batch in enumerate(sent):
        assert_same(batch, batches.batch(0, k))
    assert gpu.waited == len(batches) - slots + 1
    fields = gpu.pinned / slots
    assert fields < 25  # buffers are made once, or again for a longer list


def test_a_producer_without_a_free_slot_can_be_stopped(batches):
    ring, stop = PinnedRing("cuda", 1, torch.empty_like, lambda: None), threading.Event()
    assert ring.stage(batches.batch(0, 0), stop) is not None
    threading.Timer(0.05, stop.set).start()
    assert ring.stage(batches.batch(0, 1), stop) is None
