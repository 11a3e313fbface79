"""Derivatives are those of the simulator, in bounded memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import SCENARIOS, Leaning, happenings, prices, shop, start

from walras.clipping import positive_part
from walras.distribute import threads
from walras.distribute.blocks import TILE
from walras.errors import ShapeError
from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths, constant_paths
from walras.policies.base import Policy
from walras.policies.base_stock import GammaDemand, PricedNewsvendor
from walras.simulation.gradients import policy_gradient, reward_gradient, utilization_jacobian, utilization_jvp
from walras.simulation.run import simulate

MANY = 2 * TILE + 100
"""Agents of a few blocks, the last one not full."""


class Steered(Policy):
    """Order up to a level of one's own, less a charge and more a boost of every week that all agents share."""

    level: jax.Array
    caution: jax.Array
    boost: jax.Array
    name: str = "steered"

    def orders(self, observation, shadow_prices):
        charged = self.caution * (observation.population.use @ shadow_prices.sum(0))
        return positive_part(self.level + self.boost[observation.week] - observation.position - charged)


def question(agents: int = MANY, scenarios: int | None = None, policy: Policy | None = None, **more):
    """Return the arguments of `simulate` for a few shops with a policy that leans on prices."""
    people = shop(agents)
    levels = jnp.linspace(30.0, 60.0, agents)
    named = {"initial": start(people), "shadow_prices": prices(people, scenarios=scenarios) + 0.125, **more}
    return (people, happenings(people, scenarios=SCENARIOS if scenarios else None), policy or Leaning(levels)), named


def run(parts, named, shadow_prices):
    """Simulate under other prices."""
    return simulate(*parts, **{**named, "shadow_prices": shadow_prices}, throw=False)


@pytest.fixture(params=[False, True], ids=["one path", "scenarios"])
def asked(request):
    return question(scenarios=SCENARIOS if request.param else None)


def test_the_gradient_is_that_of_the_whole_simulation(asked):
    parts, named = asked
    value, found = reward_gradient(*parts, **named, block_agents=TILE)
    rollout = run(*asked, named["shadow_prices"])
    np.testing.assert_allclose(value, rollout.reward, rtol=1e-6)
    exact = jax.grad(lambda p: run(*asked, p).reward.sum())(named["shadow_prices"])
    assert np.abs(exact).min() > 0
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6 * np.abs(exact).max())


def test_weights_of_use_add_what_the_jacobian_pulls_back(asked):
    """Both modes agree: gradient = weights times Jacobian."""
    parts, named = asked
    weights = jnp.asarray(np.random.default_rng(0).normal(size=named["shadow_prices"].shape[-2:]), jnp.float32)
    plain, slope = reward_gradient(*parts, **named)
    value, found = reward_gradient(*parts, **named, weights_of_use=weights)
    use = run(*asked, named["shadow_prices"]).totals.utilization
    np.testing.assert_allclose(value, plain + (use * weights[None] if use.ndim == 3 else use * weights).sum((-2, -1)))
    jacobian = utilization_jacobian(*parts, **named)
    pulled = jnp.einsum("wr,...wrvs->...vs", weights, jacobian)
    np.testing.assert_allclose(found - slope, pulled, rtol=1e-4, atol=1e-5 * np.abs(found).max())


def test_the_jacobian_has_every_direction_as_a_column(asked):
    parts, named = asked
    given = named["shadow_prices"]
    jacobian = utilization_jacobian(*parts, **named, block_agents=TILE)
    assert jacobian.shape == (*given.shape, *given.shape[-2:])
    direction = jnp.asarray(np.random.default_rng(1).integers(-2, 3, given.shape[-2:]), jnp.float32)
    use, along = utilization_jvp(*parts, **named, direction=direction)
    np.testing.assert_allclose(use, run(*asked, given).totals.utilization, rtol=1e-6)
    exact = jax.jvp(lambda p: run(*asked, p).totals.utilization, (given,), (jnp.broadcast_to(direction, given.shape),))
    np.testing.assert_allclose(along, exact[1], rtol=1e-5, atol=1e-6 * np.abs(along).max())
    np.testing.assert_allclose(
        jnp.einsum("...wrvs,vs->...wr", jacobian, direction), along, rtol=1e-5, atol=1e-5 * np.abs(along).max()
    )


def test_prices_shared_by_scenarios_have_the_sum_of_their_gradients():
    parts, named = question(scenarios=SCENARIOS)
    shared = named["shadow_prices"][0]
    every = jnp.broadcast_to(shared, (SCENARIOS, *shared.shape))
    value, together = reward_gradient(*parts, **{**named, "shadow_prices": shared})
    apart_value, apart = reward_gradient(*parts, **{**named, "shadow_prices": every})
    np.testing.assert_allclose(value, apart_value, rtol=1e-6)
    np.testing.assert_allclose(together, apart.sum(0), rtol=1e-5)
    one = utilization_jacobian(*parts, **{**named, "shadow_prices": shared})
    np.testing.assert_allclose(one, utilization_jacobian(*parts, **{**named, "shadow_prices": every}), rtol=1e-5)


