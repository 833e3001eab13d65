"""Tiny sweep files for the tests of sweeps and of the command line."""

from pathlib import Path

SYNTHETIC = "synthetic = { rows = 3000, vocabulary = [12, 10, 8, 6], terms = [4, 3, 2, 1], latent = 1 }"
HEAD = f"""
seeds = [0, 1]
[data]
{SYNTHETIC}
[train]
epochs = 1
batch_size = 256
learning_rate = 0.01
"""
RUNS = """
[[runs]]
model = "dnn"
settings = { dim = 2 }
grid = { hidden = [[4], [8]] }
[[runs]]
model = "wukong"
label = "W"
settings = { dim = 2, layers = 1, fm_rows = 2, linear_rows = 2, rank = 2, fm_hidden = [4], hidden = [4] }
"""


def sweep_file(folder, *, top="", head=HEAD, runs=RUNS, name="tiny.toml"):
    """Path of a sweep file; `top` are keys before the sections."""
    path = Path(folder) / name
    path.write_text(f"{top}\n{head}\n{runs}")
    return path
