"""Effects that all products share: week (level and season, a Gaussian process in logs) and age of a product.

Demand is first cut into product level x week effect x age effect by an alternating fit; the week effect is then
smoothed and predicted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from walras.exogenous.calendar import WEEKS_PER_YEAR

CONSTANT_VARIANCE = 1.0
"""Prior variance of the log level's starting point: wide enough to say nothing."""

DRIFT = 0.6 / WEEKS_PER_YEAR
"""Prior size of the yearly drift of products already on sale (log per week); told apart from season only by a year."""

UNSEEN_SEASON = 0.07
"""Size of the season (log) allowed for when the history is too short to show it: it widens the interval."""

PRIOR_CENTRE = np.log([0.010, 0.10, 0.35, 0.50])
"""Prior of the step of the level per week, the noise of a week, the season's size and its smoothness (log)."""

PRIOR_SPREAD = np.array([0.8, 0.7, 0.7, 0.3])
"""One standard deviation of the same four logarithms: short histories stay near the prior."""


@dataclass(frozen=True, eq=False)
class WeekEffect:
    """Describe the log week effect as random-walk level + smooth yearly season + weekly noise (a Gaussian process).

    Attributes:
        observed: indices of the weeks it was fitted on.
        values: their log week effects.
        step, noise: standard deviation of the level's weekly step and of a week's noise (log).
        yearly: whether the history shows a season; without one a small unseen season only widens the interval.
        season, smoothness: size (log) and smoothness of the yearly season.
    """

    observed: Int[np.ndarray, " week"]
    values: Float[np.ndarray, " week"]
    step: float
    noise: float
    yearly: bool
    season: float
    smoothness: float

    def predict(self, weeks: Int[np.ndarray, " ahead"]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean [ahead] and covariance [ahead, ahead] of level + season (log, noise left out) in `weeks`."""
        return _posterior(self, weeks)


def fit_week_effect(
    observed: Int[np.ndarray, " week"], values: Float[np.ndarray, " week"], *, season: bool
) -> WeekEffect:
    """Fit the four standard deviations by their posterior mode.

    Args:
        observed: indices of the weeks with a value.
        values: log week effects.
        season: whether the history can carry a season.
    """
    free = 4 if season else 2

    def build(logs: np.ndarray) -> WeekEffect:
        parts = np.exp(np.concatenate([logs, PRIOR_CENTRE[free:]]))
        size = float(parts[2]) if season else UNSEEN_SEASON
        return WeekEffect(observed, values, float(parts[0]), float(parts[1]), season, size, float(parts[3]))

    def loss(logs: np.ndarray) -> float:
        penalty = 0.5 * float(np.sum(((logs - PRIOR_CENTRE[:free]) / PRIOR_SPREAD[:free]) ** 2))
        return penalty - _log_likelihood(build(logs))

    if len(values) < 2:
        return build(PRIOR_CENTRE[:free])
    bounds = [(c - 4 * s, c + 4 * s) for c, s in zip(PRIOR_CENTRE[:free], PRIOR_SPREAD[:free], strict=True)]
    return build(minimize(loss, PRIOR_CENTRE[:free], method="L-BFGS-B", bounds=bounds).x)


def _kernel(effect: WeekEffect, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    origin = float(effect.observed[0]) if len(effect.observed) else 0.0
    walk = np.maximum(np.minimum(left[:, None], right[None, :]) - origin, 0.0)
    angle = np.pi * (left[:, None] - right[None, :]) / WEEKS_PER_YEAR
    yearly = np.exp(-2.0 * np.sin(angle) ** 2 / effect.smoothness**2)
    common = CONSTANT_VARIANCE + effect.step**2 * walk
    if not effect.yearly:
        return common + effect.season**2 * yearly
    drift = DRIFT**2 * np.outer(left - origin, right - origin)
    return common + effect.season**2 * yearly + drift


def _observed_factor(effect: WeekEffect) -> tuple[np.ndarray, bool]:
    gram = _kernel(effect, effect.observed, effect.observed)
    return cho_factor(gram + (effect.noise**2 + 1e-8) * np.eye(len(gram)), lower=True)


def _log_likelihood(effect: WeekEffect) -> float:
    factor = _observed_factor(effect)
    centred = effect.values - effect.values.mean()
    fit = float(centred @ cho_solve(factor, centred))
    return -0.5 * fit - float(np.log(np.diag(factor[0])).sum())


def _posterior(effect: WeekEffect, weeks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prior = _kernel(effect, weeks, weeks)
    if len(effect.values) == 0:
        return np.zeros(len(weeks)), prior - CONSTANT_VARIANCE
    factor = _observed_factor(effect)
    cross = _kernel(effect, weeks, effect.observed)
    centre = effect.values.mean()
    mean = centre + cross @ cho_solve(factor, effect.values - centre)
    return mean, prior - cross @ cho_solve(factor, cross.T)


ALTERNATIONS = 8
"""Iterations of the alternating fit; more change less than 1e-3."""

AGE_BIN = 6
"""Weeks in a bin of the age effect."""

AGE_BINS = 5
"""Bins of the age effect; the last one is for mature products."""

LAUNCH_EDGE = 4
"""A product first seen within this many weeks of the history's start may be older: it counts as mature."""

AGE_PRODUCTS = 15
"""Launched products at which the age effect is half trusted."""


AGENTS_AT_ONCE = 8192
"""Products handled together, so that arrays of weeks x products stay in the cache."""


@dataclass(frozen=True, eq=False)
class TwoWayEffects:
    """Raw effects of the alternating fit.

    Attributes:
        week: week effect, mean 1 over known weeks, 0 where nothing is known [week].
        empty: share of known weeks without any demand.
        age: demand at an age relative to a mature product [age bin].
    """

    week: Float[np.ndarray, " week"]
    empty: float
    age: Float[np.ndarray, " bin"]


def age_bins(on_sale: Bool[np.ndarray, "week agent"], weeks: Int[np.ndarray, " any"]) -> Int[np.ndarray, "any agent"]:
    """Return the age bin of each product in the weeks with these indices; the last bin is mature."""
    launch = np.where(on_sale.any(axis=0), on_sale.argmax(axis=0), len(on_sale))
    bins = np.empty((len(weeks), len(launch)), np.int8)
    for row, week in zip(bins, weeks, strict=True):
        row[:] = np.clip((week - launch) // AGE_BIN, 0, AGE_BINS - 1)
    bins[:, launch < LAUNCH_EDGE] = AGE_BINS - 1
    return bins


def fit_two_way_effects(
    units: Float[np.ndarray, "week agent"], known: Bool[np.ndarray, "week agent"], bins: Int[np.ndarray, "week agent"]
) -> TwoWayEffects:
    """Fit the three effects by alternating ratios of observed to expected demand.

    Args:
        units: demand with single spikes capped.
        known: weeks that count (on sale, after the launch week, not closed).
        bins: age bin of each product and week.
    """
    sold = np.where(known, units, np.float32(0.0)).astype(np.float32, copy=False)
    per_week, per_agent = sold.sum(axis=1, dtype=np.float64), sold.sum(axis=0, dtype=np.float64)
    parts = [known & (bins == number) for number in range(AGE_BINS)]
    per_bin = np.array([sold[part].sum(dtype=np.float64) for part in parts])
    young = int((parts[0] | parts[1]).any(axis=0).sum())
    trust = young / (young + AGE_PRODUCTS)
    seen = known.any(axis=1)
    week, age = np.ones(len(units)), np.ones(AGE_BINS)
    for _ in range(ALTERNATIONS):
        expected, levels = np.zeros(AGE_BINS), np.zeros((AGE_BINS, len(units)))
        for first in range(0, len(per_agent), AGENTS_AT_ONCE):
            block = slice(first, first + AGENTS_AT_ONCE)
            masks = [part[:, block].astype(np.float64) for part in parts]
            exposure = np.stack([week @ mask for mask in masks])
            level = per_agent[block] / np.maximum(age @ exposure, 1e-9)
            expected += exposure @ level
            levels += np.stack([mask @ level for mask in masks])
        raw = np.divide(per_bin, expected, out=np.ones(AGE_BINS), where=expected > 0)
        age = np.clip((raw / raw[-1] if raw[-1] > 0 else raw), 0.25, 4.0) ** trust
        per_level = sum(share * total for share, total in zip(age, levels, strict=True))
        week = np.divide(per_week, per_level, out=np.zeros(len(units)), where=per_level > 0)
        week /= max(float(week[seen].mean()) if seen.any() else 1.0, 1e-9)
    empty = float((per_week[seen] == 0).mean()) if seen.any() else 0.0
    return TwoWayEffects(week, empty, age)
