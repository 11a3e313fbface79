"""Own the parts of which a page is made: its frame and style sheet, tiles, tables, pictures.

FREE: every text that comes in is escaped here; only `Html` is trusted.
"""

from collections.abc import Iterable, Sequence
from typing import NewType

from walras.report.formatting import escaped

Html = NewType("Html", str)
"""Text that is already safe to stand in a page."""

STYLE = """
:root{--ink:#1a1a1a;--quiet:#5c5c5c;--line:#dcdcdc;--soft:#f5f6f8;--good:#00795a;--fair:#9a6a00;--bad:#b83f00;--plan:#0072b2}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",
sans-serif}
main{max-width:880px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 2px}
h2{font-size:1.2rem;margin:2.2em 0 .5em;padding-top:.6em;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.4em 0 .3em}
p{margin:.5em 0}
.quiet,figcaption,.note{color:var(--quiet);font-size:.9rem}
.answer{border-left:6px solid var(--good);background:var(--soft);padding:12px 16px;margin:16px 0}
.answer.bad{border-color:var(--bad)}.answer.fair{border-color:var(--fair)}
.answer.good p:first-child{color:var(--good)}.answer.fair p:first-child{color:var(--fair)}
.answer.bad p:first-child{color:var(--bad)}
.answer p:first-child{font-weight:650;font-size:1.12rem;margin-top:0}
.answer p:last-child,.answer ul{margin-bottom:0}
ul{padding-left:1.2em;margin:.5em 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:10px;margin:16px 0}
.tile{border:1px solid var(--line);border-radius:6px;padding:10px 12px}
.tile b{display:block;font-size:1.35rem;line-height:1.25;font-weight:650}
.tile span{display:block;font-size:.85rem}
.tile small{display:block;color:var(--quiet);font-size:.8rem;line-height:1.35;margin-top:2px}
.tile.bad b{color:var(--bad)}.tile.fair b{color:var(--fair)}.tile.good b{color:var(--good)}
figure{margin:12px 0 20px}
figure svg{display:block;width:100%;height:auto}
.phone{display:none}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 8px;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;border-bottom:2px solid #999;vertical-align:bottom}
.n{text-align:right}td.n{white-space:nowrap}
td.d{white-space:nowrap}
tr.bad td{background:#fdf0e8}tr.bad td:last-child{color:var(--bad);font-weight:600}
.tag{display:inline-block;border-radius:3px;padding:0 6px;font-size:.8rem;background:#e6f2ee;color:#005f46;
white-space:nowrap}
.tag.assumed{background:#fdebd8;color:#8a3400}.tag.derived{background:#e8eef5;color:#1d4d7a}
dt{font-weight:600;margin-top:.6em}dd{margin:0}
details{margin:.6em 0}summary{cursor:pointer;color:var(--plan)}
@media (max-width:600px){
main{padding:14px 12px 40px}h1{font-size:1.35rem}
.wide{display:none}.phone{display:block}.x{display:none}
.tiles{grid-template-columns:1fr 1fr}.tile{padding:8px 9px}.tile b{font-size:1.15rem}
table{font-size:.82rem}th,td{padding:4px 5px}
}
@media print{
body{font-size:11pt}main{max-width:none;padding:0}
figure,.tile,.answer,tr{break-inside:avoid}h2,h3{break-after:avoid}
details>*{display:block}.answer,.tag,tr.bad td{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""


def joined(parts: Iterable[Html]) -> Html:
    """Put parts one after the other."""
    return Html("\n".join(parts))


def document(title: str, body: Iterable[Html]) -> str:
    """Frame a whole page that needs nothing from outside."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{joined(body)}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, parts: Iterable[Html]) -> Html:
    """Head a part of the page."""
    name = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    return Html(f'<section id="{escaped(name)}">\n<h2>{escaped(title)}</h2>\n{joined(parts)}\n</section>')


def heading(text: str) -> Html:
    """Head a part of a section."""
    return Html(f"<h3>{escaped(text)}</h3>")


def paragraph(text: str, kind: str = "") -> Html:
    """Write one paragraph of plain text."""
    return Html(f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>")


def bullets(items: Iterable[str]) -> Html:
    """List plain texts."""
    lines = "".join(f"<li>{escaped(item)}</li>" for item in items)
    return Html(f"<ul>{lines}</ul>") if lines else Html("")


def answer(sentences: Sequence[str], items: Sequence[str], kind: str) -> Html:
    """Set the answer apart at the top; its kind is "good", "fair" or "bad"."""
    text = joined([*(paragraph(sentence) for sentence in sentences), bullets(items)])
    return Html(f'<div class="answer {escaped(kind)}">{text}</div>')


def tiles(entries: Iterable[tuple[str, str, str, str]]) -> Html:
    """Lay out key figures: (name, value, small print, "good", "fair", "bad" or "")."""
    cells = (
        f'<div class="tile {kind}"><span>{escaped(name)}</span><b>{escaped(value)}</b>'
        f"<small>{escaped(small)}</small></div>"
        for name, value, small, kind in entries
    )
    return Html(f'<div class="tiles">{"".join(cells)}</div>')


def picture(versions: Iterable[tuple[str, str]], caption: str) -> Html:
    """Place a picture, drawn once per paper (class, svg), above its caption."""
    drawn = "".join(f'<div class="{escaped(kind)}">{svg}</div>' for kind, svg in versions)
    return Html(f"<figure>{drawn}<figcaption>{escaped(caption)}</figcaption></figure>")


def table(
    headings: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str | Html]],
    bad: Iterable[int] = (),
    safe: Iterable[int] = (),
) -> Html:
    """Lay out a table.

    Args:
        headings: (text, class) per column; class "n" is a number, "d" a date, "x" is left out on a phone.
        rows: one text per column.
        bad: rows to mark.
        safe: columns that are already `Html`.
    """
    marked, trusted = set(bad), set(safe)
    head = "".join(f'<th class="{kind}" scope="col">{escaped(text)}</th>' for text, kind in headings)
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(
            f'<td class="{kind}">{text if column in trusted else escaped(text)}</td>'
            for column, (text, (_, kind)) in enumerate(zip(row, headings, strict=True))
        )
        lines.append(f'<tr class="bad">{cells}</tr>' if index in marked else f"<tr>{cells}</tr>")
    body = "\n".join(lines)
    return Html(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def tag(text: str, kind: str) -> Html:
    """Mark a word with a colour."""
    return Html(f'<span class="tag {escaped(kind)}">{escaped(text)}</span>')


def terms(entries: Iterable[tuple[str, str]]) -> Html:
    """List words and what they mean."""
    listed = "".join(f"<dt>{escaped(word)}</dt><dd>{escaped(text)}</dd>" for word, text in entries)
    return Html(f"<dl>{listed}</dl>")


def folded(title: str, parts: Iterable[Html]) -> Html:
    """Keep details out of the way until they are asked for."""
    return Html(f"<details><summary>{escaped(title)}</summary>{joined(parts)}</details>")
