"""Gradients at ties are one-sided derivatives: those for stock or a level about to fall."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from textbook import lead_times, stores

from walras.clipping import clip, minimum, positive_part
from walras.exogenous.arrivals import SupplyLimit
from walras.exogenous.paths import ExogenousPaths, constant_paths
from walras.policies.base_stock import AbstractDemandDistribution, OrderUpTo, PricedNewsvendor
from walras.simulation.run import simulate
from walras.simulation.week import empty_state

STEP = 2.0**-6
"""Small, and exact in single precision."""

FALL, RISE = -STEP, STEP


def total(demand, policy, *, lead=0, start=0.0, prices=None, backlog=False, limit=None, resources=("inbound_units",)):
    """Return total reward of stores that buy at 1, sell at 3, pay 1 to hold and 4 per unit short."""
    n_agents = demand.shape[1]
    paths = constant_paths(demand, lead_times(demand, lead), sale_price=3.0, unit_cost=1.0)
    paths = ExogenousPaths(**{**vars(paths), "supply": None if limit is None else SupplyLimit(limit)})
    people = stores(n_agents, penalty=4.0, lead=lead, resources=resources)
    initial = empty_state(n_agents, 3, start if isinstance(start, float) else jnp.asarray(start))
    more = {"initial": initial, "shadow_prices": prices, "backlog": backlog, "throw": False}
    return simulate(people, paths, policy, **more).reward


def at_level(demand, level, **more):
    return total(demand, OrderUpTo(level), **more)


def one_sided(function, at: np.ndarray, step: float) -> np.ndarray:
    """Return every entry's difference towards the side of `step`."""
    here = float(function(jnp.asarray(at)))
    shifts = step * np.eye(at.size, dtype=np.float32).reshape(-1, *at.shape)
    return np.array([(float(function(jnp.asarray(at + shift))) - here) / step for shift in shifts]).reshape(at.shape)


def test_the_clips_keep_their_promise() -> None:
    assert jax.grad(positive_part)(0.0) == 0.0
    assert jax.grad(minimum, argnums=(0, 1))(2.0, 2.0) == (0.0, 1.0)
    assert jax.grad(minimum, argnums=(0, 1))(1.0, 2.0) == (1.0, 0.0)
    assert jax.grad(minimum, argnums=(0, 1))(3.0, 2.0) == (0.0, 1.0)
    assert [float(jax.grad(clip)(x, 0.0, 1.0)) for x in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0, 0, 1, 0, 0]


def test_demand_that_just_empties_the_shelf() -> None:
    """One store, level 5, demand 5 and 5: a level lower by e orders and sells e less in both weeks.

    That is 2 of margin and 4 of penalty, twice. Nothing is ever left, so nothing is held.
    """
    demand = np.full((2, 1), 5.0, np.float32)
    assert float(at_level(demand, jnp.asarray(5.0))) == 2 * 5 * (3 - 1)
    assert float(jax.grad(lambda s: at_level(demand, s))(jnp.asarray(5.0))) == 2 * (3 - 1 + 4)


def test_demand_that_just_empties_the_first_stock() -> None:
    """Stock 5 and no orders: a unit less of stock is a sale less (3) and a unit short (4), and nothing held for it."""
    demand = np.full((1, 1), 5.0, np.float32)
    slope = jax.grad(lambda x: at_level(demand, jnp.asarray(0.0), start=x).sum())(jnp.asarray([5.0]))
    assert float(slope[0]) == 3 + 4


def test_backlogged_demand_that_just_empties_the_shelf() -> None:
    """Stock lower by e leaves e waiting for a week, at 4; the sale is made, and the debt is worth its cost, 1."""
    demand = np.full((1, 1), 5.0, np.float32)
    slope = jax.grad(lambda x: at_level(demand, jnp.asarray(0.0), start=x, backlog=True).sum())(jnp.asarray([5.0]))
    assert float(slope[0]) == 4 + 1


def test_an_order_that_the_vendor_can_just_supply() -> None:
    """A level lower by e orders e less: the vendor's limit of 5 plays no part in that."""
    demand = np.full((1, 1), 9.0, np.float32)
    limit = jnp.full((1, 1), 5.0)
    assert float(jax.grad(lambda s: at_level(demand, s, limit=limit))(jnp.asarray(5.0))) == 3 - 1 + 4


LEADS = np.repeat([0, 1, 2], 60)


