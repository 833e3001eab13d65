"""The report of a run: one JSON-ready dict, from which the table, the figure and the HTML page are drawn.

    rows = report.summarise(runs)
    page = report.write({"rows": rows, "runs": runs, ...}, "runs/demo")   # report.json, .png, .html
    rich.print(report.table(report.read("runs/demo")))

Importing this package loads neither matplotlib nor jinja2; drawing does.
"""

from recfm.report.document import read, validate, write
from recfm.report.summary import notes, summarise, transfer_ratio
from recfm.report.text import markdown, table

__all__ = ["summarise", "transfer_ratio", "notes", "validate", "write", "read", "table", "markdown"]
