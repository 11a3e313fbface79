"""The default population: a generated shop whose statistics are those published for real data sets.

A gift wholesaler's public order lines (4,378 products, 83 weeks) give scales, lumpiness, prices and peak; a
supermarket's the margins; public purchase orders the lead times. Tests hold each constant to its source.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from walras.data.imputation import VOLUME_LOG_SD, gross_margins, keyed_normal, keyed_uniform, lead_times, vendor_labels
from walras.data.panel import DAYS_PER_WEEK, Panel
from walras.errors import SettingsError

LAST_WEEK = np.datetime64("2024-08-26", "D")
"""A Monday before the season, so that a 26-week plan has the peak in it."""
FEWEST_WEEKS = 8

MEAN_MEDIAN = 7.4
MEAN_LOG_SDS = (2.45, 1.72)
"""Mean demand while on sale [units/week]: log standard deviations below and above the median."""
LUMPY_SHARE = 0.68
"""Share of products that sell in occasional customer orders of many units; the rest sell unit by unit."""
ORDERS_AT_ONE = 0.22
ORDERS_POWER = 0.62
"""Customer orders per week of a lumpy product: ORDERS_AT_ONE * mean ** ORDERS_POWER (fits the shares of zero weeks)."""
ORDER_SIZE_LOG_SD = 1.0
SMOOTH_DISPERSION = 0.08
"""Variance of a smooth product's week is mean + dispersion * mean ** 2 (negative binomial)."""
LEVEL_LOG_SD = 0.25
LEVEL_MEMORY = 0.9
COMMON_LOG_SD = 0.10
LATE_LAUNCHES = 0.3
LAUNCHED_BY = 0.8
"""Share of products launched within the history, and the share of it by which all are launched."""
ENDED = 0.15
ENDED_FROM = 0.4
"""Share of products whose demand ends within the history, and the share of it from which that happens."""

PRICE_MEDIAN = 2.2
PRICE_LOG_SDS = (1.007, 0.967)
PRICE_AGAINST_MEAN = -0.33
"""Correlation of log price and log mean demand."""
PRICE_CHANGES_PER_WEEK = 2 / 52
PRICE_CHANGE_LOG_SD = 0.03
FILL_RATE_SHAPES = (24.0, 1.0)
"""Beta shapes of vendors' usual fill rates; mean 0.96."""
CLOSED_DAY = (12, 25)
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class Season:
    """Seasonal profile of one category: a bump on a flat base.

    Attributes:
        name: of the category.
        share: of the products.
        peak: day of the year of the bump's top.
        width: its standard deviation [days].
        height: its top above the base, as a multiple of the base.
    """

    name: str
    share: float
    peak: float
    width: float
    height: float

    def factor(self, day_of_year: np.ndarray) -> np.ndarray:
        """Return the factor on mean demand; its mean over a year is 1."""
        return self._bump(day_of_year) / self._bump(np.arange(DAYS_PER_YEAR)).mean()

    def _bump(self, day: np.ndarray) -> np.ndarray:
        away = (day - self.peak + DAYS_PER_YEAR / 2) % DAYS_PER_YEAR - DAYS_PER_YEAR / 2
        return 1.0 + self.height * np.exp(-0.5 * (away / self.width) ** 2)


SEASONS = (
    Season("gifts", 0.40, peak=330, width=24, height=3.3),
    Season("home", 0.25, peak=322, width=32, height=1.2),
    Season("party", 0.15, peak=340, width=18, height=1.8),
    Season("garden", 0.10, peak=140, width=40, height=1.5),
    Season("stationery", 0.10, peak=245, width=22, height=1.2),
)


def generate_panel(
    agents: int = 2000, weeks: int = 120, seed: int = 0, *, last_week: np.datetime64 = LAST_WEEK
) -> Panel:
    """Generate a product table with every field a plan needs.

    Args:
        agents: products.
        weeks: history [weeks].
        seed: another seed gives another shop.
        last_week: first day of the last week of the history.

    Returns:
        A panel whose provenance says "generated".
    """
    _check(agents, weeks)
    rng = np.random.default_rng(seed)
    names = np.char.add("P", np.char.zfill((np.arange(agents) + 1).astype(np.str_), max(5, len(str(agents)))))
    starts = last_week.astype("datetime64[D]") - DAYS_PER_WEEK * np.arange(weeks - 1, -1, -1)
    category = rng.choice(len(SEASONS), size=agents, p=[season.share for season in SEASONS])
    score = rng.standard_normal(agents)
    mean = two_piece(MEAN_MEDIAN, MEAN_LOG_SDS, score)
    on_sale = _on_sale(rng, weeks, agents)
    expected = on_sale * _not_ended(rng, weeks, agents) * mean * _season(starts, category) * _levels(rng, weeks, agents)
    price_score = PRICE_AGAINST_MEAN * score + np.sqrt(1 - PRICE_AGAINST_MEAN**2) * rng.standard_normal(agents)
    list_price = two_piece(PRICE_MEDIAN, PRICE_LOG_SDS, price_score)
    vendor = vendor_labels(names, seed)
    fields = {
        "units": _demand(rng, expected, mean),
        "price": list_price * _price_steps(rng, weeks, agents),
        "unit_cost": np.tile(list_price * (1.0 - gross_margins(names, seed)), (weeks, 1)),
        "lead_time": lead_times(names, vendor, seed),
        "volume": np.exp(VOLUME_LOG_SD * keyed_normal(names, "volume", seed)),
        "fill_rate": keyed_uniform(vendor, "fill rate", seed) ** (1 / FILL_RATE_SHAPES[0]),
        "vendor": vendor,
        "category": np.array([season.name for season in SEASONS])[category],
    }
    words = f"generated: embedded default population, seed {seed}"
    return Panel(agents=names, weeks=starts, on_sale=on_sale, provenance=dict.fromkeys(fields, words), **fields)


