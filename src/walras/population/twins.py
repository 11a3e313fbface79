"""Own near-aggregate twins: two populations with the same totals of every attribute and another composition.

FREE: a linear program spreads the chances, systematic sampling rounds them and swaps of single agents close the rest.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.optimize import linprog

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.population.cohort import systematic
from walras.population.per_agent import per_agent, whole_count

POOL = 4
"""Agents that a pair is looked for among, for each agent of one twin; more differ more but are less like the pool."""

JITTER = 0.2
"""How much chance weighs beside the contrast, so that another seed gives another pair."""

OUTER = 0.02
"""Share of agents at either end whose contrast is drawn in, or a few of them would be all there is of its spread."""

MOST_SWAPS = 400
CANDIDATES = 300
"""Swaps of single agents at most, and agents looked at on either side of each."""


@dataclass(frozen=True, eq=False)
class Twins:
    """Hold two equally large populations that no total tells apart.

    Attributes:
        extremes: agents of the first, at both ends of the contrast, ascending.
        middle: agents of the second, around the middle of the contrast, ascending.
        difference: mean of the first minus that of the second over the pool's mean size, for each attribute.
        spread: standard deviation of the contrast in the first and in the second, over that of the pool.
    """

    extremes: Int[np.ndarray, " agent"]
    middle: Int[np.ndarray, " agent"]
    difference: Float[np.ndarray, " attribute"]
    spread: tuple[float, float]


def aggregate_twins(
    attributes: Real[np.ndarray, "agent attribute"],
    contrast: Real[np.ndarray, " agent"],
    count: int,
    random: np.random.Generator,
    *,
    tolerance: float = 0.005,
    importance: Real[np.ndarray, " agent"] | None = None,
) -> Twins:
    """Draw two populations whose attributes agree in the mean and whose contrast is spread very differently.

    Args:
        attributes: what must agree, e.g. demand, demand x margin, demand x lead time; add the contrast itself, plain
            or times demand, where its own mean must agree too.
        contrast: what must differ in spread, e.g. margin per unit.
        count: agents of each twin, at most half of the pool; no agent is twice in one twin.
        random: the same generator state gives the same pair.
        tolerance: largest difference of the means, as a share of the mean size of the attribute in the pool.
        importance: how much an agent's contrast counts, in the search and in the spread, e.g. its demand; default all
            equally.

    Raises:
        SettingsError: a count beyond half of the pool, or a tolerance of 0 or less.
        InputError, ShapeError: no numbers, or no pair within the tolerance.
    """
    columns, values, weight = _checked(attributes, contrast, importance)
    _check_settings(len(columns), count, tolerance)
    values = _drawn_in(values)
    pool = np.sort(random.choice(len(columns), size=min(POOL * count, len(columns)), replace=False))
    size = np.abs(columns).mean(axis=0)
    scaled = columns[pool] / np.where(size > 0, size, 1.0)
    everyone = _sd(values, weight)
    distance = (values - np.average(values, weights=weight)) ** 2 / (everyone**2 if everyone > 0 else 1.0)
    away = (weight * (distance + JITTER * random.uniform(size=len(weight))))[pool]
    first = _closed(_tilted(scaled, away, count, random), scaled, scaled.mean(axis=0), tolerance, random)
    second = _closed(_tilted(scaled, -away, count, random), scaled, scaled[first].mean(axis=0), tolerance, random)
    difference = scaled[first].mean(axis=0) - scaled[second].mean(axis=0)
    _check_found(difference, tolerance)
    chosen, other = pool[first], pool[second]
    spread = tuple(_sd(values[of], weight[of]) / (everyone if everyone > 0 else 1.0) for of in (chosen, other))
    return Twins(chosen, other, difference, (spread[0], spread[1]))


def _checked(
    attributes: Real[np.ndarray, "..."], contrast: Real[np.ndarray, "..."], importance: Real[np.ndarray, "..."] | None
) -> tuple[Float[np.ndarray, "agent attribute"], Float[np.ndarray, " agent"], Float[np.ndarray, " agent"]]:
    values = per_agent("contrast", contrast)
    if attributes.ndim != 2 or len(attributes) != len(values) or not attributes.shape[1]:
        needed = f"({len(values)}, attribute)"
        raise shape_mismatch("attributes", attributes.shape, needed, "give one row for every agent of `contrast`")
    columns = [per_agent(f"attributes[:, {j}]", column) for j, column in enumerate(attributes.T)]
    asked = np.ones(len(values)) if importance is None else importance
    weight = per_agent("importance", asked, len(values), lowest=0.0)
    if not weight.any():
        raise InputError("`importance` is 0 for all agents but somebody must count; leave it out to count all equally")
    return np.stack(columns, axis=1), values, weight / weight.mean()


def _check_settings(n_agents: int, count: int, tolerance: float) -> None:
    if not 2 <= whole_count("count", count) <= n_agents // 2:
        raise SettingsError(
            f"`count` is {count} but must be from 2 to half of the {n_agents} agents to draw from; ask for "
            f"{max(n_agents // 4, 2)}, or give more agents"
        )
    if not tolerance > 0.0:
        raise SettingsError(f"`tolerance` is {tolerance:g} but must be above 0; give e.g. 0.005")


def _check_found(difference: Float[np.ndarray, " attribute"], tolerance: float) -> None:
    worst = int(np.abs(difference).argmax())
    if abs(difference[worst]) > tolerance:
        raise InputError(
            f"the closest twins found differ by {abs(difference[worst]):.2g} in attribute {worst} but {tolerance:g} is "
            "the tolerance; ask for more agents, fewer attributes or a larger tolerance"
        )


def _drawn_in(values: Float[np.ndarray, " agent"]) -> Float[np.ndarray, " agent"]:
    """Draw the outermost values in to the edge of the others."""
    return np.clip(values, *np.quantile(values, (OUTER, 1.0 - OUTER)))


def _tilted(
    scaled: Float[np.ndarray, "agent attribute"],
    gain: Float[np.ndarray, " agent"],
    count: int,
    random: np.random.Generator,
) -> Bool[np.ndarray, " agent"]:
    """Draw `count` agents with most gain among all that have the pool's means: a linear program, then rounding.

    Equal chances for all are always a solution; the best one leaves no more agents to chance than there are
    equations, so that systematic rounding moves the means by a few agents only.
    """
    equations = np.vstack([np.ones(len(gain)), scaled.T])
    found = linprog(-gain, A_eq=equations, b_eq=count * equations.mean(axis=1), bounds=(0.0, 1.0), method="highs-ds")
    if found.x is None:
        raise InputError(f"no twins were found ({found.message}); give attributes of more similar sizes, or fewer")
    return systematic(np.clip(found.x, 0.0, 1.0), np.zeros(len(gain), int), random)


def _closed(
    chosen: Bool[np.ndarray, " agent"],
    scaled: Float[np.ndarray, "agent attribute"],
    target: Float[np.ndarray, " attribute"],
    tolerance: float,
    random: np.random.Generator,
) -> Bool[np.ndarray, " agent"]:
    """Swap one or two agents at a time, the best of many such swaps, until the means are on target."""
    chosen, count = chosen.copy(), int(chosen.sum())
    for _ in range(MOST_SWAPS):
        missing = count * (target - scaled[chosen].mean(axis=0))
        if np.abs(missing).max() <= tolerance * count:
            break
        out, into = (random.permutation(np.flatnonzero(side))[:CANDIDATES] for side in (chosen, ~chosen))
        out, into = _best_swap(missing, scaled, out, into)
        chosen[out], chosen[into] = False, True
    return chosen


def _best_swap(
    missing: Float[np.ndarray, " attribute"],
    scaled: Float[np.ndarray, "agent attribute"],
    out: Int[np.ndarray, " out"],
    into: Int[np.ndarray, " into"],
) -> tuple[Int[np.ndarray, " swapped"], Int[np.ndarray, " swapped"]]:
    """Return who leaves and who comes so that least is missing: one for one, two for two, or nobody."""
    pairs = min(len(out), len(into))
    gain = scaled[into[:pairs]] - scaled[out[:pairs]]
    one = ((missing + scaled[out][:, None] - scaled[into][None]) ** 2).sum(axis=-1)
    two = ((missing - gain[:, None] - gain[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(two, np.inf)  # nobody leaves twice
    if min(one.min(), two.min()) >= missing @ missing:
        return out[:0], into[:0]
    if one.min() <= two.min():
        leaving, coming = np.unravel_index(one.argmin(), one.shape)
        return out[[leaving]], into[[coming]]
    both = np.array(np.unravel_index(two.argmin(), two.shape))
    return out[both], into[both]


def _sd(values: Float[np.ndarray, " agent"], weight: Float[np.ndarray, " agent"]) -> float:
    """Return the weighted standard deviation, 0 where nobody counts."""
    shares = weight / max(float(weight.sum()), np.finfo(float).tiny)
    return float(np.sqrt(shares @ (values - shares @ values) ** 2))
