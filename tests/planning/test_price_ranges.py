"""Worths of more capacity: estimates that pass through what was simulated, and simulations of a small plan."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from walras.config import CostSettings, PlanSettings
from walras.errors import InputError
from walras.planning.capacity_response import JOINT, SIZES, CapacityResponse
from walras.planning.plan import plan
from walras.planning.result import PlanResult
from walras.population.generate import generate_panel

WORTH = np.asarray([[-30.0, 10.0, 18.0, 30.0], [-8.0, 3.0, 5.0, 6.0]])


def response(**more) -> CapacityResponse:
    """Two simulated weeks of three; changing both brings half of the sum."""
    fields = dict(
        weeks=np.datetime64("2026-01-05") + 7 * np.arange(3),
        resources=np.asarray(["inbound_units"]),
        capacity=np.asarray([100.0, 200.0, 300.0]),
        use=np.asarray([100.0, 200.0, 250.0]),
        prices=np.asarray([2.0, 1.0, 0.0]),
        simulated=np.asarray([0, 1]),
        worth=WORTH,
        repriced=np.ones((2, len(SIZES), 3)),
        joint=0.5 * WORTH[:, : len(JOINT)].sum(0),
        edges=np.asarray([[0.0, 100, 130], [0, 200, 260], [0, 300, 390]]),
        rates=np.tile([0.1, 0.2], (3, 1)),
        ramps=np.full((2, 3), 0.01),
        least=np.zeros(3),
        errors=np.asarray([0.1, 0.2, 0.3]),
    )
    return CapacityResponse(**{**fields, **more})


@pytest.mark.parametrize(("share", "worth"), [(-0.1, -30), (0.05, 10), (0.1, 18), (0.075, 14), (0.3, 42), (0.0, 0.0)])
def test_estimates_of_one_week_pass_through_what_was_simulated(share, worth):
    known = response()
    assert known.estimate(known.capacity * [1 + share, 1, 1]) == pytest.approx(worth)


def test_worths_of_several_weeks_add_up_as_far_as_was_simulated():
    known = response()
    assert known.estimate(known.capacity * [1.05, 1.05, 1]) == pytest.approx(6.5)


def test_unused_capacity_is_worth_nothing_and_less_than_its_use_costs():
    known = response()
    assert known.estimate(np.asarray([100.0, 200.0, 400.0])) == 0.0
    assert known.estimate(np.asarray([100.0, 200.0, 260.0])) == 0.0
    assert known.estimate(np.asarray([100.0, 200.0, 200.0])) < 0.0


def test_what_is_stored_is_read_again_and_other_files_are_refused(tmp_path):
    known, path = response(), tmp_path / "capacity_response.npz"
    known.save(path)
    changed = known.capacity * [1.2, 0.9, 1]
    assert CapacityResponse.load(path).estimate(changed) == known.estimate(changed)
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="cannot be read"):
        CapacityResponse.load(path)


@lru_cache
def planned() -> PlanResult:
    settings = PlanSettings(weeks=8, scenarios=3, paths=3, policy="newsvendor", reissue=False)
    return plan(generate_panel(agents=60, weeks=90, seed=0), settings)


def test_ranges_of_a_small_plan():
    result = planned()
    assert result.price_ranges
    for known in result.price_ranges:
        week = result.weeks.astype(str).tolist().index(known.week)
        over = result.committed[week, 0] > 1.01 * result.record.capacity[week, 0]
        assert (known.kind == "committed") == over
        if over:
            assert known.price is None and known.worth is None  # no price helps
            continue
        assert known.price == result.record.shadow_prices[week, 0] > 0
        assert known.per_unit == pytest.approx(known.worth["+10 %"] / (0.1 * known.capacity))
        assert set(known.cost) == set(known.worth)
        assert known.holds_up_to is None or 0 < known.holds_up_to <= 0.2 * known.capacity
        assert known.binds_next != known.week


def test_more_capacity_everywhere_is_worth_less_than_its_prices_promise():
    known = planned().response
    promised = 0.1 * (known.prices * known.capacity)[known.simulated].sum()
    assert known.joint[JOINT.index(0.1)] < promised


def test_where_nothing_binds_no_price_is_reported():
    settings = PlanSettings(weeks=4, scenarios=3, paths=3, policy="newsvendor", reissue=False)
    free = plan(generate_panel(agents=60, weeks=90, seed=0), settings, CostSettings(regular_capacity=1e6))
    assert free.record.shadow_prices.max() == 0 and free.price_ranges == () and free.response.error is None
    assert free.response.estimate(1.1 * free.response.capacity) == 0.0


def test_nothing_binds_nothing_is_simulated():
    free = replace(response(), simulated=np.zeros(0, int), worth=np.zeros((0, 4)), repriced=np.zeros((0, 4, 3)))
    assert free.estimate(free.capacity * 1.1) == 0.0
