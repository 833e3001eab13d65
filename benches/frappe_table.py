"""The README's table of Frappe_x1, drawn from the newest result: `python benches/frappe_table.py`."""

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PUBLISHED = {
    "DNN": "0.9840 ± 0.0005",
    "DCNv2": "0.9838 ± 0.0004",
    "DLRM (cat)": "0.9840 (one run)",
    "FinalMLP": "0.9861 (one run)",
}
"""Test AUC on the BARS leaderboard: means of five runs where there are any."""


def newest() -> dict[str, Any]:
    """The newest result of the sweep `frappe`."""
    document: dict[str, Any] = json.loads(max(RESULTS.glob("frappe_*.json")).read_text())
    return document


def table() -> str:
    """Markdown: a row for each setting, mean ± standard deviation over its seeds."""
    lines = [
        "| model | d | seeds | test AUC | published | log loss | NE | training MFLOP / example |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in newest()["settings"]:
        test = row["test"]
        if test is None or test["auc_std"] is None:
            continue  # not run, or once only
        lines.append(
            f"| {row['label']} | {row['settings']['dim']} | {row['seeds']} | {test['auc']:.4f} ± {test['auc_std']:.4f} "
            f"| {PUBLISHED.get(row['label'], '-')} | {test['logloss']:.4f} | {test['ne']:.4f} ± {test['ne_std']:.4f} "
            f"| {row['training_flops_per_example'] / 1e6:.2g} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
