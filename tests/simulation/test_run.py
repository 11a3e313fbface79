"""`simulate`: starts, windows, records, controllers, and errors for arguments that do not fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import (
    AGENTS,
    ALL_RESOURCES,
    MAX_LEAD,
    SCENARIOS,
    WEEKS,
    Announcer,
    Leaning,
    assert_same,
    happenings,
    order_up_to,
    prices,
    shop,
    start,
)

from walras.errors import InputError, NotFiniteError, ShapeError
from walras.exogenous.arrivals import ArrivalShares, IntegerLeadTimes
from walras.policies.base_stock import OrderUpTo
from walras.simulation.record import Record
from walras.simulation.run import announced_windows, default_state, simulate, week_of
from walras.simulation.week import empty_state

POPULATION = shop()
PATHS = happenings(POPULATION)
LEANING = Leaning(jnp.linspace(30.0, 60.0, AGENTS))


def test_the_default_start_is_empty_with_room_for_the_longest_lead_time():
    state = default_state(POPULATION, PATHS)
    assert state.max_lead == MAX_LEAD and not state.stock_end.any() and not state.pipeline.any()
    shares = happenings(POPULATION, kind="shares")
    assert default_state(POPULATION, shares).max_lead == MAX_LEAD
    assert_same(
        simulate(POPULATION, PATHS, order_up_to(POPULATION)).totals,
        simulate(POPULATION, PATHS, order_up_to(POPULATION), initial=empty_state(AGENTS, MAX_LEAD)).totals,
    )


def test_a_longer_pipeline_changes_nothing():
    longer = simulate(POPULATION, PATHS, order_up_to(POPULATION), initial=empty_state(AGENTS, MAX_LEAD + 2))
    assert_same(longer.totals, simulate(POPULATION, PATHS, order_up_to(POPULATION)).totals)


def test_a_pipeline_too_short_for_a_lead_time_is_refused_not_lost():
    for kind in ("integer", "shares"):
        paths = happenings(POPULATION, kind=kind)
        with pytest.raises(ShapeError, match=r"`initial.pipeline` has shape \(2, 7\) but needs \[at least 3 weeks"):
            simulate(POPULATION, paths, order_up_to(POPULATION), initial=empty_state(AGENTS, MAX_LEAD - 1))


def test_windows_start_with_the_week_itself_and_hold_the_last_price():
    path = jnp.arange(4.0)[:, None]
    windows = np.asarray(announced_windows(path, 3))[..., 0]
    np.testing.assert_array_equal(windows, [[0, 1, 2], [1, 2, 3], [2, 3, 3], [3, 3, 3]])


def test_prices_not_announced_yet_are_not_seen():
    path, notice = jnp.arange(1.0, 5.0)[:, None], jnp.asarray([0, 1, 0, 2])[:, None]
    windows = np.asarray(announced_windows(path, 3, notice))[..., 0]
    np.testing.assert_array_equal(windows, [[1, 2, 0], [2, 0, 4], [3, 4, 4], [4, 4, 4]])


def test_what_is_announced_late_is_paid_all_the_same_and_answered_late():
    charged = jnp.zeros((WEEKS, len(ALL_RESOURCES))).at[WEEKS - 2].set(5.0)
    early, late = (
        simulate(POPULATION, PATHS, LEANING, shadow_prices=charged, notice=jnp.full(charged.shape, weeks))
        for weeks in (WEEKS, 1)
    )
    assert_same(early.totals, simulate(POPULATION, PATHS, LEANING, shadow_prices=charged).totals)
    assert not np.array_equal(early.totals.orders, late.totals.orders)
    np.testing.assert_array_equal(late.shadow_prices, charged)
    with pytest.raises(ShapeError, match=r"`notice` has shape \(2, 3\)"):
        simulate(POPULATION, PATHS, LEANING, shadow_prices=charged, notice=jnp.zeros((2, 3), int))


def test_weeks_are_cut_where_asked():
    for paths, axis in ((PATHS, 0), (happenings(POPULATION, scenarios=SCENARIOS), 1)):
        cut = week_of(paths, jnp.asarray(3), 2)
        np.testing.assert_array_equal(cut.demand, np.take(paths.demand, [3, 4], axis))
        np.testing.assert_array_equal(cut.arrivals.weeks, np.take(paths.arrivals.weeks, [3, 4], axis))
        np.testing.assert_array_equal(cut.unit_cost, paths.unit_cost[3:5])


def test_policies_are_told_the_week_and_the_next_cost():
    class Told(OrderUpTo):
        """Order the week's number plus the next cost."""

        def orders(self, observation, shadow_prices):
            return jnp.zeros_like(observation.position) + observation.week + observation.next_unit_cost

    policy = Told(jnp.zeros(AGENTS))
    cost = np.asarray(PATHS.unit_cost)
    expected = np.arange(WEEKS)[:, None] + np.concatenate([cost[1:], cost[-1:]])
    for more in ({}, {"controller": Announcer(prices(POPULATION))}):
        seen = simulate(POPULATION, PATHS, policy, initial=start(POPULATION), record=Record.traces(), **more)
        np.testing.assert_array_equal(seen.agents.orders, expected)


