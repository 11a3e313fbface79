"""Own which weeks have a general retail holiday in them, and how far a week is from one.

FREE: dates by plain arithmetic; no calendar of any one country. Add a holiday beside the others.
"""

import numpy as np
from jaxtyping import Float32

from walras.data.panel import DAYS_PER_WEEK

FIXED = ((1, 1), (5, 1), (12, 25))
"""Holidays on the same day of every year (month, day): New Year, the first of May, Christmas."""

FARTHEST = 8
"""Weeks beyond which a holiday is as far as any other."""


def holidays_of(year: int) -> tuple[np.datetime64, ...]:
    """Return the holidays of a year: the fixed ones, Easter Sunday and Black Friday.

    Args:
        year: of the Gregorian calendar.
    """
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
        Weeks since the last holiday and weeks to the next, over `FARTHEST`, at most 1.
    """
    first = first.astype("datetime64[D]")
    years = [int(str(day.astype("datetime64[Y]"))) for day in (first, first + DAYS_PER_WEEK * weeks)]
    days = np.array([day for year in range(years[0] - 1, years[1] + 2) for day in holidays_of(year)])
    at = np.unique((days - first).astype(int) // DAYS_PER_WEEK)
    each = np.arange(weeks)
    since = each - at[np.searchsorted(at, each, side="right") - 1]
    until = at[np.searchsorted(at, each, side="left")] - each
    return (np.minimum(np.stack([since, until], axis=1), FARTHEST) / FARTHEST).astype(np.float32)
