"""Kill a process that appends to a history index, at random moments, and look at what is left.

`python benches/kill_history.py [n]` kills n writers (200 unless said) and prints one line; it exits with 1 if an
index was ever anything but its last commit.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from recfm.history.index import HistoryIndex
from recfm.storage import MANIFEST

EVENTS = 3000
WRITER = f"""
import sys
import numpy as np
from recfm.history.index import HistoryIndex
folder = sys.argv[1]
index = HistoryIndex.open(folder)
print("ready", flush=True)
while True:
    first = sum(part["table"] for part in index.entries)
    event = np.arange(first, first + {EVENTS})
    index.append(event % 97, event // 3)
    if len(index.entries) >= 12:
        index.compact()
"""


def whole(folder: Path) -> int:
    """Number of events, once every answer of the index was compared with a fresh one."""
    index = HistoryIndex.open(folder)
    event = np.arange(len(index))
    assert len(event) % EVENTS == 0, f"{len(event)} events are no whole number of appends"
    fresh = HistoryIndex(event % 97, event // 3)
    query = np.repeat(np.arange(98), 5), np.tile(np.linspace(0, len(event), 5).astype(np.int64), 98)
    found, expected = index.window(*query, length=50), fresh.window(*query, length=50)
    counts = (found[1] - found[0]).reshape(len(query[0]), -1).sum(axis=1)
    assert (counts == expected[1] - expected[0]).all(), "an answer differs"
    return len(event)


def run(kills: int, seed: int = 0) -> dict[str, int]:
    """Kill that many writers; how often an append or a merge was cut, and how many events there are in the end."""
    random = np.random.default_rng(seed)
    cut = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        HistoryIndex.empty(folder)
        before = 0
        for _ in range(kills):
            writer = subprocess.Popen([sys.executable, "-c", WRITER, name], stdout=subprocess.PIPE)
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            there = set(folder.iterdir())
            time.sleep(random.exponential(0.05))
            assert writer.poll() is None, "the writer died by itself"
            writer.kill()
            writer.wait()
            writer.stdout.close()
            listed = {part["file"] for part in HistoryIndex.open(folder).entries} | {MANIFEST, ".lock"}
            cut += any(path.name not in listed for path in set(folder.iterdir()) - there)
            found = whole(folder)
            assert found >= before, f"{before} events became {found}"
            before = found
    return {"kills": kills, "cut": cut, "events": before}


if __name__ == "__main__":
    done = run(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print(
        f"killed {done['kills']} writers, {done['cut']} of them inside an append or a merge: "
        f"every index was whole, {done['events']} events in the end"
    )
