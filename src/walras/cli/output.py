"""Own what a command prints when it is done: words for people, or one JSON object for programs.

EDGE: the JSON object is the last line of stdout, and strict: what is missing or not finite is null.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one object on one line."""
    from walras.report.publish import jsonable

    print(json.dumps(jsonable(answer), allow_nan=False, ensure_ascii=True), flush=True)


def print_text(*parts: Any) -> None:
    """Print sentences and tables, folded to the width of the terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    for part in parts:
        # A pipe gets whole sentences: folding them would break what reads them line by line.
        console.print(part, markup=False, soft_wrap=isinstance(part, str) and not console.is_terminal)


def print_files(files: Iterable[Path]) -> None:
    """Say which files were written, one a line, so that a terminal does not fold a path."""
    for file in files:
        print(f"wrote {file}", flush=True)
