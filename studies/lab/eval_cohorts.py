"""How well a small cohort represents a large population: its estimated scale, and a map's forecast from it alone.

Populations beyond the pool's size repeat its agents, each time with other idiosyncratic surprises and lead times.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from lab.encoding import index_all
from lab.eval_maps import Forecasts, map_forecast
from lab.metrics import forecast_errors
from lab.shift_cases import ShiftSizes, use_under_prices
from walras.errors import InputError
from walras.exogenous.arrivals import IntegerLeadTimes, draw_lead_times
from walras.maps.file import LearnedMap
from walras.maps.rollout import PopulationWindow, horizon_slices, roll_out
from walras.policies.base import Policy
from walras.population.agent_axis import per_agent, whole_count
from walras.population.cohort import CERTAIN, AbstractDesign, sampling_variance
from walras.population.population import NO_NAMES
from walras.train.agent_pool import AgentPool

BLOCK = 8
"""Weeks within which an agent's own surprises are permuted."""

MOST_SCALED = 4.0
"""Largest factor by which a surprise is rescaled to the expectation of another week."""


def resample_world(agent_pool: AgentPool, number: int, seed: int) -> AgentPool:
    """Resample the surprises of all agents; expectations, forecasts and common surprises stay.

    Within blocks of weeks each agent's surprises (demand over expected demand and the common surprise) are permuted,
    and lead times are drawn anew.
    """
    if number == 0:
        return agent_pool
    random = np.random.default_rng([seed, number, 0xA6A1])
    demand = np.asarray(agent_pool.exogenous.demand, np.float32)
    level = _expected_level(agent_pool, demand)
    block = np.arange(agent_pool.n_weeks)[:, None] // BLOCK
    order = np.lexsort((random.random(demand.shape, np.float32), np.broadcast_to(block, demand.shape)), axis=0)
    factor = np.clip(level / np.take_along_axis(level, order, axis=0), 1 / MOST_SCALED, MOST_SCALED)
    permuted = np.take_along_axis(demand, order, axis=0) * factor
    lead = np.asarray(agent_pool.population.lead_time)
    times = draw_lead_times(lead, (1, agent_pool.n_weeks), seed=int(random.integers(2**31)))[0]
    arrivals = IntegerLeadTimes(jnp.asarray(np.minimum(times, agent_pool.max_lead)))
    return replace(agent_pool, exogenous=replace(agent_pool.exogenous, demand=jnp.asarray(permuted), arrivals=arrivals))


def _expected_level(agent_pool: AgentPool, demand: Float[np.ndarray, "week agent"]) -> Float[np.ndarray, "week agent"]:
    """Return expected demand times the common surprise of a week, above 0."""
    weeks = np.arange(agent_pool.n_weeks)
    fit = np.searchsorted(agent_pool.fit_week, weeks, side="right") - 1
    expected = agent_pool.expected[fit, weeks - agent_pool.fit_week[fit]]
    common = demand.sum(1) / np.maximum(expected.sum(1), 1e-9)
    return np.maximum(expected * common[:, None], 1e-3)


@dataclass(frozen=True, eq=False)
class RepeatedPopulation:
    """A large population under announced prices, made of whole repetitions of a pool's active agents.

    Attributes:
        agent_pool: the pool.
        agent_pool: its active agents.
        start: first week.
        repeats: number of repetitions.
        prices: announced [money per unit of resource].
        policy: of the agents.
        sizes: with weeks and origins.
        seed: of the repetitions.
    """

    agent_pool: AgentPool
    pool: Int[np.ndarray, " member"]
    start: int
    repeats: int
    prices: Float[Array, "week resource"]
    policy: Policy
    sizes: ShiftSizes
    seed: int = 0

    @property
    def size(self) -> Float[np.ndarray, " agent"]:
        """Historical demand of all agents, repetition by repetition [units/week]."""
        return np.tile(np.asarray(self.agent_pool.population.demand_scale, float)[self.pool], self.repeats)

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return len(self.pool) * self.repeats

    @cached_property
    def repetitions(self) -> tuple[AgentPool, ...]:
        """All repetitions; making one takes seconds, and every cohort needs them."""
        return tuple(resample_world(self.agent_pool, number, self.seed) for number in range(self.repeats))

    def parts(
        self, chosen: Int[np.ndarray, " drawn"], weight: Float[np.ndarray, " drawn"]
    ) -> Iterator[PopulationWindow]:
        """Cut agents out, one repetition after the other."""
        for number in range(self.repeats):
            mine = chosen // len(self.pool) == number
            if mine.any():
                agents = self.pool[chosen[mine] % len(self.pool)]
                repetition = self.repetitions[number]
                yield repetition.window(agents, self.start, self.sizes.weeks, weight=weight[mine])

    def realised(self) -> Forecasts:
        """Simulate all agents, and return utilization after each origin [units of resource]."""
        parts = self.parts(np.arange(self.n_agents), np.ones(self.n_agents))
        use = reduce(jnp.add, (use_under_prices(part, self.policy, self.prices) for part in parts))
        sizes = self.sizes
        return np.asarray(horizon_slices(use, sizes.known, sizes.origins, sizes.spacing), float)


