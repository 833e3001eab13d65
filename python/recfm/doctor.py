"""What recfm finds on a machine, for `recfm doctor` and for bug reports."""

import importlib.metadata
import shutil
from typing import Any

from rich.table import Table

from recfm import _core
from recfm.datasets.download import cache_folder

_PACKAGES = (
    "torch", "numpy", "polars", "safetensors", "filelock", "pydantic", "rich", "tyro", "matplotlib", "jinja2",
)  # fmt: skip


def examine() -> dict[str, Any]:
    """Versions, threads, GPU and problems, as plain values.

    Returns:
        `ok` (no problems), `machine`, `core`, `packages`, `gpu` and `problems`, a list of sentences.
    """
    problems, packages = [], {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"package '{name}' is missing: pip install {name}")
    core = _core.build_info()
    if core["profile"] != "release":
        problems.append("the Rust core is a debug build, many times slower: rebuild it with --release")
    cache = cache_folder()
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free
    if free < 1 << 30:
        problems.append(f"less than 1 GiB is free at {cache}")
    found: dict[str, Any] = {}
    gpu = None
    try:  # what is missing or broken is to be reported here, so nothing of it is imported above
        import torch

        from recfm.experiment import machine

        found = machine() | {"vectors": torch.backends.cpu.get_cpu_capability()}
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    except (ImportError, OSError) as error:
        problems.append(f"recfm cannot be imported whole ({error}): reinstall it with its dependencies")
    return {
        "ok": not problems,
        "machine": found,
        "core": core,
        "packages": packages,
        "gpu": gpu,
        "cache": {"folder": str(cache), "free_gib": round(free / (1 << 30), 1)},
        "problems": problems,
    }


def table(found: dict[str, Any]) -> Table:
    """`examine`'s findings to read."""
    out = Table(title="recfm doctor", show_header=False)
    for section in ("machine", "core", "packages", "cache"):
        for key, value in found[section].items():
            out.add_row(section, key, str(value))
        out.add_section()
    out.add_row("gpu", "", found["gpu"] or "none found: everything runs on the CPU")
    for problem in found["problems"]:
        out.add_row("[red]problem[/]", "", problem)
    if found["ok"]:
        out.add_row("[green]no problems[/]", "", "")
    return out
