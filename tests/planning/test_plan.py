"""Plans from end to end, of sixty generated products, eight weeks and three futures."""

from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

import numpy as np
import pytest

from walras.config import CostSettings, PlanSettings
from walras.data.panel import Panel, active_agents
from walras.errors import InputError
from walras.exogenous.demand.model import DemandModel
from walras.planning.costs import PreviousPlan
from walras.planning.plan import acquisition_cost, plan
from walras.planning.problem import build_problem, build_simulation
from walras.planning.result import PlanResult
from walras.planning.revision_loop import StopRule
from walras.planning.search import assess_feasibility, search_plan
from walras.planning.verify import verify_plan
from walras.population.generate import generate_panel
from walras.progress import Progress
from walras.report.summary import assumed_columns

WEEKS, AGENTS = 8, 60
MEASURES = {
    "mean_violation",
    "near_limit_mean_violation",
    "near_limit_share",
    "irreducible_violation",
    "reward_kept",
    "idle_capacity",
}


@lru_cache
def panel() -> Panel:
    return generate_panel(agents=AGENTS, weeks=90, seed=0)


def settings(**more) -> PlanSettings:
    return PlanSettings(**{"weeks": WEEKS, "scenarios": 3, "paths": 3, **more})


@lru_cache
def planned() -> PlanResult:
    return plan(panel(), settings(), CostSettings())


def latest(weeks: int) -> Panel:
    """Keep the last weeks of the history only."""
    names = ("weeks", "units", "on_sale", "price", "unit_cost")
    return replace(panel(), **{name: getattr(panel(), name)[-weeks:] for name in names})


def test_a_plan_has_everything_in_its_shape():
    result = planned()
    one, fan = (WEEKS, 1), (3, WEEKS, 1)
    record = result.record
    for array in (record.capacity, record.shadow_prices, record.utilization, result.regular_capacity):
        assert array.shape == one and np.isfinite(array).all() and (array >= 0).all()
    for array in (result.unconstrained, result.verified_utilization, result.fixed_utilization):
        assert array.shape == fan and (np.diff(array, axis=0) >= 0).all()
    assert result.committed.shape == result.reissued_prices.shape == one
    assert result.demand.shape == result.receipts.shape == (3, WEEKS)
    assert result.resources == ("inbound_units",)
    assert len(result.history_weeks) == len(result.history_demand) == 90
    assert (result.weeks == panel().weeks[-1] + 7 * np.arange(1, WEEKS + 1)).all()
    for group in result.groups:
        assert len(group.labels) == len(group.unconstrained) == len(group.planned)
        assert group.planned.sum() < group.unconstrained.sum()  # under prices somebody gives way


def test_service_is_the_same_by_week_by_product_and_by_group():
    result = planned()
    service, products = result.service, result.products
    assert ((0 <= service.lost_planned) & (service.lost_planned <= service.demand)).all()
    assert 0 < service.fill_rate("planned") < service.fill_rate("without") <= 1
    money = result.money
    assert money["margin_lost"] == pytest.approx(service.total("margin_planned") - service.total("margin_without"))
    assert money["plan_cost"] == pytest.approx(money["acquisition_cost"] + money["margin_lost"])
    by_product = {"demand": "demand", "lost_without": "lost_without", "lost_planned": "lost_planned"}
    by_product |= {"margin_without": "margin_lost_without", "margin_planned": "margin_lost_planned"}
    for name, column in by_product.items():
        assert products[column].sum() == pytest.approx(service.total(name), rel=1e-6)
        for group in result.groups:
            assert getattr(group, name).sum() == pytest.approx(service.total(name), rel=1e-6)
    assert products["change"].sum() == pytest.approx((products["use_planned"] - products["use_without"]).sum())
    assert len(set(products["product"])) == result.counts["active"]
    priced = {str(result.weeks[week]) for week in np.flatnonzero(result.reissued_prices[:, 0] > 0)}
    assert {way.week for way in result.gave_way} == priced
    assert all(change < 0 for way in result.gave_way for _, change in way.products)


