"""Own the look at a table before planning: what is in it, what would be refused and what would be handled.

EDGE: the same code as reading, told to gather problems instead of stopping at the first.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from walras.data.active import active_agents
from walras.data.findings import Gather
from walras.data.panel import Panel
from walras.data.read import build_panel
from walras.errors import WalrasError


@dataclass(frozen=True)
class TableCheck:
    """Say what a table holds.

    Attributes:
        rows: rows of the table.
        agents: products; 0 where the problems are too many to tell.
        weeks: weeks of history, likewise.
        first_week, last_week: first days of the first and last week (ISO), or None.
        columns: our name -> the table's name, for the fields found.
        problems: one sentence per reason to refuse the table; empty when it can be planned with.
        notes: one sentence per thing that was handled.
    """

    rows: int
    agents: int
    weeks: int
    first_week: str | None
    last_week: str | None
    columns: Mapping[str, str]
    problems: list[str]
    notes: list[str]

    @property
    def fine(self) -> bool:
        """Tell whether the table can be planned with."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return asdict(self)


def check_table(source: Any, *, columns: Mapping[str, str] | None = None, static: Any = None) -> TableCheck:
    """Look at a table without stopping at the first problem.

    Args:
        source: path or frame, as for `read_panel`.
        columns: our field name -> the table's column name.
        static: table with one row per product.
    """
    findings = Gather()
    panel: Panel | None = None
    try:
        panel = build_panel(source, columns, static, findings)
    except WalrasError as error:  # no table at all: nothing more to gather
        findings.problem(str(error))
    if panel is not None and not findings.problems and not active_agents(panel).any():
        findings.problem("no product sold anything in the last 26 weeks, so none would be planned; give a later table")
    return TableCheck(
        rows=findings.rows,
        agents=panel.n_agents if panel else 0,
        weeks=panel.n_weeks if panel else 0,
        first_week=str(panel.weeks[0]) if panel else None,
        last_week=str(panel.weeks[-1]) if panel else None,
        columns=dict(findings.columns),
        problems=list(findings.problems),
        notes=list(findings.notes),
    )
