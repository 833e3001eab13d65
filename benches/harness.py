"""What every Python bench shares: medians in one run, `BENCH` lines and a dated result file.

A bench is a script `bench_<theme>.py` that times recfm beside a named peer, alternating between the two so that a
busy moment of a shared machine hits both. `QUICK=1` shrinks the data, never the comparison.
"""

import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUICK = os.environ.get("QUICK", "") not in ("", "0")
RESULTS = Path(__file__).parent / "results"
REPEATS = 5
PACKAGES = (
    "recfm",
    "torch",
    "numpy",
    "polars",
    "pandas",
    "duckdb",
    "scikit-learn",
    "pyarrow",
    "mmh3",
    "torchdata",
    "torch-rechub",
    "deepctr-torch",
)


def once(work: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(
    works: dict[str, Callable[[], Any]], *, repeats: int = REPEATS, warm: bool = True
) -> dict[str, float]:
    """Median seconds of each work, the works taking turns."""
    if warm:
        for work in works.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            seconds[name].append(once(work))
    return {name: statistics.median(times) for name, times in seconds.items()}


def copy_seconds(nbytes: int, *, repeats: int = REPEATS) -> float:
    """Median seconds of a plain NumPy copy of this many bytes on one core: the bound that memory sets."""
    import numpy as np

    source = np.ones(nbytes, np.uint8)
    target = np.zeros_like(source)
    return statistics.median(once(lambda: np.copyto(target, source)) for _ in range(repeats))


def in_child(work: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Run `work(*args)` alone in a fresh process; it yields once when its input is ready, and may yield facts.

    Returns:
        `seconds` from there to the end, `peak_gib` (resident at most), `added_gib` (above what the input took), and
        the facts.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_measured, args=(send, work, args))
    child.start()
    send.close()
    try:
        measured: dict[str, float] = receive.recv()
    except EOFError:
        child.join()
        raise SystemExit(f"{work.__name__} died with exit code {child.exitcode}") from None
    child.join()
    return measured


def _measured(send: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    running = work(*args)
    next(running)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start = _status("VmRSS"), time.perf_counter()
    facts: dict[str, float] = {}
    for more in running:
        facts |= more or {}
    seconds, peak = time.perf_counter() - start, _status("VmHWM")
    send.send({"seconds": seconds, "peak_gib": peak, "added_gib": peak - before, **facts})


def _status(field: str) -> float:
    """GiB of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 2**20
    raise KeyError(field)


class Results:
    """The comparisons of one theme, printed as they come and written at the end."""

    def __init__(self, theme: str) -> None:
        self.theme = theme
        self.rows: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}

    def add(
        self,
        name: str,
        *,
        ours: float,
        peer: float,
        unit: str,
        target: float | None,
        **more: Any,
    ) -> None:
        """One line: `ratio` is how many times better ours is.

        Args:
            name: `<theme>.<work>.<peer>`.
            ours: Our measure.
            peer: The peer's, in the same run.
            unit: "s" or "GiB" (less is better), or something per second (more is better).
            target: The ratio asked for; None if there is none.
            more: Anything else worth keeping.
        """
        ratio = ours / peer if unit.endswith("/s") else peer / ours
        row = {
            "name": name,
            "ours": _short(ours),
            "peer": _short(peer),
            "unit": unit,
            "ratio": _short(ratio),
            "target": target,
            "met": None if target is None else ratio >= target,
            **more,
        }
        self.rows.append(row)
        print("BENCH " + json.dumps(row), flush=True)

    def note(self, **facts: Any) -> None:
        """Facts that belong to the whole run."""
        self.notes.update(facts)

    @property
    def path(self) -> Path:
        """Where the results of today go."""
        return RESULTS / f"{self.theme}_{_today()}.json"

    def write(self) -> None:
        """Write `results/<theme>_<date>.json`; a quick run writes nothing, its numbers are not for keeping."""
        if QUICK:
            return
        RESULTS.mkdir(exist_ok=True)
        path = self.path
        document = {
            "theme": self.theme,
            "date": _today(),
            "command": f"make bench-{self.theme}",
            "hardware": hardware(),
            "versions": versions(),
            **self.notes,
            "results": self.rows,
        }
        path.write_text(json.dumps(document, indent=2) + "\n")
        print(f"written: {path.relative_to(Path(__file__).parent.parent)}", file=sys.stderr)


def hardware() -> dict[str, Any]:
    """Processor, cores and memory of this machine, and the load before the run."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _short(value: float) -> float:
    return float(f"{value:.4g}")
