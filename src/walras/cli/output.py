"""What a command prints at its end: text for people, or one strict JSON object as the last line for programs."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one object on one line; values that are missing or not finite are null."""
    from walras.report.publish import jsonable

    print(json.dumps(jsonable(answer), allow_nan=False, ensure_ascii=True), flush=True)


def print_text(*parts: Any) -> None:
    """Print sentences and tables, folded to the width of the terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    for part in parts:
        # Sentences in a pipe are not folded, so that programs can read them line by line.
        console.print(part, markup=False, soft_wrap=isinstance(part, str) and not console.is_terminal)


def print_files(files: Iterable[Path]) -> None:
    """Print the files that were written, one per line, so that a terminal does not fold a path."""
    for file in files:
        print(f"wrote {file}", flush=True)
