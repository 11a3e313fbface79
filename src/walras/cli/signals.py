"""Own what Ctrl-C does to the program: one line on stderr and exit code 130, however deep in compiled code it is.

EDGE: imports nothing heavy, so that it is in place before anything else is imported.
"""

import os
import signal
import sys
import threading
import time
from typing import Any

EXIT_INTERRUPTED = 130
"""What a shell expects of a program ended by Ctrl-C (128 + SIGINT)."""

GRACE = 2.0
"""Seconds that Python code has, after Ctrl-C, to put files back and end by itself."""

SENTENCE = "walras: stopped by Ctrl-C; files that were being written are as they were before"

_lock = threading.Lock()
_said = False


def exit_interrupted() -> int:
    """Print the one line, once however many notice, and return the exit code."""
    global _said
    with _lock:
        if not _said:
            print(SENTENCE, file=sys.stderr, flush=True)
            _said = True
    return EXIT_INTERRUPTED


def reset() -> None:
    """Start afresh, for a process that runs several commands."""
    global _said
    with _lock:
        _said = False


def watch() -> None:
    """Let a thread end the program where the KeyboardInterrupt itself gets lost or has to wait.

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
    usual = sys.unraisablehook

    def quiet(lost: Any) -> None:
        # Dropped by a callback of a compiled library: the thread above ends the program, with one line and no more.
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            usual(lost)

    sys.unraisablehook = quiet


def run() -> None:
    """Be the `walras` program."""
    watch()
    try:
        from walras.cli.app import main

        code = main()
    except KeyboardInterrupt:
        code = exit_interrupted()
    if code == EXIT_INTERRUPTED:
        # Libraries that were interrupted half way may crash while they are taken down.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
