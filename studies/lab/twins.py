"""Own near-aggregate twins: two populations with the same totals of every attribute and another composition.

FREE: a linear program spreads the chances, systematic sampling rounds them and swaps of single agents close the rest.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.optimize import linprog

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.population.agent_axis import per_agent, whole_count
from walras.population.cohort import systematic

POOL = 4
"""Agents that a pair is looked for among, for each agent of one twin; more differ more but are less like the pool."""

JITTER = 0.2
"""How much chance weighs beside the contrast, so that another seed gives another pair."""

GIANT = 0.05
GIANT_LEAST = 3.0
"""An agent that alone is more than this share of a twin's total in some attribute, and more than so many mean agents,
belongs to neither: nobody else could make up for it."""

OUTER = 0.02
"""Share of agents at either end whose contrast is drawn in, or a few of them would be all there is of its spread."""

ROUNDS = 3
MOST_SWAPS = 100
CANDIDATES = 300
"""How often each twin moves towards the other, in how many swaps at most, and agents looked at for each swap."""


@dataclass(frozen=True, eq=False)
class Twins:
    """Hold two equally large populations that no total tells apart.

    Attributes:
        extremes: agents of the first, at both ends of the contrast, ascending.
        middle: agents of the second, around the middle of the contrast, ascending.
        difference: mean of the first minus that of the second, over the mean size of all, for each attribute.
        spread: standard deviation of the contrast in the first and in the second, over that of all; outliers drawn in.
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
        count: agents of each twin; nobody is twice in one twin, and few are in both up to half of all agents.
        random: the same generator state gives the same pair.
        tolerance: largest difference of the means, as a share of the attribute's mean size over all.
        importance: how much an agent's contrast counts, in the search and in the spread, e.g. its demand; default all
            equally.

    Raises:
        SettingsError: as many as there are agents or more, or a tolerance of 0 or less.
        InputError, ShapeError: no numbers, or no pair within the tolerance.
    """
    columns, values, weight = _checked(attributes, contrast, importance)
    pool = _pool(columns, count, tolerance, random)
    everyone = _sd(values, weight) or 1.0
    # 1 is the mean distance: agents beyond it make a spread, those within unmake it, the more so the more they count.
    distance = (values - np.average(values, weights=weight)) ** 2 / everyone**2 - 1.0
    gain = (weight * (distance + JITTER * random.uniform(-0.5, 0.5, len(weight))))[pool]
    first, second = _searched(columns[pool], gain, count, tolerance, random)
    difference = columns[pool[first]].mean(axis=0) - columns[pool[second]].mean(axis=0)
    _check_found(difference, tolerance)
    found = pool[first], pool[second]
    one, other = (_sd(values[index], weight[index]) / everyone for index in found)
    return Twins(*found, difference, (one, other))


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
    size = np.abs(attributes).mean(axis=0)
    scaled = np.stack(columns, axis=1) / np.where(size > 0, size, 1.0)
    return scaled, np.clip(values, *np.quantile(values, (OUTER, 1.0 - OUTER))), weight / weight.mean()


def _pool(
    columns: Float[np.ndarray, "agent attribute"], count: int, tolerance: float, random: np.random.Generator
) -> Int[np.ndarray, " pool"]:
    """Return some agents to look for twins among, without those that no other agents could make up for."""
    largest = max(GIANT * whole_count("count", count, 2), GIANT_LEAST)
    able = np.flatnonzero((np.abs(columns) <= largest).all(axis=1))
    if count >= len(able):
        raise SettingsError(
            f"`count` is {count} but must be below the {len(able)} of {len(columns)} agents that are small enough to "
            f"be exchanged; ask for {max(len(able) // POOL, 2)}, or give more agents"
        )
    if not tolerance > 0.0:
        raise SettingsError(f"`tolerance` is {tolerance:g} but must be above 0; give e.g. 0.005")
    return np.sort(random.choice(able, size=min(POOL * count, len(able)), replace=False))


def _check_found(difference: Float[np.ndarray, " attribute"], tolerance: float) -> None:
    worst = int(np.abs(difference).argmax())
    if abs(difference[worst]) > tolerance:
        raise InputError(
            f"the closest twins found differ by {abs(difference[worst]):.2g} in attribute {worst} but {tolerance:g} is "
            "the tolerance; ask for more agents, fewer attributes or a larger tolerance"
        )


def _searched(
    columns: Float[np.ndarray, "agent attribute"],
    gain: Float[np.ndarray, " agent"],
    count: int,
    tolerance: float,
    random: np.random.Generator,
) -> tuple[Bool[np.ndarray, " agent"], Bool[np.ndarray, " agent"]]:
    """Mark those of most and of least gain, each twin moved towards the other until they meet."""
    first, second = (_tilted(columns, sign * gain, count, random) for sign in (1.0, -1.0))
    first = _closed(first, columns, columns.mean(axis=0), tolerance, random)
    for _ in range(ROUNDS):
        second = _closed(second, columns, columns[first].mean(axis=0), tolerance, random)
        first = _closed(first, columns, columns[second].mean(axis=0), tolerance, random)
    return first, second


def _tilted(
    columns: Float[np.ndarray, "agent attribute"],
    gain: Float[np.ndarray, " agent"],
    count: int,
    random: np.random.Generator,
) -> Bool[np.ndarray, " agent"]:
    """Draw `count` agents with most gain among all that have the pool's means: a linear program, then rounding.

    Equal chances for all are always a solution; the best one leaves no more agents to chance than there are
    equations, so that systematic rounding moves the means by a few agents only.
    """
    equations = np.vstack([np.ones(len(gain)), columns.T])
    found = linprog(-gain, A_eq=equations, b_eq=count * equations.mean(axis=1), bounds=(0.0, 1.0), method="highs-ds")
    if found.x is None:
        raise InputError(f"no twins were found ({found.message}); give attributes of more similar sizes, or fewer")
    return systematic(np.clip(found.x, 0.0, 1.0), np.zeros(len(gain), int), random)


def _closed(
    chosen: Bool[np.ndarray, " agent"],
    columns: Float[np.ndarray, "agent attribute"],
    target: Float[np.ndarray, " attribute"],
    tolerance: float,
    random: np.random.Generator,
) -> Bool[np.ndarray, " agent"]:
    """Swap one or two agents at a time, the best of many such swaps, until the means are on target."""
    chosen, count = chosen.copy(), int(chosen.sum())
    for _ in range(MOST_SWAPS):
        missing = count * (target - columns[chosen].mean(axis=0))
        if np.abs(missing).max() <= tolerance * count:
            break
        out, into = (random.permutation(np.flatnonzero(side))[:CANDIDATES] for side in (chosen, ~chosen))
        out, into = _best_swap(missing, columns, out, into)
        chosen[out], chosen[into] = False, True
    return chosen


def _best_swap(
    missing: Float[np.ndarray, " attribute"],
    columns: Float[np.ndarray, "agent attribute"],
    out: Int[np.ndarray, " out"],
    into: Int[np.ndarray, " into"],
) -> tuple[Int[np.ndarray, " swapped"], Int[np.ndarray, " swapped"]]:
    """Return who leaves and who comes so that least is missing: one for one or two for two."""
    pairs = min(len(out), len(into))
    gain = columns[into[:pairs]] - columns[out[:pairs]]
    one = ((missing + columns[out][:, None] - columns[into][None]) ** 2).sum(axis=-1)
    two = ((missing - gain[:, None] - gain[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(two, np.inf)  # nobody leaves twice
    if min(one.min(), two.min()) >= missing @ missing:
        return out[:1], into[:1]  # anybody: from elsewhere the way may go on
    if one.min() <= two.min():
        leaving, coming = np.unravel_index(one.argmin(), one.shape)
        return out[[leaving]], into[[coming]]
    both = np.array(np.unravel_index(two.argmin(), two.shape))
    return out[both], into[both]


def _sd(values: Float[np.ndarray, " agent"], weight: Float[np.ndarray, " agent"]) -> float:
    """Return the weighted standard deviation, 0 where nobody counts."""
    shares = weight / max(float(weight.sum()), np.finfo(float).tiny)
    return float(np.sqrt(shares @ (values - shares @ values) ** 2))
