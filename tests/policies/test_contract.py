"""Own what every local policy must keep: shapes, relabelling, no order below zero, finite gradients.

OPEN: a new policy joins `POLICIES` and passes all of it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from walras.policies.base import Observation, Policy
from walras.policies.base_stock import GammaDemand, NormalDemand, PricedBaseStock, PricedNewsvendor
from walras.policies.simple import ConstantOrder, OrderUpTo, ReorderPoint
from walras.population.population import RESOURCES, Population

AGENTS, AHEAD = 24, 7
LEVELS = jnp.linspace(0.0, 80.0, AGENTS)

POLICIES = [
    PricedNewsvendor(GammaDemand()),
    PricedNewsvendor(NormalDemand(), discount=0.99),
    PricedBaseStock(NormalDemand()),
    PricedBaseStock(GammaDemand(), discount=0.99),
    OrderUpTo(LEVELS),
    OrderUpTo(jnp.asarray(30.0)),
    ConstantOrder(LEVELS),
    ConstantOrder(jnp.asarray(3.0)),
    ReorderPoint(LEVELS / 2, LEVELS),
]
PRICED = POLICIES[:4]
by_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)


def observation(seed: int = 0, **changed) -> Observation:
    """Draw what 24 agents see; `changed` sets fields of the observation or of its population to one number."""
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float) -> jnp.ndarray:
        return jnp.asarray(rng.uniform(low, high, AGENTS), jnp.float32)

    people = {
        "holding_cost": draw(0.01, 1.0),
        "lost_sale_penalty": draw(0.0, 5.0),
        "lead_time": jnp.asarray(rng.integers(0, AHEAD - 1, AGENTS), jnp.int32),
        "demand_scale": draw(1.0, 20.0),
        "unit_margin": draw(0.5, 5.0),
        "use": jnp.asarray(rng.uniform(0.1, 2.0, (AGENTS, 3)), jnp.float32),
        "weight": jnp.ones(AGENTS),
    }
    seen = {
        "stock_start": draw(0.0, 30.0),
        "position": draw(0.0, 60.0),
        "lead_demand_mean": draw(5.0, 60.0),
        "lead_demand_sd": draw(1.0, 20.0),
        "sale_price": draw(6.0, 12.0),
        "unit_cost": draw(2.0, 6.0),
        "next_unit_cost": draw(2.0, 6.0),
    }
    for name, value in changed.items():
        part = people if name in people else seen
        part[name] = jnp.full_like(part[name], value)
    return Observation(week=jnp.asarray(3), population=Population(**people, resources=RESOURCES), **seen)


def prices(seed: int = 1) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(seed).uniform(0.0, 1.0, (AHEAD, 3)), jnp.float32)


def relabel(tree, order: np.ndarray):
    """Relabel the agents of an observation or of a policy; numbers that all share stay as they are."""
    return jax.tree.map(lambda leaf: leaf[order] if eqx.is_array(leaf) and leaf.ndim > 0 else leaf, tree)


@by_policy
def test_one_order_per_agent_and_none_below_zero(policy: Policy) -> None:
    orders = policy.orders(observation(), prices())
    assert orders.shape == (AGENTS,) and orders.dtype == jnp.float32
    assert (np.asarray(orders) >= 0).all() and np.asarray(orders).any()


@by_policy
def test_relabelling_agents_relabels_orders(policy: Policy) -> None:
    order = np.random.default_rng(2).permutation(AGENTS)
    plain = np.asarray(policy.orders(observation(), prices()))
    again = relabel(policy, order).orders(relabel(observation(), order), prices())
    np.testing.assert_allclose(again, plain[order], rtol=1e-5, atol=1e-4)


@by_policy
def test_an_agent_orders_the_same_whoever_stands_beside_it(policy: Policy) -> None:
    some = np.arange(0, AGENTS, 3)
    plain = np.asarray(policy.orders(observation(), prices()))
    alone = relabel(policy, some).orders(relabel(observation(), some), prices())
    np.testing.assert_allclose(alone, plain[some], rtol=1e-5, atol=1e-4)


@by_policy
def test_an_agent_with_enough_orders_nothing_unless_it_orders_blindly(policy: Policy) -> None:
    orders = np.asarray(policy.orders(observation(position=1e6), prices()))
    assert isinstance(policy, ConstantOrder) or not orders.any()


AWKWARD = {
    "as drawn": {},
    "no demand": {"lead_demand_mean": 0.0, "lead_demand_sd": 0.0},
    "demand that never varies": {"lead_demand_sd": 0.0},
    "no margin": {"sale_price": 4.0, "unit_cost": 4.0, "next_unit_cost": 4.0, "lost_sale_penalty": 0.0},
    "a loss on every unit": {"sale_price": 1.0, "unit_cost": 4.0, "lost_sale_penalty": 0.0},
    "nothing costs anything": {
        "sale_price": 0.0,
        "unit_cost": 0.0,
        "next_unit_cost": 0.0,
        "lost_sale_penalty": 0.0,
        "holding_cost": 0.0,
    },
    "waiting costs more than ordering": {"next_unit_cost": 50.0},
    "lead times beyond what is announced": {"lead_time": 40},
}


@by_policy
@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("height", [0.0, 1e4])
def test_gradients_are_numbers_at_every_price(policy: Policy, case: str, height: float) -> None:
    seen, flat = observation(**AWKWARD[case]), jnp.full((AHEAD, 3), height)
    orders = policy.orders(seen, flat)
    assert np.isfinite(orders).all() and (np.asarray(orders) >= 0).all()
    arrays, rest = eqx.partition(seen, eqx.is_inexact_array)
    value = lambda a, p: policy.orders(eqx.combine(a, rest), p).sum()  # noqa: E731
    slopes = jax.grad(value, argnums=(0, 1))(arrays, flat)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("policy", PRICED, ids=lambda policy: type(policy).__name__)
def test_priced_orders_fall_with_the_price_of_their_arrival_week(policy: Policy) -> None:
    """They rise, or stay, with the price of the week after, and no other week's price moves them."""
    seen = observation(lead_time=2, lost_sale_penalty=4.0)
    flow = jnp.full((AHEAD, 3), 0.1)
    slopes = np.asarray(jax.jacfwd(lambda p: policy.orders(seen, p))(flow))
    assert (slopes[:, 2, :2] <= 0).all() and (slopes[:, 2, :2] < 0).any()
    assert (slopes[:, 2, 2] <= 0).all() and (slopes[:, 2, 2] < 0).any()
    assert (slopes[:, 3, :2] >= 0).all() and (slopes[:, 3, :2] > 0).any()
    assert not slopes[:, [0, 1, 4, 5, 6]].any() and not slopes[:, 3, 2].any()
