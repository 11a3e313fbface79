"""Own how a picture comes into the page: drawn once per paper, matplotlib loaded only then.

FREE: internals.
"""

from collections.abc import Callable
from typing import Any

from walras.report import html
from walras.report.html import Html


def drawn(name: str, draw: Callable[[Any], Any], title: str, caption: str) -> Html:
    """Draw a picture on every paper and place it above its caption."""
    # matplotlib takes half a second to load, so only writing a page does.
    from walras.report import style

    versions = []
    with style.drawing():
        for paper in style.PAPERS:
            versions.append((paper.name, style.to_svg(draw(paper), title, f"{name}-{paper.name}")))
    return html.picture(versions, caption)


def on_any_paper(picture: Callable[..., Any], *arguments: Any) -> Callable[[Any], Any]:
    """Fix what a picture shows and leave the paper open."""
    return lambda paper: picture(*arguments, paper)