def test_a_plan_says_what_the_numbers_say():
    result = planned()
    assert MEASURES <= set(result.verified) == set(result.verified_fixed)
    assert all(value is None or np.isfinite(value) for value in result.verified.values())
    assert result.verified["reward_kept"] is None  # the bound was not asked for
    bounded = plan(panel(), settings(bound=True), CostSettings())
    assert 0 < bounded.verified["reward_kept"] <= 1 and bounded.verified["oracle_paths"] >= 1
    assert np.array_equal(bounded.record.capacity, result.record.capacity)
    assert len(result.week_verdicts) == WEEKS and all(result.week_verdicts)
    assert result.record.stop_reason and all(result.verdict)
    assert isinstance(result.record.feasible, bool)
    assert ("not feasible" in result.verdict[0]) == (not result.record.feasible)
    counts = result.counts
    assert counts["agents"] == AGENTS == counts["active"] + counts["inactive"] and counts["history_weeks"] == 90
    assert (counts["scenarios"], counts["paths"]) == (3, 3)
    assert any(
        note.startswith(f"{counts['inactive']} products sold nothing in the last 26 weeks") for note in result.notes
    )
    money = result.money
    assert money["total_cost"] == pytest.approx(money["acquisition_cost"] - money["reward_plan"])
    assert result.seconds["total"] == pytest.approx(sum(v for k, v in result.seconds.items() if k != "total"))


def test_capacity_is_bought_between_the_regular_and_the_highest():
    result = planned()
    capacity, regular = result.record.capacity, result.regular_capacity
    assert (capacity >= regular * (1 - 1e-9)).all() and (capacity <= 1.3 * regular * (1 + 1e-9)).all()
    assert (capacity > regular * 1.01).any() and result.record.shadow_prices.max() > 0


def test_the_same_seed_gives_the_same_plan_and_another_does_not():
    again = plan(panel(), settings(), CostSettings())
    np.testing.assert_array_equal(again.record.capacity, planned().record.capacity)
    np.testing.assert_array_equal(again.record.shadow_prices, planned().record.shadow_prices)
    np.testing.assert_array_equal(again.verified_utilization, planned().verified_utilization)
    assert again.verified == planned().verified
    other = build_problem(panel(), settings(seed=1))
    assert not np.array_equal(other.view.exogenous.demand, build_problem(panel(), settings()).view.exogenous.demand)


def test_a_plan_is_verified_on_futures_it_was_not_made_on():
    case = build_problem(panel(), settings())
    made_on, seen = np.asarray(case.view.exogenous.demand), np.asarray(case.unseen.demand)
    assert made_on.shape == seen.shape == (3, WEEKS, case.population.n_agents)
    assert all(not np.array_equal(a, b) for a in made_on for b in seen)
    assert not np.array_equal(case.view.exogenous.arrivals.weeks, case.unseen.arrivals.weeks)
    # What may be known is the same: forecasts, prices, costs.
    np.testing.assert_array_equal(case.view.exogenous.lead_demand_mean, case.unseen.lead_demand_mean)
    assert case.expected.n_weeks == WEEKS + case.initial.max_lead + 2 and case.expected.n_scenarios is None


def test_frozen_weeks_keep_regular_capacity():
    case = build_problem(panel(), settings(frozen_weeks=4))
    cost = acquisition_cost(case.view, settings(frozen_weeks=4), CostSettings())
    record = assess_feasibility(
        case.view, search_plan(case.view, cost, settings(frozen_weeks=4, max_iterations=10), Progress())
    )
    regular = planned().regular_capacity
    np.testing.assert_allclose(record.capacity[:4], regular[:4])
    assert (planned().record.capacity[:4] > regular[:4] * 1.01).any()
    assert (record.capacity[4:] > regular[4:] * 1.01).any()


