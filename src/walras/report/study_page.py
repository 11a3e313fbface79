"""Own the page that collects the answers of all studies.

EDGE: people read it; it stands by itself, with its pictures in it.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from walras.report.html import Html, bullets, document, joined, paragraph, section
from walras.report.words import escaped
from walras.studies.study import Study

TITLE = "What the maps are worth"


def study_page(studies: Sequence[Study]) -> str:
    """Write the page: question, answer, what was published, pictures, and what measured them."""
    known = {study.name: study.recorded() for study in studies}
    answered = sum(each is not None for each in known.values())
    top = [
        Html(f"<h1>{escaped(TITLE)}</h1>"),
        paragraph(f"{answered} of {len(studies)} questions are answered.", "quiet"),
        bullets(f"{study.number:02d} {_answer(known[study.name])}" for study in studies),
    ]
    return document(TITLE, [*top, *(_study(study, known[study.name]) for study in studies)])


def _answer(known: Mapping[str, Any] | None) -> str:
    return "not run yet" if known is None else str(known["answer"])


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
