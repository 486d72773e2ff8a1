"""What a run shows on the terminal: a progress bar, and notes and warnings above it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipelines.printable import printable


class Display:
    """A context manager that shows the progress of a run, on the main process only.

    If the output is not a terminal there is no progress bar, and only notes and warnings are printed.

    Args:
        steps: the number of steps of the run.
        done: the step at which it starts or resumes.
        main: whether this is the main process.
    """

    def __init__(self, steps: int, done: int, main: bool) -> None:
        self.console = Console(quiet=not main, soft_wrap=True)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  lr {task.fields[lr]:.4g}  kNN {task.fields[knn]}"),
            TextColumn("{task.fields[rate]:,.0f} images/s, {task.fields[wait]:.0%} waiting for data"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not main or not self.console.is_terminal,
        )
        blank: dict[str, Any] = {"epoch": 0, "loss": 0.0, "lr": 0.0, "knn": "-", "rate": 0.0, "wait": 0.0}
        self._task = self._progress.add_task("train", total=steps, completed=done, **blank)

    def update(self, step: int, row: Mapping[str, Any]) -> None:
        """Show a row of metrics."""
        if "first_step_s" in row:
            self.note(f"first step: {row['first_step_s']:.1f} s, including compilation")
        self._progress.update(
            self._task,
            completed=step,
            epoch=row["epoch"],
            loss=row["loss"],
            lr=row["lr"],
            rate=row["samples_per_s"],
            wait=row["wait_share"],
        )

    def knn(self, top1: float) -> None:
        """Show the newest kNN accuracy, in percent."""
        self._progress.update(self._task, knn=f"{top1:.2f} %")

    def note(self, text: str) -> None:
        """Print lines above the progress bar, literally: a path may contain what rich would take for markup."""
        self._progress.console.print(_printable(text), highlight=False, markup=False, emoji=False)

    def warn(self, text: str) -> None:
        """Print a line in bold red above the progress bar, literally."""
        self._progress.console.print(_printable(text), style="bold red", highlight=False, markup=False, emoji=False)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def _printable(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