def two_piece(median: float, log_sds: tuple[float, float], score: np.ndarray) -> np.ndarray:
    """Turn standard normal scores into a lognormal with one spread below and one above its median."""
    return median * np.exp(score * np.where(score < 0, *log_sds))


def _check(agents: int, weeks: int) -> None:
    if agents < 1:
        raise SettingsError(f"the number of products is {agents} but needs to be at least 1; give e.g. 2000")
    if weeks < FEWEST_WEEKS:
        raise SettingsError(f"the history has {weeks} weeks but needs at least {FEWEST_WEEKS}; give e.g. 120")


def _on_sale(rng: np.random.Generator, weeks: int, agents: int) -> Bool[np.ndarray, "week agent"]:
    """Launch most products before the history begins, the others within it."""
    late = rng.random(agents) < LATE_LAUNCHES
    launch = np.where(late, np.floor(rng.random(agents) * LAUNCHED_BY * weeks), 0)
    return np.arange(weeks)[:, None] >= launch


def _not_ended(rng: np.random.Generator, weeks: int, agents: int) -> Bool[np.ndarray, "week agent"]:
    """Let the demand of some products end; their zero weeks stay in the table, as in real ones."""
    ended = rng.random(agents) < ENDED
    end = np.where(ended, np.floor((ENDED_FROM + (1 - ENDED_FROM) * rng.random(agents)) * weeks), weeks)
    return np.arange(weeks)[:, None] < end


def _season(starts: np.ndarray, category: np.ndarray) -> Float[np.ndarray, "week agent"]:
    """Return each product's seasonal factor; the week of Christmas Day is closed."""
    middle = starts + DAYS_PER_WEEK // 2
    of_year = (middle - middle.astype("datetime64[Y]").astype("datetime64[D]")).astype(float)
    factors = np.stack([season.factor(of_year) for season in SEASONS], axis=1)
    return np.where(closed_weeks(starts)[:, None], 0.0, factors)[:, category]


def closed_weeks(starts: np.ndarray) -> Bool[np.ndarray, " week"]:
    """Mark the weeks that contain 25 December."""
    years = (starts + DAYS_PER_WEEK - 1).astype("datetime64[Y]")
    month, day = CLOSED_DAY
    closed = (years.astype("datetime64[M]") + (month - 1)).astype("datetime64[D]") + (day - 1)
    closed = np.where(closed >= starts + DAYS_PER_WEEK, _a_year_before(closed), closed)
    return (closed >= starts) & (closed < starts + DAYS_PER_WEEK)


def _a_year_before(days: np.ndarray) -> np.ndarray:
    month, day = CLOSED_DAY
    years = days.astype("datetime64[Y]") - 1
    return (years.astype("datetime64[M]") + (month - 1)).astype("datetime64[D]") + (day - 1)


def _levels(rng: np.random.Generator, weeks: int, agents: int) -> Float[np.ndarray, "week agent"]:
    """Return AR(1) log levels per product times a common weekly shock."""
    fresh = LEVEL_LOG_SD * np.sqrt(1 - LEVEL_MEMORY**2)
    level = np.empty((weeks, agents))
    level[0] = LEVEL_LOG_SD * rng.standard_normal(agents)
    for week in range(1, weeks):
        level[week] = LEVEL_MEMORY * level[week - 1] + fresh * rng.standard_normal(agents)
    common = COMMON_LOG_SD * rng.standard_normal((weeks, 1))
    return np.exp(level + common - 0.5 * (LEVEL_LOG_SD**2 + COMMON_LOG_SD**2))


def _demand(rng: np.random.Generator, expected: np.ndarray, mean: np.ndarray) -> Float[np.ndarray, "week agent"]:
    """Draw whole units: customer orders of lognormal size for lumpy products, negative binomial for smooth ones."""
    lumpy = rng.random(mean.size) < LUMPY_SHARE
    orders_per_unit = ORDERS_AT_ONE * mean ** (ORDERS_POWER - 1.0)
    size = 1.0 / np.minimum(orders_per_unit, 1.0)
    units = np.empty_like(expected)
    units[:, lumpy] = _orders_of_many(rng, expected[:, lumpy], size[lumpy])
    rate = rng.gamma(1 / SMOOTH_DISPERSION, SMOOTH_DISPERSION, size=(len(expected), int((~lumpy).sum())))
    units[:, ~lumpy] = rng.poisson(expected[:, ~lumpy] * rate)
    return units


def _orders_of_many(rng: np.random.Generator, expected: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Sum a Poisson number of lognormal order sizes, the sum's spread matched by one lognormal."""
    orders = rng.poisson(expected / size)
    log_variance = np.log1p(np.expm1(ORDER_SIZE_LOG_SD**2) / np.maximum(orders, 1))
    spread = np.exp(np.sqrt(log_variance) * rng.standard_normal(expected.shape) - 0.5 * log_variance)
    return np.where(orders > 0, np.maximum(orders, np.rint(orders * size * spread)), 0.0)


def _price_steps(rng: np.random.Generator, weeks: int, agents: int) -> Float[np.ndarray, "week agent"]:
    """Change prices twice a year or so, by a few percent."""
    changes = rng.random((weeks, agents)) < PRICE_CHANGES_PER_WEEK
    return np.exp(np.cumsum(changes * PRICE_CHANGE_LOG_SD * rng.standard_normal((weeks, agents)), axis=0))
