"""What policies remember and read: the same whether a run is one pass, weeks apart, in blocks, scenarios or ranges."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import AGENTS, SCENARIOS, happenings, prices, shop, start

from walras.clipping import positive_part
from walras.policies.base import Policy, PolicyMemory
from walras.policies.order_constraints import CasePacks, Constrained
from walras.population.agent_axis import Broadcast, agent_axis_of, map_per_agent
from walras.simulation.controller import Controller
from walras.simulation.gradients import policy_gradient
from walras.simulation.out_of_core import ChunkedRecord, MemorySource, simulate_out_of_core
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import State


class Recaller(Policy):
    """Order last week's demand plus a share of the last order; it has as many shared numbers as there are agents."""

    share: Broadcast

    def begin(self, population):
        nothing = jnp.zeros(population.n_agents)
        return PolicyMemory(nothing, nothing)

    def read(self, memory, outlooks, demand):
        return jnp.concatenate([memory[None], demand[:-1]]), demand[-1]

    def remember(self, observation, orders):
        return orders

    def encode(self, outlook, shadow_prices):
        return outlook.read

    def decide(self, encoded, observation, shadow_prices):
        return positive_part(encoded + self.share.value[0] * observation.memory.own_state)


SHARE = 0.25
POLICY = Recaller(Broadcast(jnp.full(AGENTS, SHARE)))


def by_hand(demand: np.ndarray) -> np.ndarray:
    last, orders = np.zeros(demand.shape[-1]), []
    for week in range(len(demand)):
        last = (demand[week - 1] if week else 0.0) + SHARE * last
        orders.append(last)
    return np.stack(orders)


@pytest.fixture(scope="module")
def people():
    return shop()


@pytest.fixture(scope="module")
def paths(people):
    return happenings(people)


def test_orders_follow_what_is_read_and_remembered(people, paths):
    rollout = simulate(people, paths, POLICY, initial=start(people), record=Record.traces())
    np.testing.assert_allclose(rollout.agents.orders, by_hand(np.asarray(paths.demand)), rtol=1e-6)
    np.testing.assert_array_equal(rollout.final.memory.exogenous_state, paths.demand[-1])
    np.testing.assert_array_equal(rollout.final.memory.own_state, rollout.agents.orders[-1])


def test_week_after_week_is_the_same_as_one_pass(people, paths):
    class Quiet(Controller):
        def issue(self, observation):
            return jnp.zeros((1, len(people.resources)))

    whole = simulate(people, paths, POLICY, initial=start(people))
    apart = simulate(people, paths, POLICY, initial=start(people), controller=Quiet())
    np.testing.assert_allclose(apart.totals.orders, whole.totals.orders, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, apart.final, whole.final)


def test_every_scenario_remembers_its_own(people):
    several = happenings(people, scenarios=SCENARIOS)
    rollout = simulate(people, several, POLICY, initial=start(people), record=Record.traces())
    for index in range(SCENARIOS):
        expected = by_hand(np.asarray(several.demand[index]))
        np.testing.assert_allclose(rollout.agents.orders[index], expected, rtol=1e-6)


def test_prices_of_every_scenario_leave_what_is_read_alone(people):
    several = happenings(people, scenarios=SCENARIOS)
    charged = prices(people, scenarios=SCENARIOS)
    free = simulate(people, several, POLICY, initial=start(people))
    priced = simulate(people, several, POLICY, initial=start(people), shadow_prices=charged)
    np.testing.assert_array_equal(priced.totals.orders, free.totals.orders)


def test_ranges_line_memories_up(people, paths):
    whole = simulate(people, paths, POLICY, initial=start(people))
    source = MemorySource(people, paths, start(people))
    zero = jnp.zeros((paths.n_weeks, len(people.resources)))
    ranged = simulate_out_of_core(source, POLICY, shadow_prices=zero, record=ChunkedRecord(final=True), chunk_agents=3)
    np.testing.assert_array_equal(ranged.final.memory.own_state, whole.final.memory.own_state)
    np.testing.assert_array_equal(ranged.final.memory.exogenous_state, whole.final.memory.exogenous_state)


def test_terms_let_the_inner_policy_remember_what_was_placed(people, paths):
    whole = Constrained(POLICY, CasePacks())
    rollout = simulate(people, paths, whole, initial=start(people), record=Record.traces())
    orders = np.asarray(rollout.agents.orders)
    np.testing.assert_array_equal(orders, np.rint(orders))
    np.testing.assert_array_equal(rollout.final.memory.own_state, orders[-1])


def test_shared_numbers_have_one_derivative_for_all(people, paths):
    _, slope = policy_gradient(people, paths, POLICY, initial=start(people))

    def reward(share):
        return simulate(people, paths, Recaller(Broadcast(share)), initial=start(people), throw=False).reward

    np.testing.assert_allclose(slope.share.value, jax.grad(reward)(POLICY.share.value), rtol=1e-4)


def test_own_arrays_are_those_with_the_agents_last():
    tree = {
        "mine": jnp.zeros((2, AGENTS)),
        "theirs": jnp.zeros((AGENTS, 2)),
        "all": Broadcast(jnp.zeros(AGENTS)),
        "n": 3,
    }
    marked = agent_axis_of(tree, AGENTS)
    assert (marked["mine"], marked["theirs"], marked["all"].value, marked["n"]) == (True, False, False, False)
    cut = map_per_agent(lambda leaf: leaf[..., :2], tree, AGENTS)
    assert cut["mine"].shape == (2, 2) and cut["all"].value.shape == (AGENTS,) and cut["n"] == 3


def test_a_state_without_memory_starts_afresh(people, paths):
    ended = simulate(people, paths, POLICY, initial=start(people)).final
    forgetful = State(ended.stock_end, ended.pipeline)
    again = simulate(people, paths, POLICY, initial=forgetful)
    known = simulate(people, paths, POLICY, initial=dataclasses.replace(forgetful, memory=ended.memory))
    assert float(known.totals.orders[0]) > float(again.totals.orders[0]) == 0.0
