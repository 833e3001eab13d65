"""Kill a process that encodes tables, at random moments, and look at what is left.

`python benches/kill_encode.py [n]` kills n writers (200 unless said) and prints one line; it exits with 1 if a folder
was ever anything but whole.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from recfm.data.encode import Encoded, Encoder
from recfm.data.folder import EncodedFolder
from recfm.schema import Categorical, Schema, Tokens

ROWS = 150_000
WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import kill_encode
frame, encoder = kill_encode.events()
print("ready", flush=True)
for k in range(10**6):
    encoder.encode(frame, f"{sys.argv[2]}/{k}")
"""


def events() -> tuple[pl.DataFrame, Encoder]:
    """The table, the same in every process, and its encoder."""
    event = np.arange(ROWS)
    keys = {"user": event % 977, "item": event % 3001, "time": event, "label": event % 2}
    lists = pl.Series(np.stack([event % 11, event % 7], axis=1)).cast(pl.List(pl.Int64))
    frame = pl.DataFrame(keys).with_columns(tags=lists)
    features = (Categorical(name="item", side="item"), Tokens(name="tags", side="item"))
    schema = Schema(user="user", item="item", time="time", label="label", features=features)
    return frame, Encoder(schema).fit(frame)


def same(found: Encoded, expected: Encoded) -> bool:
    """Whether every number is the same."""
    columns = all(
        np.array_equal(getattr(found, name), getattr(expected, name))
        for name in ("ids", "user", "item", "time", "label")
    )
    return columns and all(map(np.array_equal, found.tokens["tags"], expected.tokens["tags"]))


def run(kills: int, seed: int = 0) -> dict[str, int]:
    """Kill that many writers; how many were inside a folder, and how many whole folders were left and read."""
    random = np.random.default_rng(seed)
    frame, encoder = events()
    expected, inside, read = encoder.transform(frame), 0, 0
    for _ in range(kills):
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), name]
            writer = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(random.exponential(0.05))
            assert writer.poll() is None, "the writer died by itself"
            writer.kill()
            writer.wait()
            writer.stdout.close()
            for path in Path(name).iterdir():
                if path.name.startswith("."):
                    inside += 1
                else:
                    assert same(EncodedFolder(path).read(), expected), f"{path} is not what was encoded"
                    read += 1
                    shutil.rmtree(path)
    return {"kills": kills, "inside": inside, "read": read}


if __name__ == "__main__":
    done = run(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print(
        f"killed {done['kills']} writers, {done['inside']} of them inside a folder: "
        f"none appeared in part, {done['read']} whole ones were read"
    )
