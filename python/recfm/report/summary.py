"""From single runs to one row per model: mean and spread over seeds, transfer ratio, plain warnings."""

import math
import statistics
from typing import Any

from recfm.errors import DataError, MetricError

METRICS = ("auc", "gauc", "logloss", "ne")

WHAT = {
    "fm": "the foundation model, on its own period and features",
    "vm": "the small model to be served, trained alone",
    "vm+kd": "learns the FM's predictions as soft labels",
    "vm+loopfm": "reads the FM's past embeddings as a feature",
    "vm+kd+loopfm": "both of these",
    "control:random-event": "a random vector per event in place of the FM's embedding",
    "control:random-item": "a fixed random vector per item in place of the FM's embedding",
    "control:count": "only how many past events there are",
    "control:score": "only the FM's score of each past event",
    "control:raw-ids": "the past events' item ids, embedded by the VM itself",
    "control:raw-ids+labels": "the past events' item ids and their labels, embedded by the VM itself",
    "control:vm-all-periods": "the VM trained on the FM's training rows as well as its own",
}
"""Every row name of a LoopFM experiment in reading order, and what that model is."""

READING = {
    "control:random-event": "the number of past events, not their content, does the work",
    "control:random-item": "knowing which items were seen is enough; the FM adds nothing to that",
    "control:count": "the gain comes from how active a user is",
    "control:score": "one number per event is enough; the embedding's width is not needed",
    "control:raw-ids": "the VM could learn the same from the items in the history, without an FM",
    "control:raw-ids+labels": "the VM could learn the same from the labelled history, without an FM (in "
    "theory raw history is the upper bound where FM and VM read the same features)",
    "control:vm-all-periods": "the FM's extra period of data explains the gain, not its embeddings",
}
"""What follows if a control does as well as vm+loopfm."""


def transfer_ratio(ne_fm: float, ne_vm: float, ne_student: float) -> float:
    """Return the share of the FM's gain over the VM that the student keeps: (VM - student) / (VM - FM) in NE.

    1 means as good as the FM, 0 no better than the VM alone, below 0 worse than it.

    Raises:
        MetricError: The FM does not beat the VM (then there is no gain to keep), or a value is not finite.
    """
    if not all(math.isfinite(value) for value in (ne_fm, ne_vm, ne_student)):
        raise MetricError(f"transfer ratio of NE {ne_fm} (FM), {ne_vm} (VM), {ne_student}: not finite")
    if ne_fm >= ne_vm:
        raise MetricError(
            f"transfer ratio undefined: the FM (NE {ne_fm:.6f}) does not beat the VM ({ne_vm:.6f})"
        )
    return (ne_vm - ne_student) / (ne_vm - ne_fm)


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per model name: means and sample standard deviations (ddof = 1) over seeds.

    The transfer ratio is computed within each seed and then averaged. It is null for `fm` and `vm`, and where
    no seed defines it; seeds in which the FM does not beat the VM are left out of it and counted in
    `transfer_ratio_skipped`.

    Args:
        runs: Dicts with `seed`, `name`, `auc`, `gauc`, `logloss`, `ne`, `seconds` and, if known,
            `parameters`. `gauc` may be null.

    Returns:
        Rows in the order of `WHAT`, then other names in the order they come. A `*_std` is null for one seed.

    Raises:
        DataError: A key is missing, or a (seed, name) pair comes twice.
    """
    by_name: dict[str, dict[Any, dict[str, Any]]] = {}
    for index, run in enumerate(runs):
        for key in ("seed", "name", "seconds", *METRICS):
            if key not in run:
                raise DataError(f"runs[{index}].{key} is missing")
        seeds = by_name.setdefault(run["name"], {})
        if run["seed"] in seeds:
            raise DataError(f"runs[{index}]: seed {run['seed']} of {run['name']} comes twice")
        seeds[run["seed"]] = run
    order = [name for name in WHAT if name in by_name] + [name for name in by_name if name not in WHAT]
    return [_row(name, by_name) for name in order]


def _row(name: str, by_name: dict[str, dict[Any, dict[str, Any]]]) -> dict[str, Any]:
    seeds = by_name[name]
    row: dict[str, Any] = {
        "name": name,
        "role": "control" if name.startswith("control:") else "main",
        "what": WHAT.get(name, ""),
        "seeds": len(seeds),
    }
    for metric in METRICS:
        row[metric], row[f"{metric}_std"] = _mean_std([run[metric] for run in seeds.values()])
    ratios, skipped = _ratios(name, by_name)
    row["transfer_ratio"], row["transfer_ratio_std"] = _mean_std(ratios)
    row["transfer_ratio_skipped"] = skipped
    sizes = [run["parameters"] for run in seeds.values() if run.get("parameters") is not None]
    row["parameters"] = max(sizes, default=None)
    row["seconds"] = statistics.fmean(run["seconds"] for run in seeds.values())
    return row


def _mean_std(values: list[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def _ratios(name: str, by_name: dict[str, dict[Any, dict[str, Any]]]) -> tuple[list[float | None], int]:
    ratios: list[float | None] = []
    skipped = 0
    fm, vm = by_name.get("fm", {}), by_name.get("vm", {})
    if name in ("fm", "vm"):
        return ratios, skipped
    for seed, run in by_name[name].items():
        if seed in fm and seed in vm:
            try:
                ratios.append(transfer_ratio(fm[seed]["ne"], vm[seed]["ne"], run["ne"]))
            except MetricError:
                skipped += 1
    return ratios, skipped


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Return plain sentences on whatever in `rows` weakens or qualifies the result; empty if nothing does."""
    by_name = {row["name"]: row for row in rows}
    return [
        *_seed_notes(rows),
        *_gap_notes(by_name),
        *_student_notes(by_name),
        *_ranking_notes(by_name),
        *_control_notes(by_name),
        *_random_notes(by_name),
    ]


