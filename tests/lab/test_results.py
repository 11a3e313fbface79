"""Figures are compared with their targets."""

import pytest

from lab.results import relative, target_row


@pytest.mark.parametrize(
    ("value", "limits", "met", "aimed"),
    [
        ({"estimate": 0.07, "low": 0.06, "high": 0.09}, {"most": 0.08}, True, "0.08 or less"),
        ([-0.15, -0.3, 0.0], {"most": -0.2}, False, "-0.2 or less"),
        (0.95, {"least": 0.9}, True, "0.9 or more"),
        (1.3, {"least": 0.8, "most": 1.2}, False, "0.8 to 1.2"),
        (0.7, {"least": 0.8, "most": 1.2}, False, "0.8 to 1.2"),
        ({"estimate": None, "low": None, "high": None}, {"most": 1.0}, None, "1 or less"),
        (None, {"most": 1.0}, None, "1 or less"),
        (3.0, {}, None, ""),
    ],
)
def test_a_figure_is_met_by_its_estimate(value, limits, met, aimed):
    row = target_row("error", "made-up", value, **limits)
    assert row["met"] is met and row["aimed"] == aimed


def test_a_figure_is_sure_where_its_whole_interval_says_the_same():
    rows = [
        target_row("error", "made-up", [middle, low, high], most=0.1)
        for middle, low, high in ((0.05, 0.01, 0.09), (0.05, 0.01, 0.2), (0.2, 0.15, 0.3), (0.2, 0.05, 0.3))
    ]
    assert [(row["met"], row["sure"]) for row in rows] == [(True, True), (True, False), (False, True), (False, False)]
    assert target_row("error", "made-up", 0.05, most=0.1)["sure"] is None


def test_a_difference_is_relative_to_an_estimate():
    difference = {"estimate": -0.02, "low": -0.03, "high": -0.01}
    assert relative(difference, {"estimate": 0.1, "low": 0.0, "high": 1.0}) == pytest.approx([-0.2, -0.3, -0.1])
    assert relative(difference, {"estimate": 0.0, "low": None, "high": None}) is None
    assert relative({"estimate": -0.02, "low": None, "high": None}, {"estimate": 0.1}) is None
