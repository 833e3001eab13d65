"""Event tables on disk: a file, a folder or a glob, and one clear error for whatever is no Parquet."""

import os
import subprocess
import sys

import polars as pl
import pytest

from recfm.data.frame import read_events
from recfm.errors import DataError
from table_helpers import refused, table


def test_a_file_a_folder_and_a_glob_are_read(tmp_path):
    first, second = table(), table(user=[7, 8, 9])
    (tmp_path / "parts").mkdir()
    first.write_parquet(tmp_path / "parts" / "a.parquet")
    second.write_parquet(tmp_path / "parts" / "b.parquet")
    for name in ("README.txt", "._a.parquet", "_temporary.parquet"):  # what other programs leave there
        (tmp_path / "parts" / name).write_text("not an event")
    assert read_events(tmp_path / "parts" / "a.parquet").equals(first)
    assert read_events(str(tmp_path / "parts")).equals(pl.concat([first, second]))
    assert read_events(tmp_path / "parts" / "[ab].parquet").equals(pl.concat([first, second]))


@pytest.mark.parametrize(
    "name", ["events[1].parquet", "what?.parquet", "day*.parquet", "d[ay]/events.parquet"]
)
def test_a_name_with_glob_characters_is_a_name(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    table().write_parquet(path)
    (tmp_path / "days.parquet").write_text("another file that the name would match as a glob")
    assert read_events(path).equals(table())


@pytest.mark.parametrize(
    "name", ["nothing.parquet", "nothing-*.parquet", "empty", "file/below", "x" * 5000, "nul\0byte.parquet"]
)
def test_a_path_to_nothing_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    message = refused(DataError, lambda: read_events(tmp_path / name))
    assert name[:40].replace("\0", "") in message.replace("\0", "").replace("\\x00", "")
    assert "Parquet" in message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"user,item\n1,2\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_no_parquet_is_named(tmp_path, content):
    (tmp_path / "events.parquet").write_bytes(content)
    message = refused(DataError, lambda: read_events(tmp_path / "events.parquet"))
    assert "events.parquet' cannot be read as Parquet" in message


def test_files_of_different_tables_do_not_mix(tmp_path):
    table().write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"other": [1]}).write_parquet(tmp_path / "b.parquet")
    assert str(tmp_path) in refused(DataError, lambda: read_events(tmp_path))


def test_a_truncated_parquet_file_is_refused(tmp_path):
    path = tmp_path / "events.parquet"
    table().write_parquet(path)
    content = path.read_bytes()
    for length in [*range(12), *range(12, len(content), 97), *range(len(content) - 12, len(content))]:
        path.write_bytes(content[:length])
        assert "events.parquet'" in refused(DataError, lambda: read_events(path))


@pytest.mark.skipif(
    not hasattr(os, "setuid") or os.geteuid() != 0, reason="needs root, to become somebody else"
)
def test_a_file_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "events.parquet"
    table().write_parquet(path)
    path.chmod(0o600)
    script = (
        "import os, sys; from recfm.data.frame import read_events; from recfm.errors import DataError\n"
        "os.setuid(65534)\n"
        "try: read_events(sys.argv[1])\n"
        "except DataError as error: print('refused:', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("refused:"), done.stderr
    assert "events.parquet" in done.stdout