def cohort_forecast(
    target: RepeatedPopulation,
    learned: LearnedMap,
    chosen: Int[np.ndarray, " drawn"],
    weight: Float[np.ndarray, " drawn"],
) -> tuple[Forecasts, Float[np.ndarray, " resource"]]:
    """Forecast a population from a weighted cohort alone: totals, histories and scale are the cohort's.

    Returns:
        Forecasts [units of resource], and the estimated S(P).
    """
    pop_window = concatenate(list(target.parts(chosen, weight)))
    rolled = roll_out(pop_window, target.policy, target.prices)
    index = index_all(pop_window.population, learned)
    forecast = map_forecast(learned, rolled, pop_window, index, target.prices, target.sizes)
    return forecast, np.asarray(rolled.units.use, float)


def concatenate(parts: list[PopulationWindow]) -> PopulationWindow:
    """Concatenate agents over the same weeks; expected use adds up, names are dropped."""
    first = parts[0]
    if len(parts) == 1:
        return first
    people = [each.population.named(NO_NAMES) for each in parts]
    own = [(each.exogenous, each.initial, each.valid) for each in parts]
    exogenous, initial, valid = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *own)
    population = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=0), *people)
    expected = reduce(jnp.add, [each.expected_use for each in parts])
    return PopulationWindow(population, exogenous, initial, valid, expected, first.holidays)


@dataclass(frozen=True)
class CohortError:
    """Errors of one cohort.

    Attributes:
        design, n: how it was drawn, and its size.
        predicted: relative standard error of its scale, as predicted before it was drawn.
        scale: estimated S(P) over the real one, minus 1.
        against_full: mean relative distance of its forecast from that of all agents; None where these are too many.
        against_realised: MAPE of its forecast.
        full_against_realised: MAPE of the forecast from all agents; None likewise.
    """

    design: str
    n: int
    predicted: float
    scale: float
    against_full: float | None
    against_realised: float
    full_against_realised: float | None


def cohort_errors(
    target: RepeatedPopulation,
    learned: LearnedMap,
    designs: Mapping[str, AbstractDesign],
    counts: Sequence[int],
    draws: int,
    most_read: int = 25_000,
) -> list[CohortError]:
    """Draw cohorts of several sizes by several designs, and forecast from each.

    Args:
        target: the population.
        learned: a primal map.
        designs: by name.
        counts: sizes of cohorts; those beyond the population are left out.
        draws: cohorts of each size and design.
        most_read: largest population that is read as a whole.
    """
    size, truth = target.size, target.realised()
    full = None
    if target.n_agents <= most_read:
        full = cohort_forecast(target, learned, np.arange(target.n_agents), np.ones(target.n_agents))[0]
    errors = []
    for n in (count for count in counts if count < target.n_agents):
        for name, design in designs.items():
            predicted = predicted_error(design, size, size, n)
            for draw in range(draws):
                cohort = design.draw(size, n, np.random.default_rng([target.seed, n, draw]))
                forecast, _ = cohort_forecast(target, learned, cohort.index, cohort.weight)
                scale = float(cohort.total(size[cohort.index]) / size.sum()) - 1.0
                apart = None if full is None else float(np.mean(np.abs(forecast - full) / full))
                whole = None if full is None else _mape(full, truth)
                errors.append(CohortError(name, n, predicted, scale, apart, _mape(forecast, truth), whole))
    return errors


def predicted_error(
    design: AbstractDesign, size: Real[np.ndarray, " agent"], values: Real[np.ndarray, " agent"], n: int
) -> float:
    """Predict the relative standard error of an estimated total before the draw.

    Exact for equal chances, where it is CV sqrt((1 - n/N) / n) in each stratum; Hajek's approximation else.

    Args:
        design, size, n: how `n` agents are drawn, see `AbstractDesign.draw`.
        values: what will be added up, of all agents [any unit].
    """
    known, n = per_agent("size", size, lowest=0.0), whole_count("n", n)
    added = per_agent("values", values, len(known))
    total = abs(float(added.sum()))
    if total == 0.0:
        raise InputError("`values` add up to 0 but a relative error needs a total; give values that do not cancel")
    if n >= len(known):
        return 0.0
    chance, stratum = design.chances(known, n)
    free = chance < CERTAIN
    expanded, weight = added[free] / chance[free], (chance * (1.0 - chance))[free]
    return float(np.sqrt(sampling_variance(expanded, weight, stratum[free]))) / total


def _mape(forecast: Forecasts, truth: Forecasts) -> float:
    mape = forecast_errors(forecast[None], truth[None]).mape
    return float("nan") if mape is None else mape
