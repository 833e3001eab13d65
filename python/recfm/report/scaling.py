"""Quality against compute: a power law for each family of models, its interval, and where it bends.

    NE(C) = a + b * (C / C0)^-c       C: training FLOPs per example, C0: the geometric mean of the C seen

`a` is what no compute removes. Where the runs do not identify it (fewer than four sizes, no better by Akaike's
corrected criterion, an interval of `a` that reaches 0, or an exponent at the edge of the grid) the pure power law a = 0
is fitted instead. For each c of a grid, a and b are a linear least-squares problem; the interval is a bootstrap over
the residuals of the single runs, so it holds the spread over seeds and the misfit of the law, and works with one seed.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_EXPONENTS = np.geomspace(1e-4, 4.0, 400)
_AROUND = np.linspace(-0.1, 0.1, 1001)
"""Steps of the fine grid around the best exponent of the coarse one, in natural logarithms."""
_REPLICATES = 400
_MIN_SIZES = 3
_FAMILY_COLOURS = ("#3d4fc4", "#b4772a", "#2f8f5b", "#b23a6b", "#5b6270", "#7a4fb0")


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """A fitted law and its 95% bootstrap intervals.

    Attributes:
        floor: a; 0 for the pure power law.
        factor: b, at `reference` FLOPs.
        exponent: c, above 0.
        reference: C0, FLOPs per example.
        identified: Whether a was told from 0.
        residual_std: Standard deviation of the single runs around the law.
    """

    floor: float
    factor: float
    exponent: float
    reference: float
    identified: bool
    floor_interval: tuple[float, float]
    exponent_interval: tuple[float, float]
    residual_std: float

    def __call__(self, flops: Floats | float) -> Any:
        """NE at this compute."""
        return self.floor + self.factor * (np.asarray(flops) / self.reference) ** -self.exponent


def fit_power_law(
    flops: Sequence[float] | Floats, ne: Sequence[float] | Floats, *, seed: int = 0
) -> PowerLaw | None:
    """Least squares over single runs; None with fewer than three different sizes.

    Args:
        flops: Training FLOPs per example of each run [n], above 0.
        ne: NE (or any loss that is above 0) of each run [n].
        seed: Of the bootstrap.
    """
    c, y = np.asarray(flops, np.float64), np.asarray(ne, np.float64)
    sizes = len(np.unique(c))
    if sizes < _MIN_SIZES:
        return None
    reference = float(np.exp(np.log(np.unique(c)).mean()))
    rng = np.random.Generator(np.random.Philox(seed))
    pure = _law(c / reference, y, reference, rng, with_floor=False)
    if sizes > _MIN_SIZES:
        full = _law(c / reference, y, reference, rng, with_floor=True)
        inside = _EXPONENTS[0] < full.exponent_interval[0] and full.exponent_interval[1] < _EXPONENTS[-1]
        better = _information(full, len(y)) < _information(pure, len(y))
        if inside and better and full.floor_interval[0] > 0:
            return full
    return pure


def _information(law: PowerLaw, n: int) -> float:
    """Akaike's criterion with its correction for few runs; lower is better."""
    parameters = 4 if law.identified else 3  # the noise is one
    if n <= parameters + 1:
        return math.inf
    squares = law.residual_std**2 * (n - parameters + 1)
    correction = 2 * parameters * (parameters + 1) / (n - parameters - 1)
    return n * math.log(max(squares, 1e-300) / n) + 2 * parameters + correction


def _law(x: Floats, y: Floats, reference: float, rng: np.random.Generator, *, with_floor: bool) -> PowerLaw:
    coarse = x[None, :] ** -_EXPONENTS[:, None]  # [G, n]
    best = _EXPONENTS[_least_squares(coarse, y[None, :], with_floor=with_floor)[2][0]]
    fine = np.clip(best * np.exp(_AROUND), _EXPONENTS[0], _EXPONENTS[-1])
    exponents = np.sort(np.concatenate([_EXPONENTS, fine]))
    powers = x[None, :] ** -exponents[:, None]
    a, b, at = _least_squares(powers, y[None, :], with_floor=with_floor)
    fitted = a[0] + b[0] * powers[at[0]]
    freedom = max(len(y) - (3 if with_floor else 2), 1)
    residuals = (y - fitted) * math.sqrt(len(y) / freedom)  # a fit leaves less than it met
    drawn = fitted + rng.choice(residuals - residuals.mean(), (_REPLICATES, len(y)))
    floors, _, ats = _least_squares(powers, drawn, with_floor=with_floor)
    return PowerLaw(
        floor=float(a[0]),
        factor=float(b[0]),
        exponent=float(exponents[at[0]]),
        reference=reference,
        identified=with_floor,
        floor_interval=_interval(floors),
        exponent_interval=_interval(exponents[ats]),
        residual_std=float(np.sqrt(((y - fitted) ** 2).sum() / freedom)),
    )


