"""The planning loop: why it stops, what it refuses, ramps and the frozen zone."""

from collections.abc import Callable

import numpy as np
import pytest

from walras.errors import InputError, NotFiniteError, SettingsError, ShapeError
from walras.planning.costs import PiecewiseLinearCost
from walras.planning.protocols import PlannerView
from walras.planning.revision_loop import StopRule, run_revision_loop
from walras.planning.revision_rules import Consensus, ProximalPoint
from walras.progress import Progress

WEEKS = 6


class Population:
    """Use `use(prices)`; the dual map is not asked."""

    resources = ("inbound_units",)
    n_weeks = WEEKS

    def __init__(self, use: Callable[[np.ndarray], np.ndarray], price_scale: float = 1.0) -> None:
        self.use, self.price_scale = use, price_scale

    def utilization(self, shadow_prices: np.ndarray) -> np.ndarray:
        return self.use(shadow_prices)

    def shadow_prices(self, capacity: np.ndarray) -> np.ndarray:
        raise AssertionError("not asked")


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


BASE = column(90, 120, 150, 120, 90, 80)


def linear(slope: np.ndarray | float = 50.0) -> Population:
    return Population(lambda prices: BASE - slope * prices)


def tiers(**more) -> PiecewiseLinearCost:
    return PiecewiseLinearCost.tiers(np.full((WEEKS, 1), 100.0), rates=(0.1, 0.3, 0.6), **more)


def test_record_says_what_was_found_and_how() -> None:
    record = run_revision_loop(linear(), tiers())
    assert isinstance(linear(), PlannerView)
    assert record.converged and record.feasible and record.stop_reason.startswith("converged after")
    assert record.iterations == len(record.trace) - 1
    assert {"feasibility", "complementarity", "price_gap", "acquisition_cost"} <= set(record.trace[-1])
    np.testing.assert_allclose(record.capacity[:, 0], [85, 105, 120, 105, 85, 75], rtol=5e-3)
    np.testing.assert_allclose(record.shadow_prices[:, 0], [0.1, 0.3, 0.6, 0.3, 0.1, 0.1], atol=5e-3)


def test_a_good_start_is_taken_as_it_is() -> None:
    first = run_revision_loop(linear(), tiers())
    again = run_revision_loop(linear(), tiers(), start=first.shadow_prices)
    assert again.iterations == 0 and again.converged


def test_total_cost_is_reported_where_the_view_knows_what_is_earned() -> None:
    class Valued(Population):
        def value(self, shadow_prices: np.ndarray) -> np.ndarray:
            return 1000.0 - shadow_prices.sum(axis=(-2, -1))

    record = run_revision_loop(Valued(linear().use), tiers())
    last = record.trace[-1]
    assert last["total_cost"] == pytest.approx(tiers().total(record.capacity) - 1000 + record.shadow_prices.sum())


def test_ramps_level_the_plan_and_the_bill_is_no_higher_than_that_of_the_unlevelled_one() -> None:
    ramped = tiers(ramp_up=0.2, ramp_down=0.2)
    free, level = run_revision_loop(linear(), tiers()), run_revision_loop(linear(), ramped)
    assert level.converged
    assert np.abs(np.diff(level.capacity, axis=0)).sum() < np.abs(np.diff(free.capacity, axis=0)).sum() - 1

    def net(record) -> float:  # the population's surplus lost through prices, plus the bill
        return ramped.total(record.capacity) + float(np.sum(25 * record.shadow_prices**2))

    assert net(level) <= net(free) + 1e-6


def test_frozen_weeks_keep_their_capacity_and_get_the_price_that_fits() -> None:
    record = run_revision_loop(
        linear(), tiers().frozen(column(80, 110)), stop=StopRule(feasibility=1e-5, complementarity=1e-5)
    )
    np.testing.assert_allclose(record.capacity[:2, 0], [80, 110])
    np.testing.assert_allclose(record.shadow_prices[:2, 0], [0.2, 0.2], atol=1e-3)
    assert record.feasible


def test_a_committed_week_over_its_bound_is_reported_and_the_rest_is_planned() -> None:
    slope = column(50, 50, 0, 50, 50, 50)
    record = run_revision_loop(linear(slope), tiers())
    assert record.converged and record.feasible  # nothing can be done about week 2
    assert "not feasible whatever the price in week 2 (150 of 130)" in record.stop_reason
    assert record.capacity[2, 0] == pytest.approx(130.0)
    assert record.shadow_prices[2, 0] == pytest.approx(0.6)  # no higher than capacity costs
    np.testing.assert_allclose(record.capacity[[0, 1, 3], 0], [85, 105, 105], rtol=5e-3)


