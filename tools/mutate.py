"""Change one line of the package at a time and see whether the tests notice.

`python tools/mutate.py --out mutants.jsonl` picks lines at random, the same number in every folder, and runs the tests
of that folder on a copy of the checkout with one change in it. Results are appended to the file: a stopped run goes on.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutations import Change, picked
from source import ROOT

LEFT_OUT = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "build", "walras-out", "*.egg-info")
TESTS_OF = {"cli": "edge"}
"""Folders whose tests have another name."""


def tests_of(room: str, template: str, folder: Path) -> list[str]:
    """Fill the folder's name into the template and keep the paths that exist."""
    room = TESTS_OF.get(room, room)
    paths = [
        part for word in template.split() for part in (word.format(room=room), f"{word.format(room='test_' + room)}.py")
    ]
    return list(dict.fromkeys(path for path in paths if (folder / path).exists()))


def run_tests(folder: Path, paths: list[str], flags: argparse.Namespace) -> dict:
    """Run the tests of some paths until the first failure."""
    seconds, without = flags.timeout, [f"--deselect={name}" for name in flags.without]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *without, *paths]
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"outcome": "caught", "by": "it did not end", "seconds": seconds}
    if done.returncode not in (0, 1, 2, 3):
        raise SystemExit(
            f"pytest could not run {' '.join(paths) or 'the suite'}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    by = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    outcome = "caught" if done.returncode else "survived"
    return {"outcome": outcome, "by": by[:200], "seconds": round(time.monotonic() - started, 1)}


class Results:
    """The file of results, one JSON object a line, and what it holds already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = {result["id"]: result for result in map(json.loads, lines)}

    def keep(self, key: str, result: dict) -> dict:
        """Append a result and return it."""
        self.known[key] = {"id": key, **result}
        with self.path.open("a") as out:
            out.write(json.dumps(self.known[key]) + "\n")
        return self.known[key]

    def summary(self) -> str:
        """Count what was caught."""
        outcomes = [result["outcome"] for result in self.known.values() if "diff" in result]
        survived = outcomes.count("survived")
        return f"{len(outcomes) - survived} of {len(outcomes)} changes were caught, {survived} survived"


def require_passing(paths: list[str], folder: Path, flags: argparse.Namespace, results: Results) -> None:
    """Stop where the tests fail without any change; each path is run once."""
    for path in paths:
        key = " ".join(["unchanged:", path, *(f"without {name}" for name in flags.without)])
        result = results.known.get(key) or results.keep(key, run_tests(folder, [path], flags))
        if result["outcome"] != "survived":
            raise SystemExit(f"these tests fail without any change: {path} ({result['by']})")


def tried(change: Change, folder: Path, flags: argparse.Namespace, results: Results) -> dict:
    """Put one change into the copy, run the tests, and take it out again."""
    paths = tests_of(change.room, flags.tests, folder)
    require_passing(paths, folder, flags, results)
    target = folder / "src" / "walras" / change.path
    before = target.read_bytes()
    target.write_bytes(change.apply(before))
    try:
        result = run_tests(folder, paths, flags)
        if result["outcome"] == "survived" and flags.whole:
            result = run_tests(folder, [], flags)
    finally:
        target.write_bytes(before)
    return {"path": change.path, "line": change.line, "diff": change.diff(), "tests": paths, **result}


def read_flags() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30, help="lines to change")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same lines")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"), help="file of results")
    parser.add_argument("--tests", default="tests/{room} tests/golden tests/contract", help="tests of a folder")
    parser.add_argument("--whole", action="store_true", help="run the whole suite where these tests notice nothing")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that one run of tests may take")
    parser.add_argument("--without", action="append", default=[], help="test to leave out, once for each")
    parser.add_argument("--list", action="store_true", help="only show the changes")
    return parser.parse_args()


def main() -> None:
    """Try the changes that the file of results does not have yet."""
    flags = read_flags()
    changes = picked(flags.count, flags.seed)
    if flags.list:
        print("\n".join(change.diff() for change in changes))
        return
    results = Results(flags.out)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkout"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for change in changes:
            key = hashlib.sha256(change.diff().encode()).hexdigest()[:16]
            result = results.known.get(key) or results.keep(key, tried(change, folder, flags, results))
            print(f"{result['outcome']} ({result['seconds']} s) {result['by']}\n{result['diff']}", flush=True)
    print(results.summary())


if __name__ == "__main__":
    main()