@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_issuing_a_fixed_path_week_by_week_is_announcing_it(scenarios):
    paths, state = happenings(POPULATION, scenarios=scenarios), start(POPULATION)
    charged = prices(POPULATION, scenarios=scenarios)
    record = Record(group=jnp.arange(AGENTS) % 2, n_groups=2, agents=True)
    arguments = {"initial": state, "record": record}
    announced = simulate(POPULATION, paths, LEANING, shadow_prices=charged, **arguments)
    controller = Announcer(charged)
    issued = simulate(POPULATION, paths, LEANING, controller=controller, **arguments)
    assert len(controller.seen) == WEEKS
    assert_same(announced.agents, issued.agents, exactly=False)
    assert_same(announced.totals, issued.totals, exactly=False)
    assert_same(announced.groups, issued.groups, exactly=False)
    assert_same(announced.final, issued.final, exactly=False)
    assert_same(announced.reward, issued.reward, exactly=False)
    assert_same(announced.info.rounds, issued.info.rounds)
    assert_same(announced.shadow_prices, issued.shadow_prices)


def test_one_path_for_all_scenarios_may_be_issued():
    paths, state, charged = happenings(POPULATION, scenarios=SCENARIOS), start(POPULATION), prices(POPULATION)
    issued = simulate(POPULATION, paths, LEANING, initial=state, controller=Announcer(charged))
    announced = simulate(POPULATION, paths, LEANING, initial=state, shadow_prices=charged)
    assert_same(announced.totals, issued.totals, exactly=False)


def test_the_price_charged_was_issued_the_week_before():
    class Rising(Announcer):
        """Issue 1 for every week in the first week, 2 in the second, and so on."""

        def issue(self, observation):
            return jnp.full((self.ahead, len(ALL_RESOURCES)), observation.week + 1.0)

    run = simulate(
        POPULATION, PATHS, LEANING, initial=start(POPULATION), controller=Rising(jnp.zeros_like(prices(POPULATION)))
    )
    np.testing.assert_array_equal(run.shadow_prices[:, 0], [0, 1, 2, 3, 4, 5, 6, 7])


def test_prices_and_a_controller_exclude_each_other():
    with pytest.raises(InputError, match="both `shadow_prices` and `controller` were given"):
        simulate(
            POPULATION,
            PATHS,
            LEANING,
            shadow_prices=prices(POPULATION),
            controller=Announcer(prices(POPULATION)),
        )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"exogenous": happenings(shop(agents=5))}, r"`exogenous.demand` has shape \(8, 5\) but needs \[8 weeks, 7 a"),
        ({"initial": empty_state(5, MAX_LEAD)}, r"`initial.stock_end` has shape \(5,\) but needs \[7 agents\]"),
        ({"shadow_prices": jnp.zeros((WEEKS, 2))}, r"`shadow_prices` has shape \(8, 2\) but needs \[8 weeks, 3 res"),
        ({"shadow_prices": jnp.zeros((WEEKS - 1, 3))}, r"`shadow_prices` has shape \(7, 3\)"),
    ],
)
def test_shapes_that_do_not_meet_are_named(given, sentence):
    arguments = {"population": POPULATION, "exogenous": PATHS, "policy": LEANING, **given}
    with pytest.raises(ShapeError, match=sentence) as caught:
        simulate(**arguments)
    assert "\n" not in str(caught.value)


class Broken(OrderUpTo):
    """Order NaN once the week has come."""

    week: int = eqx.field(static=True, default=5)

    def orders(self, observation, shadow_prices):
        fine = super().orders(observation, shadow_prices)
        sick = (observation.week >= self.week) & (jnp.arange(AGENTS) == 4)
        return jnp.where(sick, jnp.nan, fine)


@pytest.mark.parametrize("coordinated", [False, True])
@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_a_policy_that_orders_nan_is_named_by_week_and_agent(scenarios, coordinated):
    charged = prices(POPULATION)
    paths = happenings(POPULATION, scenarios=scenarios)
    more = {"controller": Announcer(charged)} if coordinated else {"shadow_prices": charged}
    with pytest.raises(
        NotFiniteError, match="order is not a finite number in week 5 .*for agent 4 \\(counted from 0\\);"
    ):
        simulate(POPULATION, paths, Broken(jnp.full(AGENTS, 20.0)), initial=start(POPULATION), **more)


