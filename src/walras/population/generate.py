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

LAST_WEEK = np.datetime64("2024-08-26", "D")  # a Monday before the season, so that a 26-week plan has the peak in it
FEWEST_WEEKS = 8

# Log standard deviations are below and above the median.
MEAN_MEDIAN, MEAN_LOG_SDS = 7.4, (2.45, 1.72)  # mean demand while on sale [units/week]
LUMPY_SHARE = 0.68  # of products: they sell in occasional orders of many units, the rest sell unit by unit
# Customer orders per week of a lumpy product: ORDERS_AT_ONE * mean ** ORDERS_POWER (fits the shares of zero weeks).
ORDERS_AT_ONE, ORDERS_POWER = 0.22, 0.62
ORDER_SIZE_LOG_SD = 1.0
SMOOTH_DISPERSION = 0.08  # a smooth product's week has variance mean + dispersion * mean ** 2 (negative binomial)
LEVEL_LOG_SD, LEVEL_MEMORY = 0.25, 0.9
COMMON_LOG_SD = 0.10
LATE_LAUNCHES, LAUNCHED_BY = 0.3, 0.8  # share of products launched within the history, and of it by which all are
ENDED, ENDED_FROM = 0.15, 0.4  # share whose demand ends within the history, and of it from which that happens

PRICE_MEDIAN, PRICE_LOG_SDS = 2.2, (1.007, 0.967)
PRICE_AGAINST_MEAN = -0.33  # correlation of log price and log mean demand
PRICE_CHANGES_PER_WEEK, PRICE_CHANGE_LOG_SD = 2 / 52, 0.03
FILL_RATE_SHAPE = 24.0  # vendors' usual fill rates are beta distributed with shapes 24 and 1; mean 0.96
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class Season:
    """Seasonal profile of one category: a bump on a flat base."""

    name: str
    share: float  # of the products
    peak: float  # day of the year of the bump's top
    width: float  # its standard deviation [days]
    height: float  # its top above the base, as a multiple of the base

    def bump(self, day: np.ndarray) -> np.ndarray:
        """Return demand on days of the year, as a multiple of the base."""
        away = (day - self.peak + DAYS_PER_YEAR / 2) % DAYS_PER_YEAR - DAYS_PER_YEAR / 2
        return 1.0 + self.height * np.exp(-0.5 * (away / self.width) ** 2)


WeekAgentMask = Bool[np.ndarray, "week agent"]

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
    """Generate a product table with every field a plan needs; its provenance says "generated".

    Args:
        agents: products.
        weeks: history [weeks].
        seed: another seed gives another shop.
        last_week: first day of the last week of the history.
    """
    if agents < 1:
        raise SettingsError(f"the number of products is {agents} but needs to be at least 1; give e.g. 2000")
    if weeks < FEWEST_WEEKS:
        raise SettingsError(f"the history has {weeks} weeks but needs at least {FEWEST_WEEKS}; give e.g. 120")
    rng = np.random.default_rng(seed)
    names = np.char.add("P", np.char.zfill((np.arange(agents) + 1).astype(np.str_), max(5, len(str(agents)))))
    starts = last_week.astype("datetime64[D]") - DAYS_PER_WEEK * np.arange(weeks - 1, -1, -1)
    category = rng.choice(len(SEASONS), size=agents, p=[season.share for season in SEASONS])
    score = rng.standard_normal(agents)
    mean = two_piece(MEAN_MEDIAN, MEAN_LOG_SDS, score)
    on_sale, not_ended = _life(rng, weeks, agents)
    expected = on_sale * not_ended * mean * _season(starts, category) * _levels(rng, weeks, agents)
    price_score = PRICE_AGAINST_MEAN * score + np.sqrt(1 - PRICE_AGAINST_MEAN**2) * rng.standard_normal(agents)
    list_price = two_piece(PRICE_MEDIAN, PRICE_LOG_SDS, price_score)
    vendor = vendor_labels(names, seed)
    fields = {
        "units": _demand(rng, expected, mean),
        "price": list_price * _price_factors(rng, weeks, agents),
        "unit_cost": np.tile(list_price * (1.0 - gross_margins(names, seed)), (weeks, 1)),
        "lead_time": lead_times(names, vendor, seed),
        "volume": np.exp(VOLUME_LOG_SD * keyed_normal(names, "volume", seed)),
        "fill_rate": keyed_uniform(vendor, "fill rate", seed) ** (1 / FILL_RATE_SHAPE),
        "vendor": vendor,
        "category": np.array([season.name for season in SEASONS])[category],
    }
    words = f"generated: embedded default population, seed {seed}"
    return Panel(agents=names, weeks=starts, on_sale=on_sale, provenance=dict.fromkeys(fields, words), **fields)


