"""The revision rules beyond known answers: units, damping, queries."""

import numpy as np
import pytest

from walras.planning.costs import PiecewiseLinearCost
from walras.planning.revision_loop import StopRule, run_revision_loop
from walras.planning.revision_rules import AbstractRevisionRule, Consensus, MarginalCost, ProximalPoint, Response

by_rule = pytest.mark.parametrize("rule", [Consensus(), ProximalPoint()], ids=lambda rule: type(rule).__name__)


class BentPopulation:
    """Use falls with prices, steeply at first, and moves to the weeks beside; in money and units of any size."""

    resources = ("inbound_units",)

    def __init__(self, cross: float = 0.3, money: float = 1.0, units: float = 100.0, n_weeks: int = 16) -> None:
        self.cross, self.money, self.units, self.n_weeks = cross, money, units, n_weeks
        self.price_scale = money
        self.season = (1 + 0.4 * np.sin(np.arange(n_weeks) / 3))[:, None]
        self.calls = 0

    def utilization(self, shadow_prices: np.ndarray) -> np.ndarray:
        self.calls += 1
        price = shadow_prices / self.money
        felt = price.copy()
        felt[..., 1:, :] -= self.cross * price[..., :-1, :]
        felt[..., :-1, :] -= self.cross * price[..., 1:, :]
        return self.units * self.season * (1.4 / (1 + np.exp(3 * felt)) + 0.3)

    def shadow_prices(self, capacity: np.ndarray) -> np.ndarray:
        raise AssertionError("these rules ask the primal map only")


def tiered(view: BentPopulation, **ramps: float) -> PiecewiseLinearCost:
    rates = tuple(view.money * rate for rate in (0.05, 0.3, 0.6))
    ramps = {name: view.money * rate for name, rate in ramps.items()}
    return PiecewiseLinearCost.tiers(np.full((view.n_weeks, 1), 0.9 * view.units), rates=rates, **ramps)


@by_rule
@pytest.mark.parametrize("cross", [0.0, 0.3, 0.45])
def test_bent_cross_week_response_is_solved_with_few_queries(rule: AbstractRevisionRule, cross: float) -> None:
    view = BentPopulation(cross)
    record = run_revision_loop(view, tiered(view, ramp_up=0.05, ramp_down=0.02), rule=rule)
    assert record.converged and record.feasible
    assert record.queries <= 90
    np.testing.assert_allclose(record.utilization, view.utilization(record.shadow_prices))


class ShiftingPopulation(BentPopulation):
    """Moves a third of its use to the weeks beside for a small difference in price, and no more for a large one."""

    def utilization(self, shadow_prices: np.ndarray) -> np.ndarray:
        price = shadow_prices / self.money
        padded = np.concatenate([price[..., :1, :], price, price[..., -1:, :]], axis=-2)
        later = 0.15 * np.tanh(np.diff(padded, axis=-2) / 0.03)  # what leaves each week for the one before or after
        moved = later[..., 1:, :] - later[..., :-1, :]
        return self.units * (self.season * 1.4 / (1 + np.exp(1.5 * price)) + 0.5 + moved)


@by_rule
def test_a_response_that_is_steep_nearby_and_flat_farther_off(rule: AbstractRevisionRule) -> None:
    view = ShiftingPopulation()
    record = run_revision_loop(view, tiered(view, ramp_up=0.02, ramp_down=0.02), rule=rule)
    assert record.converged and record.feasible
    assert record.queries <= 200


@by_rule
@pytest.mark.parametrize(("money", "units"), [(1e-4, 1e7), (3e5, 0.02)])
def test_units_of_money_and_capacity_change_nothing(rule: AbstractRevisionRule, money: float, units: float) -> None:
    plain, scaled = BentPopulation(), BentPopulation(money=money, units=units)
    first, second = (run_revision_loop(view, tiered(view, ramp_up=0.05), rule=rule) for view in (plain, scaled))
    assert first.iterations == second.iterations
    np.testing.assert_allclose(second.capacity / units, first.capacity / 100.0, rtol=1e-6)
    np.testing.assert_allclose(second.shadow_prices / money, first.shadow_prices, rtol=1e-6, atol=1e-9)


def test_both_primal_rules_find_the_same_plan() -> None:
    view = BentPopulation(0.4)
    stop = StopRule(max_iterations=300, feasibility=1e-6, complementarity=1e-6, price_gap=1e-6, patience=60)
    cost = tiered(view, ramp_up=0.1)
    first, second = (run_revision_loop(view, cost, rule=rule, stop=stop) for rule in (Consensus(), ProximalPoint()))
    assert first.converged and second.converged
    np.testing.assert_allclose(first.capacity, second.capacity, rtol=1e-4)


def test_candidates_are_asked_together() -> None:
    view = BentPopulation(0.45)
    record = run_revision_loop(view, tiered(view), rule=ProximalPoint())
    assert view.calls < record.queries


def test_a_view_with_a_jacobian_is_not_asked_by_pulses() -> None:
    class WithJacobian(BentPopulation):
        def jacobian(self, shadow_prices: np.ndarray) -> np.ndarray:
            step = 1e-5
            moves = step * np.eye(self.n_weeks)[:, :, None]
            return ((self.utilization(shadow_prices + moves) - self.utilization(shadow_prices)) / step)[..., 0].T

    cost = tiered(BentPopulation())
    with_one, without = (
        run_revision_loop(view, cost, rule=ProximalPoint()) for view in (WithJacobian(0.4), BentPopulation(0.4))
    )
    assert with_one.converged and with_one.queries < without.queries
    np.testing.assert_allclose(with_one.capacity, without.capacity, rtol=5e-3)


def test_a_response_learned_from_secants_agrees_with_the_last_one() -> None:
    rng = np.random.default_rng(0)
    response = Response(np.eye(4), 2.0, np.full((4, 1), 10.0))
    move, change = rng.normal(0, 1, (4, 1)), rng.normal(0, 5, (4, 1))
    np.testing.assert_allclose(response.broyden_update(move, change).predicted_change(move), change)
    assert response.broyden_update(1e-9 * move, change) is response  # rounding changes nothing


def test_the_marginal_cost_rule_covers_committed_weeks() -> None:
    class PartlyCommitted:
        n_weeks, resources, price_scale = 3, ("inbound_units",), 1.0

        def utilization(self, shadow_prices: np.ndarray) -> np.ndarray:
            slope = np.array([0.0, 50.0, 50.0])[:, None]
            return np.array([105.0, 130.0, 90.0])[:, None] - slope * shadow_prices

        def shadow_prices(self, capacity: np.ndarray) -> np.ndarray:
            free = np.array([130.0, 90.0])[:, None]
            prices = np.zeros_like(capacity)
            prices[..., 1:, :] = np.maximum((free - capacity[..., 1:, :]) / 50.0, 0.0)
            return prices

    cost = PiecewiseLinearCost.tiers(np.full((3, 1), 100.0), rates=(0.1, 0.4, 0.8))
    record = run_revision_loop(PartlyCommitted(), cost, rule=MarginalCost())
    assert record.converged and record.feasible
    np.testing.assert_allclose(record.capacity[:, 0], [105.0, 110.0, 85.0], rtol=5e-3)
    np.testing.assert_allclose(record.shadow_prices[:, 0], [0.4, 0.4, 0.1], atol=5e-3)
