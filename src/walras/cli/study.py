"""Own `walras study list`, `run` and `report`: numbered questions and what was measured of them.

EDGE: everything heavy is imported inside the commands, so that help stays quick.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from walras.cli import options
from walras.cli.output import print_files, print_json, print_text
from walras.errors import InputError

if TYPE_CHECKING:
    from lab.runner import Result
    from lab.study import Study

OUT = Path("walras-out/studies")
ALL = "all"
"""Stands for every study, one after the other."""

REAL_DATA = "WALRAS_REAL_DATA"
"""Environment variable that names the folder of real tables."""

Studies = Annotated[Path | None, Parameter(help="folder that holds the studies; default the project's own")]
Size = Annotated[Literal["smoke", "small", "full"], Parameter(help="seconds, minutes, or hours")]
Data = Annotated[Path | None, Parameter(help=f"folder of real tables; default ${REAL_DATA}, without it made-up data")]
Minutes = Annotated[float, Parameter(help="begin no part later than so many minutes after the start")]
Record = Annotated[
    bool, Parameter(negative=(), help="put the results beside the study, as those that list and report quote")
]


def list_studies(*, studies: Studies = None, as_json: options.Json = False) -> None:
    """Show all studies with question, data, date and answer."""
    from lab.study import find_studies

    rows: list[dict[str, Any]] = []
    for study in find_studies(studies):
        known = study.recorded() or {}
        told = {key: known.get(key) for key in ("answer", "size", "data", "date", "commits")}
        rows.append({"study": study.number, "name": study.name, "question": study.question, **told})
    if as_json:
        print_json({"studies": rows})
        return
    for row in rows:
        print_text(f"{row['study']:02d}  {row['question']}", f"    {row['answer'] or 'not run yet'}")
        if row["answer"]:
            print_text(f"    {row['size']}, {', '.join(row['data'])}, {row['date']}, {', '.join(row['commits'])}")


def run(
    number: Annotated[str, Parameter(help="number or name of the study, or `all`")],
    /,
    *,
    size: Size = "small",
    data: Data = None,
    minutes: Minutes = float("inf"),
    record: Record = False,
    studies: Studies = None,
    out: Annotated[Path, Parameter(name="--out", help="folder for parts and results")] = OUT,
    as_json: options.Json = False,
) -> None:
    """Run a study, or one after the other; parts that are in the folder already are read, not measured again."""
    from lab.study import find_studies, find_study

    known = find_studies(studies)
    chosen = known if number == ALL else [find_study(number, known)]
    tables = data or (Path(os.environ[REAL_DATA]) if os.environ.get(REAL_DATA) else None)
    if tables is not None and not tables.is_dir():
        raise InputError(f"{tables} is no folder but real tables are read from it; name a folder, or leave --data out")
    if not minutes >= 0:
        raise InputError(f"`--minutes` is {minutes:g} but must be 0 or more; 0 only puts together what is there")
    options.require_writable(out)
    told = [
        _one(study, known, size, tables, out, minutes=left, record=record, quiet=as_json)
        for study, left in zip(chosen, _left(minutes), strict=False)
    ]
    if as_json:
        print_json({"studies": told} if number == ALL else told[0])


def _left(minutes: float) -> Iterator[float]:
    """Yield what is left of some minutes, again and again."""
    started = time.monotonic()
    while True:
        yield max(minutes - (time.monotonic() - started) / 60, 0.0)


def _one(
    study: "Study",
    known: "list[Study]",
    size: str,
    tables: Path | None,
    out: Path,
    *,
    minutes: float,
    record: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Run a study and write what it found; where nothing is measured yet, what is recorded stays."""
    from lab.runner import run_study

    started = time.perf_counter()

    def tell(words: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {study.number:02d}  {words}", file=sys.stderr, flush=True)

    found = run_study(study, known, size, out / "parts", data=tables, minutes=minutes, tell=tell)
    files = _write(found, study.results if record else out / study.name) if found.facts["figures"] else []
    if not quiet:
        print_text(found.facts["answer"])
        if found.waiting:
            print_text(f"{len(found.waiting)} parts are still to be measured; run the same command again to go on")
        print_files(files)
    return {**found.facts, "files": [str(file) for file in files]}


def _write(found: "Result", folder: Path) -> list[Path]:
    """Write figures and pictures together; all of the new ones or none."""
    from walras.report.publish import write_all_or_nothing
    from walras.report.summary import plain

    size = found.facts["size"]
    text = json.dumps(plain(dict(found.facts)), allow_nan=False) + "\n"
    writers: dict[str, Any] = {f"{size}.json": partial(_text, text)}
    writers |= {f"{size}-{name}": draw for name, draw in found.pictures.items()}
    return write_all_or_nothing(folder, writers)


def _text(text: str, path: Path) -> None:
    path.write_text(text)


def report(
    *,
    studies: Studies = None,
    out: Annotated[Path, Parameter(name="--out", help="folder for the page")] = OUT,
    as_json: options.Json = False,
) -> None:
    """Write one page with all answers, the published figures beside ours."""
    from lab.study import find_studies
    from lab.study_page import study_page
    from walras.report.publish import write_all_or_nothing

    options.require_writable(out)
    found = find_studies(studies)
    files = write_all_or_nothing(out, {"studies.html": partial(_text, study_page(found))})
    if as_json:
        answered = sum(study.recorded() is not None for study in found)
        print_json({"studies": len(found), "answered": answered, "files": [str(file) for file in files]})
        return
    print_files(files)
