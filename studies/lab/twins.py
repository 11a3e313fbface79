"""Twins: pairs of populations with the same totals of every attribute and different compositions.

A linear program gives inclusion probabilities, systematic sampling rounds them, and swaps of single agents close the
remaining gap. Pairs of the first kind in `KINDS` agree in total margin, but not in what a typical unit earns; those of
the second kind agree in the mean logarithm of margins too, so that only the spread of margins differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.optimize import linprog

from lab.eval_maps import MapEvaluation, evaluate_map
from lab.shift_cases import ShiftCase, ShiftCases
from walras.errors import InputError, SettingsError, shape_mismatch
from walras.exogenous.capacity import HaarPrices
from walras.maps.file import LearnedMap
from walras.maps.rollout import roll_out
from walras.population.agent_axis import per_agent, whole_count
from walras.population.cohort import systematic_sample
from walras.population.population import Population
from walras.train.shocks import typical_prices

POOL = 4
"""Candidates per agent of one twin; with more, twins differ more but are less like the pool."""

JITTER = 0.2
"""Weight of chance beside the contrast, so that another seed gives another pair."""

LARGE_SHARE, LARGE_LEAST = 0.05, 3.0
"""An agent with more than this share of a twin's total of some attribute, and more than this many mean agents, belongs
to neither twin: no other agents could balance it."""

OUTER = 0.02
"""Share of agents at either end whose contrast is clipped."""

ROUNDS, MOST_SWAPS, CANDIDATES = 3, 100, 300
"""How often each twin moves towards the other, most swaps each time, and agents considered for each swap."""

STEADY_PRICES = HaarPrices(level=0.5, spread=0.3, finest_block=13)
"""Prices of twins: high and long enough that margins decide who still orders."""

KINDS = ("total margin", "margin and its logarithm")
"""What twins agree in beside demand, holding cost, lead time and lumpiness."""

TOLERANCE = 0.01
"""Largest difference of any total between twins, as a share of it."""

Values = Float[np.ndarray, " agent"]
Columns = Float[np.ndarray, "agent attribute"]
Mask = Bool[np.ndarray, " agent"]


@dataclass(frozen=True, eq=False)
class Twins:
    """Two equally large populations.

    Attributes:
        high_variance: agents of the first, at both ends of the contrast, ascending.
        low_variance: agents of the second, around the middle of the contrast, ascending.
        difference: mean of the first minus that of the second, over the mean size of all, by attribute.
        spread: standard deviation of the contrast in each, over that of all; outliers clipped.
    """

    high_variance: Int[np.ndarray, " agent"]
    low_variance: Int[np.ndarray, " agent"]
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
    """Draw two populations whose attributes agree in the mean and whose contrast has very different spreads.

    Args:
        attributes: must agree, e.g. demand, demand x margin, demand x lead time; add the contrast itself, plain or
            times demand, where its own mean must agree too.
        contrast: must differ in spread, e.g. margin per unit.
        count: agents of each twin; no agent is twice in one twin, few are in both up to half of all agents.
        random: source of randomness.
        tolerance: largest difference of the means, as a share of the attribute's mean size over all.
        importance: weight of an agent's contrast in search and spread, e.g. its demand; default equal weights.

    Raises:
        SettingsError: `count` is not below the number of agents, or the tolerance is not positive.
        InputError, ShapeError: invalid arrays, or no pair within the tolerance.
    """
    columns, values, weight = _checked(attributes, contrast, importance)
    pool = _candidates(columns, count, tolerance, random)
    total_sd = _sd(values, weight) or 1.0
    # Positive beyond one standard deviation from the mean: these agents add to the spread, the others reduce it.
    distance = (values - np.average(values, weights=weight)) ** 2 / total_sd**2 - 1.0
    gain = (weight * (distance + JITTER * random.uniform(-0.5, 0.5, len(weight))))[pool]
    first, second = _search(columns[pool], gain, count, tolerance, random)
    difference = columns[pool[first]].mean(axis=0) - columns[pool[second]].mean(axis=0)
    worst = int(np.abs(difference).argmax())
    if abs(difference[worst]) > tolerance:
        raise InputError(
            f"the closest twins differ by {abs(difference[worst]):.2g} in attribute {worst}, but `tolerance` is "
            f"{tolerance:g}; give more agents, fewer attributes or a larger tolerance"
        )
    agents = pool[first], pool[second]
    high, low = (_sd(values[chosen], weight[chosen]) / total_sd for chosen in agents)
    return Twins(*agents, difference, (high, low))


def _checked(
    attributes: Real[np.ndarray, "..."], contrast: Real[np.ndarray, "..."], importance: Real[np.ndarray, "..."] | None
) -> tuple[Columns, Values, Values]:
    values = per_agent("contrast", contrast)
    if attributes.ndim != 2 or len(attributes) != len(values) or not attributes.shape[1]:
        needed = f"({len(values)}, attribute)"
        raise shape_mismatch("attributes", attributes.shape, needed, "give one row for every agent of `contrast`")
    columns = [per_agent(f"attributes[:, {j}]", column) for j, column in enumerate(attributes.T)]
    importance = np.ones(len(values)) if importance is None else importance
    weight = per_agent("importance", importance, len(values), lowest=0.0)
    if not weight.any():
        raise InputError(
            "`importance` is 0 for all agents but must be positive for some; leave it out for equal weights"
        )
    size = np.abs(attributes).mean(axis=0)
    scaled = np.stack(columns, axis=1) / np.where(size > 0, size, 1.0)
    return scaled, np.clip(values, *np.quantile(values, (OUTER, 1.0 - OUTER))), weight / weight.mean()


def _candidates(
    columns: Columns, count: int, tolerance: float, random: np.random.Generator
) -> Int[np.ndarray, " pool"]:
    """Draw the agents that twins are chosen from, without those too large to be balanced."""
    largest = max(LARGE_SHARE * whole_count("count", count, 2), LARGE_LEAST)
    able = np.flatnonzero((np.abs(columns) <= largest).all(axis=1))
    if count >= len(able):
        raise SettingsError(
            f"`count` is {count} but must be below the {len(able)} of {len(columns)} agents that are small enough to "
            f"be exchanged; use {max(len(able) // POOL, 2)}, or give more agents"
        )
    if not tolerance > 0.0:
        raise SettingsError(f"`tolerance` is {tolerance:g} but must be above 0; give e.g. 0.005")
    return np.sort(random.choice(able, size=min(POOL * count, len(able)), replace=False))


def _search(
    columns: Columns, gain: Values, count: int, tolerance: float, random: np.random.Generator
) -> tuple[Mask, Mask]:
    """Choose agents with most and with least gain, and move each twin towards the other until they agree."""
    first, second = (_round_program(columns, sign * gain, count, random) for sign in (1.0, -1.0))
    first = _swap_towards(first, columns, columns.mean(axis=0), tolerance, random)
    for _ in range(ROUNDS):
        second = _swap_towards(second, columns, columns[first].mean(axis=0), tolerance, random)
        first = _swap_towards(first, columns, columns[second].mean(axis=0), tolerance, random)
    return first, second


def _round_program(columns: Columns, gain: Values, count: int, random: np.random.Generator) -> Mask:
    """Choose `count` agents with most gain and the pool's means: a linear program, then systematic sampling.

    A vertex solution has no more fractional chances than equations, so rounding moves the means by a few agents only.
    """
    equations = np.vstack([np.ones(len(gain)), columns.T])
    program = linprog(-gain, A_eq=equations, b_eq=count * equations.mean(axis=1), bounds=(0.0, 1.0), method="highs-ds")
    if program.x is None:
        raise InputError(f"no twins exist ({program.message}); give attributes of more similar sizes, or fewer")
    return systematic_sample(np.clip(program.x, 0.0, 1.0), np.zeros(len(gain), int), random)


def _swap_towards(
    chosen: Mask,
    columns: Columns,
    target: Float[np.ndarray, " attribute"],
    tolerance: float,
    random: np.random.Generator,
) -> Mask:
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
    columns: Columns,
    out: Int[np.ndarray, " out"],
    into: Int[np.ndarray, " in"],
) -> tuple[Int[np.ndarray, " swapped"], Int[np.ndarray, " swapped"]]:
    """Return which agents leave and join so that the gap becomes smallest: one for one or two for two."""
    pairs = min(len(out), len(into))
    gain = columns[into[:pairs]] - columns[out[:pairs]]
    one = ((missing + columns[out][:, None] - columns[into][None]) ** 2).sum(axis=-1)
    two = ((missing - gain[:, None] - gain[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(two, np.inf)  # an agent leaves only once
    if min(one.min(), two.min()) >= missing @ missing:
        return out[:1], into[:1]  # any swap, to leave a local optimum
    if one.min() <= two.min():
        leaving, joining = np.unravel_index(one.argmin(), one.shape)
        return out[[leaving]], into[[joining]]
    both = np.array(np.unravel_index(two.argmin(), two.shape))
    return out[both], into[both]


def _sd(values: Values, weight: Values) -> float:
    """Return the weighted standard deviation, 0 without any weight."""
    shares = weight / max(float(weight.sum()), np.finfo(float).tiny)
    return float(np.sqrt(shares @ (values - shares @ values) ** 2))


def totals(population: Population, lumpiness: Values, expected: Values) -> Float[np.ndarray, "agent total"]:
    """Return what twins agree in by agent: demand, and demand times the other attributes.

    Args:
        population: attributes.
        lumpiness: standard deviation of lead-time demand [units].
        expected: forecast mean weekly demand in the weeks to come [units/week].
    """
    demand = np.asarray(population.demand_scale, float)
    margin, holding, lead = (
        np.asarray(part, float) for part in (population.unit_margin, population.holding_cost, population.lead_time)
    )
    return np.stack([demand, expected, demand * margin, demand * holding, demand * lead, lumpiness], axis=1)


def draw_twins(cases: ShiftCases, kind: str, start: int, count: int, random: np.random.Generator) -> Twins:
    """Draw a pair among the agents that are active at the first origin; indices are those of the pool."""
    agent_pool = cases.agent_pool
    week = start + int(cases.sizes.origin_weeks[0])
    pool = np.flatnonzero(agent_pool.active[week])
    people = agent_pool.population.take(jnp.asarray(pool))
    fit = int(np.searchsorted(agent_pool.fit_week, week, side="right")) - 1
    lumpiness = np.asarray(agent_pool.exogenous.lead_demand_sd)[week, pool].astype(float)
    agree = totals(people, lumpiness, agent_pool.expected[fit].mean(0)[pool].astype(float))
    price = float(typical_prices(people)[0])
    # How much of a shadow price an agent can bear, as a logarithm.
    contrast = np.log(np.maximum(np.asarray(people.unit_margin, float), 1e-2 * price) / price)
    importance = np.asarray(people.demand_scale, float)
    if kind == KINDS[1]:
        agree = np.concatenate([agree, (importance * contrast)[:, None]], axis=1)
    pair = aggregate_twins(agree, contrast, count, random, tolerance=TOLERANCE, importance=importance)
    return replace(pair, high_variance=pool[pair.high_variance], low_variance=pool[pair.low_variance])


def twin_cases(cases: ShiftCases, kind: str, number: int, count: int) -> tuple[ShiftCase, ShiftCase]:
    """Return both twins under the same prices in the same weeks."""
    sizes, agent_pool = cases.sizes, cases.agent_pool
    random = np.random.default_rng([cases.seed, number, 0x2B15])
    start = int(random.integers(agent_pool.n_weeks - sizes.weeks + 1))
    pair = draw_twins(cases, kind, start, count, random)
    seed = int(random.integers(2**31))
    prices = STEADY_PRICES.sample(seed, sizes.weeks, typical_prices(agent_pool.population)).prices
    prices[: sizes.priced] = 0.0
    announced = jnp.asarray(prices, jnp.float32)

    def case(which: str, agents: np.ndarray) -> ShiftCase:
        pop_window = agent_pool.window(agents, start, sizes.weeks)
        rolled = roll_out(pop_window, cases.policy, announced)
        return ShiftCase(kind, 0.0, which, number, 1.0, None, agents, start, pop_window, announced, rolled)

    return case("extremes", pair.high_variance), case("middle", pair.low_variance)


def evaluate_twins(
    cases: ShiftCases, maps: Mapping[str, LearnedMap], kind: str, number: int, *, count: int, cohort: int, draws: int
) -> tuple[MapEvaluation, MapEvaluation]:
    """Forecast both twins of a pair with every map, and by simulation."""
    pair = twin_cases(cases, kind, number, count)
    extra = {"cohort": min(cohort, count), "draws": draws, "seed": cases.seed}
    first, second = (evaluate_map(cases.agent_pool, case, cases.policy, maps, cases.sizes, **extra) for case in pair)
    return first, second
