"""Own what figures are quoted with: the machine, the versions, the commit and the day they were measured on.

EDGE: asks the operating system and git; without git the version has to do.
"""

import datetime
import platform
import subprocess
from pathlib import Path

import jax

from walras import __version__


def machine() -> dict[str, str]:
    """Say what figures were measured on, and when."""
    return {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
    }


def commit() -> str:
    """Name the commit of the code that runs, with a + if files of it were changed since; else the version."""
    place = Path(__file__).parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(place), *words], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "-uno", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"