def two_piece(median: float, log_sds: tuple[float, float], score: np.ndarray) -> np.ndarray:
    """Turn standard normal scores into a lognormal with one spread below and one above its median."""
    return median * np.exp(score * np.where(score < 0, *log_sds))


def _life(rng: np.random.Generator, weeks: int, agents: int) -> tuple[WeekAgentMask, WeekAgentMask]:
    """Mark the weeks from each product's launch, and those before its demand ends.

    Most products launch before the history begins. Where demand ends, zero weeks stay in the table, as in real ones.
    """
    late = rng.random(agents) < LATE_LAUNCHES
    launch = np.where(late, np.floor(rng.random(agents) * LAUNCHED_BY * weeks), 0)
    ended = rng.random(agents) < ENDED
    end = np.where(ended, np.floor((ENDED_FROM + (1 - ENDED_FROM) * rng.random(agents)) * weeks), weeks)
    week = np.arange(weeks)[:, None]
    return week >= launch, week < end


def _season(starts: np.ndarray, category: np.ndarray) -> Float[np.ndarray, "week agent"]:
    """Return each product's seasonal factor, with mean 1 over a year; the week of Christmas Day is closed."""
    middle = starts + DAYS_PER_WEEK // 2
    of_year = (middle - middle.astype("datetime64[Y]").astype("datetime64[D]")).astype(float)
    year = np.arange(DAYS_PER_YEAR)
    factors = np.stack([season.bump(of_year) / season.bump(year).mean() for season in SEASONS], axis=1)
    return np.where(closed_weeks(starts)[:, None], 0.0, factors)[:, category]


def closed_weeks(starts: np.ndarray) -> Bool[np.ndarray, " week"]:
    """Mark the weeks that contain 25 December, which is in the year of their first day."""
    christmas = (starts.astype("datetime64[Y]") + 1).astype("datetime64[D]") - 7
    return (starts <= christmas) & (christmas < starts + DAYS_PER_WEEK)


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
    units = np.empty_like(expected)
    # A Poisson number of orders, the spread of their summed sizes matched by one lognormal.
    size = 1.0 / np.minimum(ORDERS_AT_ONE * mean ** (ORDERS_POWER - 1.0), 1.0)[lumpy]
    orders = rng.poisson(expected[:, lumpy] / size)
    log_variance = np.log1p(np.expm1(ORDER_SIZE_LOG_SD**2) / np.maximum(orders, 1))
    spread = np.exp(np.sqrt(log_variance) * rng.standard_normal(orders.shape) - 0.5 * log_variance)
    units[:, lumpy] = np.where(orders > 0, np.maximum(orders, np.rint(orders * size * spread)), 0.0)
    rate = rng.gamma(1 / SMOOTH_DISPERSION, SMOOTH_DISPERSION, size=(len(expected), int((~lumpy).sum())))
    units[:, ~lumpy] = rng.poisson(expected[:, ~lumpy] * rate)
    return units


def _price_factors(rng: np.random.Generator, weeks: int, agents: int) -> Float[np.ndarray, "week agent"]:
    """Change prices twice a year or so, by a few percent."""
    changes = rng.random((weeks, agents)) < PRICE_CHANGES_PER_WEEK
    return np.exp(np.cumsum(changes * PRICE_CHANGE_LOG_SD * rng.standard_normal((weeks, agents)), axis=0))
