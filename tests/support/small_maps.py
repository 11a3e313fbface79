"""Tiny populations with histories, and untrained maps; sizes are shared, since every new one is compiled."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from walras.maps.features import (
    AGENT_FEATURES,
    AHEAD,
    ATTRIBUTES,
    HORIZON,
    TOTALS,
    AgentHistory,
    FeatureScaling,
    KnownFuture,
    stock_use,
)
from walras.maps.file import DUAL, PRIMAL, LearnedMap
from walras.maps.history import History
from walras.maps.interface import Interface
from walras.maps.network import MapNetwork
from walras.maps.representations import MapShape
from walras.population.population import Population, bucket_edges

AGENTS, WEEKS, BUCKETS = 40, 64, 3
FEW, ALL = (1, 2), (1, 2, 4, 8, 16, 32)
"""Dilations: few are compiled soon, all of them read 64 weeks."""

ONE, TWO = ("inbound_units",), ("inbound_units", "storage")


def people(agents: int = AGENTS, seed: int = 0, resources: tuple[str, ...] = ONE) -> Population:
    """Make up agents."""
    random = np.random.default_rng([seed, 1])

    def drawn(low: float, high: float, *more: int) -> jax.Array:
        return jnp.asarray(random.uniform(low, high, (agents, *more)), jnp.float32)

    return Population(
        holding_cost=drawn(0.01, 0.1),
        lost_sale_penalty=drawn(0, 1),
        lead_time=jnp.asarray(random.integers(2, 6, agents), jnp.int32),
        demand_scale=jnp.exp(drawn(0, 4)),
        unit_margin=drawn(1, 5),
        use=drawn(0.5, 2, len(resources)),
        weight=jnp.ones(agents, jnp.float32),
        resources=resources,
    )


def past(population: Population, weeks: int = WEEKS, seed: int = 0) -> AgentHistory:
    """Make up what its agents did and knew."""
    random = np.random.default_rng([seed, 2])
    demand = np.asarray(population.demand_scale)

    def drawn(low: float, high: float) -> jax.Array:
        return jnp.asarray(random.uniform(low, high, (weeks, len(demand))) * demand, jnp.float32)

    price = jnp.asarray(random.uniform(10, 20, (weeks, len(demand))), jnp.float32)
    flows = {name: drawn(0, 2) for name in ("receipts", "demand_before", "orders_before")}
    forecast = {"lead_demand_mean": drawn(3, 5), "lead_demand_sd": drawn(0.5, 1)}
    stock = {"stock_start": drawn(0, 4), "position": drawn(4, 8)}
    fixed = {"sale_price": price, "unit_cost": price - population.unit_margin[None]}
    return AgentHistory(**flows, **stock, **fixed, **forecast, valid=jnp.ones_like(price))


def coming(population: Population, ledger: AgentHistory, seed: int = 0) -> KnownFuture:
    """Make up what is known of the coming weeks at the ledger's last one."""
    random = np.random.default_rng([seed, 3])
    size = np.asarray((population.weight * population.demand_scale) @ population.use)
    rows = (HORIZON + 1, len(size))
    return KnownFuture(
        expected=jnp.asarray(random.uniform(0.8, 1.2, rows) * size, jnp.float32),
        committed=jnp.asarray(random.uniform(0.0, 1.0, rows) * size, jnp.float32),
        stock=stock_use(population, ledger)[-1],
        holidays=jnp.asarray(random.uniform(0, 1, (HORIZON, 2)), jnp.float32),
    )


def story(population: Population, weeks: int = WEEKS, seed: int = 0) -> History:
    """Make up a history."""
    ledger = past(population, weeks, seed)
    return History(ledger, coming(population, ledger, seed))


def cut(tree, index):
    """Take weeks or agents out of a ledger."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def unscaled(shape: MapShape) -> FeatureScaling:
    """Scale by other means and spreads than 0 and 1."""
    random = np.random.default_rng(4)
    m = shape.resources
    widths = (AGENT_FEATURES if shape.kind.reads_agents else 0, ATTRIBUTES, TOTALS * m, AHEAD * m + 2)

    def moments(width: int) -> jax.Array:
        return jnp.asarray(np.stack([random.uniform(-1, 1, width), random.uniform(0.5, 2, width)]), jnp.float32)

    return FeatureScaling(*(moments(width) for width in widths))


def untrained(
    kind: str = PRIMAL,
    representation: str = "bucketized",
    resources: tuple[str, ...] = ONE,
    seed: int = 0,
    dilations: tuple[int, ...] = FEW,
    probes: int = 0,
    **facts,
) -> LearnedMap:
    """Draw a map whose answers vary."""
    shape = MapShape(representation, len(resources), 8, 4, 8, 6, BUCKETS, dilations, FEW, probes)
    network = MapNetwork.draw(shape, seed)
    # The last layer is drawn small, so that nothing would depend on much.
    network = jax.tree.map(lambda leaf: leaf * 1.5, network)
    edges = bucket_edges(np.asarray(people(200).demand_scale), BUCKETS)
    return LearnedMap(kind, network, unscaled(shape), shape, edges, resources, facts)


def interface(
    representation: str = "bucketized",
    resources: tuple[str, ...] = ONE,
    dilations: tuple[int, ...] = FEW,
    probes: int = 0,
    **facts,
) -> Interface:
    """Draw both maps, or the primal one alone where there is no dual one."""
    dual = None if representation == "bottom-up" else untrained(DUAL, representation, resources, 1, dilations, probes)
    return Interface(untrained(PRIMAL, representation, resources, 0, dilations, probes, **facts), dual)


def some_prices(population: Population, weeks: int = HORIZON, plans: tuple[int, ...] = (), seed: int = 0) -> np.ndarray:
    """Make up prices [*plans, week, resource]."""
    random = np.random.default_rng([seed, 5])
    return random.uniform(0, 4, (*plans, weeks, len(population.resources)))


def weighted(population: Population, weight) -> Population:
    """Let agents stand for others."""
    return replace(population, weight=jnp.asarray(weight, jnp.float32))
