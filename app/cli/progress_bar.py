"""A progress bar with rates for long work, drawn only on a terminal."""

from __future__ import annotations

import atexit

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """Called as (label, done, total); draws a line for each label, with its rate and the time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()
        atexit.register(self._progress.stop)

    def __call__(self, label: str, done: int, total: int) -> None:
        """Update the line of `label`: `done` of `total` steps are finished."""
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=total, rate="")
        task = self._tasks[label]
        elapsed = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0.0
        rate = f"{done / elapsed:,.0f}/s" if elapsed > 0 else ""
        self._progress.update(task, completed=done, total=total, rate=rate)
