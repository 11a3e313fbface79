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

    def say(self, text: str) -> None:
        """Show a first result while work goes on."""

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
        from rich import progress
        from rich.console import Console

        super().__init__()
        columns = (
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
        )
        self._bar = progress.Progress(*columns, console=console or Console(stderr=True), transient=True)
        self._task = self._bar.add_task("Working", total=None)
        # A timer, not a check in `step`: one long compilation calls nothing for many seconds.
        self._timer = threading.Timer(patience, self._bar.start)
        self._timer.daemon = True
        self._timer.start()

    def stage(self, name: str) -> None:
        """Start the stage `name` with an empty bar."""
        super().stage(name)
        self._bar.tasks[0].total = None  # `update` cannot
        self._bar.update(self._task, description=name, completed=0)

    def step(self, done: int, total: int) -> None:
        """Move the bar to `done` of `total`."""
        self._bar.update(self._task, completed=done, total=total)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._bar.console.print(text, highlight=False)

    def close(self) -> None:
        """Remove the bar."""
        super().close()
        self._timer.cancel()
        self._timer.join()  # a bar that is just about to appear must be removed, too
        if self._bar.live.is_started:
            self._bar.stop()


class Lines(Progress):
    """Write one line for each stage to stderr, where no bar can be drawn, from `patience` seconds of work on."""

    def __init__(self, patience: float = 2.0) -> None:
        super().__init__()
        self._began, self._patience = time.perf_counter(), patience

    def stage(self, name: str) -> None:
        """Start the stage `name` with a line."""
        super().stage(name)
        self.say(f"{name} ...")

    def say(self, text: str) -> None:
        """Write a line, unless all is done too soon for one."""
        if time.perf_counter() - self._began >= self._patience:
            print(text, file=sys.stderr, flush=True)


def on_terminal() -> Progress:
    """Return bars if stderr is a terminal, else a line for each stage of longer work."""
    return Bars() if sys.stderr.isatty() else Lines()
