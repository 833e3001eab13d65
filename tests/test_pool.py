"""The thread pool: the same bytes for any number of threads, and a forked child that still works."""

import os
import subprocess
import sys

import pytest

from recfm._core import build_info, num_threads

DIGEST = """
import hashlib
import numpy as np, polars as pl
from recfm import _core

rng = np.random.default_rng(0)
n = 100_000
user, time = rng.integers(0, 500, n), rng.integers(0, 2000, n)
words = pl.Series("w", rng.integers(0, 3000, n)).cast(pl.String)
label, score = (rng.random(n) < 0.3).astype(np.float32), rng.random(n).round(3)
index = _core.HistoryIndex(user, time)
start, stop = index.window(user, time, length=9, delay=3)
store, past = rng.random((n, 4), np.float32), np.empty((n, 9, 4), np.float32)
index.gather(start, stop, store, past)
taken = np.empty((n, 4), np.float32)
_core.take_rows(store, rng.integers(0, n, n), taken)
vocab = _core.Vocab.fit(words, name="w", min_count=30)
results = [
    index.rows(), start, stop, past, taken, vocab.counts(), vocab.encode(words),
    _core.Vocab.fit(pl.Series(user), name="u").counts(),
    _core.Hasher(name="w", buckets=100).encode(words), _core.hash_keys(words, name="w"),
    _core.batch_rows(n, 30_000, seed=1, epoch=2, index=1, shuffle=True),
    np.array([_core.auc(label, score), *_core.gauc(user, label, score),
              _core.logloss(label, score), _core.normalized_entropy(label, score)]),
]
digest = hashlib.sha256(repr(vocab.values()).encode())
for result in results:
    digest.update(result.tobytes())
print(_core.num_threads(), digest.hexdigest())
"""

FORK = """
import os, signal, sys, time
import numpy as np
from recfm import _core

n = 50_000
user, when = np.arange(n) % 97, np.arange(n)
rows = _core.HistoryIndex(user, when).rows()  # starts the parent's pool
child = os.fork()
if child == 0:
    ok = (_core.HistoryIndex(user, when).rows() == rows).all() and _core.num_threads() == 2
    os._exit(0 if ok else 3)
for _ in range(300):
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        break
    time.sleep(0.05)
else:
    os.kill(child, signal.SIGKILL)
    sys.exit("the child hangs")
if os.waitstatus_to_exitcode(status) != 0:
    sys.exit(f"the child failed: {status}")
assert (_core.HistoryIndex(user, when).rows() == rows).all()  # and the parent's pool is unharmed
"""


def run(script, threads):
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", script]
    environment = os.environ | {"RECFM_NUM_THREADS": threads}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_results_are_the_same_bytes_for_any_number_of_threads():
    runs = [run(DIGEST, threads) for threads in ("1", "2", "8")]
    assert [finished.stderr for finished in runs] == ["", "", ""]
    threads, digests = zip(*(finished.stdout.split() for finished in runs), strict=True)
    assert threads == ("1", "2", "8")
    assert len(set(digests)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_builds_its_own_pool():
    finished = run(FORK, "2")
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize("threads", ["0", "-2", "many", "1.5", "", "100000"])
def test_an_unusable_number_of_threads_is_refused(threads):
    script = (
        "from recfm import _core, errors\n"
        "try: _core.num_threads()\n"
        "except errors.ConfigError as error: print(error)"
    )
    assert f"RECFM_NUM_THREADS is '{threads}'" in run(script, threads).stdout


def test_the_build_describes_itself():
    info = build_info()
    assert info.keys() == {"version", "profile", "target", "threads"}
    assert info["threads"] == str(num_threads())
    assert info["profile"] in ("debug", "release")