@pytest.mark.parametrize("backlog", [False, True], ids=["lost", "backlog"])
def test_levels_on_whole_demand_have_the_derivative_of_a_falling_level(backlog: bool) -> None:
    """Exactly so for every store, while the derivative of a rising level is another one for many of them."""
    rng = np.random.default_rng(9)
    demand = rng.poisson(2.0, (12, len(LEADS))).astype(np.float32)
    levels = rng.integers(2, 3 * (LEADS + 1) + 2).astype(np.float32)
    start = np.minimum(levels, 3.0)
    reward = jax.jit(lambda s: at_level(demand, s, lead=LEADS, start=start, backlog=backlog))
    gradient = np.asarray(jax.jit(jax.grad(reward))(jnp.asarray(levels)))
    falling, rising = (one_sided(reward, levels, step) for step in (FALL, RISE))
    np.testing.assert_array_equal(gradient, falling)
    assert all((falling != rising)[lead == LEADS].mean() > 0.3 for lead in (0, 1, 2))


class UniformDemand(AbstractDemandDistribution):
    """Demand spread evenly between 0 and twice its mean: whole levels at simple ratios."""

    def quantile(
        self, ratio: Float[Array, " agent"], mean: Float[Array, " agent"], sd: Float[Array, " agent"]
    ) -> Float[Array, " agent"]:
        """Return 2 x ratio x mean."""
        return 2.0 * ratio * mean


def priced(demand, prices):
    """Return reward and utilization of newsvendors with margin 3, holding cost 1: ratio 3/4, level 6 at price 0."""
    n_agents = demand.shape[1]
    paths = constant_paths(demand, lead_times(demand, 1), sale_price=4.0, unit_cost=1.0, lead_demand_mean=4.0)
    people = stores(n_agents, penalty=0.0, lead=1, resources=("inbound_units", "storage"))
    policy = PricedNewsvendor(UniformDemand())
    start = empty_state(n_agents, 2, 6.0)
    rollout = simulate(people, paths, policy, initial=start, shadow_prices=prices, throw=False)
    return rollout.reward, rollout.totals.utilization


def right_difference(function, at: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the derivative of prices about to rise, by Richardson's step on two one-sided differences."""
    here, far, near = (np.asarray(function(jnp.asarray(at + s * STEP * direction)), float) for s in (0.0, 1.0, 0.5))
    return (4 * (near - here) - (far - here)) / STEP


@pytest.mark.parametrize("resource", [0, 1], ids=["inbound units", "storage"])
def test_prices_about_to_rise_lower_all_levels_and_have_that_derivative_at_ties(resource: int) -> None:
    """The same price in all weeks lowers every level; stores that sell just their level are on the right side of it."""
    demand = np.random.default_rng(3).choice([1.0, 2.0, 3.0, 6.0], (10, 40)).astype(np.float32)
    at, direction = np.zeros((10, 2), np.float32), np.zeros((10, 2), np.float32)
    direction[:, resource] = 1.0
    value = jax.jit(lambda p: jnp.append(*priced(demand, p)))
    push = np.asarray(jax.jvp(value, (jnp.asarray(at),), (jnp.asarray(direction),))[1])
    right, left = (right_difference(value, at, sign * direction) for sign in (1.0, -1.0))
    for part in (slice(0, 1), slice(1, None)):  # reward, then utilization
        allowed = 0.01 * np.abs(right[part]).max() + 0.02
        np.testing.assert_allclose(push[part], right[part], atol=allowed)
        assert np.abs(left[part] + right[part]).max() > 5 * allowed


def test_a_storage_price_in_one_week_has_the_derivative_of_a_rise() -> None:
    """A price l on the shelf of the week of arrival makes the ratio 3 / (4 + l) and the level 24 / (4 + l).

    Weeks sell 3 of a level of 6 over two weeks, so that each week's stock is just sold out. The order of week 2 arrives
    in week 3: its level falls by 24 / 16 = 1.5 per unit of price, and week 3 receives and sells that much less. The
    order of week 3 makes up for it; the sales lost in week 3 spare one order, that of week 4, which arrives in week 5.
    In week 4 that leaves 1.5 on the shelf: stock about to rise, which the tie rule gives the derivative of a fall, 0.
    """
    demand = np.full((6, 1), 3.0, np.float32)
    prices = jnp.zeros((6, 2))
    direction = prices.at[3, 1].set(1.0)
    use = jax.jit(lambda p: priced(demand, p)[1])
    push = jax.jvp(use, (prices,), (direction,))[1]
    np.testing.assert_allclose(np.asarray(push)[:, 0], [0, 0, 0, -1.5, 1.5, -1.5], atol=1e-6)
    right = right_difference(use, np.asarray(prices), np.asarray(direction))
    np.testing.assert_allclose(np.asarray(push)[:, 0], right[:, 0], atol=1e-3)
    np.testing.assert_allclose(right[:, 1], [0, 0, 0, 0, 1.5, 0], atol=1e-3)
    np.testing.assert_array_equal(np.asarray(push)[:, 1], 0.0)
