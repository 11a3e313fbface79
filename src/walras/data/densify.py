"""Own the step from rows to dense [week, agent] arrays: one row per cell, or several rows summed.

FREE: both classes answer `recorded`, `total`, `average` and `latest`; all arrays are time-major.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

LEAST_WEIGHT = 1e-9
"""Weight of a day without sales, so that its price counts where nothing was sold all week [units]."""


@runtime_checkable
class AbstractDensify(Protocol):
    """Place the values of rows in cells."""

    @property
    def recorded(self) -> Bool[np.ndarray, "week agent"]:
        """Mark the cells that have a row."""
        ...

    def total(self, values: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Add up a flow; NaN where no row says anything."""
        ...

    def average(self, values: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Average by weight; NaN where no row says anything."""
        ...

    def latest(self, values: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Take the last recorded value; NaN where no row says anything."""
        ...


@dataclass(frozen=True)
class OneRowPerCell:
    """Place a weekly table: each cell has at most one row.

    Attributes:
        row_of_cell: row of each cell, -1 where there is none [week agent].
    """

    row_of_cell: np.ndarray

    @property
    def recorded(self) -> Bool[np.ndarray, "week agent"]:
        """Mark the cells that have a row."""
        return self.row_of_cell >= 0

    def total(self, values: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Take the value of the only row."""
        return np.where(self.row_of_cell >= 0, values[self.row_of_cell], np.nan)

    def average(self, values: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Take the value of the only row."""
        return self.total(values)

    def latest(self, values: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Take the value of the only row."""
        return self.total(values)


@dataclass(frozen=True)
class SummedRows:
    """Place a daily table: a cell has any number of rows.

    Attributes:
        key: cell of each row, week-major [row].
        order: rows in the order of their dates [row].
        shape: weeks and agents.
    """

    key: np.ndarray
    order: np.ndarray
    shape: tuple[int, int]

    @property
    def recorded(self) -> Bool[np.ndarray, "week agent"]:
        """Mark the cells that have a row."""
        return self._count(np.ones(self.key.size, dtype=bool)) > 0

    def total(self, values: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Add up the days of a week."""
        known = np.isfinite(values)
        return np.where(self._count(known) > 0, self._sum(np.where(known, values, 0.0)), np.nan)

    def average(self, values: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Average the days of a week, weighted."""
        weight = np.where(np.isfinite(values), np.nan_to_num(weights) + LEAST_WEIGHT, 0.0)
        in_all = self._sum(weight)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._sum(np.where(weight > 0, values, 0.0) * weight) / in_all

    def latest(self, values: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Take the last day that says something."""
        rows = self.order[np.isfinite(values[self.order])]
        cells = np.full(self.shape[0] * self.shape[1], np.nan)
        cells[self.key[rows]] = values[rows]
        return cells.reshape(self.shape)

    def _sum(self, weights: np.ndarray) -> np.ndarray:
        return np.bincount(self.key, weights, self.shape[0] * self.shape[1]).reshape(self.shape)

    def _count(self, mask: np.ndarray) -> np.ndarray:
        return np.bincount(self.key[mask], minlength=self.shape[0] * self.shape[1]).reshape(self.shape)


def fill_weeks(values: Float[np.ndarray, "week agent"]) -> Float[np.ndarray, "week agent"]:
    """Fill gaps with the last value before them, and those at the start with the first value after them."""
    filled = values.copy()
    for week in range(1, len(filled)):
        filled[week] = np.where(np.isnan(filled[week]), filled[week - 1], filled[week])
    for week in range(len(filled) - 2, -1, -1):
        filled[week] = np.where(np.isnan(filled[week]), filled[week + 1], filled[week])
    return filled


def last_of_each(values: np.ndarray, agent: np.ndarray, order: np.ndarray, agents: int) -> Float[np.ndarray, " agent"]:
    """Take each agent's last recorded value; NaN where there is none.

    Args:
        values: NaN where empty [row].
        agent: agent of each row.
        order: rows in the order of their dates.
        agents: how many agents there are.
    """
    rows = order[np.isfinite(values[order])]
    found = np.full(agents, np.nan)
    found[agent[rows]] = values[rows]
    return found
