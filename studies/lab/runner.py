"""Run a study part by part; every part is saved as soon as it is measured, so that a stopped run resumes."""

import datetime
import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

from lab.datasets import available
from lab.study import Study, find_study, read_json
from walras import __version__
from walras.errors import InputError

Part = Callable[[], Any]
"""Measures something and returns figures that JSON can hold."""

Log = Callable[[str], None]
"""Receives one line of progress."""

MACHINE_KEYS = ("machine", "python", "jax", "device")


@dataclass(frozen=True)
class Context:
    """What the code of a study is given.

    Attributes:
        size: "smoke", "small" or "full".
        settings: of that size.
        data: folder of real tables; None where there is none.
        tell: receives progress.
        folder: where studies save what takes long to make (agent pools and trained maps), shared by all studies.
    """

    size: str
    settings: Mapping[str, Any]
    data: Path | None = None
    tell: Log = field(default=lambda _: None)
    folder: Path = Path()


@dataclass(frozen=True)
class StudyResult:
    """Result of a study.

    Attributes:
        facts: what is recorded: figures, answer, size, data, commits, date, machine, seconds.
        pictures: file name -> function that draws the picture to a path.
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
    tell: Log = lambda _: None,
) -> StudyResult:
    """Measure the parts that are missing, and put the answer together."""
    measuring = find_study(str(study.file.measured_by), studies) if study.file.measured_by else study
    settings = measuring.settings(size)
    context = Context(size, settings, data, tell, folder)
    parts = measuring.code.parts(context)
    saved = folder / measuring.name / f"{size}-{settings_hash(settings)}"
    until = time.monotonic() + 60 * minutes
    for name in settings.get("data", ()):
        if name not in available([name], data):
            tell(f"there is no table {name}, so its parts are left out; give a folder that holds it with --data")
    measured: dict[str, Any] = {}
    for name, part in parts.items():
        if time.monotonic() < until or part_file(saved, name).exists():
            measured |= run_parts({name: partial(_measure, part)}, saved, (), tell)
    broken = [name for name, part in measured.items() if not isinstance(part, dict) or "found" not in part]
    if broken:
        raise InputError(f"the part {broken[0]} in {saved} is damaged; delete it to have it measured again")
    waiting = tuple(name for name in parts if name not in measured)
    facts, pictures = _evaluate(study, context, measured, waiting)
    return StudyResult(facts, pictures, waiting)


def _measure(part: Part) -> dict[str, Any]:
    started = time.perf_counter()
    found = part()
    return {"found": found, "seconds": time.perf_counter() - started, "commit": commit(), **machine()}


def _evaluate(
    study: Study, context: Context, measured: Mapping[str, Any], waiting: tuple[str, ...]
) -> tuple[dict[str, Any], Mapping[str, Callable[[Path], None]]]:
    """Return facts and pictures; without any part there is no answer."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    machines = sorted({tuple(part[key] for key in MACHINE_KEYS) for part in measured.values()})
    facts = {
        "study": study.number,
        "name": study.name,
        "question": study.question,
        "size": context.size,
        "complete": not waiting,
        "waiting": list(waiting),
        "data": sorted({name.partition(":")[0] for name in measured}),
        "settings": dict(context.settings),
        "commits": sorted({part["commit"] for part in measured.values()}),
        "date": max((part["date"] for part in measured.values()), default=today),
        "machine": [dict(zip(MACHINE_KEYS, values, strict=True)) for values in machines],
        "seconds": sum(part["seconds"] for part in measured.values()),
    }
    if not measured:
        return {**facts, "answer": "nothing is measured yet", "key": [], "figures": {}}, {}
    figures = study.code.figures({name: part["found"] for name, part in measured.items()}, context)
    outcome = {"answer": study.code.answer(figures), "key": study.code.key(figures), "figures": figures}
    return {**facts, **outcome}, study.code.pictures(figures)


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return a short digest of settings, which names the folder of their parts."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def run_parts(
    parts: Mapping[str, Part], folder: Path | None, only: Sequence[str] = (), tell: Log = lambda _: None
) -> dict[str, Any]:
    """Return the figures of each part, measured now or read where they are saved.

    Args:
        parts: by name; a name may begin with a heading and a colon.
        folder: where each part is saved as soon as it is measured; None saves nothing.
        only: names or headings of the parts to measure now; default all.
        tell: receives progress.

    Raises:
        InputError: `only` names an unknown part, or a saved part is damaged.
    """
    known = {*parts, *(name.partition(":")[0] for name in parts)}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(f"there is no part `{unknown[0]}`; choose among {', '.join(sorted(known))}")
    results = {}
    for name, part in parts.items():
        path = None if folder is None else part_file(folder, name)
        if path is not None and path.exists():
            results[name] = _read_part(path)
        elif not only or name in only or name.partition(":")[0] in only:
            tell(name)
            results[name] = part()
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(path.name + ".part")
                temporary.write_text(json.dumps(results[name], indent=1) + "\n")
                temporary.replace(path)
    return results


def part_file(folder: Path, name: str) -> Path:
    """Return the file of a part."""
    return folder / (name.replace(":", "-") + ".json")


def _read_part(path: Path) -> Any:
    """Read a saved part, an object or a list that is not empty."""
    figures = read_json(path, "delete it to have that part measured again")
    if not figures:
        raise InputError(f"{path} is empty; delete it to have that part measured again")
    return figures


def parts_under(parts: Mapping[str, Any], heading: str) -> dict[str, Any]:
    """Return the parts of a heading by the rest of their names."""
    return {name.partition(":")[2]: part for name, part in parts.items() if name.partition(":")[0] == heading}


def machine() -> dict[str, str]:
    """Return machine, versions and date of a measurement."""
    return {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
    }


def commit() -> str:
    """Return the commit of the code, with a + if tracked files have changed; without git, the version."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[2]), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "-uno", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"
