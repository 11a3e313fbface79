"""Own how well a small cohort stands for a large population: its estimated scale, and a map's forecast from it alone.

FREE: populations beyond the world's are the same agents again, each time with other surprises and lead times.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lab.eval_maps import Forecasts, all_readers, map_forecast
from lab.fitted_prices import use_under
from lab.metrics import forecast_metrics
from lab.shift_cases import ShiftSizes
from walras.exogenous.arrivals import IntegerLeadTimes, draw_lead_times
from walras.maps.file import LearnedMap
from walras.maps.rollout import MapRollout, PopulationWindow, horizon_slices, roll_out
from walras.policies.base import Policy
from walras.population.cohort import AbstractDesign
from walras.population.population import NO_NAMES
from walras.train.agent_pool import AgentPool

BLOCK = 8
"""Weeks within which an agent's own surprises change places."""

MOST_SCALED = 4.0
"""A surprise moved to another week is scaled with what was expected there by at most this factor."""


def resample_world(world: AgentPool, number: int, seed: int) -> AgentPool:
    """Let the same agents live once more: expectations, forecasts and common surprises stay, what is their own changes.

    Within blocks of weeks each agent's surprises (demand over expected demand and the common surprise) are put in
    another order, and lead times are drawn anew. Number 0 is the world as it is.

    Args:
        world: what happened.
        number: of the repetition.
        seed: of the draws.
    """
    if number == 0:
        return world
    random = np.random.default_rng([seed, number, 0xA6A1])
    demand = np.asarray(world.exogenous.demand, np.float32)
    level = _level(world, demand)
    block = np.arange(world.n_weeks)[:, None] // BLOCK
    order = np.lexsort((random.random(demand.shape, np.float32), np.broadcast_to(block, demand.shape)), axis=0)
    factor = np.clip(level / np.take_along_axis(level, order, axis=0), 1 / MOST_SCALED, MOST_SCALED)
    moved = np.take_along_axis(demand, order, axis=0) * factor
    lead = np.asarray(world.population.lead_time)
    times = draw_lead_times(lead, (1, world.n_weeks), seed=int(random.integers(2**31)))[0]
    arrivals = IntegerLeadTimes(jnp.asarray(np.minimum(times, world.max_lead)))
    return replace(world, exogenous=replace(world.exogenous, demand=jnp.asarray(moved), arrivals=arrivals))


def _level(world: AgentPool, demand: Float[np.ndarray, "week agent"]) -> Float[np.ndarray, "week agent"]:
    """Return expected demand times the surprise that all have in common in a week, above 0."""
    weeks = np.arange(world.n_weeks)
    fit = np.searchsorted(world.fit_week, weeks, side="right") - 1
    expected = world.expected[fit, weeks - world.fit_week[fit]]
    common = demand.sum(1) / np.maximum(expected.sum(1), 1e-9)
    return np.maximum(expected * common[:, None], 1e-3)


@dataclass(frozen=True, eq=False)
class Target:
    """Hold a large population under announced prices, made of whole repetitions of a world's active agents.

    Attributes:
        world: its agents.
        pool: which of them.
        start: first week.
        repeats: how often each is in the population.
        prices: announced [money per unit of resource].
        policy: what agents follow.
        sizes: weeks and origins.
        seed: of the repetitions.
    """

    world: AgentPool
    pool: Int[np.ndarray, " member"]
    start: int
    repeats: int
    prices: Float[Array, "week resource"]
    policy: Policy
    sizes: ShiftSizes
    seed: int = 0

    @property
    def size(self) -> Float[np.ndarray, " agent"]:
        """Give the historical demand of everybody, repetition by repetition [units/week]."""
        return np.tile(np.asarray(self.world.population.demand_scale, float)[self.pool], self.repeats)

    @property
    def n_agents(self) -> int:
        """Count everybody."""
        return len(self.pool) * self.repeats

    @cached_property
    def lives(self) -> tuple[AgentPool, ...]:
        """Give every repetition; they are asked for again with every cohort, and making one takes seconds."""
        return tuple(resample_world(self.world, number, self.seed) for number in range(self.repeats))

    def parts(
        self, chosen: Int[np.ndarray, " drawn"], weight: Float[np.ndarray, " drawn"]
    ) -> Iterator[PopulationWindow]:
        """Cut agents out, one repetition after the other, so that no more than one is held.

        Args:
            chosen: agents, ascending.
            weight: agents that each stands for.
        """
        for number in range(self.repeats):
            mine = chosen // len(self.pool) == number
            if mine.any():
                lived = self.lives[number]
                agents = self.pool[chosen[mine] % len(self.pool)]
                yield lived.window(agents, self.start, self.sizes.weeks, weight=weight[mine])

    def truth(self) -> Forecasts:
        """Simulate everybody and return utilization after each origin [units of resource]."""
        everyone = np.arange(self.n_agents)
        parts = self.parts(everyone, np.ones(self.n_agents))
        use = reduce(jnp.add, (use_under(part, self.policy, self.prices) for part in parts))
        sizes = self.sizes
        return np.asarray(horizon_slices(use, sizes.known, sizes.origins, sizes.spacing), float)


