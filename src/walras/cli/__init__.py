"""The `walras` program; Ctrl-C ends it with one line and exit code 130, however deep in compiled code it is."""

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXIT_INTERRUPTED = 130
"""Exit code that a shell expects of a program ended by Ctrl-C (128 + SIGINT)."""

GRACE = 2.0
"""Time that Python code has, after Ctrl-C, to restore files and end by itself [seconds]."""

_lock = threading.Lock()
_printed = False


def run_program() -> None:
    """Run the `walras` program; Ctrl-C works from the first import on."""
    watch_interrupts()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices are small: threads would only wait for each other
    keep_compiled_programs()
    try:
        from walras.cli.app import main

        code = main()
    except KeyboardInterrupt:
        code = exit_interrupted()
    if code == EXIT_INTERRUPTED:
        # Libraries that were interrupted may crash while they are shut down.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def keep_compiled_programs() -> None:
    """Let JAX keep compiled programs in `WALRAS_CACHE`, by default in the user's cache folder; `off` keeps none.

    Programs are for one processor and one version of Python's packages, hence a folder for each machine.
    """
    chosen = os.environ.get("WALRAS_CACHE", "")
    if chosen == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "walras"
    folder = Path(chosen or usual).absolute() / f"{platform.node()}-{platform.machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return  # without a place to keep them, programs are compiled anew
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def exit_interrupted() -> int:
    """Print the one line, once even if several threads call this, and return the exit code."""
    global _printed
    with _lock:
        if not _printed:
            print(
                "walras: stopped by Ctrl-C; files that were being written are as they were before",
                file=sys.stderr,
                flush=True,
            )
            _printed = True
    return EXIT_INTERRUPTED


def watch_interrupts() -> None:
    """Start a thread that ends the program if the KeyboardInterrupt is lost or delayed.

    A signal handler runs only between two steps of Python code, and an exception that it raises inside a callback of a
    compiled library is dropped; the byte that the signal writes into a pipe is seen at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait() -> None:
        while True:
            if signal.SIGINT in os.read(reader, 64):
                time.sleep(GRACE)
                os._exit(exit_interrupted())

    threading.Thread(target=wait, name="walras-interrupts", daemon=True).start()
    default = sys.unraisablehook

    def quiet(lost: Any) -> None:
        # Dropped by a callback of a compiled library: the thread above ends the program.
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            default(lost)

    sys.unraisablehook = quiet


@contextmanager
def record_interrupts() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on Ctrl-C as Python does, and record it in the list that is yielded."""
    global _printed
    with _lock:
        _printed = False
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def record(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, record)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)
