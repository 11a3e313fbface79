"""`walras study list`, `run` and `report`: numbered studies of the project's source and their results."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from walras.cli import options
from walras.cli.options import print_files, print_json, print_result, print_text
from walras.errors import InputError

if TYPE_CHECKING:
    from lab.study import Study

OUT = Path("walras-out/studies")
REAL_DATA = "WALRAS_REAL_DATA"
"""Environment variable that names the folder of real tables."""

Studies = Annotated[
    Path | None, Parameter(help="folder that holds the studies (default: that of the checkout you are in)")
]
Size = Annotated[Literal["smoke", "small", "full"], Parameter(help="seconds, minutes, or hours")]
Data = Annotated[Path | None, Parameter(help=f"folder of real tables (default: ${REAL_DATA}, else generated data)")]
Minutes = Annotated[float, Parameter(help="start no part later than this many minutes after the start")]
Out = Annotated[Path, Parameter(name="--out", help="folder for parts, results and pages")]
Record = Annotated[bool, Parameter(negative=(), help="write the results beside the study, where list and report read")]


def load_studies(folder: Path | None) -> "list[Study]":
    """Import the package `lab` of a checkout, and return its studies.

    Args:
        folder: the `studies` folder of a checkout; by default that of the present folder or one above it, else the one
            that the package itself was checked out with.
    """
    here = Path.cwd()
    candidates = [above / "studies" for above in (here, *here.parents, Path(__file__).resolve().parents[3])]
    for place in ([folder] if folder else []) + candidates:
        if (place / "lab" / "study.py").is_file():
            if str(place.resolve()) not in sys.path:
                sys.path.append(str(place.resolve()))
            break
    try:
        from lab.study import find_studies
    except ModuleNotFoundError as error:
        if error.name not in ("lab", "lab.study"):
            raise
        raise InputError(
            f"studies need a checkout of the source, but {folder or here} has no `studies` with the package `lab`; "
            "go to a checkout, or give its `studies` folder with --studies"
        ) from None
    return find_studies(folder)


def list_command(*, studies: Studies = None, as_json: options.Json = False) -> None:
    """Show all studies with question, data, date and answer."""
    rows: list[dict[str, Any]] = []
    for study in load_studies(studies):
        recorded = study.recorded() or {}
        facts = {key: recorded.get(key) for key in ("answer", "size", "data", "date", "commits")}
        rows.append({"study": study.number, "name": study.name, "question": study.question, **facts})
    if as_json:
        print_json({"studies": rows})
        return
    for row in rows:
        print_text(f"{row['study']:02d}  {row['question']}", f"    {row['answer'] or 'not run yet'}")
        if row["answer"]:
            print_text(f"    {row['size']}, {', '.join(row['data'])}, {row['date']}, {', '.join(row['commits'])}")


def run_command(
    number: Annotated[str, Parameter(help="number or name of the study, or `all`")],
    /,
    *,
    size: Size = "small",
    data: Data = None,
    minutes: Minutes = float("inf"),
    record: Record = False,
    studies: Studies = None,
    out: Out = OUT,
    as_json: options.Json = False,
) -> None:
    """Run one study, or all in turn; parts that are in the folder already are read, not measured again."""
    known = load_studies(studies)
    from lab.study import find_study

    chosen = known if number == "all" else [find_study(number, known)]
    tables = data or (Path(os.environ[REAL_DATA]) if os.environ.get(REAL_DATA) else None)
    if tables is not None and not tables.is_dir():
        raise InputError(
            f"{tables} is not a folder, but real tables are read from it; name a folder, or leave --data out"
        )
    if not minutes >= 0:
        raise InputError(f"`--minutes` is {minutes:g} but must be 0 or more; with 0 only saved parts are used")
    options.require_writable(out)
    started = time.monotonic()
    facts = []
    for study in chosen:
        left = max(minutes - (time.monotonic() - started) / 60, 0.0)
        facts.append(_run_one(study, known, size, tables, out, left, record, as_json))
    if as_json:
        print_json({"studies": facts} if number == "all" else facts[0])


def _run_one(
    study: "Study",
    known: "list[Study]",
    size: str,
    tables: Path | None,
    out: Path,
    minutes: float,
    record: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Run a study and write its results; where no figure is measured yet, earlier results stay."""
    from lab.runner import run_study
    from walras.report.publish import json_writer, write_all_or_nothing

    started = time.perf_counter()

    def log(text: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {study.number:02d}  {text}", file=sys.stderr, flush=True)

    result = run_study(study, known, size, out / "parts", data=tables, minutes=minutes, tell=log)
    files: list[Path] = []
    if result.facts["figures"]:
        writers = {f"{size}.json": json_writer(result.facts, indent=None)}
        writers |= {f"{size}-{name}": draw for name, draw in result.pictures.items()}
        files = write_all_or_nothing(study.results if record else out / study.name, writers)
    if not quiet:
        print_text(result.facts["answer"])
        if result.waiting:
            print_text(f"{len(result.waiting)} parts are still to be measured; run the same command again to resume")
        print_files(files)
    return {**result.facts, "files": [str(file) for file in files]}


def report_command(
    *,
    studies: Studies = None,
    out: Out = OUT,
    as_json: options.Json = False,
) -> None:
    """Write one page with all answers beside the published figures."""
    known = load_studies(studies)
    from lab.study_page import study_page
    from walras.report.publish import text_writer, write_all_or_nothing

    options.require_writable(out)
    files = write_all_or_nothing(out, {"studies.html": text_writer(study_page(known))})
    answered = sum(study.recorded() is not None for study in known)
    print_result(as_json, {"studies": len(known), "answered": answered}, [], files)
