"""Own the weeks of the year: which past week is the same week of an earlier year, and which weeks were closed or short.

FREE: internals of the demand model; change them as long as the backtest does not get worse.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

WEEKS_PER_YEAR = 365.2425 / 7.0
"""Length of a year [weeks]; its multiples are rounded, so that Christmas stays with Christmas."""

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
class Closings:
    """Hold the weeks of the history in which the whole business was closed or short.

    Attributes:
        factor: 1 in usual weeks, 0 in closed weeks, the share of usual demand in short weeks [week].
    """

    factor: Float[np.ndarray, " week"]

    @property
    def usual(self) -> np.ndarray:
        """Mark the weeks that are neither closed nor short [week]."""
        return self.factor == 1.0

    def expected(self, weeks: Int[np.ndarray, " ahead"]) -> Float[np.ndarray, " ahead"]:
        """Repeat the closings in the weeks with these indices, by the same week of the latest earlier year seen."""
        n_weeks = len(self.factor)
        seen = [same_week_before(int(week), n_weeks) for week in weeks]
        return np.array([self.factor[week] if week >= 0 else 1.0 for week in seen])


def find_closings(total: Float[np.ndarray, " week"], sellers: Float[np.ndarray, " week"]) -> Closings:
    """Find weeks whose total demand falls far below their neighbours' in a population that sells every week.

    Args:
        total: demand of all products, single spikes capped [units per week].
        sellers: number of products that sold.
    """
    factor = np.ones(len(total))
    if len(total) == 0 or np.median(sellers) < FEWEST_SELLERS:
        return Closings(factor)
    for week in range(len(total)):
        around = np.delete(total[max(week - NEIGHBOURS, 0) : week + NEIGHBOURS + 1], min(week, NEIGHBOURS))
        usual = float(np.median(around)) if len(around) else 0.0
        share = total[week] / usual if usual > 0 else 1.0
        if share < CLOSED_BELOW:
            factor[week] = 0.0
        elif share < SHORT_BELOW:
            factor[week] = share
    return Closings(factor)