def headline(rows: list[dict[str, Any]]) -> str:
    """Return the result in one sentence: what vm+loopfm keeps of the FM's gain, and distillation alone."""
    by_name = {row["name"]: row for row in rows}
    ratios = {name: row["transfer_ratio"] for name, row in by_name.items()}
    loop, kd = ratios.get("vm+loopfm"), ratios.get("vm+kd")
    if loop is None:
        return "The transfer ratio is undefined in this run."
    kept = f"vm+loopfm keeps {loop:.0%} of the FM's gain over the VM"
    if loop <= 0:
        kept = "vm+loopfm keeps nothing of the FM's gain over the VM"
    elif loop >= 1:
        kept = f"vm+loopfm keeps all of the FM's gain over the VM ({loop:.0%})"
    return f"{kept}." if kd is None else f"{kept}; distillation alone keeps {max(kd, 0):.0%}."


def _seed_notes(rows: list[dict[str, Any]]) -> list[str]:
    found = []
    if rows and max(row["seeds"] for row in rows) < 2:
        found.append("One seed only: there are no error bars, and small differences may be noise.")
    if rows and not any(row["role"] == "control" for row in rows):
        found.append("No controls were run: the gain may have other causes than the FM's embeddings.")
    return found


def _gap_notes(by_name: dict[str, dict[str, Any]]) -> list[str]:
    fm, vm = by_name.get("fm"), by_name.get("vm")
    if fm is None or vm is None:
        return ["No transfer ratio: it needs both an fm and a vm row."]
    if fm["ne"] >= vm["ne"]:
        return [
            f"The FM (NE {fm['ne']:.4f}) does not beat the VM (NE {vm['ne']:.4f}): there is no gain "
            "to transfer, and the transfer ratio is undefined or means little."
        ]
    noise, gap = _noise(fm, vm), vm["ne"] - fm["ne"]
    if noise is not None and gap <= noise:
        return [f"The FM's gain over the VM (NE {gap:.4f}) is within noise ({noise:.4f}): TR means little."]
    skipped = max((row.get("transfer_ratio_skipped") or 0 for row in by_name.values()), default=0)
    if skipped:
        return [f"The FM does not beat the VM in {skipped} of {vm['seeds']} seeds: TR leaves these out."]
    return []


