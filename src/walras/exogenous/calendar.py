"""The weeks of the year: the same week of an earlier year, closed and short weeks, distance to holidays."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from walras.data.panel import DAYS_PER_WEEK

WEEKS_PER_YEAR = 365.2425 / 7.0
"""Length of a year [weeks]; multiples are rounded, so that Christmas stays in the week of Christmas."""

CLOSED_BELOW = 0.05
"""A week below this share of its neighbours counts as closed."""

SHORT_BELOW = 0.5
"""A week below this share of its neighbours counts as short (a holiday inside it)."""

FEWEST_SELLERS = 20
"""Below this many selling products in a usual week an empty week is chance, not a closing."""

NEIGHBOURS = 4
"""Weeks on either side that a week is compared with."""


def year_lag(years: int) -> int:
    """Return the whole weeks in `years` years (52, 104, 157, ...)."""
    return round(WEEKS_PER_YEAR * years)


def same_week_before(week: int, n_weeks: int) -> int:
    """Find the latest week of a history of `n_weeks` that is the same week of an earlier year than `week`.

    Returns:
        The index, or -1 where the history does not reach back that far.
    """
    years = 1
    while week - year_lag(years) >= n_weeks:
        years += 1
    return max(week - year_lag(years), -1)


@dataclass(frozen=True, eq=False)
class ClosedWeeks:
    """Weeks of the history in which the whole business was closed or short.

    Attributes:
        factor: 1 in usual weeks, 0 in closed weeks, the share of usual demand in short weeks [week].
    """

    factor: Float[np.ndarray, " week"]

    @property
    def usual(self) -> np.ndarray:
        """Mark the weeks that are neither closed nor short [week]."""
        return self.factor == 1.0

    def expected(self, weeks: Int[np.ndarray, " ahead"]) -> Float[np.ndarray, " ahead"]:
        """Return the factors expected in these weeks: those of the same week of the latest earlier year."""
        earlier = [same_week_before(int(week), len(self.factor)) for week in weeks]
        return np.array([self.factor[week] if week >= 0 else 1.0 for week in earlier])


def find_closed_weeks(total: Float[np.ndarray, " week"], sellers: Float[np.ndarray, " week"]) -> ClosedWeeks:
    """Find weeks whose total demand falls far below their neighbours' in a population that sells every week.

    Args:
        total: demand of all products, single spikes capped [units per week].
        sellers: number of products that sold.
    """
    factor = np.ones(len(total))
    if len(total) == 0 or np.median(sellers) < FEWEST_SELLERS:
        return ClosedWeeks(factor)
    for week in range(len(total)):
        around = np.delete(total[max(week - NEIGHBOURS, 0) : week + NEIGHBOURS + 1], min(week, NEIGHBOURS))
        usual = float(np.median(around)) if len(around) else 0.0
        share = total[week] / usual if usual > 0 else 1.0
        if share < CLOSED_BELOW:
            factor[week] = 0.0
        elif share < SHORT_BELOW:
            factor[week] = share
    return ClosedWeeks(factor)


FIXED = ((1, 1), (5, 1), (12, 25))
"""Holidays on the same day of every year (month, day): New Year, the first of May, Christmas."""

FARTHEST = 8
"""Distances to a holiday are capped here [weeks]."""


def holidays_of(year: int) -> tuple[np.datetime64, ...]:
    """Return the holidays of a Gregorian year: the fixed ones, Easter Sunday and Black Friday."""
    fixed = (np.datetime64(f"{year:04d}-{month:02d}-{day:02d}", "D") for month, day in FIXED)
    return (*fixed, easter(year), black_friday(year))


def easter(year: int) -> np.datetime64:
    """Return Easter Sunday (the anonymous Gregorian algorithm)."""
    golden, century, of_century = year % 19, year // 100, year % 100
    epact = (19 * golden + century - century // 4 - (century - (century + 8) // 25 + 1) // 3 + 15) % 30
    weekday = (32 + 2 * (century % 4) + 2 * (of_century // 4) - epact - of_century % 4) % 7
    late = (golden + 11 * epact + 22 * weekday) // 451
    month, day = divmod(epact + weekday - 7 * late + 114, 31)
    return np.datetime64(f"{year:04d}-{month:02d}-{day + 1:02d}", "D")


def black_friday(year: int) -> np.datetime64:
    """Return the day after the fourth Thursday in November."""
    first = np.datetime64(f"{year:04d}-11-01", "D")
    # Day 0 of numpy's count, 1 January 1970, was a Thursday.
    to_thursday = -int(first.astype(int)) % DAYS_PER_WEEK
    return first + to_thursday + 3 * DAYS_PER_WEEK + 1


def holiday_distance(first: np.datetime64, weeks: int) -> Float32[np.ndarray, "week 2"]:
    """Return how far each week is from the last holiday and from the next, both 0 in a week with a holiday.

    Args:
        first: first day of the first week.
        weeks: weeks that follow one another.

    Returns:
        Weeks since the last holiday and until the next, over `FARTHEST`, at most 1.
    """
    first = first.astype("datetime64[D]")
    years = [int(str(day.astype("datetime64[Y]"))) for day in (first, first + DAYS_PER_WEEK * weeks)]
    days = np.array([day for year in range(years[0] - 1, years[1] + 2) for day in holidays_of(year)])
    at = np.unique((days - first).astype(int) // DAYS_PER_WEEK)
    week = np.arange(weeks)
    since = week - at[np.searchsorted(at, week, side="right") - 1]
    until = at[np.searchsorted(at, week, side="left")] - week
    return (np.minimum(np.stack([since, until], axis=1), FARTHEST) / FARTHEST).astype(np.float32)
