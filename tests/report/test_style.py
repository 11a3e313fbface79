"""Own what keeps pictures readable: labels that do not overlap, numbers and dates as people write them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.planning.result import GroupUse
from walras.report import charts, formatting, style


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=8))
def test_labels_never_overlap_and_stay_inside(wanted):
    heights = [0.1] * len(wanted)
    places = style.spread(wanted, heights)
    ordered = np.sort(places)
    assert np.all(np.diff(ordered) >= 0.1 - 1e-9)
    assert ordered[0] >= 0.05 - 1e-9 and ordered[-1] <= 0.95 + 1e-9


def test_labels_with_room_stay_where_they_are():
    assert style.spread([0.2, 0.8], [0.1, 0.1]) == [0.2, 0.8]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not defined"), (float("nan"), "not defined"), (0.0, "0"), (-0.0001, "−0.0001"), (1234567.0, "1,234,567"),
     (12.34, "12.3"), (1.0, "1.00"), (5, "5"), (np.float64(-1500.0), "−1,500")],
)  # fmt: skip
def test_numbers(value, text):
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-101_000, "−101k"), (45_600, "45.6k"), (2_310_000, "2.31M"), (7_000, "7,000"), (3e9, "3bn")]
)
def test_short_numbers(value, text):
    assert formatting.short_number(value) == text


def test_percent_keeps_its_sign_and_never_shows_minus_zero():
    assert formatting.percent(-0.00001).startswith("0.0")
    assert formatting.signed(formatting.percent(0.05)).startswith("+5.0") and formatting.signed(
        formatting.percent(-0.05)
    ).startswith("−5.0")
    assert formatting.signed(formatting.percent(0.0)).startswith("0.0")


def test_counts_among_measures_are_not_percent():
    assert formatting.measure("near_limit_weeks", 1200) == "1,200"


def test_small_groups_are_summed_and_nothing_is_lost():
    without = np.linspace(1.0, 40.0, 40)
    labels, before, after = charts.folded(GroupUse("category", tuple(map(str, range(40))), without, 0.9 * without))
    assert len(labels) == len(before) == charts.MOST_GROUPS and labels[-1] == "29 others"
    assert before.sum() == pytest.approx(without.sum()) and after.sum() == pytest.approx(0.9 * without.sum())


def test_trace_without_residuals_draws_nothing():
    assert charts.residuals(()) == {}
    assert charts.residuals(({"cost": 1.0}, {"cost": 2.0})) == {}
    assert list(charts.residuals(({"residual": 0.1, "cost": 1.0}, {"residual": 0.01, "cost": 1.0}))) == ["residual"]
