"""Own next year's real population: who is on the market in the last weeks of a table, which alone are scored.

OPEN: add a table to `TABLES`. Agents are read off the weeks before the first origin alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.eval_cases import ShiftSizes
from walras.data.panel import Panel
from walras.data.read import read_panel
from walras.errors import InputError
from walras.maps.features import HORIZON
from walras.train.agent_pool import AgentPool
from walras.train.history import FIRST_FORECAST

YEAR = 52
"""Weeks between a week of next year and the one that it is compared with."""


@dataclass(frozen=True)
class Table:
    """Name a table with enough weeks.

    Attributes:
        file: in the folder of real tables.
        horizons: last stretches of `HORIZON` weeks that are scored; all of their weeks are as recorded.
        weeks: last weeks of the table that are used; None uses all.
    """

    file: str
    horizons: int
    weeks: int | None = None


TABLES: Mapping[str, Table] = {
    "online_retail_ii": Table("online_retail_ii_weekly.parquet", 1),
    "m5": Table("m5_weekly_2011_2016_semi_synthetic.parquet", 2, FIRST_FORECAST + ShiftSizes().weeks),
}
"""Tables with more than a year; of the second one weekly sales are recorded in the last 54 weeks, monthly before."""


@dataclass(frozen=True, eq=False)
class NextYear:
    """Hold next year's population and how it came to differ.

    Attributes:
        world: everybody over all weeks.
        sizes: of cases, whose origins leave nothing but the last weeks to score.
        new: share of the scored weeks' demand that is for products without a sale in the same weeks a year earlier.
        gone: share of that earlier demand that was for products without a sale now.
        demand_ratio: mean demand of a product that sells now over that of one that sold then.
    """

    world: AgentPool
    sizes: ShiftSizes
    new: float
    gone: float
    demand_ratio: float


def there(name: str, folder: Path | None) -> bool:
    """Say whether a table is at hand that is long enough."""
    return name in TABLES and folder is not None and (folder / TABLES[name].file).exists()


def next_year(name: str, folder: Path, sizes: ShiftSizes, most_agents: int, seed: int) -> NextYear:
    """Read a table, and set its last weeks apart.

    Args:
        name: one of `TABLES`.
        folder: of the real tables.
        sizes: of the cases; their weeks and origins are those of the table.
        most_agents: products that are used, drawn at random where there are more.
        seed: of who is used, and of lead times and costs that the table does not tell.

    Raises:
        InputError: no such table.
    """
    if not there(name, folder):
        raise InputError(
            f"{name} has no next year in {folder}; choose among {', '.join(TABLES)}, in a folder with them"
        )
    table = TABLES[name]
    panel = _thinned(read_panel(folder / table.file), most_agents, seed)
    panel = panel if table.weeks is None else panel.since(panel.n_weeks - table.weeks)
    scored = table.horizons * HORIZON
    world = AgentPool.from_panel(panel, seed=seed, known_weeks=panel.n_weeks - scored)
    return NextYear(world, _fitting(sizes, world, table.horizons), *_change(panel, scored))


def _thinned(panel: Panel, most: int, seed: int) -> Panel:
    if panel.n_agents <= most:
        return panel
    return panel.take(np.sort(np.random.default_rng([seed, 0xE4]).permutation(panel.n_agents)[:most]))


def _fitting(sizes: ShiftSizes, world: AgentPool, horizons: int) -> ShiftSizes:
    """Let the last origins be so many weeks apart that nothing is scored twice."""
    return ShiftSizes(
        target=min(sizes.target, world.n_agents),
        sample=sizes.sample,
        weeks=world.n_weeks,
        origins=horizons,
        spacing=HORIZON,
        priced=min(sizes.priced, world.n_weeks // 4),
        steps=sizes.steps,
    )


def _change(panel: Panel, scored: int) -> tuple[float, float, float]:
    """Compare the scored weeks with the same ones a year earlier, as far as the table reaches back."""
    now = panel.units[-scored:]
    then = panel.units[max(panel.n_weeks - scored - YEAR, 0) : panel.n_weeks - YEAR]
    today, before = now.sum(0), then.sum(0)
    sells, sold = today > 0, before > 0
    mean_now, mean_then = now[:, sells].mean(), then[:, sold].mean()
    return (
        float(today[~sold].sum() / today.sum()),
        float(before[~sells].sum() / before.sum()),
        float(mean_now / mean_then),
    )
