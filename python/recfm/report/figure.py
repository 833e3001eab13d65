"""The report as a picture: NE of every model with error bars, and the transfer ratio beside it."""

from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MAIN, CONTROL, INK, FAINT = "#3d4fc4", "#b4772a", "#22252a", "#d9dade"


def png(report: dict[str, Any]) -> bytes:
    """Return a PNG, about 1500 pixels wide: left NE as dots (lower is better), right TR as bars."""
    rows = report["rows"]
    figure = Figure(figsize=(10, 1.5 + 0.36 * max(len(rows), 1)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    figure.suptitle(
        report["title"].replace("$", r"\$"), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK
    )
    _dots(left, rows)
    _bars(right, rows)
    for axes in (left, right):
        _calm(axes)
    left.set_yticks(range(len(rows)), [row["name"].replace("$", r"\$") for row in rows])
    left.set_ylim(len(rows) - 0.4, -0.6)
    out = BytesIO()
    figure.savefig(out, format="png", facecolor="white")
    return out.getvalue()


def _colour(row: dict[str, Any]) -> str:
    return CONTROL if row["role"] == "control" else MAIN


def _dots(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["name"] in ("fm", "vm"):
            axes.axvline(row["ne"], color=FAINT, linewidth=1, zorder=0)
    for at, row in enumerate(rows):
        axes.errorbar(
            row["ne"],
            at,
            xerr=row["ne_std"] or 0,
            fmt="o",
            color=_colour(row),
            markersize=6,
            capsize=3,
            linewidth=1.4,
        )
        axes.annotate(
            f"{row['ne']:.4f}", (row["ne"], at), xytext=(0, 6), textcoords="offset points", ha="center",
            fontsize=7, color=INK,
        )  # fmt: skip
    axes.set_title("normalised entropy (lower is better)", fontsize=9, loc="left", color=INK)
    axes.margins(x=0.1)


def _bars(axes: Axes, rows: list[dict[str, Any]]) -> None:
    axes.axvline(0, color=FAINT, linewidth=1, zorder=0)
    axes.axvline(1, color=FAINT, linewidth=1, zorder=0)
    for at, row in enumerate(rows):
        ratio = row["transfer_ratio"]
        if ratio is None:
            continue
        error = row["transfer_ratio_std"]
        axes.barh(at, ratio, xerr=error, height=0.5, color=_colour(row), ecolor=INK, capsize=2, alpha=0.85)
        end = max(ratio, 0) + (error or 0)
        axes.annotate(
            f"{ratio:.2f}",
            (end, at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_title("transfer ratio (0 = VM, 1 = FM)", fontsize=9, loc="left", color=INK)
    axes.margins(x=0.12)


def _calm(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0, labelsize=8, colors=INK)
