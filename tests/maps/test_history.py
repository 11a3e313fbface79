"""A history holds what happened up to its origin; what is no history is refused."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from shops import happenings, shop
from small_maps import past, people, story

from walras.errors import InputError, ShapeError
from walras.maps.features import HORIZON
from walras.maps.history import History
from walras.policies.base_stock import OrderUpTo
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import empty_state

WEEKS = 8


@pytest.fixture(scope="module")
def simulated():
    population = shop(resources=("inbound_units",))
    exogenous = happenings(population, weeks=WEEKS)
    initial = empty_state(population.n_agents, 3, jnp.full(population.n_agents, 10.0))
    policy = OrderUpTo(jnp.full(population.n_agents, 30.0))
    rollout = simulate(population, exogenous, policy, initial=initial, record=Record.traces())
    return population, exogenous, initial, rollout


def rest():
    return np.ones((HORIZON + 1, 1)), np.zeros((HORIZON, 2))


def test_the_history_is_what_happened(simulated):
    population, exogenous, initial, rollout = simulated
    history = History.from_simulation(population, exogenous, initial, rollout.agents, *rest())
    history_of_agents, happened = history.agent_history, rollout.agents
    at_once = np.where(np.asarray(exogenous.arrivals.weeks) == 0, happened.orders, 0.0)  # not placed yet
    assert at_once.any()
    np.testing.assert_array_equal(history_of_agents.receipts, happened.receipts - at_once)
    np.testing.assert_allclose(
        history_of_agents.stock_start[1:], (happened.stock_end[:-1] + history_of_agents.receipts[1:])
    )
    np.testing.assert_array_equal(history_of_agents.orders_before[1:], happened.orders[:-1])
    np.testing.assert_array_equal(history_of_agents.demand_before[1:], exogenous.demand[:-1])
    np.testing.assert_array_equal(history_of_agents.valid, 1.0)
    assert (history.n_weeks, history.n_agents) == (WEEKS, population.n_agents)


def test_what_is_committed_at_the_origin_is_this_weeks_receipts_and_all_open_orders(simulated):
    population, exogenous, initial, rollout = simulated
    known = History.from_simulation(population, exogenous, initial, rollout.agents, *rest()).known
    use = np.asarray(population.use)
    np.testing.assert_allclose(known.committed[0], rollout.agents.receipts[-1] @ use, rtol=1e-6)
    history_of_agents = History.from_simulation(population, exogenous, initial, rollout.agents, *rest()).agent_history
    still_open = (history_of_agents.position[-1] - history_of_agents.stock_start[-1]) @ use
    np.testing.assert_allclose(np.asarray(known.committed)[1:].sum(0), still_open, rtol=1e-5)
    np.testing.assert_allclose(known.stock, history_of_agents.stock_start[-1] @ use, rtol=1e-6)


def test_orders_of_the_origin_are_not_known(simulated):
    population, exogenous, initial, rollout = simulated
    more = eqx.tree_at(lambda r: r.orders, rollout.agents, rollout.agents.orders.at[-1].add(100.0))
    first, second = (
        History.from_simulation(population, exogenous, initial, each, *rest()) for each in (rollout.agents, more)
    )
    np.testing.assert_array_equal(first.known.committed, second.known.committed)
    np.testing.assert_array_equal(first.agent_history.position, second.agent_history.position)


def test_fields_with_one_row_for_all_weeks_are_spread(simulated):
    population, exogenous, initial, rollout = simulated
    steady = eqx.tree_at(lambda e: e.unit_cost, exogenous, exogenous.unit_cost[:1])
    history = History.from_simulation(population, steady, initial, rollout.agents, *rest())
    np.testing.assert_array_equal(history.agent_history.unit_cost, np.repeat(exogenous.unit_cost[:1], WEEKS, 0))


def test_a_simulation_without_traces_is_refused(simulated):
    population, exogenous, initial, _ = simulated
    with pytest.raises(InputError, match=r"simulate with Record.traces\(\)"):
        History.from_simulation(population, exogenous, initial, None, *rest())


def test_other_weeks_are_refused(simulated):
    population, exogenous, initial, rollout = simulated
    fewer = happenings(population, weeks=WEEKS - 1)
    with pytest.raises(ShapeError, match="`traces` has shape"):
        History.from_simulation(population, fewer, initial, rollout.agents, *rest())
    with pytest.raises(ShapeError, match="`history.known.expected`"):
        History.from_simulation(population, exogenous, initial, rollout.agents, np.ones((3, 1)), rest()[1])


def test_what_is_no_number_is_named():
    population = people()
    history = story(population)
    broken = history.agent_history.receipts.at[3, 7].set(jnp.nan)
    with pytest.raises(InputError, match="`history.agent_history.receipts` holds a NaN or infinity at week 3, agent 7"):
        replace(
            history,
            agent_history=eqx.tree_at(
                lambda history_of_agents: history_of_agents.receipts, history.agent_history, broken
            ),
        )
    endless = eqx.tree_at(lambda k: k.stock, history.known, jnp.array([jnp.inf]))
    with pytest.raises(InputError, match="`history.known.stock` .* at resource 0"):
        replace(history, known=endless)


def test_several_origins_are_refused():
    history = story(people())
    several = type(history.known)(**{name: values[None] for name, values in vars(history.known).items()})
    with pytest.raises(ShapeError, match="cut one origin out"):
        History(history.agent_history, several)
    with pytest.raises(ShapeError, match="at least one week and agent"):
        History(past(people(), 0), history.known)