def cohort_forecast(
    target: Target, learned: LearnedMap, chosen: Int[np.ndarray, " drawn"], weight: Float[np.ndarray, " drawn"]
) -> tuple[Forecasts, Float[np.ndarray, " resource"]]:
    """Forecast a population from a cohort alone; totals, histories and scale are the cohort's, weighted.

    Args:
        target: whom the cohort stands for.
        learned: a primal map.
        chosen, weight: the cohort.

    Returns:
        Forecasts [units of resource], and the estimated S(P).
    """
    stretch = concatenate(list(target.parts(chosen, weight)))
    rolled = roll_out(stretch, target.policy, target.prices)
    return _read(target, learned, stretch, rolled), np.asarray(rolled.units.use, float)


def _read(target: Target, learned: LearnedMap, stretch: PopulationWindow, rolled: MapRollout) -> Forecasts:
    readers = all_readers(stretch.population, learned)
    return map_forecast(learned, rolled, stretch, readers, target.prices, target.sizes)


def concatenate(parts: list[PopulationWindow]) -> PopulationWindow:
    """Put agents of several stretches over the same weeks side by side; expected use adds up, names are dropped."""
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
    """Hold what one cohort missed.

    Attributes:
        design, n: how it was drawn, and how many.
        predicted: relative standard error of its scale, as predicted before it was drawn.
        scale: estimated S(P) over the real one, minus 1.
        against_full: mean relative distance of its forecast from that of everybody; None where nobody can read all.
        against_realised: MAPE of its forecast.
        full_against_realised: MAPE of everybody's; None likewise.
    """

    design: str
    n: int
    predicted: float
    scale: float
    against_full: float | None
    against_realised: float
    full_against_realised: float | None


def cohort_errors(
    target: Target,
    learned: LearnedMap,
    designs: Mapping[str, AbstractDesign],
    counts: Sequence[int],
    draws: int,
    most_read: int = 25_000,
) -> list[CohortError]:
    """Draw cohorts of several sizes by several designs, and forecast from each.

    Args:
        target: whom they stand for.
        learned: a primal map.
        designs: by name.
        counts: agents of a cohort; sizes beyond the population are left out.
        draws: cohorts of each size and design.
        most_read: agents of a population that is read as a whole.
    """
    size, truth = target.size, target.truth()
    full = None
    if target.n_agents <= most_read:
        full = cohort_forecast(target, learned, np.arange(target.n_agents), np.ones(target.n_agents))[0]
    found = []
    for n in (count for count in counts if count < target.n_agents):
        for name, design in designs.items():
            predicted = design.predicted_error(size, size, n)
            for draw in range(draws):
                cohort = design.draw(size, n, np.random.default_rng([target.seed, n, draw]))
                said, _ = cohort_forecast(target, learned, cohort.index, cohort.weight)
                scale = float(cohort.total(size[cohort.index]) / size.sum()) - 1.0
                apart, whole = (None, None) if full is None else (_apart(said, full), _mape(full, truth))
                found.append(CohortError(name, n, predicted, scale, apart, _mape(said, truth), whole))
    return found


def _apart(said: Forecasts, full: Forecasts) -> float:
    return float(np.mean(np.abs(said - full) / full))


def _mape(said: Forecasts, truth: Forecasts) -> float:
    found = forecast_metrics(said[None], truth[None]).mape
    return float("nan") if found is None else found
