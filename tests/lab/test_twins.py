"""Twins agree in every total and differ in their composition."""

import numpy as np
import pytest

from lab.twins import aggregate_twins
from walras.errors import InputError, SettingsError, ShapeError
from walras.population.generate import generate_panel
from walras.population.population import population_from_panel

SHOP = population_from_panel(generate_panel(agents=1200, weeks=30, seed=3))
DEMAND, MARGIN, LEAD, HOLDING = (
    np.asarray(x, float) for x in (SHOP.demand_scale, SHOP.unit_margin, SHOP.lead_time, SHOP.holding_cost)
)
TOTALS = np.stack([DEMAND, DEMAND * MARGIN, DEMAND * LEAD, DEMAND * HOLDING, DEMAND**2, MARGIN], axis=1)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("count", "importance"), [(100, None), (300, None), (300, DEMAND)], ids=["100", "300", "demand"]
)
def test_totals_agree_and_the_contrast_does_not(count, importance):
    for seed in range(3):
        twins = aggregate_twins(TOTALS, MARGIN, count, rng(seed), importance=importance)
        for index in (twins.high_variance, twins.low_variance):
            assert len(index) == count == len(set(index.tolist()))
        means = TOTALS[twins.high_variance].mean(axis=0) - TOTALS[twins.low_variance].mean(axis=0)
        np.testing.assert_allclose(twins.difference, means / np.abs(TOTALS).mean(axis=0), atol=1e-12)
        assert np.abs(twins.difference).max() <= 0.005
        assert twins.spread[0] - twins.spread[1] > 0.3
        assert len(np.intersect1d(twins.high_variance, twins.low_variance)) < 0.1 * count


def test_the_spread_is_that_of_the_contrast():
    values = rng(5).uniform(-1.0, 1.0, 800)
    size = rng(6).uniform(0.5, 1.5, (800, 2))
    twins = aggregate_twins(size, values, 200, rng())
    found = [values[index].std() / values.std() for index in (twins.high_variance, twins.low_variance)]
    assert found == pytest.approx(twins.spread, abs=0.03)
    assert found[0] > 1.4 and found[1] < 0.6


def test_a_tighter_tolerance_is_kept():
    size = rng(6).lognormal(0.0, 1.0, (800, 3))
    twins = aggregate_twins(size, rng(7).standard_normal(800), 200, rng(), tolerance=1e-4)
    assert np.abs(twins.difference).max() <= 1e-4


def test_columns_that_may_be_below_0_or_are_0_agree_too():
    columns = np.stack([rng(1).standard_normal(600), np.zeros(600)], axis=1)
    twins = aggregate_twins(columns, rng(2).standard_normal(600), 100, rng())
    assert abs(twins.difference[0]) <= 0.005 and twins.difference[1] == 0.0


def test_one_giant_belongs_to_neither():
    size = np.ones((400, 1))
    size[11] = 500.0
    twins = aggregate_twins(size, rng(2).standard_normal(400), 100, rng())
    assert 11 not in twins.high_variance and 11 not in twins.low_variance


def test_the_seed_decides():
    one, same, other = (aggregate_twins(TOTALS, MARGIN, 100, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.high_variance, same.high_variance)
    np.testing.assert_array_equal(one.low_variance, same.low_variance)
    assert set(one.high_variance.tolist()) != set(other.high_variance.tolist())


def test_a_contrast_without_any_difference_gives_twins_without_spread():
    assert aggregate_twins(TOTALS, np.ones(1200), 100, rng()).spread == (0.0, 0.0)


HALF = np.stack([np.arange(40.0), np.arange(40.0) ** 2, np.sqrt(np.arange(40.0))], axis=1)
MISTAKES = {
    "many": (lambda: aggregate_twins(TOTALS, MARGIN, 1300, rng()), SettingsError, "`count` is 1300 but must be below"),
    "one": (lambda: aggregate_twins(TOTALS, MARGIN, 1, rng()), SettingsError, "`count` is 1 but must be at least 2"),
    "exact": (
        lambda: aggregate_twins(TOTALS, MARGIN, 90, rng(), tolerance=0.0),
        SettingsError,
        "`tolerance` is 0 but must be above 0",
    ),
    "out of reach": (
        lambda: aggregate_twins(HALF, np.arange(40.0), 20, rng(), tolerance=1e-9),
        InputError,
        r"the closest twins differ by .* in attribute \d, but `tolerance` is 1e-09; give",
    ),
    "nobody counts": (
        lambda: aggregate_twins(TOTALS, MARGIN, 90, rng(), importance=0 * MARGIN),
        InputError,
        "`importance` is 0 for all agents but",
    ),
    "no attribute": (lambda: aggregate_twins(TOTALS[:, :0], MARGIN, 90, rng()), ShapeError, "`attributes` has shape"),
    "no number": (
        lambda: aggregate_twins(TOTALS * np.nan, MARGIN, 90, rng()),
        InputError,
        r"`attributes\[:, 0\]` of agent 0 is nan but must be a finite number",
    ),
}


@pytest.mark.parametrize(("attempt", "kind", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_a_sentence(attempt, kind, sentence):
    with pytest.raises(kind, match=sentence):
        attempt()
