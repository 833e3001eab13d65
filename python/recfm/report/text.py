"""The report as text: a rich table for the terminal, a GitHub table for a README."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

HEADS = ("model", "AUC", "gAUC", "log loss", "NE", "TR")


def number(value: float | None, digits: int = 4) -> str:
    """Format a metric; null is a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def spread(value: float | None, std: float | None, digits: int = 4) -> str:
    """Format "mean ± std", or the mean alone where there is one seed."""
    return number(value, digits) if value is None or std is None else f"{value:.{digits}f} ± {std:.{digits}f}"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row's cells in the order of `HEADS`."""
    return (
        row["name"],
        spread(row["auc"], row["auc_std"]),
        number(row["gauc"]),
        number(row["logloss"]),
        spread(row["ne"], row["ne_std"]),
        spread(row["transfer_ratio"], row["transfer_ratio_std"], 2),
    )


def table(report: dict[str, Any]) -> Table:
    """Return the rows as a rich table of at most 100 columns, the controls below a rule."""
    drawn = Table(
        box=box.HORIZONTALS,
        pad_edge=False,
        border_style="dim",
        title=Text(report["title"], style="bold"),
        title_justify="left",
        caption="NE: lower is better. TR: share of the FM's NE gain over the VM that the model keeps.",
        caption_justify="left",
    )
    for head in HEADS:
        drawn.add_column(head, justify="left" if head == "model" else "right", no_wrap=True)
    main = [row for row in report["rows"] if row["role"] == "main"]
    controls = [row for row in report["rows"] if row["role"] == "control"]
    for index, row in enumerate(main):
        drawn.add_row(*map(Text, cells(row)), end_section=bool(controls) and index == len(main) - 1)
    for row in controls:
        drawn.add_row(*map(Text, cells(row)), style="dim")
    return drawn


def markdown(report: dict[str, Any]) -> str:
    """Return the rows as a GitHub table, one line a row, ending in a newline."""
    lines = [HEADS, ("---", *["---:"] * (len(HEADS) - 1))]
    for row in report["rows"]:
        name, *values = cells(row)
        lines.append((f"`{name.replace('|', chr(92) + '|')}`", *values))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
