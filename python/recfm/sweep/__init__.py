"""Sweeps: many settings and seeds of any model on one table, resumable, by one process or many.

sweep = Sweep.open("frappe.toml")
document = sweep.run("runs/frappe")          # results.json, table.md, scaling.png
"""

from recfm.sweep import summary
from recfm.sweep.engine import Sweep

__all__ = ["Sweep", "summary"]
