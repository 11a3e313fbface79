"""From dates to weeks, and from rows to dense [week, agent] arrays.

A week is named by its first day. A table whose dates all fall on one weekday is weekly; any other is daily, and its
rows are summed to weeks that end with the last recorded day.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float

from walras.data.panel import DAYS_PER_WEEK
from walras.errors import WEEKDAYS, FailFast, plural

MOST_WEEKS = 2_600
"""Fifty years: a longer span means a mistyped year."""
MONDAY_OF_DAY_0 = 3
"""1970-01-01 was a Thursday, three days after a Monday."""
FEWEST_MONTHS = 3


@dataclass(frozen=True)
class WeekGrid:
    """The weeks of a table, and the week of each row.

    Attributes:
        first_day: first day of the first week [days since 1970].
        n_weeks: weeks of history.
        week: week of each row, counted from the first; rows of a forecast lie at `n_weeks` and beyond [row].
        daily: rows of one week have to be summed.
        used: the row counts (not in the incomplete first week of a daily table) [row].
    """

    first_day: int
    n_weeks: int
    week: np.ndarray
    daily: bool
    used: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Date the first day of each week (`datetime64[D]`) [week]."""
        return (self.first_day + DAYS_PER_WEEK * np.arange(self.n_weeks)).astype("datetime64[D]")


Days = TypeVar("Days", int, np.ndarray)


def weekday(day: Days) -> Days:
    """Count the days since Monday."""
    return (day + MONDAY_OF_DAY_0) % DAYS_PER_WEEK


def format_date(day: int | np.integer) -> str:
    """Write a day as an ISO date."""
    return str(np.datetime64(int(day), "D"))


def to_weekly(day: np.ndarray, is_history: np.ndarray, table: str, findings: FailFast) -> WeekGrid | None:
    """Choose the weeks of a table and place every row.

    Args:
        day: days since 1970 [row].
        is_history: the row records units (the others are a forecast) [row].
        table: name of the table in sentences.
        findings: takes notes of what was summed and dropped.
    """
    known = np.unique(day[is_history])
    if int(known[-1] - known[0]) > MOST_WEEKS * DAYS_PER_WEEK:
        usual = np.median(known)
        odd = known[0] if usual - known[0] > known[-1] - usual else known[-1]
        row = int(np.flatnonzero(is_history & (day == odd))[0]) + 1
        findings.problem(
            f"`ds` of {table} runs from {format_date(known[0])} to {format_date(known[-1])}, more than fifty years; "
            f"correct the date {format_date(odd)} in data row {row}"
        )
        return None
    if _monthly(known):
        some = f"{format_date(known[0])}, {format_date(known[1])}, ..."
        findings.problem(f"`ds` of {table} has one date per month ({some}); give weeks or days")
        return None
    share = np.bincount(weekday(day[is_history]), minlength=DAYS_PER_WEEK) / is_history.sum()
    return _weekly(day, known) if share.max() == 1.0 else _daily(day, known, share, findings)


def _weekly(day: np.ndarray, known: np.ndarray) -> WeekGrid:
    first = int(known[0])
    count = int(known[-1] - first) // DAYS_PER_WEEK + 1
    return WeekGrid(first, count, (day - first) // DAYS_PER_WEEK, False, np.ones(day.size, dtype=bool))


def _daily(day: np.ndarray, known: np.ndarray, share: np.ndarray, findings: FailFast) -> WeekGrid:
    """Count weeks backwards from the last recorded day, so that the last week is complete."""
    end, begin = int(known[-1]) + 1, int(known[0])
    count = -(-(end - begin) // DAYS_PER_WEEK)
    missing = count * DAYS_PER_WEEK - (end - begin)
    if missing and count > 1:
        count -= 1
    first = end - count * DAYS_PER_WEEK
    week = (day - first) // DAYS_PER_WEEK
    often = [index for index in np.argsort(-share, kind="stable")[:3] if share[index] > 0]
    common = ", ".join(f"{WEEKDAYS[index]} {share[index]:.0%}" for index in often)
    findings.note(
        f"dates fall on several weekdays ({common}), so rows were read as daily records and summed to weeks that start "
        f"on {WEEKDAYS[weekday(first)]}, the last week ending {format_date(end - 1)}."
    )
    dropped = int((week < 0).sum())
    if dropped:
        findings.note(
            f"the first {DAYS_PER_WEEK - missing} days ({plural(dropped, 'row')}) do not fill a week and were dropped."
        )
    return WeekGrid(first, count, week, True, week >= 0)


def _monthly(known: np.ndarray) -> bool:
    """Detect one date per calendar month: the same day of the month, or the last one."""
    dates = known.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    if known.size < FEWEST_MONTHS or np.unique(months).size != known.size:
        return False
    of_month = (dates - months.astype("datetime64[D]")).astype(int)
    is_last = (dates + 1).astype("datetime64[M]") != months
    return bool((of_month == of_month[0]).all() or is_last.all())


LEAST_WEIGHT = 1e-9
"""Weight of a day without sales, which matters where nothing was sold all week [units]."""


@dataclass(frozen=True)
class OneRowPerCell:
    """Dense values of a weekly table: each cell has at most one row.

    Attributes:
        row_of_cell: row of each cell, -1 where there is none [week agent].
    """

    row_of_cell: np.ndarray

    @property
    def recorded(self) -> Bool[np.ndarray, "week agent"]:
        """Mark the cells that have a row."""
        return self.row_of_cell >= 0

    def total(self, values: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Take the value of the only row; NaN where there is none."""
        return np.where(self.row_of_cell >= 0, values[self.row_of_cell], np.nan)

    def average(self, values: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Take the value of the only row."""
        return self.total(values)

    latest = total


@dataclass(frozen=True)
class SummedRows:
    """Dense values of a daily table: a cell has any number of rows.

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
        """Sum the days of a week; NaN where no row has a value."""
        known = np.isfinite(values)
        return np.where(self._count(known) > 0, self._sum(np.where(known, values, 0.0)), np.nan)

    def average(self, values: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Average the days of a week, weighted; NaN where no row has a value."""
        weight = np.where(np.isfinite(values), np.nan_to_num(weights) + LEAST_WEIGHT, 0.0)
        in_all = self._sum(weight)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._sum(np.where(weight > 0, values, 0.0) * weight) / in_all

    def latest(self, values: np.ndarray) -> Float[np.ndarray, "week agent"]:
        """Take the last recorded value; NaN where there is none."""
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


def latest_per_agent(
    values: np.ndarray, agent: np.ndarray, order: np.ndarray, agents: int
) -> Float[np.ndarray, " agent"]:
    """Take each agent's last recorded value; NaN where there is none.

    Args:
        values: NaN where empty [row].
        agent: agent of each row.
        order: rows in the order of their dates.
        agents: how many agents there are.
    """
    rows = order[np.isfinite(values[order])]
    latest = np.full(agents, np.nan)
    latest[agent[rows]] = values[rows]
    return latest
