"""The same bytes in any process: whatever the threads, the prefetch, the place to resume, memory or disk."""

import os
import subprocess
import sys

DIGEST = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import batch_helpers, conftest
from recfm._core import num_threads
from recfm.data.batches import Batches
from recfm.data.encode import Encoder
from recfm.data.loader import Loader

prefetch, resume = int(sys.argv[2]), int(sys.argv[3])
frame, schema = conftest._make_events(20_000, users=50)
encoded = Encoder(schema).fit(frame[:9000]).transform(frame)
options = {"batch_size": 3000, "seed": 5, "sequences": batch_helpers.three_histories(encoded)}
on_disk = batch_helpers.FakeFolder(encoded, 1000)
digest = hashlib.sha256()
for batches in (
    Batches(encoded, **options),
    Batches(encoded, np.arange(20_000)[::-1], rank=1, world_size=2, **options),
    Batches(on_disk, (500, 19_700), memory=1_000_000, **options),
):
    assert batches._source.like is encoded or batches._source.num_pools > 1
    first = Loader(batches, prefetch=prefetch, start=(1, 0))
    served = [batch for _, batch in zip(range(resume), first)]
    rest = Loader(batches, prefetch=prefetch)
    rest.load_state_dict(first.state_dict())
    for batch in served + list(rest):
        for name, tensor in batch_helpers.tensors(batch).items():
            digest.update(name.encode() + tensor.numpy().tobytes())
print(num_threads(), digest.hexdigest())
"""


def test_batches_are_the_same_bytes_in_any_process():
    runs = []
    for threads, prefetch, resume in (("1", 1, 1), ("2", 8, 0), ("8", 2, 2)):
        command = [sys.executable, "-c", DIGEST, os.path.dirname(__file__), str(prefetch), str(resume)]
        environment = os.environ | {"RECFM_NUM_THREADS": threads}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        runs.append(subprocess.Popen(command, env=environment, **pipes))
    ended = [run.communicate(timeout=200) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], ended
    threads, digests = zip(*(printed.split() for printed, _ in ended), strict=True)
    assert threads == ("1", "2", "8")
    assert len(set(digests)) == 1
