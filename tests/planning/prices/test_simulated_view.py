"""Ask the simulated view, the oracle and the weekly re-issue what they promise, on one small population."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import AGENTS as SHOP_AGENTS
from shops import SCENARIOS, Counted, Leaning, happenings, shop, start
from shops import prices as some_prices

from walras.errors import InputError, NotFiniteError, ShapeError
from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.planning.prices.dual_ascent import AbstractDualSolver, DualProblem, DualSolution, GaussNewton, ProjectedDual
from walras.planning.prices.mpc import MPCController
from walras.planning.prices.oracle import committed_use, oracle, path_outcome
from walras.planning.prices.simulated_view import PricedSimulation, SimulatedView
from walras.planning.protocols import DifferentiableView, PlannerView, ValuedView
from walras.policies.base_stock import ConstantOrder, PricedNewsvendor
from walras.population.population import Population
from walras.simulation.controller import ControlObservation
from walras.simulation.run import simulate, week_of, window_length
from walras.simulation.week import State

AGENTS, WEEKS, LEAD, PATHS = 40, 8, 2, 3


def population() -> Population:
    random = np.random.default_rng(0)
    margin = random.uniform(1.0, 6.0, AGENTS)
    return Population(
        holding_cost=jnp.full(AGENTS, 0.1),
        lost_sale_penalty=jnp.zeros(AGENTS),
        lead_time=jnp.asarray(random.integers(1, LEAD + 1, AGENTS), jnp.int32),
        demand_scale=jnp.full(AGENTS, 10.0),
        unit_margin=jnp.asarray(margin, jnp.float32),
        use=jnp.ones((AGENTS, 1)),
        weight=jnp.ones(AGENTS),
        resources=("inbound_units",),
    )


def futures(people: Population, weeks: int, seed: int, demand: np.ndarray | None = None) -> ExogenousPaths:
    random = np.random.default_rng([seed, 1])
    drawn = random.gamma(4.0, 2.5, (PATHS, weeks, AGENTS)) if demand is None else demand
    lead = np.asarray(people.lead_time)
    shape = (weeks, AGENTS)
    cost = np.full(shape, 5.0)
    mean = 10.0 * (lead + 1.0)
    return ExogenousPaths(
        demand=jnp.asarray(drawn, jnp.float32),
        sale_price=jnp.asarray(cost + np.asarray(people.unit_margin), jnp.float32),
        unit_cost=jnp.asarray(cost, jnp.float32),
        arrivals=IntegerLeadTimes(jnp.broadcast_to(jnp.asarray(lead, jnp.int8), (*drawn.shape[:-2], *shape))),
        lead_demand_mean=jnp.asarray(np.broadcast_to(mean, shape), jnp.float32),
        lead_demand_sd=jnp.asarray(np.broadcast_to(5.0 * np.sqrt(lead + 1.0), shape), jnp.float32),
    )


PEOPLE = population()
STATE = State(stock_end=jnp.full(AGENTS, 10.0), pipeline=jnp.full((LEAD, AGENTS), 8.0))
POLICY = Counted(PricedNewsvendor())
FUTURES = futures(PEOPLE, WEEKS, 0)
SMALL = np.full((WEEKS, 1), 330.0)
"""About four fifths of what is used without prices."""


@pytest.fixture(scope="module")
def view() -> SimulatedView:
    return SimulatedView(PEOPLE, FUTURES, POLICY, STATE)


@pytest.fixture(scope="module")
def cleared(view) -> np.ndarray:
    return view.solve(SMALL).prices.reshape(WEEKS, 1)


def test_it_is_a_planner_view(view):
    assert isinstance(view, PlannerView) and isinstance(view, ValuedView) and isinstance(view, DifferentiableView)
    assert view.n_weeks == WEEKS and view.resources == ("inbound_units",)
    assert view.price_scale == pytest.approx(float(np.median(PEOPLE.unit_margin)))
    assert view.max_price <= float(np.max(PEOPLE.unit_margin))


def test_many_plans_at_once_are_each_by_itself(view):
    plans = np.random.default_rng(0).uniform(0, 2, (2, 2, WEEKS, 1))
    use, worth = view.utilization(plans), view.value(plans)
    assert use.shape == plans.shape and worth.shape == (2, 2)
    for place in np.ndindex(2, 2):
        np.testing.assert_array_equal(use[place], view.utilization(plans[place]))
        assert worth[place] == view.value(plans[place])
    capacity = SMALL * np.array([1.0, 1.1])[:, None, None]
    together = view.shadow_prices(capacity)
    assert together.shape == capacity.shape
    np.testing.assert_array_equal(together[1], view.shadow_prices(capacity[1]))


def test_the_same_question_has_the_same_answer_and_is_not_traced_again(view, cleared):
    view.value(cleared)
    before, asked = Counted.calls, view.queries
    np.testing.assert_array_equal(view.utilization(cleared), view.utilization(cleared.copy()))
    view.utilization(cleared * 0.5)
    assert Counted.calls == before and view.queries == asked + 3


def test_expected_use_is_the_mean_over_the_scenarios(view, cleared):
    run = simulate(PEOPLE, FUTURES, POLICY, initial=STATE, shadow_prices=jnp.asarray(cleared, jnp.float32))
    np.testing.assert_allclose(view.expected(cleared), np.asarray(run.totals.utilization).mean(0), rtol=1e-5)
    assert view.value(cleared) == pytest.approx(float(run.reward.mean()), rel=1e-5)
    careful = SimulatedView(PEOPLE, FUTURES, POLICY, STATE, reserve=1.0)
    spread = np.asarray(run.totals.utilization).std(0)
    np.testing.assert_allclose(careful.utilization(cleared) - careful.expected(cleared), spread, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(careful.spread(cleared), spread / careful.expected(cleared), rtol=1e-3, atol=1e-4)


def test_prices_fit_the_capacity_where_anything_can_be_done(view, cleared):
    use = view.utilization(cleared)
    # What arrives in the first week was ordered before; the rest can still be decided for some agents.
    assert not view.controllable[0, 0] and view.controllable[1:].all()
    assert cleared[0, 0] == 0 and (cleared >= 0).all() and cleared.max() > 0
    over = np.maximum(use - SMALL, 0)[view.controllable] / SMALL[view.controllable]
    assert over.max() < 0.02
    assert view.utilization(np.zeros_like(cleared)).sum() > use.sum()


def test_committed_use_is_what_comes_when_nobody_orders(view):
    nobody = simulate(PEOPLE, FUTURES, ConstantOrder(jnp.zeros(AGENTS)), initial=STATE)
    found = committed_use(PEOPLE, FUTURES, STATE)
    np.testing.assert_array_equal(found, np.asarray(nobody.totals.utilization, float))
    np.testing.assert_allclose(found[:, :, 0], np.tile([320.0, 320.0] + [0.0] * (WEEKS - LEAD), (PATHS, 1)))
    np.testing.assert_allclose(view.committed, found.mean(0), rtol=1e-6)


def test_the_jacobian_is_the_slope_of_use(view, cleared):
    cleared = 0.4 * cleared  # away from the margin of the last buyer, where use jumps
    slope = view.jacobian(cleared)
    assert slope.shape == (WEEKS, WEEKS)
    two = SimulatedView(PEOPLE, jax_first(FUTURES, 2), POLICY, STATE)
    step = 0.005
    for week in (3, 5):
        bump = np.zeros((WEEKS, 1))
        bump[week] = step
        difference = (two.utilization(cleared + bump) - two.utilization(cleared - bump))[:, 0] / (2 * step)
        np.testing.assert_allclose(slope[:, week], difference, atol=0.02 * np.abs(slope).max())
    assert (np.diag(slope)[LEAD:-1] < 0).all()


def jax_first(paths: ExogenousPaths, count: int) -> ExogenousPaths:
    own = jax.tree.map(lambda leaf: leaf[:count], (paths.demand, paths.arrivals))
    return eqx.tree_at(lambda e: (e.demand, e.arrivals), paths, own)


def test_both_solvers_reach_the_same_residual_and_prices(view):
    problem = DualProblem(
        response=lambda prices: view.utilization(prices.reshape(-1, WEEKS, 1)).reshape(len(prices), -1),
        jacobian=lambda prices: view.jacobian(prices[0].reshape(WEEKS, 1)),
        capacity=np.where(view.controllable, SMALL, np.inf).reshape(1, -1),
        price_scale=view.price_scale,
        max_price=view.max_price,
    )
    newton, uzawa = (
        kind.solve(problem, np.zeros((1, WEEKS)))
        for kind in (GaussNewton(tolerance=1e-3), ProjectedDual(tolerance=1e-3))
    )
    assert newton.converged and uzawa.converged
    assert max(newton.residual.max(), uzawa.residual.max()) <= 1e-3
    np.testing.assert_allclose(newton.prices, uzawa.prices, atol=0.03 * view.price_scale)
    assert newton.jacobians >= 1 and uzawa.jacobians == 0 and newton.queries < uzawa.queries


def test_the_oracle_earns_at_least_what_clearing_earns_within_the_limit(view):
    limit = np.repeat(SMALL[None], PATHS, axis=0)
    cleared = oracle(view, limit, ascent_steps=0)
    best = oracle(view, limit, ascent_steps=15)
    allowed = np.maximum(limit, cleared.utilization)
    assert (best.reward >= cleared.reward).all()
    assert (best.utilization <= allowed * (1 + 1e-3)).all()
    again = path_outcome(PEOPLE, FUTURES, POLICY, STATE, best.shadow_prices)
    np.testing.assert_allclose(again.utilization, best.utilization, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(again.reward, best.reward, rtol=1e-4)


def test_the_oracle_climbs_from_prices_that_are_too_high(view, cleared):
    class Lazy(AbstractDualSolver):
        """Leave the prices as they are."""

        def solve(self, problem, start):
            return DualSolution(start, problem.response(start), np.ones(len(start)), False, 1, 0)

    limit = np.repeat(2.0 * SMALL[None], PATHS, axis=0)
    high = np.repeat(1.2 * cleared[None], PATHS, axis=0)
    stay, climbed = (oracle(view, limit, high, solver=Lazy(), ascent_steps=steps) for steps in (0, 15))
    np.testing.assert_array_equal(stay.shadow_prices, high)
    assert (climbed.reward > stay.reward).all()
    assert (climbed.utilization <= np.maximum(limit, stay.utilization) * (1 + 1e-3)).all()


def test_prices_reissued_weekly_follow_demand_that_fixed_prices_did_not_expect(view, cleared):
    # Demand is 30 % higher than expected, in every week.
    random = np.random.default_rng(5)
    shocked = futures(PEOPLE, WEEKS, 0, 1.3 * random.gamma(16.0, 10 / 16, (PATHS, WEEKS, AGENTS)))
    longer = WEEKS + window_length(POLICY, LEAD)
    expected = futures(PEOPLE, longer, 0, random.gamma(16.0, 10 / 16, (longer, AGENTS)))
    controller = MPCController(view, expected, SMALL, cleared)
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (PATHS, *leaf.shape)), STATE)
    reissued = simulate(PEOPLE, shocked, POLICY, initial=start, controller=controller)
    fixed = path_outcome(PEOPLE, shocked, POLICY, STATE, cleared)
    later = slice(LEAD + 1, WEEKS - 1)

    def away(use: np.ndarray) -> float:
        return float((np.abs(np.asarray(use) - SMALL) / SMALL)[:, later].mean())

    assert away(fixed.utilization) > 0.08
    assert away(reissued.totals.utilization) < 0.6 * away(fixed.utilization)
    assert np.ptp(np.asarray(reissued.shadow_prices), axis=0).max() > 0  # every path is charged its own prices


def test_copies_that_follow_the_same_future_change_no_price(view, cleared):
    longer = WEEKS + window_length(POLICY, LEAD)
    expected = futures(PEOPLE, longer, 0, np.full((longer, AGENTS), 10.0))
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (PATHS, *leaf.shape)), STATE)
    twice = jax.tree.map(lambda leaf: jnp.tile(leaf, 2), expected)
    once, doubled = (
        controller.issue(ControlObservation(0, start, controller.opening_prices(1)))
        for controller in (MPCController(view, paths, SMALL, cleared) for paths in (expected, twice))
    )
    np.testing.assert_allclose(once, doubled, rtol=1e-3, atol=1e-5)


def test_reissuing_asks_for_no_new_trace_from_week_to_week(view, cleared):
    expected = week_of(
        futures(PEOPLE, 20, 0, np.full((20, AGENTS), 10.0)), jnp.asarray(0), WEEKS + window_length(POLICY, LEAD)
    )
    controller = MPCController(view, expected, SMALL, cleared)
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (PATHS, *leaf.shape)), STATE)
    charged = controller.opening_prices(1)
    issued = controller.issue(ControlObservation(0, start, charged))
    before = Counted.calls
    for week in range(1, 4):
        issued = controller.issue(ControlObservation(week, start, jnp.asarray(issued[:, 0], jnp.float32), issued))
    assert Counted.calls == before and issued.shape == (PATHS, window_length(POLICY, LEAD) - 1, 1)


def test_questions_of_the_wrong_shape_are_refused(view):
    with pytest.raises(ShapeError, match=r"`shadow_prices` has shape \(5, 1\)"):
        view.utilization(np.zeros((5, 1)))
    with pytest.raises(InputError, match="`capacity` holds a NaN"):
        view.solve(np.full((WEEKS, 1), np.nan))


def test_paths_that_cannot_be_simulated_are_refused_before_anything_is_compiled():
    """The view and the verification simulate inside compiled functions, which cannot look at numbers."""
    sick = eqx.tree_at(lambda e: e.demand, FUTURES, FUTURES.demand.at[1, 4, 7].set(jnp.nan))
    words = r"`exogenous.demand` is nan in week 4 of scenario 1 for agent 7 \(counted from 0\)"
    with pytest.raises(NotFiniteError, match=words):
        SimulatedView(PEOPLE, sick, POLICY, STATE)
    with pytest.raises(NotFiniteError, match=words):
        path_outcome(PEOPLE, sick, POLICY, STATE, np.zeros((WEEKS, 1)))
    with pytest.raises(ShapeError, match=r"`shadow_prices` has shape \(5, 1\) but needs \[8 weeks, 1 resource\]"):
        path_outcome(PEOPLE, FUTURES, POLICY, STATE, np.zeros((5, 1)))


SHOP_PARTS = (
    shop(),
    happenings(shop(), scenarios=SCENARIOS),
    Leaning(jnp.linspace(30.0, 60.0, SHOP_AGENTS)),
    start(shop()),
)


def test_answers_are_the_simulators():
    charged = some_prices(shop(), scenarios=SCENARIOS)
    use, reward = PricedSimulation(*SHOP_PARTS)(charged)
    run = simulate(*SHOP_PARTS[:3], initial=SHOP_PARTS[3], shadow_prices=charged)
    np.testing.assert_allclose(use, run.totals.utilization, rtol=1e-6)
    np.testing.assert_allclose(reward, run.reward, rtol=1e-6)
