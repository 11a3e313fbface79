"""Policies that do not fit the agents are refused in one sentence, once per shape, and no others."""

import jax.numpy as jnp
import pytest
from shops import AGENTS, Counted, happenings, order_up_to, prices, shop

from walras.clipping import positive_part
from walras.errors import ShapeError
from walras.policies.base import Policy
from walras.policies.base_stock import OrderUpTo
from walras.policies.order_constraints import CasePacks, Constrained
from walras.policies.user_policies import FunctionPolicy
from walras.population.agent_axis import Broadcast
from walras.simulation.checks import CHECKED_POLICIES
from walras.simulation.gradients import reward_gradient
from walras.simulation.run import simulate

PEOPLE = shop()
PATHS = happenings(PEOPLE)


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: Constrained(p, CasePacks(2.0))], ids=["bare", "under terms"])
def test_one_number_too_few_is_one_sentence(wrap):
    policy = wrap(OrderUpTo(jnp.ones(AGENTS - 1)))
    asks = (
        lambda: simulate(PEOPLE, PATHS, policy),
        lambda: reward_gradient(PEOPLE, PATHS, policy, shadow_prices=prices(PEOPLE)),
    )
    for ask in asks:
        with pytest.raises(
            ShapeError, match=r"level` has shape \(6,\) but needs .*7 agents.*; give one number"
        ) as caught:
            ask()
        assert "\n" not in str(caught.value) and caught.value.__cause__ is not None


def test_a_length_that_happens_to_fit_a_block_is_refused_too():
    people = shop(512)
    with pytest.raises(ShapeError, match=r"level` has shape \(256,\) but needs .*512 agents"):
        simulate(people, happenings(people, weeks=2), OrderUpTo(jnp.ones(256)), block_agents=256)


def test_what_all_share_has_any_length_and_only_looks_like_agents_where_it_is_not_marked():
    def order(observation, shadow_prices, weights):
        return positive_part(weights.sum() * jnp.ones((3, 512)).sum(0)[:1] / 3.0 - observation.position)

    def exact(observation, shadow_prices, weights):
        return positive_part(weights @ jnp.ones(512) - observation.position)

    people = shop(512)
    paths = happenings(people, weeks=2)
    simulate(PEOPLE, PATHS, FunctionPolicy(order, jnp.ones(5)))
    simulate(people, paths, FunctionPolicy(exact, Broadcast(jnp.ones(512))), block_agents=256)
    with pytest.raises((ShapeError, TypeError)):
        simulate(people, paths, FunctionPolicy(exact, jnp.ones(512)), block_agents=256)


def test_errors_of_the_policys_own_pass_as_they_are():
    class Broken(Policy):
        def orders(self, observation, shadow_prices):
            raise ValueError("the model file is missing")

    with pytest.raises(ValueError, match="the model file is missing"):
        simulate(PEOPLE, PATHS, Broken())


def test_a_shape_is_asked_about_once():
    policy = Counted(order_up_to(PEOPLE))
    simulate(PEOPLE, PATHS, policy)
    known, calls = len(CHECKED_POLICIES), Counted.calls
    simulate(PEOPLE, PATHS, Counted(order_up_to(PEOPLE, seed=1)))
    assert (len(CHECKED_POLICIES), Counted.calls) == (known, calls)