def test_fixed_prices_are_verified_as_planned_where_reissuing_is_off():
    seen = verify_plan(build_problem(panel(), settings()), planned().record, settings(reissue=False))
    np.testing.assert_allclose(seen.reissued.shadow_prices.mean(0), planned().record.shadow_prices, rtol=1e-5)
    np.testing.assert_allclose(seen.reissued.utilization, seen.fixed.utilization, rtol=1e-4)
    assert not np.allclose(planned().reissued_prices, planned().record.shadow_prices, rtol=1e-3)


def test_only_the_short_one_of_three_resources_has_a_price():
    names = ("inbound_units", "inbound_volume", "storage")
    plenty = {"regular_capacity": 1e6}
    costs = CostSettings(resource={"inbound_units": plenty, "inbound_volume": plenty})
    chosen = settings(resources=names, max_iterations=25, scenarios=2)
    case = build_problem(panel(), chosen)
    record = assess_feasibility(
        case.view, search_plan(case.view, acquisition_cost(case.view, chosen, costs), chosen, Progress())
    )
    assert record.capacity.shape == (WEEKS, 3)
    assert (record.shadow_prices[:, :2] == 0).all() and record.shadow_prices[:, 2].max() > 0
    free = case.view.expected(np.zeros((WEEKS, 3)))
    assert record.utilization[:, 2].sum() < 0.99 * free[:, 2].sum()


def test_a_short_history_works_and_says_what_it_lacks():
    result = plan(latest(30), settings(), CostSettings())
    assert result.counts["history_weeks"] == 30 and np.isfinite(result.record.capacity).all()
    words = " ".join(result.notes)
    assert "No season was estimated from a history of 30 weeks" in words
    assert "Closed weeks (holidays) of a year ago were not seen" in words
    assert "No season was estimated" not in " ".join(planned().notes)


def test_the_users_forecast_is_what_is_planned_for():
    ahead = 2.0 * np.ones((WEEKS, AGENTS)) * panel().units.mean(0)[None]
    given = build_problem(replace(panel(), forecast=ahead), settings())
    kept = np.isin(panel().agents, given.panel.agents)
    drawn = np.asarray(given.view.exogenous.demand).mean()
    assert drawn == pytest.approx(ahead[:, kept].mean(), rel=0.25)
    model = DemandModel.fit(given.panel).mean(WEEKS)
    np.testing.assert_allclose(model, ahead[:, kept], rtol=1e-4, atol=1e-4)
    assert any(f"expected demand in {WEEKS} of {WEEKS} planned weeks." in note for note in given.notes)


def test_a_plan_says_for_how_many_weeks_the_users_forecast_was_used():
    ahead = np.ones((3, AGENTS))
    ahead[:, np.flatnonzero(active_agents(panel(), settings().active_weeks))[0]] = np.nan
    notes = build_simulation(replace(panel(), forecast=ahead), settings()).notes
    [note] = [note for note in notes if "forecast in the table" in note]
    assert f"in 3 of {WEEKS} planned weeks; the demand model forecasts the rest" in note and " products" in note
    assert not any("forecast in the table" in note for note in build_simulation(panel(), settings()).notes)


def test_reissued_prices_are_the_same_in_another_currency():
    record, found = planned().record, []
    for money in (1.0, 100.0):
        scaled = {name: (getattr(panel(), name) * money).astype(np.float32) for name in ("price", "unit_cost")}
        problem = build_problem(replace(panel(), **scaled), settings())
        same = replace(record, shadow_prices=record.shadow_prices * money)
        found.append(verify_plan(problem, same, settings()).reissued.shadow_prices.mean(0) / money)
    np.testing.assert_allclose(found[1], found[0], atol=0.1 * found[0].max())


