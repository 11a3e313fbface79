"""Own the data that studies judge on: made-up agents that no training saw, and real tables where a folder holds them.

OPEN: add a table to `TABLES`. Agents are read off the first weeks alone; what is scored comes later.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from walras.data.read import read_panel
from walras.errors import InputError
from walras.population.generate import generate_panel
from walras.train.agent_pool import AgentPool
from walras.train.history import FIRST_FORECAST

MADE_UP = "made-up"
"""Name of the agents that are drawn from a seed."""

SEED, WEEKS = 903, 190
"""Of the made-up agents; no training and no choice of settings used them."""

KNOWN_WEEKS = FIRST_FORECAST + 64
"""First weeks of a table that agents are read off."""

TABLES: Mapping[str, str] = {
    "online_retail_ii": "online_retail_ii_weekly.parquet",
    "m5": "m5_weekly_2015_2016.parquet",
}
"""Real tables by name: files in the folder of real tables."""


def available(names: Sequence[str], folder: Path | None) -> list[str]:
    """Return which of the named data are there; made-up ones always are."""
    return [name for name in names if name == MADE_UP or (folder is not None and (folder / _file(name)).exists())]


def by_table(context: Any, key: str, measured: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """Return a part for each table at hand and each value of a setting.

    Args:
        context: what a study's code is told (`studies.run.Context`).
        key: of the setting with the values.
        measured: called with the context, the table and a value.
    """
    tables, values = available(context.settings["data"], context.data), context.settings[key]
    return {f"{data}:{value}": partial(measured, context, data, value) for data in tables for value in values}


@lru_cache(maxsize=1)  # a study asks for the same world part by part
def evaluation_pool(name: str, folder: Path | None, agents: int, seed: int = SEED) -> AgentPool:
    """Return a world that no map was trained on.

    Args:
        name: `MADE_UP`, or one of `TABLES`.
        folder: of the real tables.
        agents: made up; of a table all count.
        seed: of made-up agents, and of lead times and costs that a table does not tell.

    Raises:
        InputError: no such table.
    """
    if name == MADE_UP:
        return AgentPool.from_panel(generate_panel(agents, WEEKS, seed), seed=seed, known_weeks=KNOWN_WEEKS)
    if folder is None or not (folder / _file(name)).exists():
        raise InputError(f"{name} needs {_file(name)} in the folder of real tables; name that folder with --data")
    panel = read_panel(folder / _file(name))
    known = FIRST_FORECAST + (panel.n_weeks - FIRST_FORECAST) // 2
    return AgentPool.from_panel(panel, seed=seed, known_weeks=min(known, KNOWN_WEEKS))


def _file(name: str) -> str:
    if name not in TABLES:
        raise InputError(f"{name} is no data of studies; choose among {', '.join((MADE_UP, *TABLES))}")
    return TABLES[name]
