"""The hand-written stub says what the binary does."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import recfm._core

STUB = Path(recfm.__file__).with_name("_core.pyi")


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_the_stub_matches_the_binary():
    command = [sys.executable, "-m", "mypy.stubtest", "recfm._core", "--concise"]
    finished = subprocess.run(command, cwd=STUB.parents[2], capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_everything_public_is_documented_in_the_stub():
    tree = ast.parse(STUB.read_text())
    definitions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    public = {name for name in dir(recfm._core) if not name.startswith("_")}
    assert {name for name in definitions if not name.startswith("_")} == public
    for name in public:
        assert ast.get_docstring(definitions[name]), f"{name} has no docstring in the stub"
