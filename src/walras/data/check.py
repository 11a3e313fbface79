"""Checking a table without stopping at the first problem (`walras data check`)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from walras.config import Reading
from walras.data.panel import Panel
from walras.data.plausible import check_plannable
from walras.data.read import build_panel
from walras.errors import CollectAll, Finding, WalrasError


@dataclass(frozen=True)
class TableCheck:
    """Result of checking a table.

    Attributes:
        rows: rows of the table.
        agents: products; 0 where the table could not be read.
        weeks: weeks of history, likewise.
        first_week, last_week: first days of the first and last week (ISO), or None.
        columns: our name -> the table's name, for the fields it has.
        problems: one sentence per reason to refuse the table; empty when it can be planned with.
        notes: one sentence per thing that was handled.
        findings: problems and notes with their kind, first rows, examples and remedy.
        read_as: how the file was understood: sheet, header row, encoding, delimiter, decimal mark, dates, week start.
    """

    rows: int
    agents: int
    weeks: int
    first_week: str | None
    last_week: str | None
    columns: Mapping[str, str]
    problems: list[str]
    notes: list[str]
    findings: list[Finding]
    read_as: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Tell whether the table can be planned with."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return asdict(self)


def check_table(
    source: Any, *, columns: Mapping[str, str] | None = None, static: Any = None, reading: Reading | None = None
) -> TableCheck:
    """Check a table without stopping at the first problem.

    Args:
        source: path or frame, as for `read_panel`.
        columns: our field name -> the table's column name.
        static: table with one row per product.
        reading: what the table leaves open about its own notation.
    """
    findings = CollectAll()
    panel: Panel | None = None
    try:
        panel = build_panel(source, columns, static, findings, reading)
    except WalrasError as error:  # not a table at all
        findings.problem(str(error))
    if panel is not None:
        check_plannable(panel, findings)
    return TableCheck(
        rows=findings.rows,
        agents=panel.n_agents if panel else 0,
        weeks=panel.n_weeks if panel else 0,
        first_week=str(panel.weeks[0]) if panel else None,
        last_week=str(panel.weeks[-1]) if panel else None,
        columns=dict(findings.columns),
        problems=list(findings.problems),
        notes=list(findings.notes),
        findings=list(findings.findings),
        read_as=dict(findings.read_as),
    )
