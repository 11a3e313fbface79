"""Own the page that collects the answers of all studies.

EDGE: people read it; it stands by itself, with its pictures in it.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.study import Study
from walras.report.formatting import escaped
from walras.report.html import Html, bullets, document, joined, paragraph, section, table

TITLE = "What the maps are worth"

MET = {True: "met", False: "missed", None: ""}
"""Words for whether a figure meets what is aimed at; nothing where nothing is."""

DOUBTFUL = ", doubtful"
"""Added where an interval does not say the same as its estimate."""


def study_page(studies: Sequence[Study]) -> str:
    """Write the page: question, answer, what was published, pictures, and what measured them."""
    known = {study.name: study.recorded() for study in studies}
    answered = sum(each is not None for each in known.values())
    top = [
        Html(f"<h1>{escaped(TITLE)}</h1>"),
        paragraph(f"{answered} of {len(studies)} questions are answered.", "quiet"),
        bullets(f"{study.number:02d} {study.question} {_headline(_answer(known[study.name]))}." for study in studies),
        _aims(studies, known),
    ]
    return document(TITLE, [*top, *(_study(study, known[study.name]) for study in studies)])


def _aims(studies: Sequence[Study], known: Mapping[str, Mapping[str, Any] | None]) -> Html:
    """Collect the key figures of all studies: found, with its interval, and aimed at."""
    rows = [
        [
            f"{study.number:02d}",
            row["figure"],
            row["data"],
            _found(row),
            row["aimed"],
            MET[row["met"]] + DOUBTFUL * (row.get("sure") is False),
        ]
        for study in studies
        for row in (known[study.name] or {}).get("key", ())
    ]
    met = sum(row[-1].startswith(MET[True]) for row in rows)
    words = (
        f"{met} of {len(rows)} figures meet what is aimed at by their estimate; 95 % intervals over paths, where there "
        "are several; doubtful: the interval reaches to the other side."
    )
    head = [("study", ""), ("figure", ""), ("data", ""), ("found", "n"), ("aimed at", "n"), ("", "")]
    missed = [place for place, row in enumerate(rows) if row[-1].startswith(MET[False])]
    return section("Figures", [paragraph(words, "quiet"), table(head, rows, missed)])


def _found(row: Mapping[str, Any]) -> str:
    """Return an estimate with its interval, three digits each."""
    if row["estimate"] is None:
        return "not known"
    middle = f"{row['estimate']:.3g}"
    return middle if row["low"] is None else f"{middle} [{row['low']:.3g}, {row['high']:.3g}]"


def _answer(known: Mapping[str, Any] | None) -> str:
    return "not run yet" if known is None else str(known["answer"])


def _headline(answer: str) -> str:
    """Return what an answer says first."""
    return re.split(r"[:;] |\. ", answer.rstrip("."), maxsplit=1)[0]


def _study(study: Study, known: Mapping[str, Any] | None) -> Html:
    parts = [paragraph(_answer(known))]
    if study.file.published:
        parts.append(paragraph(f"Published: {study.file.published}", "quiet"))
    if known is not None:
        parts += [_picture(path) for path in sorted(study.results.glob(f"{known['size']}-*.png"))]
        made = f"size {known['size']}; data {', '.join(known['data'])}; {known['date']}; commit "
        command = f"walras study run {study.number:02d} --size {known['size']} --json"
        parts.append(paragraph(f"{made}{', '.join(known['commits'])}; {command}", "quiet"))
    return section(f"{study.number:02d} {study.question}", parts)


def _picture(path: Path) -> Html:
    """Put a picture into the page itself."""
    data = base64.b64encode(path.read_bytes()).decode()
    name = path.stem.partition("-")[2].replace("-", " ").replace("_", " ")
    image = f'<img alt="{escaped(name)}" style="max-width:560px;width:100%" src="data:image/png;base64,{data}">'
    return joined([Html(f"<figure>{image}<figcaption>{escaped(name)}</figcaption></figure>")])
