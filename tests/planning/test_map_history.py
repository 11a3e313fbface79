"""Maps read the same at a plan's origin as in training, and as the simulation goes on from it."""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import interface

from walras.config import PlanSettings
from walras.errors import InputError
from walras.exogenous.arrivals import ORDER_LOG_SD
from walras.exogenous.calendar import holiday_distance
from walras.exogenous.demand.model import DemandModel
from walras.exogenous.paths import ExogenousPaths
from walras.maps.features import HORIZON, AgentHistory
from walras.maps.rollout import PopulationWindow, known_future
from walras.planning.problem import PlanningProblem, build_problem, map_history, replay_history
from walras.planning.search import encode_population
from walras.population.generate import generate_panel
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.setup import slice_agents

WEEKS = 8
SETTINGS = PlanSettings(interface="learned", weeks=WEEKS, scenarios=2, paths=1)


@lru_cache
def case() -> PlanningProblem:
    return build_problem(generate_panel(agents=60, weeks=110, seed=0), SETTINGS)


@lru_cache
def demand() -> DemandModel:
    return DemandModel.fit(case().panel)


def expected() -> ExogenousPaths:
    """Return the expected path of all agents, the first of several copies."""
    paths = case().expected
    return slice_agents(paths, 0, case().population.n_agents, paths.n_agents)


def test_the_last_column_is_the_first_planned_week_before_its_orders():
    known = case()
    ledger, state = known.history.agent_history, known.initial
    assert known.history.n_weeks == 64 + 30 + 1
    rollout = simulate(known.population, expected(), known.policy, initial=state, record=Record.traces()).agents
    np.testing.assert_allclose(ledger.receipts[-1], rollout.receipts[0])
    np.testing.assert_allclose(ledger.stock_start[-1], state.stock_end + rollout.receipts[0])
    np.testing.assert_allclose(ledger.position[-1], state.stock_end + state.pipeline.sum(0))
    np.testing.assert_allclose(ledger.lead_demand_mean[-1], expected().lead_demand_mean[0])
    # The week before is the replay's last one: its stock and orders lead to the state.
    np.testing.assert_allclose(ledger.demand_before[-1], known.panel.units[-1])
    np.testing.assert_allclose(
        ledger.position[-2] + ledger.orders_before[-1] - np.minimum(ledger.stock_start[-2], ledger.demand_before[-1]),
        ledger.position[-1],
        rtol=1e-4,
        atol=1e-3,
    )
    assert float(ledger.valid[-1].min()) == 1.0


def test_what_is_known_of_the_coming_weeks_is_what_the_plan_knows():
    known, use = case().history.known, np.asarray(case().population.use)
    np.testing.assert_allclose(known.expected, demand().mean(HORIZON + 1) @ use, rtol=1e-5)
    np.testing.assert_allclose(known.committed[:WEEKS], case().view.committed, rtol=1e-4, atol=1e-2)
    first = case().panel.next_weeks(1)[0]
    np.testing.assert_array_equal(known.holidays, holiday_distance(first, HORIZON + 1)[1:])


def test_week_0_is_answered_as_simulated():
    view = encode_population(case(), interface(), SETTINGS)
    zero = np.zeros((WEEKS, 1))
    assert view.utilization(zero)[0] == pytest.approx(case().view.utilization(zero)[0], rel=1e-5)


def test_maps_read_at_the_origin_what_they_read_in_training():
    """Go on for the first planned week as training does, and read that week off it."""
    known, replayed = case(), _replayed()
    weeks = replayed.exogenous.n_weeks
    both = jax.tree.map(lambda old, new: jnp.concatenate([old, new[:1]]), replayed.exogenous, expected())
    rollout = simulate(
        known.population, both, known.policy, initial=replayed.initial, record=Record.traces(), throw=False
    )
    rows = (weeks + 1, HORIZON + 1, 1)
    stretch = PopulationWindow(
        population=known.population,
        exogenous=both,
        initial=replayed.initial,
        valid=jnp.ones((weeks + 1, known.population.n_agents), bool),
        expected_use=jnp.zeros(rows),
        holidays=jnp.zeros((weeks + 1 + HORIZON, 2)),
    )
    ledger = AgentHistory.from_traces(both, rollout.agents, replayed.initial, stretch.valid.astype(jnp.float32))
    trained = known_future(stretch, ledger, rollout.agents.orders)
    np.testing.assert_allclose(known.history.known.committed, trained.committed[-1], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(known.history.known.stock, trained.stock[-1], rtol=1e-4)
    for ours, theirs in zip(jax.tree.leaves(known.history.agent_history), jax.tree.leaves(ledger), strict=True):
        np.testing.assert_allclose(ours[-1], theirs[-1], rtol=1e-4, atol=1e-2)


def test_recorded_stock_replaces_the_replayed_one_in_the_last_column():
    panel = generate_panel(agents=60, weeks=110, seed=0)
    stock = np.full(panel.units.shape, np.nan, np.float32)
    stock[-1] = 1000.0
    known = build_problem(replace(panel, on_hand=stock), SETTINGS)
    ledger = known.history.agent_history
    np.testing.assert_allclose(ledger.stock_start[-1], 1000.0 + ledger.receipts[-1])
    # Another memory layout of the weeks in stock adds up in another order.
    np.testing.assert_allclose(ledger.stock_start[:-1], case().history.agent_history.stock_start[:-1], rtol=1e-5)


def test_a_replay_without_traces_is_refused():
    parts = (case().panel, case().population)
    without = replay_history(*parts, case().policy, demand(), log_sd=0.1, seed=0, weeks=3)
    with pytest.raises(InputError, match=r"the replay kept no traces .* replay with Record.traces\(\)"):
        map_history(*parts, without, case().initial, expected(), demand())


def _replayed():
    known = case()
    given = {"log_sd": ORDER_LOG_SD, "seed": 0, "weeks": 94, "record": Record.traces()}
    return replay_history(known.panel, known.population, known.policy, demand(), **given)
