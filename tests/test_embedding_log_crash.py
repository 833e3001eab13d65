"""An embedding log is whole after its writer was killed at any step, and usable after the disk refused."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest

from log_helpers import assert_holds, contents, create, rows
from recfm import files
from recfm.errors import LogError
from recfm.history.log import EmbeddingLog

SEGMENT, MANIFEST = "segment-000000.safetensors", "manifest.json"


class Killed(BaseException):
    """The process ends here: nothing that handles errors may run."""


class Fault:
    """Raises `error` at the `step`-th operation on the disk; a write gets half of its bytes down first."""

    def __init__(self, monkeypatch, step, error):
        self.left, self.error, self.calls = step, error, []
        monkeypatch.setattr(files, "open", self.open, raising=False)
        for name in ("fsync", "replace"):
            monkeypatch.setattr(files.os, name, self.watched(name, getattr(os, name)))

    def tick(self, name, target=""):
        self.left -= 1
        self.calls.append((name, str(target)))
        if self.left < 0:
            self.left = 10**9
            raise self.error

    def watched(self, name, function):
        def call(*arguments):
            target = arguments[-1]
            self.tick(
                name, "folder" if isinstance(target, int) and os.path.isdir(f"/dev/fd/{target}") else target
            )
            return function(*arguments)

        return call

    def open(self, *arguments, **options):
        self.tick("open", arguments[0])
        file = open(*arguments, **options)  # noqa: SIM115 - handed on, closed by the caller
        write = file.write

        class HalfWritten:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def __getattr__(self, name):
                return getattr(file, name)

            def write(inner, content):
                try:
                    self.tick("write")
                except BaseException:
                    write(content[: len(content) // 2])
                    file.flush()
                    raise
                return write(content)

        return HalfWritten()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_a_disk_that_refuses_leaves_the_log_as_it_was_and_usable(tmp_path, monkeypatch, number):
    for step in count():
        log = create(tmp_path / str(step))
        log.append(**rows(range(5)))
        before = contents(log.folder)
        with monkeypatch.context() as patch:
            fault = Fault(patch, step, OSError(number, os.strerror(number)))
            try:
                log.append(**rows(range(5, 8)))
            except LogError as error:
                message = str(error)
            else:
                break
        assert ("no space left" in message) == (number == errno.ENOSPC)
        if "is committed" in message:  # only the last sync comes too late to take the commit back
            assert fault.calls[-1] == ("fsync", "folder")
            kept = range(8)
        else:
            assert contents(log.folder) == before, fault.calls
            kept = range(5)
        for reader in (log, EmbeddingLog.open(log.folder)):
            assert_holds(reader, kept)
        log.append(**rows(range(8, 11)))
        assert_holds(EmbeddingLog.open(log.folder), [*kept, *range(8, 11)])
    assert step >= 9  # open, write, sync and rename of two files, and a sync of the folder


def test_a_writer_killed_at_any_step_leaves_the_last_commit(tmp_path, monkeypatch):
    seen = set()
    for step in count():
        log = create(tmp_path / str(step))
        log.append(**rows(range(5)))
        with monkeypatch.context() as patch:
            Fault(patch, step, Killed())
            try:
                log.append(**rows(range(5, 8)))
            except Killed:
                pass
            else:
                break
        log = EmbeddingLog.open(log.folder)
        seen.add(len(log))
        kept = list(range(len(log)))
        assert_holds(log, kept)
        log.append(**rows(range(100, 103)))
        assert_holds(EmbeddingLog.open(log.folder), [*kept, 100, 101, 102])
    assert step >= 9
    assert seen == {5, 8}


def test_a_segment_is_on_disk_before_a_manifest_names_it(tmp_path, monkeypatch):
    log = create(tmp_path)
    with monkeypatch.context() as patch:
        calls = Fault(patch, 10**9, Killed()).calls
        log.append(**rows(range(5)))
    renames = [i for i, (name, _) in enumerate(calls) if name == "replace"]
    assert [Path(calls[i][1]).name for i in renames] == [SEGMENT, MANIFEST]
    for start, stop in pairwise([*renames, len(calls)]):
        assert ("fsync", "folder") in calls[start:stop]


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from log_helpers import create, rows
from recfm.history.log import EmbeddingLog
from pathlib import Path
folder = Path(sys.argv[2])
log = EmbeddingLog.open(folder) if (folder / "manifest.json").exists() else create(folder)
while True:
    log.append(**rows(range(len(log), len(log) + 40)))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill -9")
def test_a_writer_that_is_really_killed_leaves_the_last_commit(tmp_path):
    folder, rng, before = tmp_path / "log", np.random.default_rng(0), 0
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, os.path.dirname(__file__), str(folder)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and writer.poll() is None:
            if (folder / MANIFEST).exists() and len(EmbeddingLog.open(folder)) > before:
                break
            time.sleep(0.002)
        time.sleep(rng.random() * 0.02)
        assert writer.poll() is None
        writer.kill()
        writer.wait()
        log = EmbeddingLog.open(folder)
        assert len(log) > before
        assert len(log) % 40 == 0
        before = len(log)
        assert_holds(log, range(before))
    log.append(**rows(range(before, before + 40)))
    assert_holds(EmbeddingLog.open(folder), range(before + 40))


# ---- real disks ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("cannot mount a file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True, timeout=30)


def test_a_full_disk_refuses_the_append_that_does_not_fit(small_disk):
    log = create(small_disk / "log", 8)
    log.append(**rows(range(100), 8))
    with pytest.raises(LogError, match="no space left on the disk"):
        log.append(**rows(range(100, 3000), 8))
    assert_holds(EmbeddingLog.open(log.folder), range(100))
    kept = 100
    refused = 0
    for size in (300, 200, 100, 50, 20, 5, 1):
        for _ in range(3):
            try:
                log.append(**rows(range(kept, kept + size), 8))
                kept += size
            except LogError:
                refused += 1
            assert_holds(log, range(kept))
            assert_holds(EmbeddingLog.open(log.folder), range(kept))
    assert kept > 100
    assert refused > 0


def test_a_read_only_disk_is_read_but_not_written(small_disk):
    log = create(small_disk / "log")
    log.append(**rows(range(5)))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True, timeout=30)
    assert_holds(EmbeddingLog.open(log.folder), range(5))
    with pytest.raises(LogError, match="Read-only file system"):
        log.append(**rows([5]))
    with pytest.raises(LogError, match="Read-only file system"):
        create(small_disk / "new")
    assert_holds(log, range(5))


SOMEBODY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from log_helpers import assert_holds, create, rows
from recfm.errors import LogError
from recfm.history.log import EmbeddingLog
folder = sys.argv[2]
if os.geteuid() == 0:
    os.setuid(65534)
log = EmbeddingLog.open(folder)
assert_holds(log, range(20))
for act in (lambda: log.append(**rows([20])), lambda: create(folder + "/inner")):
    try:
        act()
    except LogError as error:
        print(error)
assert_holds(EmbeddingLog.open(folder), range(20))
"""


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise on Windows")
def test_a_folder_that_may_not_be_written_is_named():
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to other users
        folder = Path(name)
        log = create(folder / "log")
        log.append(**rows(range(20)))
        (log.folder / ".lock").unlink(missing_ok=True)
        log.folder.chmod(0o555)
        folder.chmod(0o755)
        script = [sys.executable, "-c", SOMEBODY, os.path.dirname(__file__), str(log.folder)]
        done = subprocess.run(script, capture_output=True, text=True, timeout=60)
        log.folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert [line.count("Permission denied") for line in done.stdout.splitlines()] == [1, 1]
