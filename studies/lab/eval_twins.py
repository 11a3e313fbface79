"""Own pairs of populations that no total tells apart, under the same prices in the same weeks.

OPEN: what must agree is `totals`; pairs differ in how margins are spread over demand.

Pairs of the first kind agree in total margin, but not in what a typical unit earns: few agents earn much. Those of the
second kind agree in the mean logarithm of margins too, so that only their spread differs.
"""

from collections.abc import Mapping
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lab.eval_maps import MapEvaluation, evaluate_map
from lab.shift_cases import ShiftCase, ShiftCases
from lab.twins import Twins, aggregate_twins
from walras.exogenous.capacity import HaarPrices
from walras.maps.file import LearnedMap
from walras.maps.rollout import roll_out
from walras.population.population import Population
from walras.train.shocks import typical_prices

STEADY_PRICES = HaarPrices(level=0.5, spread=0.3, finest_block=13)
"""Prices of twins: high and long enough that margins decide who still orders."""

KINDS = ("total margin", "margin and its logarithm")
"""What twins agree in beside demand, holding cost, lead time and lumpiness."""

TOLERANCE = 0.01
"""Largest difference of any total between twins, as a share of it."""


def totals(
    population: Population, lumpiness: Float[np.ndarray, " agent"], expected: Float[np.ndarray, " agent"]
) -> Float[np.ndarray, "agent total"]:
    """Return what twins agree in, agent by agent: demand, and demand times all else that totals are made of.

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


def relative_margin(population: Population, price: Float[np.ndarray, " agent"]) -> Float[np.ndarray, " agent"]:
    """Return unit margin in the typical one, as a logarithm: how much of a shadow price an agent can bear.

    Args:
        population: attributes.
        price: median margin per unit of the first resource, for each agent.
    """
    return np.log(np.maximum(np.asarray(population.unit_margin, float), 1e-2 * price) / price)


def twins_at(cases: ShiftCases, kind: str, start: int, count: int, random: np.random.Generator) -> Twins:
    """Draw a pair among the agents that are active at the first origin; indices are those of the world.

    Args:
        cases: the world, and which weeks are origins.
        kind: one of `KINDS`.
        start: first week.
        count: agents of each twin.
        random: draws it.
    """
    world = cases.world
    week = start + int(cases.sizes.origin_weeks[0])
    pool = np.flatnonzero(world.active[week])
    people = world.population.take(jnp.asarray(pool))
    fit = int(np.searchsorted(world.fit_week, week, side="right")) - 1
    lumpiness = np.asarray(world.exogenous.lead_demand_sd)[week, pool].astype(float)
    agree = totals(people, lumpiness, world.expected[fit].mean(0)[pool].astype(float))
    price = np.full(len(pool), float(typical_prices(people)[0]))
    importance = np.asarray(people.demand_scale, float)
    contrast = relative_margin(people, price)
    if kind == KINDS[1]:
        agree = np.concatenate([agree, (importance * contrast)[:, None]], axis=1)
    pair = aggregate_twins(agree, contrast, count, random, tolerance=TOLERANCE, importance=importance)
    return replace(pair, extremes=pool[pair.extremes], middle=pool[pair.middle])


def twin_cases(cases: ShiftCases, kind: str, number: int, count: int) -> tuple[ShiftCase, ShiftCase]:
    """Return both twins under the same prices in the same weeks.

    Args:
        cases: the world and sizes.
        kind: one of `KINDS`.
        number: of the pair; another number gives another pair, other weeks and prices.
        count: agents of each twin.
    """
    sizes, world = cases.sizes, cases.world
    random = np.random.default_rng([cases.seed, number, 0x2B15])
    start = int(random.integers(world.n_weeks - sizes.weeks + 1))
    pair = twins_at(cases, kind, start, count, random)
    seed = int(random.integers(2**31))
    prices = STEADY_PRICES.sample(seed, sizes.weeks, typical_prices(world.population)).prices
    prices[: sizes.priced] = 0.0
    announced = jnp.asarray(prices, jnp.float32)

    def case(which: str, agents: np.ndarray) -> ShiftCase:
        stretch = world.window(agents, start, sizes.weeks)
        rolled = roll_out(stretch, cases.policy, announced)
        return ShiftCase(kind, 0.0, which, number, 1.0, None, agents, start, stretch, announced, rolled)

    return case("extremes", pair.extremes), case("middle", pair.middle)


def evaluate_twins(
    cases: ShiftCases, maps: Mapping[str, LearnedMap], kind: str, number: int, *, count: int, cohort: int, draws: int
) -> tuple[MapEvaluation, MapEvaluation]:
    """Forecast both twins of a pair with every map, and by simulation.

    Args:
        cases, kind, number, count: see `twin_cases`.
        maps: primal maps by name.
        cohort: agents that maps read.
        draws: simulated futures.
    """
    pair = twin_cases(cases, kind, number, count)
    extra = {"cohort": min(cohort, count), "draws": draws, "seed": cases.seed}
    first, second = (evaluate_map(cases.world, each, cases.policy, maps, cases.sizes, **extra) for each in pair)
    return first, second