def test_a_week_with_a_committed_part_is_reported_when_its_answer_is_used_up() -> None:
    record = run_revision_loop(
        Population(lambda prices: np.maximum(BASE - 50 * prices, column(0, 0, 140, 0, 0, 0))), tiers()
    )
    assert "not feasible whatever the price in week 2 (140 of 130)" in record.stop_reason
    assert record.feasible and np.isfinite(record.shadow_prices).all()


def test_a_price_ceiling_that_is_too_low_is_not_called_feasible() -> None:
    steep = tiers().frozen(column(*[40.0] * WEEKS))
    record = run_revision_loop(linear(), steep, stop=StopRule(max_price=1.0))
    assert not record.feasible
    assert "not feasible up to the highest price tried in week 1 (70 of 40)" in record.stop_reason


def test_what_the_view_knows_about_control_is_believed() -> None:
    view = linear()
    view.controllable = np.array([[True], [True], [False], [True], [True], [True]])
    assert "whatever the price in week 2" in run_revision_loop(view, tiers().frozen(np.full((3, 1), 100.0))).stop_reason


def test_a_lumpy_population_stalls_and_the_best_plan_is_returned() -> None:
    lumps = Population(lambda prices: 37 * np.ceil((BASE - 50 * prices) / 37))
    strict = StopRule(feasibility=1e-9, complementarity=1e-9, price_gap=1e-9)
    # Use is 74 or 111 where 100 is fixed: no price clears it.
    record = run_revision_loop(lumps, tiers().frozen(np.full((WEEKS, 1), 100.0)), rule=Consensus(), stop=strict)
    assert not record.converged and record.stop_reason.startswith("stalled")
    scores = [max(entry["feasibility"], entry["complementarity"], entry["price_gap"]) for entry in record.trace]
    room = (record.capacity - record.utilization) / record.capacity
    found = np.abs(np.minimum(record.shadow_prices, room)).max()
    assert found <= min(scores) + 1e-9


def test_iteration_limit_is_said() -> None:
    curved = Population(lambda prices: BASE / (1 + prices) ** 3)
    record = run_revision_loop(curved, tiers(), rule=ProximalPoint(), stop=StopRule(max_iterations=1, feasibility=1e-9))
    assert record.stop_reason.startswith("iteration limit") and record.iterations == 1 and not record.converged


def test_nan_from_the_view_names_week_and_resource() -> None:
    def broken(prices: np.ndarray) -> np.ndarray:
        use = BASE - 50 * prices
        return np.where(np.arange(WEEKS)[:, None] == 3, np.where(prices > 0, np.nan, use), use)

    with pytest.raises(NotFiniteError, match="utilization is nan in week 3 for inbound_units"):
        run_revision_loop(Population(broken), tiers())


def test_shapes_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ShapeError, match="`start` has shape"):
        run_revision_loop(linear(), tiers(), start=np.zeros((3, 1)))
    with pytest.raises(InputError, match="`start` holds a price"):
        run_revision_loop(linear(), tiers(), start=np.full((WEEKS, 1), -1.0))
    short = PiecewiseLinearCost.tiers(np.ones((3, 1)), rates=(0.1,), tops=(1.0,))
    with pytest.raises(ShapeError, match="`acquisition_cost` has shape"):
        run_revision_loop(linear(), short)
    with pytest.raises(InputError, match="price_scale"):
        run_revision_loop(Population(lambda prices: BASE, price_scale=0.0), tiers())
    with pytest.raises(SettingsError, match="`feasibility` is 0"):
        StopRule(feasibility=0)
    with pytest.raises(SettingsError, match="`patience` is 0"):
        StopRule(patience=0)


def test_progress_hears_every_revision() -> None:
    class Heard(Progress):
        steps: list[tuple[int, int]] = []

        def step(self, done: int, total: int) -> None:
            self.steps.append((done, total))

    heard = Heard()
    record = run_revision_loop(linear(), tiers(), progress=heard)
    assert [done for done, _ in heard.steps] == list(range(record.iterations + 1))
