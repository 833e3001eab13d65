"""From single runs to a table: mean and standard deviation over seeds, and the best setting of each family."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from recfm.report.text import number, spread
from recfm.sweep.plan import Selection, Setting

METRICS = ("auc", "gauc", "logloss", "ne")
_HIGHER_IS_BETTER = ("auc", "gauc")


def summarise(
    settings: Sequence[Setting], runs: Sequence[Sequence[dict[str, Any]]], select: Selection
) -> list[dict[str, Any]]:
    """A row for each setting, in their order.

    Args:
        settings: Of the sweep.
        runs: For each setting the records of its finished runs; failed ones count as failed only.
        select: Metric of the validation rows that marks the best setting of each family.

    Returns:
        label, family, model, settings, train, init; `seeds` done, `failed`, `missing`; `valid` and `test` (null
        where not measured): mean and `_std` of each metric (sample standard deviation, null of one seed);
        parameters, training_flops_per_example, epochs, best_epoch, seconds, rows_per_second; `best`.
    """
    rows = [_row(setting, found) for setting, found in zip(settings, runs, strict=True)]
    sign = 1 if select in _HIGHER_IS_BETTER else -1
    for family in {row["family"] for row in rows}:
        scored = [r for r in rows if r["family"] == family and r["valid"] and r["valid"][select] is not None]
        # A setting with failed or missing seeds is not compared: its mean would be over the lucky ones.
        whole = [r for r in scored if not r["failed"] and not r["missing"]]
        if whole:
            max(whole, key=lambda r: sign * r["valid"][select])["best"] = True
    return rows


def _row(setting: Setting, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    done = [record for record in records if record["status"] == "done"]
    tested = [record for record in done if record["test"] is not None]
    first = done[0] if done else {}
    return {
        "label": setting.label,
        "family": setting.family,
        **setting.identity(),
        "seeds": len(done),
        "failed": len(records) - len(done),
        "missing": len(setting.seeds) - len(records),
        "valid": _spread([record["valid"] for record in done]),
        "test": _spread([record["test"] for record in tested]),
        "parameters": first.get("parameters"),
        "training_flops_per_example": first.get("training_flops_per_example"),
        **{
            key: _mean([r[key] for r in done])
            for key in ("epochs", "best_epoch", "seconds", "rows_per_second")
        },
        "best": False,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _spread(found: Sequence[dict[str, float | None]]) -> dict[str, float | None] | None:
    if not found:
        return None
    out: dict[str, float | None] = {}
    for metric in METRICS:
        values = [value for record in found if (value := record[metric]) is not None]
        out[metric] = statistics.fmean(values) if len(values) == len(found) else None
        out[f"{metric}_std"] = statistics.stdev(values) if len(values) == len(found) > 1 else None
    return out


HEADS = (
    "setting",
    "seeds",
    "dense",
    "FLOP/ex",
    "valid AUC",
    "valid NE",
    "test AUC",
    "test loss",
    "test NE",
    "ep.",
)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row's cells in the order of `HEADS`; the best setting of its family ends in a star."""
    valid, test = row["valid"] or {}, row["test"] or {}
    seeds = f"{row['seeds']}" + (f" ({row['failed']} failed)" if row["failed"] else "")
    return (
        row["label"] + (" *" if row["best"] else ""),
        seeds + (f" ({row['missing']} to do)" if row["missing"] else ""),
        _count((row["parameters"] or {}).get("dense")),
        _count(row["training_flops_per_example"]),
        spread(valid.get("auc"), valid.get("auc_std")),
        spread(valid.get("ne"), valid.get("ne_std")),
        spread(test.get("auc"), test.get("auc_std")),
        number(test.get("logloss")),
        spread(test.get("ne"), test.get("ne_std")),
        number(row["best_epoch"], 1),
    )


def _count(value: float | None) -> str:
    """Three digits and a unit."""
    if value is None:
        return "-"
    power = 0 if value < 1 else min(int(math.log10(value)) // 3, 4)
    return f"{value / 1000**power:.3g}{('', 'k', 'M', 'G', 'T')[power]}"


def table(document: dict[str, Any]) -> Table:
    """The rows for a terminal; columns that hold nothing are left out."""
    rows = [cells(row) for row in document["settings"]]
    drawn = Table(
        box=box.HORIZONTALS,
        pad_edge=False,
        border_style="dim",
        title=Text(document["title"], style="bold"),
        title_justify="left",
        caption=Text(_caption(document)),
        caption_justify="left",
    )
    shown = _shown(rows)
    for at in shown:
        drawn.add_column(HEADS[at], justify="right" if at else "left", overflow="fold", no_wrap=at > 0)
    for row in rows:
        drawn.add_row(*(Text(row[at]) for at in shown))
    return drawn


def markdown(document: dict[str, Any]) -> str:
    """The rows as a GitHub table, and how they came about in the lines below it."""
    rows = [cells(row) for row in document["settings"]]
    shown = _shown(rows)
    lines = [[HEADS[at] for at in shown], ["---:" if at else "---" for at in shown]]
    lines += [[row[at].replace("|", "\\|") for at in shown] for row in rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"# {document['title']}\n\n{text}\n{_caption(document)}\n\n" + "".join(
        f"- {note}\n" for note in document["notes"]
    )


def _shown(rows: Sequence[tuple[str, ...]]) -> list[int]:
    return [at for at in range(len(HEADS)) if at == 0 or any(row[at] != "-" for row in rows)]


def _caption(document: dict[str, Any]) -> str:
    select = document["protocol"]["select"]
    return (
        f"mean ± standard deviation over seeds; * best of its family by validation {select}; dense = parameters "
        "outside embedding tables; FLOP/ex = floating-point operations of training on one example; ep. = best epoch"
    )
