"""The hand-written stub says what the binary does."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import recfm._core

BINARY = Path(recfm._core.__file__)
STUB = BINARY.with_name("_core.pyi")


def stubtest(stub, folder):
    """What stubtest says of `stub`: of a package of its own, as the real one would pull in torch's types."""
    package = folder / "recfm"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "py.typed").touch()
    (package / "_core.pyi").write_text(stub)
    shutil.copy(BINARY, package)
    environment = {key: value for key, value in os.environ.items() if key != "MYPYPATH"}
    return subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "recfm._core", "--concise"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_the_stub_matches_the_binary(tmp_path):
    finished = stubtest(STUB.read_text(), tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("min_count: int = 1", "min_count: int = 2"), ("def seed_of(name: str)", "def seed_of(label: str)")],
)
def test_a_wrong_stub_is_noticed(tmp_path, right, wrong):
    stub = STUB.read_text()
    assert right in stub
    finished = stubtest(stub.replace(right, wrong), tmp_path)
    assert finished.returncode == 1
    assert "recfm._core." in finished.stdout


def test_everything_public_is_documented_in_the_stub():
    tree = ast.parse(STUB.read_text())
    definitions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    public = {name for name in dir(recfm._core) if not name.startswith("_")}
    assert {name for name in definitions if not name.startswith("_")} == public
    for name in public:
        assert ast.get_docstring(definitions[name]), f"{name} has no docstring in the stub"
