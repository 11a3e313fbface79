"""Numbers and sentences as people write them."""

import numpy as np
import pytest

from walras.report import formatting


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


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("spread over 1 weeks.", "spread over 1 week."),
        ("12345 of 20000 rows left", "12,345 of 20,000 rows left"),
        ("product 85123 in 2011", "product 85123 in 2011"),
        ("0.1 units, 21 weeks", "0.1 units, 21 weeks"),
    ],
)
def test_plurals_are_fixed(given, written):
    assert formatting.fix_plurals(given) == written
