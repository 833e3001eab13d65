"""Progress of a run: one bar for all of it, one for the stage at hand, both with an ETA."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:  # torch takes seconds to import
    from recfm.data.encode import OnRows
    from recfm.train.trainer import OnBatch


class Progress(Protocol):
    """What a long run reports to."""

    def stage(self, name: str, doing: str, seed: int) -> "AbstractContextManager[OnBatch]":
        """Enter a stage; the callback takes (steps done, steps in all, running loss)."""
        ...

    def skip(self, stages: int) -> None:
        """Count stages that need not run."""
        ...


class NoProgress:
    """Reports nothing."""

    def skip(self, stages: int) -> None:
        """Nothing to count."""

    @contextmanager
    def stage(self, name: str, doing: str, seed: int) -> "Iterator[OnBatch]":
        """A callback that does nothing."""
        yield lambda _done, _total, _loss: None


@contextmanager
def rows_bar(console: Console) -> "Iterator[OnRows]":
    """A bar of rows for each pass over a table, with rate and ETA."""
    bars = RichProgress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, TaskID] = {}

    def on_rows(doing: str, done: int, total: int | None) -> None:
        if doing not in tasks:
            tasks[doing] = bars.add_task(doing, total=total, rate="")
        speed = next(task.speed for task in bars.tasks if task.id == tasks[doing])
        rate = f"{speed / 1e6:.2f} M rows/s" if speed else ""
        bars.update(tasks[doing], completed=done, total=total, rate=rate)

    with bars:
        yield on_rows


class BarProgress:
    """Bars on the terminal (stderr, so that stdout stays clean for results).

    Args:
        stages: How many stages the whole run has.
        console: Where to draw.
    """

    def __init__(self, stages: int, console: Console) -> None:
        self._console = console
        self._bars = RichProgress(
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
        )
        self._whole = self._bars.add_task("all stages", total=stages)

    def __enter__(self) -> "BarProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def skip(self, stages: int) -> None:
        """Count stages that need not run."""
        self._bars.advance(self._whole, stages)

    @contextmanager
    def stage(self, name: str, doing: str, seed: int) -> "Iterator[OnBatch]":
        """One bar that lives as long as the stage."""
        task = self._bars.add_task(f"  {doing} {name} (seed {seed})", total=None)

        def on_batch(done: int, total: int, loss: float) -> None:
            text = f"  {doing} {name} (seed {seed})" + (f" loss {loss:.4f}" if loss else "")
            self._bars.update(task, completed=done, total=total, description=text)

        started = time.monotonic()
        try:
            yield on_batch
            self._bars.advance(self._whole)
            if not self._console.is_terminal:  # a log file shows no bars, so it gets a line per stage
                whole = self._bars.tasks[0]
                took = f"{time.monotonic() - started:.1f} s"
                self._console.print(
                    f"[{whole.completed:.0f}/{whole.total:.0f}] {doing} {name} (seed {seed}) {took}",
                    markup=False,
                )
        finally:
            self._bars.remove_task(task)
