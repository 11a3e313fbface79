"""Tiny shops that simulator tests share; sizes stay the same where possible, as every new size is a compilation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from walras.clipping import positive_part
from walras.exogenous.arrivals import AbstractArrivals, ArrivalShares, IntegerLeadTimes, SupplyLimit
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Policy
from walras.policies.base_stock import OrderUpTo, ReorderPoint
from walras.population.population import Population
from walras.simulation.controller import Controller, ControlObservation
from walras.simulation.week import State

AGENTS, WEEKS, MAX_LEAD, SCENARIOS = 7, 8, 3, 3
ALL_RESOURCES = ("inbound_units", "inbound_volume", "storage")


def shop(agents: int = AGENTS, seed: int = 0, resources: tuple[str, ...] = ALL_RESOURCES) -> Population:
    """Make up agents whose numbers are binary fractions, so that sums of few of them are exact."""
    random = np.random.default_rng([seed, 1])

    def quarters(low: int, high: int, *more: int) -> jax.Array:
        return jnp.asarray(random.integers(low, high, (agents, *more)) / 4.0, jnp.float32)

    return Population(
        holding_cost=quarters(0, 3),
        lost_sale_penalty=quarters(4, 9),
        lead_time=jnp.asarray(random.integers(1, MAX_LEAD + 1, agents), jnp.int32),
        demand_scale=quarters(20, 60),
        unit_margin=quarters(4, 20),
        use=quarters(1, 9, len(resources)),
        weight=jnp.ones(agents, jnp.float32),
        resources=resources,
    )


def arrivals_of(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> AbstractArrivals:
    """Draw lead times of 0 to MAX_LEAD weeks, or shares in eighths over those weeks."""
    if kind == "integer":
        return IntegerLeadTimes(jnp.asarray(random.integers(0, MAX_LEAD + 1, shape), jnp.int8))
    marks = np.sort(random.integers(0, 9, (MAX_LEAD, *shape)), axis=0)
    edges = np.concatenate([np.zeros((1, *shape)), marks, np.full((1, *shape), 8)])
    shares = np.diff(edges, axis=0) / 8.0
    return ArrivalShares(jnp.asarray(np.moveaxis(shares, 0, -2), jnp.float32))


def happenings(
    population: Population,
    *,
    weeks: int = WEEKS,
    seed: int = 0,
    scenarios: int | None = None,
    kind: str = "integer",
    supply: bool = False,
) -> ExogenousPaths:
    """Draw whole demand, prices above costs, lead times, and (where asked) what the vendor can supply."""
    random = np.random.default_rng([seed, 2])
    agents = population.n_agents
    own = (weeks, agents) if scenarios is None else (scenarios, weeks, agents)

    def drawn(low: int, high: int) -> jax.Array:
        return jnp.asarray(random.integers(low, high, (weeks, agents)) / 4.0, jnp.float32)

    return ExogenousPaths(
        demand=jnp.asarray(random.integers(0, 13, own), jnp.float32),
        sale_price=drawn(40, 60),
        unit_cost=drawn(10, 30),
        arrivals=arrivals_of(kind, own, random),
        lead_demand_mean=drawn(40, 100),
        lead_demand_sd=drawn(8, 40),
        supply=SupplyLimit(jnp.floor(drawn(0, 60)) * (1.0 if seed % 3 else 1e3)) if supply else None,
    )


def start(population: Population, seed: int = 0, max_lead: int = MAX_LEAD) -> State:
    """Draw whole stock and open orders."""
    random = np.random.default_rng([seed, 3])
    return State(
        stock_end=jnp.asarray(random.integers(0, 10, population.n_agents), jnp.float32),
        pipeline=jnp.asarray(random.integers(0, 6, (max_lead, population.n_agents)), jnp.float32),
    )


def prices(population: Population, *, weeks: int = WEEKS, seed: int = 0, scenarios: int | None = None) -> jax.Array:
    """Draw shadow prices around the margins, some of them zero."""
    random = np.random.default_rng([seed, 4])
    shape = (weeks, len(population.resources))
    own = shape if scenarios is None else (scenarios, *shape)
    return jnp.asarray(np.maximum(random.integers(-4, 8, own), 0) / 4.0, jnp.float32)


def order_up_to(population: Population, seed: int = 0) -> OrderUpTo:
    """Order whole units up to a level of one's own."""
    levels = np.random.default_rng([seed, 5]).integers(5, 40, population.n_agents)
    return OrderUpTo(jnp.asarray(levels, jnp.float32))


def reorder_point(population: Population, seed: int = 0) -> ReorderPoint:
    """Order whole units once the position is low."""
    points = np.random.default_rng([seed, 6]).integers(0, 20, population.n_agents)
    return ReorderPoint(jnp.asarray(points, jnp.float32), jnp.asarray(points + 15, jnp.float32))


def relabel(population: Population, paths: ExogenousPaths, policy: Policy, state: State, order: np.ndarray):
    """Put the agents of a whole question into another order."""
    last = lambda tree: jax.tree.map(lambda leaf: leaf[..., order] if leaf.ndim else leaf, tree)  # noqa: E731
    people = jax.tree.map(lambda leaf: leaf[order], population)
    arrays, rest = eqx.partition(policy, eqx.is_array)
    return people, last(paths), eqx.combine(last(arrays), rest), last(state)


class Leaning(Policy):
    """Order up to a level that falls with every announced price: quick to compile, and priced.

    Attributes:
        level: units at prices of zero.
    """

    level: jax.Array

    def orders(self, observation, shadow_prices):
        """Return (level - position - sum of prices x use)^+."""
        charged = observation.population.use @ shadow_prices.sum(0)
        return positive_part(self.level - observation.position - charged)


class Announcer(Controller):
    """Issue a fixed path, week by week, and remember what was seen.

    Attributes:
        path: prices [*scenario, week, resource].
        seen: the states shown.
    """

    def __init__(self, path: jax.Array, max_lead: int = MAX_LEAD) -> None:
        """Keep the path."""
        self.path, self.ahead, self.seen = path, max_lead + 2, []

    def opening_prices(self, n_resources: int) -> jax.Array:
        """Return the first week of the path."""
        return self.path[..., 0, :]

    def issue(self, observation: ControlObservation) -> jax.Array:
        """Return the path after this week; its last week holds."""
        self.seen.append(observation.state)
        index = np.minimum(observation.week + 1 + np.arange(self.ahead), self.path.shape[-2] - 1)
        return self.path[..., index, :]


class Counted(Policy):
    """Pass on what another policy orders, and count how often Python is asked: once per trace.

    Attributes:
        inner: the policy.
    """

    inner: Policy
    calls = 0

    def orders(self, observation, shadow_prices):
        """Count, and ask the policy."""
        Counted.calls += 1
        return self.inner.orders(observation, shadow_prices)


def assert_same(left, right, exactly: bool = True, rtol: float = 1e-5, atol: float = 1e-4) -> None:
    """Compare two trees of arrays, to the bit or to rounding."""
    ours, theirs = jax.tree.leaves(left), jax.tree.leaves(right)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        if exactly:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        else:
            np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=rtol, atol=atol)
