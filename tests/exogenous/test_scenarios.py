"""Ask whether the paths of coming and past weeks are what forecasts, tables and seeds say."""

import numpy as np
import pytest

from walras.exogenous.arrivals import draw_lead_times, lead_time_sd, longest_lead_time
from walras.exogenous.demand.model import DemandModel
from walras.exogenous.paths import lead_time_demand
from walras.exogenous.scenarios import coming_paths, mixed_path, past_paths, pipeline_length
from walras.population.generate import generate_panel

PANEL = generate_panel(agents=12, weeks=60, seed=0)
MODEL = DemandModel.fit(PANEL)
LEAD = np.tile([1, 2, 4], 4)


def coming(seed: int = 0, **more):
    return coming_paths(PANEL, LEAD, MODEL, **{"scenarios": 5, "weeks": 6, "seed": seed, **more})


def test_coming_weeks_have_the_latest_prices_and_drawn_demand():
    paths = coming()
    assert paths.demand.shape == (5, 6, 12) and (paths.n_scenarios, paths.n_weeks, paths.n_agents) == (5, 6, 12)
    np.testing.assert_allclose(paths.sale_price, np.repeat(PANEL.price[-1:], 6, axis=0), rtol=1e-6)
    np.testing.assert_allclose(paths.unit_cost, np.repeat(PANEL.unit_cost[-1:], 6, axis=0), rtol=1e-6)
    np.testing.assert_allclose(paths.demand, MODEL.sample(5, 6, seed=0), rtol=1e-6)
    assert paths.supply is None


def test_the_same_seed_draws_the_same_and_another_does_not():
    np.testing.assert_array_equal(coming().demand, coming().demand)
    np.testing.assert_array_equal(coming().arrivals.weeks, coming().arrivals.weeks)
    assert not np.array_equal(coming().demand, coming(1).demand)
    assert not np.array_equal(coming().arrivals.weeks, coming(1).arrivals.weeks)


def test_forecasts_of_lead_time_demand_add_up_the_weeks():
    paths = coming(log_sd=0.0)
    mean, sd = MODEL.mean(11), MODEL.sd(11)
    for agent, lead in ((0, 1), (2, 4)):
        for week in (0, 5):
            weeks = slice(week, week + lead + 1)
            assert float(paths.lead_demand_mean[week, agent]) == pytest.approx(mean[weeks, agent].sum(), rel=1e-4)
            root = np.sqrt((sd[weeks, agent].astype(float) ** 2).sum())
            assert float(paths.lead_demand_sd[week, agent]) == pytest.approx(root, rel=1e-4)
    assert (np.asarray(coming().lead_demand_sd) >= np.asarray(paths.lead_demand_sd)).all()


def test_uncertain_lead_times_add_their_variance():
    mean, sd = np.full((4, 1), 10.0), np.full((4, 1), 2.0)
    total, spread = lead_time_demand(mean, sd, np.array([2]), np.array([0.5]), 3)
    np.testing.assert_allclose(total[:, 0], 30.0)
    np.testing.assert_allclose(spread[:, 0], np.sqrt(3 * 4 + 100 * 0.25), rtol=1e-6)


def test_past_weeks_are_replayed_as_they_were():
    paths = past_paths(PANEL, LEAD, MODEL, weeks=10, seed=0)
    assert paths.n_scenarios is None
    np.testing.assert_allclose(paths.demand, PANEL.units[-10:], rtol=1e-6)
    expected = MODEL.history_mean()[-10:]
    assert float(paths.lead_demand_mean[0, 0]) == pytest.approx(expected[:2, 0].sum(), rel=1e-4)


def test_a_typical_path_mixes_scenarios_agent_by_agent():
    paths = coming()
    mixed = mixed_path(paths, 0)
    assert mixed.n_scenarios is None
    taken = [
        [
            number
            for number in range(5)
            if np.array_equal(mixed.demand[:, agent], paths.demand[number, :, agent])
            and np.array_equal(mixed.arrivals.weeks[:, agent], paths.arrivals.weeks[number, :, agent])
        ]
        for agent in range(12)
    ]
    assert all(taken) and len({numbers[0] for numbers in taken}) > 1
    np.testing.assert_array_equal(mixed_path(paths, 0).demand, mixed.demand)


def test_copies_of_all_agents_follow_every_scenario_once():
    paths = coming()
    mixed = mixed_path(paths, 0, copies=5)
    assert mixed.n_agents == 60 and mixed.sale_price.shape == (6, 60)
    np.testing.assert_array_equal(mixed.demand[:, :12], mixed_path(paths, 0).demand)
    followed = np.asarray(mixed.demand).reshape(6, 5, 12)
    np.testing.assert_array_equal(np.sort(followed, axis=1), np.sort(np.moveaxis(paths.demand, 0, 1), axis=1))


def test_lead_times_are_whole_near_typical_and_bounded():
    typical = np.array([1, 2, 4, 8])
    drawn = draw_lead_times(typical, (50, 100), seed=1)
    assert drawn.dtype == np.int8 and drawn.shape == (50, 100, 4)
    assert drawn.min() >= 1 and drawn.max() <= longest_lead_time(typical) == 16 == pipeline_length(typical)
    np.testing.assert_array_equal(np.median(drawn, axis=(0, 1)), typical)
    assert np.log(drawn[..., 3]).std() == pytest.approx(0.58, abs=0.09)


def test_without_spread_every_order_takes_as_long():
    typical = np.array([1, 3])
    drawn = draw_lead_times(typical, (2, 3), log_sd=0.0)
    np.testing.assert_array_equal(drawn, np.broadcast_to(typical, (2, 3, 2)))
    assert longest_lead_time(typical, 0.0) == 3
    np.testing.assert_array_equal(lead_time_sd(typical, 0.0), 0.0)


def test_the_spread_that_agents_plan_with_is_that_of_the_draws():
    random = np.random.default_rng(0)
    drawn = 4.0 * np.exp(0.58 * random.standard_normal(400_000))
    assert lead_time_sd(np.array([4.0]))[0] == pytest.approx(drawn.std(), rel=0.03)
