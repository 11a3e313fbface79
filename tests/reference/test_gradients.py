"""Gradients through the simulator agree with central differences in double precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from textbook import stores

from walras.distribute.blocks import TILE
from walras.exogenous.arrivals import ArrivalShares, IntegerLeadTimes, SupplyLimit
from walras.exogenous.paths import ExogenousPaths
from walras.planning.prices.simulated_view import SimulatedView
from walras.policies.base_stock import GammaDemand, NormalDemand, OrderUpTo, PricedBaseStock, PricedNewsvendor
from walras.population.population import Population
from walras.simulation.gradients import policy_gradient, reward_gradient, utilization_jacobian, utilization_jvp
from walras.simulation.run import simulate
from walras.simulation.week import State

WEEKS, AGENTS, SCENARIOS = 9, 6, 2
STEP = 2.0**-16
"""Small enough that no demand is met or missed within it."""
RESOURCES = ("inbound_units", "inbound_volume", "storage")

POLICIES = {
    "newsvendor, normal": (PricedNewsvendor(NormalDemand()), False),
    "newsvendor, gamma, discounted": (PricedNewsvendor(GammaDemand(), discount=0.99), False),
    "base-stock, normal, backlog": (PricedBaseStock(NormalDemand(), discount=0.98), True),
}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def world(seed: int, n_agents: int = AGENTS, shares: bool = False) -> tuple[Population, ExogenousPaths, State]:
    """Draw agents, fractional demand and a start, all in double precision, so that nothing ties."""
    rng = np.random.default_rng(seed)
    lead = rng.integers(0, 4, n_agents)
    people = stores(n_agents, lead=lead, resources=RESOURCES)
    own = {
        "holding_cost": rng.uniform(0.5, 1.5, n_agents),
        "lost_sale_penalty": rng.uniform(2.0, 6.0, n_agents),
        "unit_margin": rng.uniform(3.0, 8.0, n_agents),
        "use": rng.uniform(0.3, 1.2, (n_agents, 3)),
        "weight": rng.uniform(0.5, 2.0, n_agents),
    }
    people = Population(**{**vars(people), **{name: jnp.asarray(value) for name, value in own.items()}})
    mean = rng.uniform(5.0, 20.0, n_agents)
    shape = (WEEKS, n_agents)
    arrivals = IntegerLeadTimes(jnp.asarray(np.broadcast_to(lead, (SCENARIOS, *shape))))
    if shares:
        split = rng.dirichlet(np.ones(4), (SCENARIOS, *shape))
        arrivals = ArrivalShares(jnp.asarray(np.moveaxis(split, -1, -2)))
    paths = ExogenousPaths(
        demand=jnp.asarray(rng.gamma(4.0, mean / 4.0, (SCENARIOS, *shape))),
        sale_price=jnp.asarray(rng.uniform(9.0, 11.0, shape)),
        unit_cost=jnp.asarray(rng.uniform(3.0, 5.0, shape)),
        arrivals=arrivals,
        lead_demand_mean=jnp.asarray(mean * (lead + 1) * rng.uniform(0.9, 1.1, shape)),
        lead_demand_sd=jnp.asarray(mean / 2 * np.sqrt(lead + 1) * rng.uniform(0.9, 1.1, shape)),
        supply=SupplyLimit(jnp.asarray(rng.uniform(8.0, 60.0, shape))),
    )
    start = State(jnp.asarray(rng.uniform(0, 20, n_agents)), jnp.asarray(rng.uniform(0, 10, (4, n_agents))))
    return people, paths, start


def announced(seed: int) -> np.ndarray:
    """Draw prices in the interior, where no ratio is clipped."""
    return np.round(np.random.default_rng(seed).uniform(0.1, 0.5, (WEEKS, 3)) * 256) / 256


def answer(world: tuple, policy, prices, *, backlog: bool):
    """Return total reward and utilization [scenario, week, resource], both to be differentiated."""
    people, paths, start = world
    rollout = simulate(people, paths, policy, initial=start, shadow_prices=prices, backlog=backlog, throw=False)
    return rollout.reward.sum(), rollout.totals.utilization


def differences(function, at: np.ndarray, step: float = STEP) -> np.ndarray:
    """Return central differences, one column per entry of `at`."""
    shifts = step * np.eye(at.size).reshape(-1, *at.shape)
    return np.stack([(function(at + s) - function(at - s)) / (2 * step) for s in shifts], axis=-1)


@pytest.mark.parametrize("name", POLICIES)
def test_reward_and_utilization_have_the_derivatives_of_their_differences(name: str) -> None:
    policy, backlog = POLICIES[name]
    drawn, prices = world(1, shares=True), announced(1)

    def both(p):
        reward, use = answer(drawn, policy, p, backlog=backlog)
        return jnp.append(use.ravel(), reward)

    compiled = jax.jit(both)
    exact = differences(lambda p: np.asarray(compiled(jnp.asarray(p))), prices)
    found = np.asarray(jax.jit(jax.jacfwd(both))(jnp.asarray(prices))).reshape(exact.shape)
    assert np.linalg.norm(exact[:-1]) > 1.0
    assert (np.abs(exact[-1]) > 1e-2).sum() > prices.size / 2
    for rows in (slice(None, -1), slice(-1, None)):
        np.testing.assert_allclose(found[rows], exact[rows], rtol=2e-5, atol=1e-6 * np.abs(exact[rows]).max())


def test_forward_and_backward_modes_agree() -> None:
    """Up to single precision, in which prices and their derivatives are kept."""
    policy, _ = POLICIES["newsvendor, normal"]
    drawn, prices = world(3), jnp.asarray(announced(3))
    direction = jnp.asarray(np.random.default_rng(3).normal(size=prices.shape))
    reward = lambda p: answer(drawn, policy, p, backlog=False)[0]  # noqa: E731
    forward = jax.jit(lambda p, d: jax.jvp(reward, (p,), (d,))[1])(prices, direction)
    assert float(forward) == pytest.approx(float((jax.jit(jax.grad(reward))(prices) * direction).sum()), rel=2e-6)


@pytest.mark.parametrize("backlog", [False, True])
def test_base_stock_levels_have_the_gradient_of_their_differences(backlog: bool) -> None:
    drawn = world(4)
    levels = np.random.default_rng(4).uniform(20.0, 60.0, AGENTS)
    reward = eqx.filter_jit(lambda s: answer(drawn, OrderUpTo(s), None, backlog=backlog)[0])
    exact = differences(lambda s: np.asarray(reward(jnp.asarray(s))), levels, step=1e-4)
    gradient = jax.grad(lambda s: answer(drawn, OrderUpTo(s), None, backlog=backlog)[0])(jnp.asarray(levels))
    assert (exact != 0).all()
    np.testing.assert_allclose(np.asarray(gradient), exact, rtol=1e-6)


def test_initial_stock_has_the_gradient_of_its_differences() -> None:
    people, paths, start = world(5)
    policy, _ = POLICIES["newsvendor, normal"]

    def reward(stock):
        return answer((people, paths, State(stock, start.pipeline)), policy, None, backlog=False)[0]

    compiled = eqx.filter_jit(reward)
    exact = differences(lambda s: np.asarray(compiled(jnp.asarray(s))), np.asarray(start.stock_end), step=1e-4)
    np.testing.assert_allclose(np.asarray(jax.grad(reward)(start.stock_end)), exact, rtol=1e-6, atol=1e-6)


def test_blocks_of_agents_add_their_gradients() -> None:
    """A population larger than a block, which it does not divide, counts every agent once."""
    n_agents = 2 * TILE + 300
    people, paths, start = world(6, n_agents)
    one_path = (paths.demand[0], IntegerLeadTimes(paths.arrivals.weeks[0]))
    paths = eqx.tree_at(lambda e: (e.demand, e.arrivals, e.supply), paths, (*one_path, None))
    policy, prices = PricedBaseStock(NormalDemand()), jnp.asarray(announced(6))

    def part(first: int, last: int):
        cut = lambda tree: jax.tree.map(lambda leaf: leaf[..., first:last], tree)  # noqa: E731
        return jax.tree.map(lambda leaf: leaf[first:last], people), cut(paths), cut(start)

    def both(p, drawn):
        reward, use = answer(drawn, policy, p, backlog=False)
        return reward + (use * jnp.arange(WEEKS * 3.0).reshape(WEEKS, 3)).sum()

    value = jax.jit(jax.value_and_grad(both))
    whole = value(prices, (people, paths, start))
    pieces = [value(prices, part(*ends)) for ends in ((0, 374), (374, n_agents))]
    assert float(whole[0]) == pytest.approx(sum(float(p[0]) for p in pieces), rel=1e-9)
    np.testing.assert_allclose(whole[1], sum(p[1] for p in pieces), rtol=1e-5)


def test_the_view_pushes_forward_the_same_jacobian() -> None:
    policy, _ = POLICIES["newsvendor, normal"]
    people, paths, start = world(7)
    view = SimulatedView(people, paths, policy, start)
    prices = announced(7)
    exact = differences(lambda p: view.expected(p).ravel(), prices)
    np.testing.assert_allclose(view.jacobian(prices), exact, rtol=1e-4, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("name", POLICIES)
def test_the_public_derivatives_are_those_of_differences(name: str) -> None:
    policy, backlog = POLICIES[name]
    drawn, prices = world(8), announced(8)
    parts = (*drawn[:2], policy)
    named = {"initial": drawn[2], "shadow_prices": jnp.asarray(prices), "backlog": backlog}
    compiled = jax.jit(lambda p: answer(drawn, policy, p, backlog=backlog))
    exact = differences(lambda p: np.asarray(compiled(jnp.asarray(p))[0]), prices).reshape(prices.shape)
    use = differences(lambda p: np.asarray(compiled(jnp.asarray(p))[1]), prices)
    value, slope = reward_gradient(*parts, **named)
    assert float(value.sum()) == pytest.approx(float(compiled(jnp.asarray(prices))[0]), rel=1e-12)
    np.testing.assert_allclose(slope, exact, rtol=2e-5, atol=1e-6 * np.abs(exact).max())
    jacobian = np.asarray(utilization_jacobian(*parts, **named))
    np.testing.assert_allclose(jacobian.reshape(use.shape), use, rtol=2e-5, atol=1e-6 * np.abs(use).max())
    direction = np.random.default_rng(8).integers(-2, 3, prices.shape).astype(np.float32)
    _, along = utilization_jvp(*parts, **named, direction=jnp.asarray(direction))
    np.testing.assert_allclose(along, use @ direction.ravel(), rtol=2e-5, atol=1e-5 * np.abs(along).max())


def test_every_agents_level_has_the_gradient_of_its_differences() -> None:
    people, paths, start = world(4)
    levels = np.random.default_rng(4).uniform(20.0, 60.0, AGENTS)
    reward = eqx.filter_jit(lambda s: answer((people, paths, start), OrderUpTo(s), None, backlog=False)[0])
    exact = differences(lambda s: np.asarray(reward(jnp.asarray(s))), levels, step=1e-4)
    _, found = policy_gradient(people, paths, OrderUpTo(jnp.asarray(levels)), initial=start)
    assert (exact != 0).all()
    np.testing.assert_allclose(found.level, exact, rtol=1e-6)
