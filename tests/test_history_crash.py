"""A saved index is its last commit after its writer was killed or the disk refused."""

import errno
import os
import signal
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from recfm import files
from recfm.errors import StorageError
from recfm.history import parts
from recfm.history.index import HistoryIndex

sys.path.insert(0, str(Path(__file__).parents[1] / "benches"))
import kill_history


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill -9")
def test_a_writer_that_is_killed_leaves_the_last_commit():
    done = kill_history.run(6, seed=1)
    assert done["kills"] == 6
    assert done["events"] > 0


class Killed(BaseException):
    """The process ends here: nothing that handles errors may run."""


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


@pytest.mark.parametrize("change", ["append", "compact"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), Killed()])
def test_a_disk_that_refuses_at_any_step_leaves_the_index_as_it_was(tmp_path, monkeypatch, change, error):
    user, time = np.arange(30) % 4, np.arange(30)
    outcomes = set()
    for step in count():
        folder = tmp_path / str(step)
        HistoryIndex(user, time).save(folder)
        index = HistoryIndex.open(folder)
        index.append(user, time)
        before = contents(folder)
        left = [step]

        def watched(name, function, left=left):
            def call(*arguments):
                left[0] -= 1
                if left[0] == -1:
                    raise error
                return function(*arguments)

            return call

        with monkeypatch.context() as patch:
            for name in ("fsync", "replace"):
                patch.setattr(os, name, watched(name, getattr(os, name)))
            for module in (files, parts):
                patch.setattr(module, "open", watched("open", open), raising=False)
            try:
                index.append(user, time) if change == "append" else index.compact()
            except (StorageError, Killed) as raised:
                outcome = str(raised)
            else:
                break
        opened = HistoryIndex.open(folder)
        outcomes.add((len(opened), opened.num_parts))
        if isinstance(error, OSError) and "is committed" not in outcome:
            assert {name: contents(folder)[name] for name in before} == before
        opened.append(user, time)
        assert len(HistoryIndex.open(folder)) == len(opened)
        listed = {entry["file"] for entry in opened.entries}
        assert {path.name for path in folder.iterdir() if "part-" in path.name} == listed, (
            "leftovers of the killed writer"
        )
    assert step >= 7
    assert outcomes <= {(60, 2), (90, 3), (60, 1)}
    assert (60, 2) in outcomes
