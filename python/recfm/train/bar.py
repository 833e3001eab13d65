"""A bar on the terminal for one fit: steps, rows per second, ETA, loss and the monitored metric."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from recfm.train.callbacks import Callback, FitStart, StepReport
from recfm.train.run import Fit


class ProgressBar(Callback):
    """Draws the bar. Where the console is no terminal it prints a line per epoch instead.

    Args:
        console: Where to draw; stderr if left out, so that stdout stays clean for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars: RichProgress | None = None
        self._metric, self._step, self._shown = "", "", ""

    def on_fit_start(self, start: FitStart) -> None:
        self._metric, self._step, self._shown = start.config.monitor, "", ""
        self._bars = RichProgress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._bars.add_task("training", total=start.steps, completed=start.done, numbers="")
        self._bars.start()

    def on_step(self, report: StepReport) -> None:
        self._step = f"{report.rows_per_second:,.0f} rows/s  loss {report.loss:.4f}"
        self._draw(report.step, report.epoch)

    def on_epoch_end(self, step: int, point: dict[str, float]) -> None:
        values = [point.get(f"valid_{name}") for name in self._metric.split("+")]
        if None not in values:
            self._shown = f"{self._metric} {sum(value for value in values if value is not None):.5f}"
        self._draw(step, int(point["epoch"]))
        if not self._console.is_terminal:  # a log file shows no bars
            loss = f"loss {point['train_loss']:.4f}"
            self._console.print(
                f"epoch {point['epoch']:.0f}  step {step}  {loss}  {self._shown}", markup=False
            )

    def on_fit_end(self, fit: Fit | None) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None

    def _draw(self, step: int, epoch: int) -> None:
        if self._bars:
            numbers = f"{self._step}  {self._shown}"
            task = self._bars.task_ids[0]
            self._bars.update(task, completed=step, description=f"epoch {epoch}", numbers=numbers)
