"""Cases cut from a history keep training and held-out weeks apart.

A tiny made-up table; the panel is made once.
"""

from dataclasses import replace

import numpy as np
import pytest

from walras.config import HistorySettings
from walras.data.panel import Panel
from walras.errors import InputError
from walras.population.generate import generate_panel
from walras.train.history import FIRST_FORECAST, rolling_fits, train_test_split

WEEKS, HOLDOUT, AGENTS = 40, 10, 12
SETTINGS = HistorySettings(holdout=HOLDOUT, draws=2, refit_weeks=4)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return generate_panel(AGENTS, WEEKS, 3)


@pytest.fixture(scope="module")
def case(panel):
    return train_test_split(panel, SETTINGS)


def rolling_forecasts(panel, lead_time, **options) -> list[np.ndarray]:
    """Return mean and standard deviation of lead-time demand, one row per week from the first forecast on."""
    fits = list(rolling_fits(panel, lead_time, **options))
    return [np.concatenate([getattr(fit, name) for fit in fits]) for name in ("lead_mean", "lead_sd")]


def changed(panel: Panel, week: int) -> Panel:
    """Multiply demand from a week on."""
    units = panel.units.copy()
    units[week:] = 7 * units[week:] + 3
    return replace(panel, units=units)


def numbers(weeks) -> list[np.ndarray]:
    paths, state = weeks.exogenous, weeks.initial
    return [np.asarray(x) for x in (paths.demand, paths.lead_demand_mean, paths.arrivals.weeks, state.stock_end)]


def test_weeks_are_cut_and_demand_is_replayed(panel, case):
    assert len(case.training.weeks) == WEEKS - HOLDOUT - FIRST_FORECAST and len(case.holdout.weeks) == HOLDOUT
    np.testing.assert_array_equal(case.holdout.weeks, panel.weeks[-HOLDOUT:])
    for part, rows in ((case.training, slice(FIRST_FORECAST, -HOLDOUT)), (case.holdout, slice(-HOLDOUT, None))):
        for draw in range(2):
            np.testing.assert_array_equal(part.exogenous.demand[draw], case.panel.units[rows])
    assert (np.asarray(case.holdout.exogenous.arrivals.weeks[0]) != case.holdout.exogenous.arrivals.weeks[1]).any()


def test_training_knows_nothing_of_the_held_out_weeks(panel, case):
    other = train_test_split(changed(panel, WEEKS - HOLDOUT), SETTINGS)
    for ours, theirs in zip(numbers(case.training), numbers(other.training), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(case.holdout.initial.stock_end, other.holdout.initial.stock_end)
    np.testing.assert_array_equal(case.population.demand_scale, other.population.demand_scale)
    assert not np.array_equal(case.holdout.exogenous.demand, other.holdout.exogenous.demand)


LEAD = np.full(AGENTS, 2)


@pytest.fixture(scope="module")
def forecast(panel):
    return rolling_forecasts(panel, LEAD)[0]


@pytest.mark.parametrize("week", [FIRST_FORECAST + 1, WEEKS - 3])
def test_a_forecast_knows_only_earlier_weeks(panel, forecast, week):
    one, other = forecast, rolling_forecasts(changed(panel, week), LEAD)[0]
    rows = week - FIRST_FORECAST
    np.testing.assert_array_equal(one[: rows + 1], other[: rows + 1])
    assert (one[rows + 1 :] != other[rows + 1 :]).any()


def test_products_that_are_not_yet_on_sale_are_not_expected(panel):
    on_sale, units = panel.on_sale.copy(), panel.units.copy()
    on_sale[:20, 0], units[:20, 0], units[20:, 0] = False, 0.0, 9.0
    mean, sd = rolling_forecasts(replace(panel, on_sale=on_sale, units=units), np.full(panel.n_agents, 1))
    before = 20 - FIRST_FORECAST + 1
    assert (mean[:before, 0] == 0).all() and (sd[:before, 0] == 0).all() and (mean[before:, 0] > 0).all()


def test_fewer_fits_still_cover_every_week(panel, forecast):
    every, some = forecast, rolling_forecasts(panel, LEAD, refit_weeks=5)[0]
    assert every.shape == some.shape
    np.testing.assert_array_equal(every[::5], some[::5])


def test_agents_can_be_taken(case):
    part = case.take(np.array([3, 1]))
    assert part.n_agents == 2 and list(part.panel.agents) == [case.panel.agents[3], case.panel.agents[1]]
    np.testing.assert_array_equal(part.holdout.exogenous.demand, case.holdout.exogenous.demand[..., [3, 1]])
    np.testing.assert_array_equal(part.training.initial.pipeline, case.training.initial.pipeline[..., [3, 1]])


def test_planned_lead_times_and_recorded_prices(panel):
    case = train_test_split(
        panel, HistorySettings(holdout=HOLDOUT, draws=1, refit_weeks=8, lead_times="planned", prices="recorded")
    )
    weeks = np.asarray(case.training.exogenous.arrivals.weeks)
    assert (weeks == np.asarray(case.population.lead_time)).all()
    np.testing.assert_allclose(case.holdout.exogenous.sale_price, case.panel.price[-HOLDOUT:], rtol=1e-6)


@pytest.mark.parametrize(
    "weeks, holdout, words",
    [
        (WEEKS, 60, "`holdout` is 60 weeks of a table of 40, which leaves 0 but at least 16 are needed"),
        (WEEKS, 30, "make it at most 24"),
        (12, 3, "the table has 12 weeks but more than 16 are needed"),
    ],
)
def test_too_short_a_history_is_one_sentence(panel, weeks, holdout, words):
    with pytest.raises(InputError, match=words):
        train_test_split(panel.before(weeks), HistorySettings(holdout=holdout))


def test_no_active_product_is_one_sentence(panel):
    units = panel.units.copy()
    units[: WEEKS - HOLDOUT] = 0
    with pytest.raises(InputError, match="none of the 12 products sold in the 26 weeks before"):
        train_test_split(replace(panel, units=units), SETTINGS)