def _student_notes(by_name: dict[str, dict[str, Any]]) -> list[str]:
    found = []
    vm = by_name.get("vm")
    loop, both = by_name.get("vm+loopfm"), by_name.get("vm+kd+loopfm")
    for name in ("vm+kd", "vm+loopfm", "vm+kd+loopfm"):
        row = by_name.get(name)
        if vm is not None and row is not None and row["ne"] >= vm["ne"]:
            found.append(
                f"{name} is no better than the VM alone (NE {row['ne']:.4f} against {vm['ne']:.4f})."
            )
    if loop is not None and both is not None and both["ne"] >= loop["ne"]:
        found.append(
            f"Distillation adds nothing to vm+loopfm here (NE {both['ne']:.4f}, {loop['ne']:.4f} without)."
        )
    return found


def _ranking_notes(by_name: dict[str, dict[str, Any]]) -> list[str]:
    """AUC compares impressions of different users, gAUC only those of one user; they can disagree."""
    vm, found = by_name.get("vm"), []
    for name in ("fm", "vm+loopfm", "vm+kd+loopfm"):
        row = by_name.get(name)
        if row is None or vm is None or row["gauc"] is None or vm["gauc"] is None:
            continue
        if row["auc"] > vm["auc"] and row["gauc"] < vm["gauc"]:
            found.append(
                f"{name} has a higher AUC than the VM but a lower gAUC ({row['gauc']:.4f} against "
                f"{vm['gauc']:.4f}): its gain is in telling users apart, not in ranking one user's items."
            )
    return found


def _control_notes(by_name: dict[str, dict[str, Any]]) -> list[str]:
    loop = by_name.get("vm+loopfm")
    found = []
    for row in by_name.values():
        if loop is None or row["role"] != "control":
            continue
        better = []
        if row["ne"] < loop["ne"]:
            better.append(f"NE ({row['ne']:.4f} against {loop['ne']:.4f})")
        if row["auc"] > loop["auc"]:
            better.append(f"AUC ({row['auc']:.4f} against {loop['auc']:.4f})")
        noise = _noise(row, loop)
        within = noise is not None and abs(row["ne"] - loop["ne"]) <= noise
        reading = READING.get(row["name"], "vm+loopfm's gain has another cause")
        if better:
            hedge = ", within noise" if within else ""
            found.append(f"{row['name']} beats vm+loopfm on {' and '.join(better)}{hedge}: {reading}.")
        elif within:
            gap = row["ne"] - loop["ne"]
            found.append(f"{row['name']} is within noise of vm+loopfm (NE {gap:+.4f}): perhaps {reading}.")
    return found


def _random_notes(by_name: dict[str, dict[str, Any]]) -> list[str]:
    """A random vector per event or item should change nothing, up to 2 standard deviations over seeds."""
    vm, found = by_name.get("vm"), []
    for name in ("control:random-event", "control:random-item"):
        row = by_name.get(name)
        noise = None if row is None or vm is None else _noise(row, vm)
        if row is None or vm is None or noise is None or abs(row["ne"] - vm["ne"]) <= noise:
            continue
        side = "better" if row["ne"] < vm["ne"] else "worse"
        found.append(
            f"{name} is {side} than vm by more than noise (NE {row['ne']:.4f} against {vm['ne']:.4f}, noise "
            f"{noise:.4f}): part of any history's effect does not come from what the FM knows."
        )
    return found


def _noise(first: dict[str, Any], second: dict[str, Any]) -> float | None:
    """Two standard deviations of the difference of two NE, or None below two seeds."""
    spreads = (first["ne_std"], second["ne_std"])
    if spreads[0] is None or spreads[1] is None:
        return None
    return 2 * math.hypot(*spreads)
