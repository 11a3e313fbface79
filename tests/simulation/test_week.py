"""One week happens in the written order, on numbers computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from walras.exogenous.arrivals import ArrivalShares, IntegerLeadTimes, SupplyLimit
from walras.policies.base_stock import ConstantOrder, OrderUpTo
from walras.population.population import Population
from walras.simulation.record import FLOWS, Record, as_totals
from walras.simulation.week import State, Week, WeekInputs, empty_state


def one(*values: float) -> jnp.ndarray:
    return jnp.asarray(values, jnp.float32)


def population(agents: int = 1, **more) -> Population:
    fields = {
        "holding_cost": jnp.full(agents, 0.5),
        "lost_sale_penalty": jnp.full(agents, 2.0),
        "lead_time": jnp.ones(agents, jnp.int32),
        "demand_scale": jnp.ones(agents),
        "unit_margin": jnp.ones(agents),
        "use": jnp.tile(one(1.0, 3.0, 4.0), (agents, 1)),
        "weight": jnp.ones(agents),
        "resources": ("inbound_units", "inbound_volume", "storage"),
    }
    return Population(**{**fields, **more})


def week_with(demand: float, lead: int = 1, supply: float | None = None) -> WeekInputs:
    return WeekInputs(
        week=jnp.asarray(0),
        demand=one(demand),
        sale_price=one(10.0),
        unit_cost=one(6.0),
        next_unit_cost=one(6.0),
        arrivals=IntegerLeadTimes(jnp.asarray([lead], jnp.int8)),
        lead_demand_mean=one(0.0),
        lead_demand_sd=one(0.0),
        supply=None if supply is None else SupplyLimit(one(supply)),
        shadow_prices=jnp.zeros((4, 3)),
        encoded=None,
    )


def numbers(record) -> dict[str, float]:
    names = ("receipts", "orders", "refused", "sales", "lost_sales", "stock_end", "reward")
    return {name: float(getattr(record, name)[0]) for name in names}


def step(week: Week, state: State, inputs: WeekInputs):
    running, record = week(week.begin(state), inputs)
    position = running.stock_end + running.pipeline.sum(0)
    np.testing.assert_array_equal(running.position, position)
    return running.state, record


STATE = State(stock_end=one(5.0), pipeline=jnp.asarray([[4.0], [3.0]]))


def test_a_week_with_lost_sales():
    # 4 arrive, stock 9, position 9 + 3 = 12, order 8 to 20, demand 11 meets 9: 2 are lost, 8 units arrive next week.
    state, record = step(Week(population(), OrderUpTo(one(20.0))), STATE, week_with(11.0))
    expected = {"receipts": 4, "orders": 8, "refused": 0, "sales": 9, "lost_sales": 2, "stock_end": 0}
    assert numbers(record) == {**expected, "reward": 9 * 10 - 8 * 6 - 0 - 2 * 2}
    np.testing.assert_array_equal(state.pipeline[:, 0], [3 + 8, 0])
    np.testing.assert_array_equal(record.utilization[0], [4, 12, 0])


def test_a_week_with_stock_left_pays_for_it_and_uses_storage():
    state, record = step(Week(population(), OrderUpTo(one(20.0))), STATE, week_with(2.0))
    assert numbers(record)["reward"] == 2 * 10 - 8 * 6 - 0.5 * 7
    np.testing.assert_array_equal(record.utilization[0], [4, 12, 4 * 7])
    assert float(state.stock_end[0]) == 7


def test_a_week_with_backlog():
    # All 11 are sold; 2 of them wait and cost the penalty, and no storage is used.
    state, record = step(Week(population(), OrderUpTo(one(20.0)), backlog=True), STATE, week_with(11.0))
    expected = {"receipts": 4, "orders": 8, "refused": 0, "sales": 11, "lost_sales": 0, "stock_end": -2}
    assert numbers(record) == {**expected, "reward": 11 * 10 - 8 * 6 - 2 * 2}
    np.testing.assert_array_equal(record.utilization[0], [4, 12, 0])
    assert float(state.stock_end[0]) == -2


def test_an_order_of_lead_time_zero_serves_the_same_week():
    # The order is placed at position 12 and arrives before demand: 9 + 8 = 17 meet 11.
    state, record = step(Week(population(), OrderUpTo(one(20.0))), STATE, week_with(11.0, lead=0))
    found = numbers(record)
    assert (found["receipts"], found["sales"], found["stock_end"]) == (12, 11, 6)
    np.testing.assert_array_equal(state.pipeline[:, 0], [3, 0])
    np.testing.assert_array_equal(record.utilization[0], [12, 36, 24])


def test_refused_units_are_not_paid_for_and_never_arrive():
    state, record = step(Week(population(), OrderUpTo(one(20.0))), STATE, week_with(9.0, supply=3.0))
    found = numbers(record)
    assert (found["orders"], found["refused"], found["reward"]) == (3, 5, 9 * 10 - 3 * 6)
    np.testing.assert_array_equal(state.pipeline[:, 0], [6, 0])


@pytest.mark.parametrize("lead", [1, 2, 3])
def test_an_order_meets_the_demand_of_the_week_of_its_arrival(lead):
    week, state = Week(population(), ConstantOrder(one(1.0))), empty_state(1, 3)
    receipts = []
    for _ in range(5):
        state, record = step(week, state, week_with(0.0, lead=lead))
        receipts.append(float(record.receipts[0]))
    assert receipts == [0.0] * lead + [1.0] * (5 - lead)


def test_shares_arrive_over_the_weeks():
    inputs = week_with(0.0)
    shares = ArrivalShares(jnp.asarray([[0.25], [0.5], [0.25]]))
    inputs = WeekInputs(**{**{name: getattr(inputs, name) for name in vars(inputs)}, "arrivals": shares})
    state, record = step(Week(population(), ConstantOrder(one(8.0))), empty_state(1, 2), inputs)
    assert float(record.receipts[0]) == 2
    np.testing.assert_array_equal(state.pipeline[:, 0], [4, 2])


def test_totals_weigh_agents_and_groups_split_them():
    people = population(2, weight=one(1.0, 3.0))
    inputs = week_with(0.0)
    per_agent = ("demand", "sale_price", "unit_cost", "next_unit_cost", "lead_demand_mean", "lead_demand_sd")
    wide = {name: jnp.repeat(getattr(inputs, name), 2) for name in per_agent}
    inputs = WeekInputs(
        week=inputs.week,
        **wide,
        arrivals=IntegerLeadTimes(jnp.asarray([1, 1], jnp.int8)),
        supply=None,
        shadow_prices=inputs.shadow_prices,
        encoded=None,
    )
    state = State(stock_end=one(0.0, 0.0), pipeline=jnp.asarray([[4.0, 5.0]]))
    _, record = step(Week(people, ConstantOrder(one(0.0, 0.0))), state, inputs)
    rows, cells = Record.by_group(jnp.asarray([1, 0]), 3).sums(record, people.weight)
    totals, groups = as_totals(rows[0], FLOWS), cells[0].reshape(3, 3)
    assert float(totals.receipts) == 4 + 3 * 5
    np.testing.assert_array_equal(groups[:, 0], [15, 4, 0])
    np.testing.assert_array_equal(totals.utilization, groups.sum(0))


def test_one_stock_for_all_or_one_each():
    np.testing.assert_array_equal(empty_state(3, 2, 4.0).stock_end, [4, 4, 4])
    np.testing.assert_array_equal(empty_state(3, 2, one(1, 2, 3)).stock_end, [1, 2, 3])
    assert empty_state(3, 2).pipeline.shape == (2, 3)
