"""Own running a study: part by part, each kept as soon as it is there, so that a stopped run goes on.

EDGE: disk and clock. Parts of other settings or sizes are kept apart.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lab.checkpointed_parts import run_parts
from lab.datasets import available
from lab.provenance import commit, machine
from lab.study import Study, find_study
from walras.errors import InputError


@dataclass(frozen=True)
class Context:
    """Hold what a study's code is told.

    Attributes:
        size: "smoke", "small" or "full".
        settings: of that size.
        data: folder of real tables; None where there is none.
        tell: told what is measured now.
        folder: where studies keep what takes long to make, worlds and trainings, which they share.
    """

    size: str
    settings: Mapping[str, Any]
    data: Path | None = None
    tell: Callable[[str], None] = field(default=lambda _: None)
    folder: Path = Path()


@dataclass(frozen=True)
class Result:
    """Hold what a study found.

    Attributes:
        facts: what is recorded: figures, answer, size, data, commits, date, machine, seconds.
        pictures: file name -> what draws it to a path.
        waiting: parts that are still to be measured.
    """

    facts: Mapping[str, Any]
    pictures: Mapping[str, Callable[[Path], None]]
    waiting: tuple[str, ...]


def run_study(
    study: Study,
    studies: list[Study],
    size: str,
    folder: Path,
    *,
    data: Path | None = None,
    minutes: float = float("inf"),
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Measure what is not measured yet, and put the answer together.

    Args:
        study: which.
        studies: all of them; a study may look at parts that another measures.
        size: "smoke", "small" or "full".
        folder: where parts are kept; other settings or sizes have other folders in it. Whoever puts other tables of the
            same names into `data` needs another one.
        data: folder of real tables.
        minutes: no part is begun later than so many minutes after the start.
        tell: told what is measured now.
    """
    measuring = find_study(str(study.file.measured_by), studies) if study.file.measured_by else study
    settings = measuring.settings(size)
    context = Context(size, settings, data, tell, folder)
    parts = measuring.code.parts(context)
    kept = folder / measuring.name / f"{size}-{settings_hash(settings)}"
    until = time.monotonic() + 60 * minutes
    for name in settings.get("data", ()):
        if name not in available([name], data):
            tell(f"no table {name} is at hand, so its parts are left out; name a folder that holds it with --data")
    found: dict[str, Any] = {}
    for name, part in parts.items():
        if time.monotonic() < until or (kept / f"{name.replace(':', '-')}.json").exists():
            found |= run_parts({name: partial(_measured, part)}, kept, (), tell)
    waiting = tuple(name for name in parts if name not in found)
    broken = [name for name, each in found.items() if not isinstance(each, dict) or "found" not in each]
    if broken:
        raise InputError(f"the part {broken[0]} in {kept} is damaged; delete it to have it measured again")
    facts, pictures = _answered(study, context, found, waiting)
    return Result(facts, pictures, waiting)


def _measured(part: Callable[[], object]) -> dict[str, Any]:
    started = time.perf_counter()
    found = part()
    return {"found": found, "seconds": time.perf_counter() - started, "commit": commit(), **machine()}


def _answered(
    study: Study, context: Context, found: Mapping[str, Any], waiting: tuple[str, ...]
) -> tuple[dict[str, Any], Mapping[str, Callable[[Path], None]]]:
    """Return facts and pictures; without any part there is nothing to say."""
    facts = {
        "study": study.number,
        "name": study.name,
        "question": study.question,
        "size": context.size,
        "complete": not waiting,
        "waiting": list(waiting),
        "data": sorted({name.partition(":")[0] for name in found}),
        "settings": dict(context.settings),
        "commits": sorted({each["commit"] for each in found.values()}),
        "date": max((each["date"] for each in found.values()), default=datetime.now(UTC).date().isoformat()),
        "machine": _machines(found),
        "seconds": sum(each["seconds"] for each in found.values()),
    }
    if not found:
        return {**facts, "answer": "nothing is measured yet", "key": [], "figures": {}}, {}
    figures = study.code.figures({name: each["found"] for name, each in found.items()}, context)
    told = {"answer": study.code.answer(figures), "key": study.code.key(figures), "figures": figures}
    return {**facts, **told}, study.code.pictures(figures)


def _machines(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return each kind of machine and versions that parts were measured with, once."""
    kinds = ("machine", "python", "jax", "device")
    different = sorted({tuple(part[kind] for kind in kinds) for part in found.values()})
    return [dict(zip(kinds, each, strict=True)) for each in different]


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Name settings by what they say, for the folder of their parts."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