@pytest.mark.parametrize("backlog", [False, True])
def test_demand_that_is_nan_is_named_by_week_and_agent(backlog):
    paths = eqx.tree_at(lambda e: e.demand, PATHS, PATHS.demand.at[3, 2].set(jnp.nan).at[6, 1].set(jnp.nan))
    with pytest.raises(NotFiniteError, match="`exogenous.demand` is nan in week 3 for agent 2 "):
        simulate(POPULATION, paths, order_up_to(POPULATION), backlog=backlog)


def test_costs_that_are_infinite_are_named():
    paths = eqx.tree_at(lambda e: e.unit_cost, PATHS, PATHS.unit_cost.at[1, 6].set(jnp.inf))
    with pytest.raises(NotFiniteError, match="in week 1 for agent 6"):
        simulate(POPULATION, paths, order_up_to(POPULATION))


def test_nan_is_returned_where_the_caller_asks_for_it():
    paths = eqx.tree_at(lambda e: e.demand, PATHS, PATHS.demand.at[3, 2].set(jnp.nan))
    rollout = simulate(POPULATION, paths, order_up_to(POPULATION), throw=False)
    assert np.isnan(rollout.totals.reward[3]) and np.isfinite(rollout.totals.reward[2])


def test_what_is_left_is_worth_its_cost():
    """Empty shelves at the end earn nothing: ordering in the last week costs what it leaves behind."""
    still = eqx.tree_at(lambda e: e.demand, PATHS, jnp.zeros_like(PATHS.demand))
    still = eqx.tree_at(lambda e: e.unit_cost, still, jnp.full_like(PATHS.unit_cost, 2.0))
    population = eqx.tree_at(lambda p: p.holding_cost, POPULATION, jnp.zeros(AGENTS))
    rollout = simulate(population, still, order_up_to(population))
    assert float(rollout.totals.reward.sum()) < 0
    assert float(rollout.reward) == pytest.approx(0.0, abs=1e-3)


def test_only_what_is_asked_for_is_kept():
    run = simulate(POPULATION, PATHS, order_up_to(POPULATION))
    assert run.groups is None and run.agents is None
    grouped = simulate(POPULATION, PATHS, order_up_to(POPULATION), record=Record.by_group(jnp.zeros(AGENTS, int), 1))
    assert grouped.agents is None
    assert_same(grouped.groups[:, 0], grouped.totals.utilization, exactly=False)


@pytest.mark.parametrize("weekly", [False, True])
def test_means_over_scenarios_are_those_of_the_traces(weekly):
    paths, state = happenings(POPULATION, scenarios=SCENARIOS), start(POPULATION)
    wide = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (SCENARIOS, *leaf.shape)), state)

    def run(record):
        how = {"initial": wide, "controller": Announcer(prices(POPULATION))} if weekly else {"initial": state}
        return simulate(POPULATION, paths, order_up_to(POPULATION), record=record, **how)

    traced, meant = run(Record.traces()), run(Record(means=True))
    assert meant.agents is None and traced.means is None
    for name in ("lost_sales", "utilization"):
        assert_same(getattr(meant.means, name), getattr(traced.agents, name).mean(0), exactly=False)
    assert_same(meant.totals, traced.totals)


def test_arrivals_spread_whole_orders():
    delivered = jnp.array([3.0, 5.0, 7.0])
    whole = IntegerLeadTimes(jnp.array([0, 2, 1], jnp.int8)).spread(delivered, 2)
    np.testing.assert_array_equal(whole, [[3, 0, 0], [0, 0, 7], [0, 5, 0]])
    shares = ArrivalShares(jnp.array([[0.5, 0.0, 1.0], [0.5, 1.0, 0.0]])).spread(delivered, 2)
    np.testing.assert_array_equal(shares, [[1.5, 0, 7], [1.5, 5, 0], [0, 0, 0]])


def test_simulate_passes_through_jit_and_gradients():
    state = start(POPULATION)

    def earned(charged):
        return simulate(POPULATION, PATHS, LEANING, initial=state, shadow_prices=charged).reward

    charged = prices(POPULATION)
    assert float(jax.jit(earned)(charged)) == pytest.approx(float(earned(charged)), rel=1e-6)
    assert np.isfinite(jax.grad(earned)(charged)).all()


def test_a_rollout_prints_as_a_table():
    run = simulate(POPULATION, happenings(POPULATION, scenarios=SCENARIOS), LEANING, initial=start(POPULATION))
    lines = str(run).splitlines()
    assert lines[0] == f"{WEEKS} weeks, mean of {SCENARIOS} scenarios"
    assert lines[1].split() == ["reward", f"{float(run.reward.mean()):,.2f}"]
    assert [line.split()[0] for line in lines[2:4]] == ["value", "demand"] and "utilization 2" in lines[-1]