def _least_squares(
    powers: Floats, y: Floats, *, with_floor: bool
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """For each row of y [R, n] the best a, b and grid position of c; a is never below 0."""
    xx, xy = (powers**2).sum(axis=1), powers @ y.T  # [G], [G, R]
    pure = xy / xx[:, None]
    if not with_floor:
        error = (y**2).sum(axis=1)[None, :] - pure * xy
        at = error.argmin(axis=0)
        return np.zeros(len(y)), pure[at, np.arange(len(y))], at
    n, x_mean, y_mean = y.shape[1], powers.mean(axis=1), y.mean(axis=1)
    spread = xx - n * x_mean**2
    b = (xy - n * x_mean[:, None] * y_mean[None, :]) / spread[:, None]
    a = y_mean[None, :] - b * x_mean[:, None]
    below = a < 0  # then the best a that is allowed is 0
    b, a = np.where(below, pure, b), np.where(below, 0.0, a)
    # Sum of squares written out around the means, which keeps the digits that its expansion loses.
    x_c, y_c = powers - x_mean[:, None], y - y_mean[:, None]
    offset = y_mean[None, :] - a - b * x_mean[:, None]
    error = (y_c**2).sum(axis=1)[None, :] - 2 * b * (x_c @ y_c.T) + b**2 * spread[:, None] + n * offset**2
    at = error.argmin(axis=0)
    rows = np.arange(len(y))
    return a[at, rows], b[at, rows], at


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def analyse(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Points and law of every family, from the runs of a sweep; None unless one family has two sizes or more.

    Args:
        runs: Records with `family`, `label`, `status`, `training_flops_per_example`, and metrics in `test` or,
            where the test rows were not measured, in `valid`.

    Returns:
        `period`, and for each family: `points` (label, flops, seeds, ne, ne_std, auc, auc_std; by compute), `law`
        or null, `noise` (pooled standard deviation over seeds, or null) and `bend`.
    """
    done = [run for run in runs if run["status"] == "done"]
    period = "test" if done and all(run["test"] is not None for run in done) else "valid"
    families: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in done:
        families.setdefault(run["family"], {}).setdefault(run["label"], []).append(run)
    if not any(len(_sizes(members)) > 1 for members in families.values()):
        return None
    return {"period": period, "families": [_family(name, of, period) for name, of in families.items()]}


def _sizes(members: dict[str, list[dict[str, Any]]]) -> set[float]:
    return {found[0]["training_flops_per_example"] for found in members.values()}


def _family(name: str, members: dict[str, list[dict[str, Any]]], period: str) -> dict[str, Any]:
    points = []
    for label, found in members.items():
        ne, auc = (np.array([run[period][metric] for run in found]) for metric in ("ne", "auc"))
        points.append(
            {
                "label": label,
                "flops": found[0]["training_flops_per_example"],
                "seeds": len(found),
                "ne": float(ne.mean()),
                "ne_std": float(ne.std(ddof=1)) if len(ne) > 1 else None,
                "auc": float(auc.mean()),
                "auc_std": float(auc.std(ddof=1)) if len(auc) > 1 else None,
            }
        )
    points.sort(key=lambda point: point["flops"])
    runs = [run for found in members.values() for run in found]
    law = fit_power_law(
        [run["training_flops_per_example"] for run in runs], [run[period]["ne"] for run in runs]
    )
    noise = _pooled(points)
    return {
        "family": name,
        "points": points,
        "law": None if law is None else _plain(law),
        "noise": noise,
        "bend": _bend(points, law, noise),
    }


def _plain(law: PowerLaw) -> dict[str, Any]:
    return {field: getattr(law, field) for field in law.__dataclass_fields__}


def _pooled(points: Sequence[dict[str, Any]]) -> float | None:
    """Standard deviation of one run over seeds, from all sizes together."""
    known = [(point["seeds"] - 1, point["ne_std"]) for point in points if point["ne_std"] is not None]
    freedom = sum(weight for weight, _ in known)
    return math.sqrt(sum(weight * std**2 for weight, std in known) / freedom) if freedom else None


def _bend(points: Sequence[dict[str, Any]], law: PowerLaw | None, noise: float | None) -> dict[str, Any]:
    """Where more compute stops to pay.

    Returns:
        `steps`: from size to size, what one doubling of compute gained in NE (above 0 is better); `first_flat`:
        the label after which a doubling gained less than the noise of one run, or null; `flat_from`: the compute
        from which the law promises less than that for a doubling, or null; `worst`: the size furthest from the law, and
        `worst_residual`, its distance in NE.
    """
    steps, first_flat = [], None
    for before, after in itertools.pairwise(points):
        if after["flops"] <= before["flops"]:
            continue
        gain = (before["ne"] - after["ne"]) / math.log2(after["flops"] / before["flops"])
        steps.append({"from": before["label"], "to": after["label"], "gain_per_doubling": gain})
        if first_flat is None and gain < (noise or 0.0):
            first_flat = before["label"]
    out: dict[str, Any] = {"steps": steps, "first_flat": first_flat, "flat_from": None}
    if law is None:
        return out
    residuals = [point["ne"] - float(law(point["flops"])) for point in points]
    worst = int(np.argmax(np.abs(residuals)))
    out |= {"worst": points[worst]["label"], "worst_residual": residuals[worst]}
    first_doubling = law.factor * (1 - 2**-law.exponent)
    if noise and first_doubling > 0:
        # The logarithm first: a small exponent makes a power that no float holds.
        log_flops = math.log(law.reference) + math.log(first_doubling / noise) / law.exponent
        out["flat_from"] = math.exp(log_flops) if log_flops < 600 else None
    return out


def sentences(found: dict[str, Any] | None) -> list[str]:
    """What `analyse` found, a sentence or two for each family."""
    if found is None:
        return []
    return [sentence for family in found["families"] for sentence in _about(family, found["period"])]


def _about(family: dict[str, Any], period: str) -> list[str]:
    name, points, law, bend, noise = (family[key] for key in ("family", "points", "law", "bend", "noise"))
    if len(points) < 2:
        return []
    out = []
    if law is None:
        sizes = len({point["flops"] for point in points})
        out.append(f"{name}: {sizes} {'size is' if sizes == 1 else 'sizes are'} too few for a power law.")
    else:
        low, high = law["exponent_interval"]
        reference = f"(C / {law['reference'] / 1e6:.3g} MFLOP)^-{law['exponent']:.3g}"
        if law["identified"]:
            below, above = law["floor_interval"]
            out.append(
                f"{name}: {period} NE = {law['floor']:.4f} + {law['factor']:.4f} {reference}; exponent {low:.3g} to "
                f"{high:.3g}, floor {below:.4f} to {above:.4f} (95% bootstrap)."
            )
        else:
            out.append(
                f"{name}: {period} NE = {law['factor']:.4f} {reference}, exponent {low:.3g} to {high:.3g} (95% "
                "bootstrap); a floor above 0 is not identified."
            )
        out.append(
            f"{name}: furthest from the law is {bend['worst']}, {bend['worst_residual']:+.4f} NE"
            + ("." if noise is None else f"; seeds differ by {noise:.4f} (standard deviation).")
        )
    scale = (
        "the seeds' standard deviation" if noise is not None else "nothing (one seed: its noise is not known)"
    )
    if bend["first_flat"] is None:
        out.append(f"{name}: no bend among these sizes: every doubling gained more than {scale}.")
    else:
        out.append(
            f"{name}: bends after {bend['first_flat']}: from there a doubling gained less than {scale}."
        )
    if bend["flat_from"] is not None:
        gains = f"{name}: by its law a doubling gains less than the seeds' standard deviation"
        if bend["flat_from"] <= points[0]["flops"]:
            out.append(f"{gains} at every size measured.")
        else:
            where = "beyond" if bend["flat_from"] > points[-1]["flops"] else "within"
            flops = f"{bend['flat_from'] / 1e6:.3g} MFLOP"
            out.append(f"{gains} from {flops} an example on, {where} what was measured.")
    return out


def png(document: dict[str, Any]) -> bytes:
    """Draw NE (with the laws) and AUC against training FLOPs per example; about 1500 pixels wide.

    Args:
        document: With `title`, `scaling` as `analyse` gives it, and `protocol.floor`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = document["scaling"]
    figure = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    title = f"{document['title']}: {found['period']} rows".replace("$", r"\$")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    floor = (document["protocol"].get("floor") or {}).get(found["period"])
    for axes, metric, what in (
        (left, "ne", "NE (lower is better)"),
        (right, "auc", "AUC (higher is better)"),
    ):
        for number, family in enumerate(found["families"]):
            _draw(axes, family, metric, _FAMILY_COLOURS[number % len(_FAMILY_COLOURS)])
        if floor:
            axes.axhline(floor[metric], color="#22252a", linestyle=":", linewidth=1, label="the truth itself")
        axes.set_xscale("log")
        axes.set_xlabel("training FLOPs per example", fontsize=8)
        axes.set_title(what, fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8e9ec", linewidth=0.6)
        axes.legend(fontsize=7, frameon=False)
    out = BytesIO()
    figure.savefig(out, format="png", facecolor="white")
    return out.getvalue()


def _draw(axes: Any, family: dict[str, Any], metric: str, colour: str) -> None:
    points, law = family["points"], family["law"]
    axes.errorbar(
        [point["flops"] for point in points],
        [point[metric] for point in points],
        yerr=[point[f"{metric}_std"] or 0 for point in points],
        fmt="o" if metric == "ne" and law else "o-",
        color=colour,
        markersize=4,
        capsize=2,
        linewidth=1.2,
        label=family["family"].replace("$", r"\$"),
    )
    if metric == "ne" and law:
        curve = PowerLaw(**{**law, "floor_interval": (0, 0), "exponent_interval": (0, 0)})
        x = np.geomspace(points[0]["flops"], points[-1]["flops"], 100)
        axes.plot(x, curve(x), color=colour, linewidth=1.2, alpha=0.7)