def test_a_policy_keeps_its_structure_and_each_agent_its_own_derivative():
    agents = MANY
    policy = Steered(jnp.linspace(30.0, 60.0, agents), jnp.asarray(0.75), jnp.linspace(0.0, 2.0, 8))
    parts, named = question(policy=policy)
    value, found = policy_gradient(*parts, **named, block_agents=TILE)
    exact = eqx.filter_grad(lambda p: simulate(*parts[:2], p, **named, throw=False).reward)(policy)
    assert found.name is None and found.level.shape == (agents,) and found.boost.shape == (8,)
    assert jax.tree.structure(found) == jax.tree.structure(exact)
    np.testing.assert_allclose(value, run(parts, named, named["shadow_prices"]).reward, rtol=1e-6)
    for name in ("level", "caution", "boost"):
        right = np.asarray(getattr(exact, name))
        assert (right != 0).any()
        np.testing.assert_allclose(getattr(found, name), right, rtol=1e-5, atol=1e-6 * np.abs(right).max())


def test_a_policy_without_numbers_has_an_empty_gradient():
    parts, named = question(agents=7, policy=PricedNewsvendor(GammaDemand()))
    _, found = policy_gradient(*parts, **named)
    assert jax.tree.leaves(found) == []


@pytest.mark.parametrize("ask", [reward_gradient, utilization_jacobian, policy_gradient])
def test_threads_compute_what_one_thread_computes(ask, monkeypatch):
    parts, named = question()
    found = {}
    for count in (1, 2):
        monkeypatch.setattr(threads, "cores", lambda count=count: count)
        found[count] = jax.tree.leaves(ask(*parts, **named, block_agents=TILE))
    for one, two in zip(found[1], found[2], strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-6 * np.abs(one).max())


def test_inside_a_larger_program_the_answer_is_the_same():
    parts, named = question()
    given = named.pop("shadow_prices")
    inside = jax.jit(lambda p: reward_gradient(*parts, shadow_prices=p, **named))(given)
    for one, other in zip(inside, reward_gradient(*parts, shadow_prices=given, **named), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6 * np.abs(other).max())


def memory(blocks: int, block_agents: int, ask=reward_gradient) -> int:
    """Return what a compiled derivative keeps beside what goes in and comes out [bytes]."""
    weeks, agents = 52, blocks * TILE
    people = shop(agents)
    paths = jax.eval_shape(lambda: happenings(people, weeks=weeks))
    charged, first = prices(people, weeks=weeks), start(people)

    def derived(p, world: ExogenousPaths):
        return ask(people, world, PricedNewsvendor(), initial=first, shadow_prices=p, block_agents=block_agents)

    return jax.jit(derived).lower(charged, paths).compile().memory_analysis().temp_size_in_bytes


def test_memory_of_a_gradient_does_not_grow_with_the_number_of_blocks():
    few, many, whole = memory(4, TILE), memory(16, TILE), memory(16, 16 * TILE)
    assert many < 1.1 * few
    # The check can fail: sixteen times the agents in one block need several times the memory.
    assert whole > 4 * many


@pytest.mark.parametrize("name", ["direction", "weights_of_use"])
def test_shapes_that_do_not_meet_are_refused(name):
    parts, named = question(agents=7)
    ask = utilization_jvp if name == "direction" else reward_gradient
    with pytest.raises(ShapeError, match=name):
        ask(*parts, **named, **{name: jnp.ones((5, 8, 3))})


def test_a_price_lowers_its_own_week_and_raises_the_weeks_beside_it() -> None:
    """The three-week signature of a price spike, in all columns of a 26 x 26 Jacobian."""
    weeks, agents, lead = 26, 300, 2
    rng = np.random.default_rng(9)
    people = shop(agents, resources=("inbound_units",))
    even = jnp.ones(agents)
    people = eqx.tree_at(
        lambda p: (p.lead_time, p.holding_cost, p.lost_sale_penalty), people, (jnp.full(agents, lead), even, 4 * even)
    )
    demand = rng.gamma(4.0, 2.5, (weeks, agents))
    arrivals = IntegerLeadTimes(jnp.full((weeks, agents), lead))
    paths = constant_paths(demand, arrivals, sale_price=10.0, unit_cost=4.0)
    paths = eqx.tree_at(
        lambda e: (e.lead_demand_mean, e.lead_demand_sd),
        paths,
        (jnp.full((1, agents), 30.0), jnp.full((1, agents), 8.0)),
    )
    prices = jnp.full((weeks, 1), 0.5)
    jacobian = utilization_jacobian(people, paths, PricedNewsvendor(GammaDemand()), shadow_prices=prices)
    assert jacobian.shape == (weeks, 1, weeks, 1)
    slope = np.asarray(jacobian[:, 0, :, 0])
    week, charged = np.indices(slope.shape)
    assert (slope[week < lead] == 0).all()  # what arrives first was ordered before
    assert (slope[week < charged - 1] == 0).all()  # nothing is ordered for a week that is not announced yet
    inner = week > 2 * lead  # before stock arrives nothing is sold, so that nothing is ordered again
    assert (slope[inner & (week == charged)] < 0).all()
    assert (slope[inner & (week == charged - 1)] > 0).all()
    assert (slope[inner & (week == charged + 1) & (charged > 2 * lead)] > 0).all()
