"""Data that studies evaluate on: generated agents that no training used, and real tables where a folder holds them.

Agents are described by the first weeks alone; later weeks are scored. `next_year` keeps the last weeks of a table
apart, so that the scored population is the one that is really on the market then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lab.shift_cases import ShiftSizes
from walras.data.panel import Panel
from walras.data.read import read_panel
from walras.errors import InputError
from walras.maps.features import HORIZON
from walras.population.generate import generate_panel
from walras.train.agent_pool import AgentPool
from walras.train.history import FIRST_FORECAST

GENERATED = "made-up"
"""Name of the generated data in settings and results."""

SEED, WEEKS = 903, 190
"""Of the generated agents; no training and no choice of settings used them."""

KNOWN_WEEKS = FIRST_FORECAST + 64
"""First weeks of a table, which describe the agents."""

TABLES: Mapping[str, str] = {
    "online_retail_ii": "online_retail_ii_weekly.parquet",
    "m5": "m5_weekly_2015_2016.parquet",
}
"""Real tables by name: files in the folder of real tables."""

YEAR = 52


def available(names: Sequence[str], folder: Path | None) -> list[str]:
    """Return which of the named data exist; generated data always do."""
    return [name for name in names if name == GENERATED or (folder is not None and (folder / _file(name)).exists())]


def by_table(context: Any, key: str, measure: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """Return one part for each available table and each value of a setting."""
    tables, values = available(context.settings["data"], context.data), context.settings[key]
    return {f"{data}:{value}": partial(measure, context, data, value) for data in tables for value in values}


@lru_cache(maxsize=1)  # the parts of a study use the same pool one after the other
def evaluation_pool(name: str, folder: Path | None, agents: int, seed: int = SEED) -> AgentPool:
    """Return an agent pool that no map was trained on.

    Raises:
        InputError: there is no such table.
    """
    if name == GENERATED:
        return AgentPool.from_panel(generate_panel(agents, WEEKS, seed), seed=seed, known_weeks=KNOWN_WEEKS)
    if folder is None or not (folder / _file(name)).exists():
        raise InputError(f"{name} needs {_file(name)} in the folder of real tables; name that folder with --data")
    panel = read_panel(folder / _file(name))
    known = FIRST_FORECAST + (panel.n_weeks - FIRST_FORECAST) // 2
    return AgentPool.from_panel(panel, seed=seed, known_weeks=min(known, KNOWN_WEEKS))


def _file(name: str) -> str:
    if name not in TABLES:
        raise InputError(f"studies have no data `{name}`; choose among {', '.join((GENERATED, *TABLES))}")
    return TABLES[name]


@dataclass(frozen=True)
class LongTable:
    """A table of more than a year.

    Attributes:
        file: in the folder of real tables.
        horizons: last windows of `HORIZON` weeks, which are scored; all of their weeks are as recorded.
        weeks: last weeks of the table that are used; None uses all.
    """

    file: str
    horizons: int
    weeks: int | None = None


LONG_TABLES: Mapping[str, LongTable] = {
    "online_retail_ii": LongTable("online_retail_ii_weekly.parquet", 1),
    "m5": LongTable("m5_weekly_2011_2016_semi_synthetic.parquet", 2, FIRST_FORECAST + ShiftSizes().weeks),
}
"""Of M5, weekly sales are recorded in the last 54 weeks, monthly ones before."""


@dataclass(frozen=True, eq=False)
class NextYear:
    """The population of a table's last weeks and how it differs from the year before.

    Attributes:
        agent_pool: all agents over all weeks.
        sizes: of cases whose origins leave only the last weeks to score.
        new: share of the scored weeks' demand for products without a sale in the same weeks a year earlier.
        gone: share of that earlier demand for products without a sale now.
        demand_ratio: mean demand of a product that sells now over that of one that sold then.
    """

    agent_pool: AgentPool
    sizes: ShiftSizes
    new: float
    gone: float
    demand_ratio: float


def has_next_year(name: str, folder: Path | None) -> bool:
    """Tell whether a long table of that name exists."""
    return name in LONG_TABLES and folder is not None and (folder / LONG_TABLES[name].file).exists()


def next_year(name: str, folder: Path, sizes: ShiftSizes, most_agents: int, seed: int) -> NextYear:
    """Read a long table, and set its last weeks apart.

    Raises:
        InputError: there is no such table.
    """
    if not has_next_year(name, folder):
        known = ", ".join(table.file for table in LONG_TABLES.values())
        raise InputError(f"{name} has no long table in {folder}; give a folder that holds one of {known}")
    table = LONG_TABLES[name]
    panel = read_panel(folder / table.file)
    if panel.n_agents > most_agents:
        chosen = np.random.default_rng([seed, 0xE4]).permutation(panel.n_agents)[:most_agents]
        panel = panel.take(np.sort(chosen))
    panel = panel if table.weeks is None else panel.since(panel.n_weeks - table.weeks)
    scored = table.horizons * HORIZON
    agent_pool = AgentPool.from_panel(panel, seed=seed, known_weeks=panel.n_weeks - scored)
    fitted = ShiftSizes(
        target=min(sizes.target, agent_pool.n_agents),
        sample=sizes.sample,
        weeks=agent_pool.n_weeks,
        origins=table.horizons,
        spacing=HORIZON,  # no week is scored twice
        priced=min(sizes.priced, agent_pool.n_weeks // 4),
        steps=sizes.steps,
    )
    return NextYear(agent_pool, fitted, *_change(panel, scored))


def _change(panel: Panel, scored: int) -> tuple[float, float, float]:
    """Compare the scored weeks with the same ones a year earlier, as far as the table reaches back."""
    now = panel.units[-scored:]
    then = panel.units[max(panel.n_weeks - scored - YEAR, 0) : panel.n_weeks - YEAR]
    today, before = now.sum(0), then.sum(0)
    sells, sold = today > 0, before > 0
    new, gone = today[~sold].sum() / today.sum(), before[~sells].sum() / before.sum()
    return float(new), float(gone), float(now[:, sells].mean() / then[:, sold].mean())
