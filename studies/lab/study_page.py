"""The page that collects the answers of all studies; its text is `templates/study_page.html`."""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.study import Study
from walras.report.publish import render_page

MET = {True: "met", False: "missed", None: ""}
"""Whether a figure meets its target; empty where it has none."""

DOUBTFUL = ", doubtful"
"""Added where the interval reaches to the other side of the target."""


def study_page(studies: Sequence[Study]) -> str:
    """Return the page: question, answer, published figures, pictures, and how they were measured."""
    recorded = {study.name: study.recorded() for study in studies}
    rows = [
        (
            f"{study.number:02d}",
            row["figure"],
            row["data"],
            _estimate(row),
            row["aimed"],
            MET[row["met"]] + DOUBTFUL * (row.get("sure") is False),
        )
        for study in studies
        for row in (recorded[study.name] or {}).get("key", ())
    ]
    content = {
        "title": "What the maps are worth",
        "studies": [_study(study, recorded[study.name]) for study in studies],
        "rows": rows,
        "met": sum(row[-1].startswith(MET[True]) for row in rows),
        "missed": [place for place, row in enumerate(rows) if row[-1].startswith(MET[False])],
    }
    return render_page("study_page.html", content, Path(__file__).parent / "templates")


def _estimate(row: Mapping[str, Any]) -> str:
    """Write an estimate with its interval, three digits each."""
    if row["estimate"] is None:
        return "not known"
    middle = f"{row['estimate']:.3g}"
    return middle if row["low"] is None else f"{middle} [{row['low']:.3g}, {row['high']:.3g}]"


def _study(study: Study, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
    answer = "not run yet" if recorded is None else str(recorded["answer"])
    pictures = sorted(study.results.glob(f"{recorded['size']}-*.png")) if recorded else []
    return {
        "heading": f"{study.number:02d} {study.question}",
        "number": f"{study.number:02d}",
        "answer": answer,
        "headline": re.split(r"[:;] |\. ", answer.rstrip("."), maxsplit=1)[0],
        "published": study.file.published,
        "recorded": recorded,
        "pictures": [_picture(path) for path in pictures],
    }


def _picture(path: Path) -> tuple[str, str]:
    """Return a picture's name and its content in base64."""
    name = path.stem.partition("-")[2].replace("-", " ").replace("_", " ")
    return name, base64.b64encode(path.read_bytes()).decode()