def test_a_closed_week_receives_what_is_on_order_and_nothing_else():
    day = panel().weeks[-1].astype("datetime64[D]").item() + timedelta(weeks=5, days=2)
    result, at = plan(panel(), settings(), CostSettings(closed=(day,))), 4
    assert result.record.capacity[at] == result.regular_capacity[at] == 0 < result.record.capacity[at + 1]
    for use in (result.verified_utilization, result.fixed_utilization, result.unconstrained):
        np.testing.assert_allclose(use[1, at], result.committed[at], rtol=1e-5)
    assert result.week_verdicts[at] == "closed"
    assert result.record.shadow_prices[at] == result.record.shadow_prices[at + 1]
    assert result.unconstrained[1].sum() == pytest.approx(planned().unconstrained[1].sum(), rel=0.15)


def test_tiers_of_every_resource_end_at_its_own_limits():
    chosen = settings(resources=("inbound_units", "storage"))
    costs = CostSettings(regular_capacity=100.0, upper_bound=1.0, resource={"storage": {"upper_bound": 1.2}})
    edges = acquisition_cost(build_problem(panel(), chosen).view, chosen, costs).edges
    np.testing.assert_allclose(edges[0], [[0, 100, 100, 100], [0, 100, 115, 120]])


def test_what_the_start_assumes_is_among_the_assumed_columns():
    assumed = set(assumed_columns(planned()))
    assert {"on_hand", "orders", "lead_time_spread"} <= assumed


def test_nothing_sold_lately_is_refused():
    dead = replace(panel(), units=np.where(np.arange(90)[:, None] < 50, panel().units, 0.0))
    with pytest.raises(InputError, match="none of the 60 products sold in the last 26 weeks"):
        build_problem(dead, settings())


def test_weekly_regular_capacity_must_have_a_number_per_week():
    case = build_problem(panel(), settings())
    costs = CostSettings(regular_capacity=(100.0, 200.0))
    with pytest.raises(InputError, match="`regular_capacity` of inbound_units has 2 weeks but 8 are planned"):
        acquisition_cost(case.view, settings(), costs)
    weekly = CostSettings(regular_capacity=tuple(float(100 + week) for week in range(WEEKS)))
    np.testing.assert_array_equal(
        acquisition_cost(case.view, settings(), weekly).edges[:, 0, 1], 100 + np.arange(WEEKS)
    )


def test_a_revision_keeps_what_was_planned_where_a_change_is_dear():
    """The last plan is not the best one, and knows nothing of the last week; what was granted stays granted."""
    first, gone = planned(), np.full((1, 1), np.nan)
    capacity = np.concatenate([1.1 * first.regular_capacity[:-1], gone])
    before = PreviousPlan(capacity, 0 * capacity + first.regular_capacity[0], 0 * capacity)
    result = plan(panel(), settings(), CostSettings(revision_rate=5.0), previous=before)
    np.testing.assert_allclose(result.record.capacity[:-1], capacity[:-1], rtol=1e-6)
    np.testing.assert_allclose(result.regular_capacity, first.regular_capacity)
    assert result.moved == pytest.approx(0, abs=1e-6) and first.moved is None
    assert "In 7 weeks that the last plan planned, capacity moves by 0.0% on average." in result.notes
    assert not np.allclose(first.record.capacity[:-1], capacity[:-1], rtol=0.01)


def test_what_is_feasible_is_within_the_plan():
    case = build_problem(panel(), settings())
    roomy = CostSettings(regular_capacity=1e5)
    record = assess_feasibility(
        case.view, search_plan(case.view, acquisition_cost(case.view, settings(), roomy), settings(), Progress())
    )
    assert record.feasible and record.converged and (record.shadow_prices == 0).all()
    assert (record.utilization <= record.capacity).all() and StopRule().feasibility > 0


def test_a_result_prints_its_verdict_and_a_row_per_week():
    lines = str(planned()).splitlines()
    first = len(lines) - 2 - WEEKS
    assert lines[:first] == list(planned().verdict)
    assert lines[first].startswith("Served: ")
    assert lines[first + 1].split() == ["week", "capacity", "utilization", "shadow_price", "verdict"]
    frame = planned().to_frame()
    assert list(frame.columns) == list(planned().columns()) and len(frame) == WEEKS
