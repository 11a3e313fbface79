"""From dates to weeks, and from rows to dense [week, agent] arrays.

A week is named by its first day. A table with nearly all dates on one weekday is weekly; any other is daily, and its
rows are summed to weeks that end with the last recorded day, or start on Monday where nothing is sold on Sundays.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float

from walras.data.column_checks import row_blocks
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


def to_weekly(
    day: np.ndarray, is_history: np.ndarray, table: str, findings: FailFast, week_start: str | None = None
) -> WeekGrid | None:
    """Choose the weeks of a table and place every row.

    Args:
        day: days since 1970 [row].
        is_history: the row records units (the others are a forecast) [row].
        table: name of the table in sentences.
        findings: takes notes of what was summed and dropped.
        week_start: weekday on which weeks start; by default seen from the dates.
    """
    known, rows_of_day = np.unique(day[is_history], return_counts=True)
    if int(known[-1] - known[0]) > MOST_WEEKS * DAYS_PER_WEEK:
        usual = np.median(known)
        odd = known[0] if usual - known[0] > known[-1] - usual else known[-1]
        row = findings.row(np.flatnonzero(is_history & (day == odd))[0])
        findings.problem(
            f"`ds` of {table} runs from {format_date(known[0])} to {format_date(known[-1])}, more than fifty years; "
            f"correct the date {format_date(odd)} in data row {row}"
        )
        return None
    if has_outliers(known, rows_of_day, day, is_history, table, findings):
        return None
    periods = "a month" if _monthly(known) else _distances(known)
    if periods:
        some = f"{format_date(known[0])}, {format_date(known[1])}, ..."
        period = "one date per month" if periods == "a month" else f"periods of {periods}"
        findings.problem(
            f"`ds` of {table} has {period} ({some}), no weeks; give weeks or days, or spread each over its weeks",
            "no weeks",
            examples=[format_date(at) for at in known[:3]],
        )
        return None
    share = np.bincount(weekday(known), rows_of_day, DAYS_PER_WEEK) / rows_of_day.sum()
    usual = int(share.argmax()) if share.max() >= MOSTLY else -1
    start = WEEKDAYS.index(week_start) if week_start else usual
    if usual >= 0:
        return _weekly(day, known, is_history, usual, start, table, findings)
    if start < 0:
        start = _start_of_daily(share, int(known[-1]))
    return _daily(day, known, share, start, findings)


MOSTLY = 0.95
"""Share of rows on one weekday that makes a table a weekly one."""
YEAR = 52 * DAYS_PER_WEEK
FEW = 0.01


def has_outliers(
    known: np.ndarray, rows_of_day: np.ndarray, day: np.ndarray, is_history: np.ndarray, table: str, findings: FailFast
) -> bool:
    """Refuse a few dates that lie more than a year away from all others."""
    until = np.cumsum(rows_of_day)  # rows up to each date
    few = max(1, int(FEW * until[-1]))
    far = np.flatnonzero(np.diff(known) > YEAR)
    late = far[until[-1] - until[far] <= few]
    early = far[until[far] <= few]
    if until[-1] <= 3 or not (late.size or early.size):
        return False
    rows = np.flatnonzero(is_history & ((day > known[late[0]]) if late.size else (day <= known[early[-1]])))
    more = f" ({plural(rows.size, 'such row')} in all)" if rows.size > 1 else ""
    findings.problem(
        f"`ds` of {table} is {format_date(day[rows[0]])} in data row {findings.row(rows[0])}{more}, more than a year "
        "away from all other dates; correct the date",
        "date: outlier",
        [findings.row(row) for row in rows[:3]],
        [format_date(day[row]) for row in rows[:3]],
    )
    return True


def _distances(known: np.ndarray) -> str:
    """Describe the periods of a table whose dates are two weeks or more apart; empty for weeks and days."""
    steps = np.diff(known)
    if steps.size < 2 or np.median(steps) <= DAYS_PER_WEEK or (steps <= DAYS_PER_WEEK).mean() > 0.1:
        return ""
    weeks = sorted({f"{step / DAYS_PER_WEEK:g}" for step in steps.tolist()}, key=float)
    return f"{' and '.join(weeks[:3])} weeks" if len(weeks) <= 3 else ""


def _start_of_daily(share: np.ndarray, last: int) -> int:
    """Start weeks on Monday where nothing is sold on Sundays; otherwise let them end with the last date."""
    closed_on_sunday = share[-1] == 0 and (share[:5] > 0).all()
    return 0 if closed_on_sunday else int(weekday(last + 1))


def _weekly(
    day: np.ndarray, known: np.ndarray, is_history: np.ndarray, usual: int, start: int, table: str, findings: FailFast
) -> WeekGrid:
    """Number the weeks; rows on another weekday than the usual one go into the week that they lie in."""
    stray = np.flatnonzero(is_history & (weekday(day) != usual))
    if stray.size:
        first = stray[0]
        findings.note(
            f"{plural(stray.size, 'row')} of {table} not on a {WEEKDAYS[usual]} (first {format_date(day[first])} in "
            f"data row {findings.row(first)}) went into the week that holds the date.",
            "stray weekday",
            [findings.row(row) for row in stray[:3]],
            [format_date(day[row]) for row in stray[:3]],
        )
    first_day = int(known[0]) - (int(weekday(int(known[0]))) - start) % DAYS_PER_WEEK
    count = int(known[-1] - first_day) // DAYS_PER_WEEK + 1
    findings.read_as["week start"] = WEEKDAYS[start]
    return WeekGrid(first_day, count, (day - first_day) // DAYS_PER_WEEK, False, np.ones(day.size, dtype=bool))


def _daily(day: np.ndarray, known: np.ndarray, share: np.ndarray, start: int, findings: FailFast) -> WeekGrid:
    """Sum days to whole weeks; what lies before the first and after the last whole week is dropped."""
    begin, last = int(known[0]), int(known[-1])
    ahead = 1  # days after the last date on which nothing is ever recorded belong to its week
    while weekday(last + ahead) != start and share[weekday(last + ahead)] == 0:
        ahead += 1
    first, end = begin + (start - int(weekday(begin))) % DAYS_PER_WEEK, last + ahead
    if (end - first) // DAYS_PER_WEEK < 1:  # a single week, complete or not
        first = begin - (int(weekday(begin)) - start) % DAYS_PER_WEEK
        end = first + -(-(end - first) // DAYS_PER_WEEK) * DAYS_PER_WEEK
    count = (end - first) // DAYS_PER_WEEK
    week = (day - first) // DAYS_PER_WEEK
    end = first + count * DAYS_PER_WEEK
    often = [index for index in np.argsort(-share, kind="stable")[:3] if share[index] > 0]
    common = ", ".join(f"{WEEKDAYS[index]} {share[index]:.0%}" for index in often)
    findings.note(
        f"dates fall on several weekdays ({common}), so rows were read as daily records and summed to weeks that start "
        f"on {WEEKDAYS[start]}, the last week ending {format_date(end - 1)}.",
        "daily",
    )
    findings.read_as["week start"] = WEEKDAYS[start]
    dropped, late = int((week < 0).sum()), int(((day >= end) & (day <= last)).sum())
    if dropped:
        findings.note(
            f"the first {plural(first - begin, 'day')} ({plural(dropped, 'row')}) do not fill a week and were dropped.",
            "incomplete week",
        )
    if late:
        findings.note(
            f"the last {plural(last + 1 - end, 'day')} ({plural(late, 'row')}) do not fill a week and were dropped.",
            "incomplete week",
        )
    return WeekGrid(first, count, week, True, (week >= 0) & (week < count))


def drop_incomplete_end(grid: WeekGrid, units: np.ndarray, findings: FailFast) -> WeekGrid:
    """Drop a last week with less than half of the units of each of the eight before it, unless a year ago was alike.

    Args:
        grid: the weeks.
        units: of each row; NaN in rows of a forecast [row].
    """
    counts = np.isfinite(units) & grid.used & (grid.week >= 0) & (grid.week < grid.n_weeks)
    total = np.zeros(grid.n_weeks)
    for block in row_blocks(units.size):
        total += np.bincount(grid.week[block][counts[block]], units[block][counts[block]], grid.n_weeks)
    if grid.daily or grid.n_weeks <= RECENT or total[-1] >= 0.5 * total[-RECENT - 1 : -1].min() or total[-1] < 0:
        return grid
    if total[-RECENT - 1 : -1].min() < FEWEST_UNITS:
        return grid
    year = 52
    if grid.n_weeks > year + RECENT:
        ago = total[-1 - year - 1 : -1 - year + 2].min()
        if ago < 0.6 * np.median(total[-1 - year - RECENT : -1 - year]):
            return grid
    usual = np.median(total[-RECENT - 1 : -1])
    findings.note(
        f"the last week ({format_date(grid.first_day + (grid.n_weeks - 1) * DAYS_PER_WEEK)}) has {total[-1]:,.0f} "
        f"units where {usual:,.0f} are usual, so it was taken for incomplete and dropped from the history.",
        "incomplete week",
        [findings.row(np.flatnonzero(counts & (grid.week == grid.n_weeks - 1))[0])],
    )
    return replace(grid, n_weeks=grid.n_weeks - 1, used=grid.used & (grid.week < grid.n_weeks - 1))


RECENT = 8
FEWEST_UNITS = 50
"""Weeks that an incomplete last week is compared with, and the units that each of them needs."""


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
        dense = np.full(self.row_of_cell.shape, np.nan)
        for week, rows in enumerate(self.row_of_cell):  # week by week, without a second array of the whole size
            known = rows >= 0
            dense[week, known] = values[rows[known]]
        return dense

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
