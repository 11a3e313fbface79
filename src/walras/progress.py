"""Progress of long work: named stages and counted steps, timed, and drawn as bars on a terminal."""

import sys
import threading
import time
from typing import Any


class Progress:
    """Record the stages of some work and the wall time of each finished one, without drawing."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._since = time.perf_counter()

    def stage(self, name: str) -> None:
        """Start the stage `name`, ending the one before."""
        Progress.close(self)
        self._stage, self._since = name, time.perf_counter()

    def step(self, done: int, total: int) -> None:
        """Report that `done` of `total` steps of this stage are finished."""

    def close(self) -> None:
        """End the last stage."""
        if self._stage is not None:
            spent = time.perf_counter() - self._since
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + spent
            self._stage = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bars(Progress):
    """Draw the current stage as a bar on stderr, once the work has taken `patience` seconds: else it would flicker."""

    def __init__(self, patience: float = 2.0, console: Any = None) -> None:
        super().__init__()
        self._console, self._lock, self._closed = console, threading.Lock(), False
        self._bar: Any = None
        self._count: tuple[int, int | None] = (0, None)
        # A timer, not a check in `step`: one long compilation calls nothing for many seconds.
        self._timer = threading.Timer(patience, self._show)
        self._timer.daemon = True
        self._timer.start()

    def stage(self, name: str) -> None:
        """Start the stage `name` with an empty bar."""
        super().stage(name)
        self._count = (0, None)
        self._draw()

    def step(self, done: int, total: int) -> None:
        """Move the bar to `done` of `total`."""
        self._count = (done, total)
        self._draw()

    def close(self) -> None:
        """Remove the bar."""
        super().close()
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _show(self) -> None:
        from rich import progress
        from rich.console import Console

        columns = (
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
        )
        with self._lock:
            if self._closed:
                return
            self._bar = progress.Progress(*columns, console=self._console or Console(stderr=True), transient=True)
            self._bar.add_task(self._stage or "Working", total=None)
            self._bar.start()
        self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._bar is not None:
                done, total = self._count
                task, stage = self._bar.task_ids[0], self._stage or "Working"
                self._bar.update(task, description=stage, completed=done, total=total)


def on_terminal() -> Progress:
    """Return bars if stderr is a terminal, else progress that draws nothing."""
    return Bars() if sys.stderr.isatty() else Progress()
