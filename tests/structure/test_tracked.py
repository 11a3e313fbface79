"""Own the proof that what is stored is small and names no machine's own folders.

EDGE: reads the files that git tracks; a copy without git history is read in full.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST = 1_000_000
"""Bytes: real tables are larger, and do not belong here."""

# Written in pieces, or this file would be the first to be found.
FOLDERS = ("home", "root", "Users", "work", "mnt")
MACHINE = re.compile(rf"(?<![\w.~*-])/({'|'.join(FOLDERS)})/[\w.]|[A-Z]:\\{'Users'}")


def tracked() -> list[Path]:
    """List the files under version control."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        names = [name for name in listing.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [str(p.relative_to(ROOT)) for top in ("src", "tests", "docs") for p in (ROOT / top).rglob("*.*")]
    return [ROOT / name for name in names if (ROOT / name).is_file() and "__pycache__" not in name]


def machine_paths(text: str) -> list[str]:
    """Find paths that exist on one machine only."""
    return [match.group() for match in MACHINE.finditer(text)]


@pytest.mark.parametrize("path", tracked(), ids=lambda path: str(path.relative_to(ROOT)))
def test_stored_files_name_no_machine(path):
    assert machine_paths(path.read_text(errors="replace")) == []


def test_a_planted_path_is_found():
    for folder in FOLDERS:
        assert machine_paths(f'open("/{folder}/someone/table.csv")') != []
    within = [f"src/walras/{folder}/page.py and docs/{folder}/x, https://example.org/{folder}/x" for folder in FOLDERS]
    assert machine_paths(" ".join(within)) == []


def test_stored_files_are_small():
    assert [str(path) for path in tracked() if path.stat().st_size > LARGEST] == []
