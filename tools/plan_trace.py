"""Count the files and functions that a plan of 40 products runs through."""

import contextlib
import importlib
import inspect
import io
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import CodeType, FrameType

from source import ROOT, SOURCE, entry_point

PRODUCTS = 40


def trace_plan() -> dict[str, int]:
    """Plan for a generated table in this process and count what ran."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(ROOT / "src"))
    with tempfile.TemporaryDirectory() as name:
        table, out = Path(name) / "table.parquet", Path(name) / "out"
        _generate(table)
        seen = _profiled(["plan", str(table), "--weeks", "26", "--out", str(out), "--json"])
    return count(seen)


def count(seen: set[CodeType]) -> dict[str, int]:
    """Count files and functions of the package among the code that ran."""
    ran = {(code.co_filename, code.co_firstlineno, code.co_name) for code in seen if _is_function(code)}
    return {"plan_files": len({file for file, _, _ in ran}), "plan_functions": len(ran)}


def _is_function(code: CodeType) -> bool:
    """Say whether code is a named function of the package: no module, class body, lambda, comprehension or template."""
    named = not code.co_name.startswith("<") and code.co_flags & inspect.CO_OPTIMIZED
    source = Path(code.co_filename)
    return bool(named) and source.suffix == ".py" and source.is_relative_to(SOURCE)


def _generate(table: Path) -> None:
    """Write the table in a process of its own, so that only planning is counted."""
    module, function = entry_point()
    program = f"from {module} import {function}; {function}()"
    words = ["data", "generate", str(table), "--agents", str(PRODUCTS)]
    subprocess.run([sys.executable, "-c", program, *words], check=True, stdout=subprocess.DEVNULL)


def _profiled(words: list[str]) -> set[CodeType]:
    """Run one command with a profile function in every thread and collect the code that was called."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    module, function = entry_point()
    run = getattr(importlib.import_module(module), function)
    sys.argv, before = [sys.argv[0], *words], sys.argv
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            code = _exit_code(run)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        sys.argv = before
    if code:
        raise SystemExit(f"the plan ended with exit code {code}:\n{said.getvalue()}")
    return seen


def _exit_code(run) -> int:
    """Call the program's entry point, which ends with SystemExit, and return its exit code."""
    try:
        return run() or 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
