"""Own the parts of a long measurement: run one after the other, and read where they are in a folder already.

EDGE: disk. Each part is written aside and renamed as soon as it is there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from walras.errors import InputError

Part = Callable[[], Any]
"""Measures something and returns what JSON can hold."""


def run_parts(
    parts: Mapping[str, Part],
    folder: Path | None,
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return what each part measures, as far as it is there.

    Args:
        parts: by name; a name may begin with a heading and a colon.
        folder: where each part's figures are kept as soon as they are there; None keeps nothing.
        only: names or headings of the parts to measure now; default all.
        tell: told what is measured now.

    Raises:
        InputError: `only` names no part, or a kept part is damaged.
    """
    known = {*parts, *(name.partition(":")[0] for name in parts)}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(f"{unknown[0]} is no part of this benchmark; choose among {', '.join(sorted(known))}")
    found = {}
    for name, part in parts.items():
        kept = None if folder is None else folder / (name.replace(":", "-") + ".json")
        wanted = not only or name in only or name.partition(":")[0] in only
        if kept is not None and kept.exists():
            found[name] = _read(kept)
        elif wanted:
            tell(name)
            found[name] = part()
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                aside = kept.with_name(kept.name + ".part")
                aside.write_text(json.dumps(found[name], indent=1) + "\n")
                aside.replace(kept)
    return found


def _read(kept: Path) -> Any:
    """Read a kept part; every one is an object or a list with something in it."""
    found = read_json(kept, "delete it to have that part measured again")
    if not found:
        raise InputError(f"{kept} holds nothing; delete it to have that part measured again")
    return found


def read_json(path: Path, remedy: str) -> Any:
    """Read a file of figures.

    Args:
        path: the file.
        remedy: what to do where it is damaged.

    Raises:
        InputError: it is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {remedy}") from None


def under(found: Mapping[str, Any], heading: str) -> dict[str, Any]:
    """Return the parts of a heading by the rest of their names."""
    return {name.partition(":")[2]: each for name, each in found.items() if name.partition(":")[0] == heading}
