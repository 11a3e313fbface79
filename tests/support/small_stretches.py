"""Tiny population windows for tests of closed loops: 40 agents, 16 of them read; every new size is compiled."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from small_maps import BUCKETS, ONE, people, untrained

from walras.clipping import positive_part
from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.maps.agent_layout import CohortIndex
from walras.maps.closed_loop import CapacityTarget, DualMap
from walras.maps.features import HORIZON
from walras.maps.file import DUAL
from walras.maps.probes import draw_probes
from walras.maps.rollout import PopulationWindow
from walras.policies.base import Policy
from walras.population.cohort import UniformSample
from walras.population.population import bucket_edges
from walras.simulation.week import State

WEEKS, FIRST, READ, LEAD = 46, 10, 16, 5


class Shy(Policy):
    """Order mean demand and something for a low position, less the higher the next prices: quick to compile.

    Orders up to a level would come back to demand at any price that stays.
    """

    def orders(self, observation, shadow_prices):
        """Return (1.2 demand / (1 + price / margin) + (7 demand - position) / 20)^+."""
        people = observation.population
        charged = (people.use @ shadow_prices[1:4].mean(0)) / people.unit_margin
        wanted = 1.2 * people.demand_scale / (1.0 + charged)
        return positive_part(wanted + 0.05 * (7.0 * people.demand_scale - observation.position))


def window(resources: tuple[str, ...] = ONE, weeks: int = WEEKS, seed: int = 0) -> PopulationWindow:
    """Make up agents and weeks; orders arrive after 1 to 4 weeks."""
    population = people(resources=resources)
    random = np.random.default_rng([seed, 6])
    size = np.asarray(population.demand_scale)
    shape = (weeks, len(size))
    price = random.uniform(10, 20, shape)
    numbers = {
        "demand": random.poisson(size, shape),
        "sale_price": price,
        "unit_cost": price - np.asarray(population.unit_margin),
        "lead_demand_mean": random.uniform(3, 5, shape) * size,
        "lead_demand_sd": random.uniform(0.5, 1, shape) * size,
    }
    use = size @ np.asarray(population.use)
    valid = np.ones(shape, bool)
    valid[:7, ::9] = False
    return PopulationWindow(
        population=population,
        exogenous=ExogenousPaths(
            **{name: jnp.asarray(values, jnp.float32) for name, values in numbers.items()},
            arrivals=IntegerLeadTimes(jnp.asarray(random.integers(1, LEAD, shape), jnp.int8)),
        ),
        initial=State(3 * population.demand_scale, jnp.zeros((LEAD, len(size)))),
        valid=jnp.asarray(valid),
        expected_use=jnp.asarray(random.uniform(0.9, 1.1, (weeks, HORIZON + 1, len(use))) * use, jnp.float32),
        holidays=jnp.asarray(random.uniform(0, 1, (weeks + HORIZON, 2)), jnp.float32),
    )


def cohort_index(given: PopulationWindow, probes: int = 0) -> CohortIndex:
    """Draw a cohort, and who is asked."""
    size = np.asarray(given.population.demand_scale)
    cohort = UniformSample().draw(size, READ, np.random.default_rng(7))
    who = draw_probes(given.population, probes, HORIZON + 1, 11) if probes else None
    return CohortIndex.of(size, cohort, bucket_edges(size, BUCKETS), 4, who)


def target_of(given: PopulationWindow, share: float = 0.9, first: int = FIRST) -> CapacityTarget:
    """Plan a share of mean use, with weeks of more and of less."""
    mean = np.asarray(given.expected_use).mean((0, 1))
    waves = 1 + 0.2 * np.sign(np.sin(np.arange(given.n_weeks) / 3.0))
    return CapacityTarget(jnp.asarray(share * waves[:, None] * mean, jnp.float32), first)


def dual_map(representation: str = "bucketized", resources: tuple[str, ...] = ONE, probes: int = 0) -> DualMap:
    """Draw a map whose prices are of the size of margins, and move."""
    learned = untrained(DUAL, representation, resources, probes=probes)
    last = lambda network: network.basis.layers[-1]  # noqa: E731
    raised = eqx.tree_at(
        lambda network: (last(network).weight, last(network).bias),
        learned.network,
        (5 * last(learned.network).weight, last(learned.network).bias + 2.5),
    )
    return DualMap(raised, learned.scaling)
