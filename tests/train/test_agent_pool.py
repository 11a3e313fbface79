"""A world forecasts from earlier weeks alone, and comes back from its file as it was.

Tiny made-up tables; the panel and the world are made once. What is cut out of a world is in `test_stretch`.
"""

from dataclasses import fields, replace

import jax
import numpy as np
import pytest

from walras.data.array_file import DamagedFileError, read_arrays, write_arrays
from walras.data.panel import Panel
from walras.errors import InputError, SettingsError
from walras.exogenous.calendar import holiday_distance
from walras.maps.features import HORIZON
from walras.population.generate import generate_panel
from walras.train.agent_pool import ACTIVE_WEEKS, AgentPool, pools_from_generator
from walras.train.history import FIRST_FORECAST, rolling_fits

WEEKS, AGENTS, REFIT = 40, 12, 4


@pytest.fixture(scope="module")
def panel() -> Panel:
    return generate_panel(AGENTS, WEEKS, 3)


@pytest.fixture(scope="module")
def world(panel) -> AgentPool:
    return AgentPool.from_panel(panel, refit_weeks=REFIT)


def rolling_forecasts(panel, lead_time, **options) -> list[np.ndarray]:
    """Return mean and standard deviation of lead-time demand, one row per week from the first forecast on."""
    fits = list(rolling_fits(panel, lead_time, **options))
    return [np.concatenate([getattr(fit, name) for fit in fits]) for name in ("lead_mean", "lead_sd")]


def same(one: AgentPool, other: AgentPool) -> bool:
    """Tell whether two worlds are equal in every number and word."""

    def parts(world: AgentPool) -> list[np.ndarray]:
        names = [world.population.names.labels, world.population.resources, world.notes]
        mine = [getattr(world, each.name) for each in fields(world) if each.name != "notes"]
        return [np.asarray(leaf) for leaf in (*jax.tree.leaves(mine), *names)]

    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(parts(one), parts(other), strict=True))


def test_what_happened_is_that_of_the_table(panel, world):
    rows = slice(FIRST_FORECAST, None)
    np.testing.assert_array_equal(world.weeks, panel.weeks[rows])
    np.testing.assert_array_equal(world.exogenous.demand, panel.units[rows])
    np.testing.assert_allclose(world.exogenous.sale_price, panel.price[rows], rtol=1e-6)
    np.testing.assert_array_equal(world.on_sale, panel.on_sale[rows])
    lead_times = np.asarray(world.exogenous.arrivals.weeks)
    assert lead_times.shape == world.on_sale.shape and 1 < lead_times.max() <= world.max_lead
    reach = world.n_weeks + HORIZON + REFIT + 1
    np.testing.assert_array_equal(world.holidays, holiday_distance(world.weeks[0], reach))


def test_both_forecasts_come_from_the_same_fits(panel, world):
    lead = np.asarray(world.population.lead_time)
    mean, sd = rolling_forecasts(panel, lead, refit_weeks=REFIT)
    np.testing.assert_array_equal(world.exogenous.lead_demand_mean, mean)
    np.testing.assert_allclose(world.exogenous.lead_demand_sd, sd, rtol=1e-6)
    np.testing.assert_array_equal(world.fit_week, np.arange(0, world.n_weeks, REFIT))
    for agent, weeks in enumerate(lead):  # in the week of a fit, lead-time demand adds up weekly demand
        np.testing.assert_allclose(world.expected[:, : weeks + 1, agent].sum(1), mean[::REFIT, agent], rtol=1e-5)


@pytest.mark.parametrize("week", [1, 8, 21, WEEKS - FIRST_FORECAST - 1])
def test_no_forecast_knows_the_week_it_forecasts_or_later(panel, world, week):
    units = panel.units.copy()
    units[FIRST_FORECAST + week :] = 7 * units[FIRST_FORECAST + week :] + 3
    other = AgentPool.from_panel(replace(panel, units=units), refit_weeks=REFIT)
    early = world.fit_week <= week
    np.testing.assert_array_equal(other.expected[early], world.expected[early])
    assert early.all() or (other.expected[~early] != world.expected[~early]).any(axis=(1, 2)).all()
    for name in ("lead_demand_mean", "lead_demand_sd"):
        rows = (np.asarray(getattr(each.exogenous, name))[: week + 1] for each in (world, other))
        np.testing.assert_array_equal(*rows)
    np.testing.assert_array_equal(other.active[: week + 1], world.active[: week + 1])


def test_attributes_know_the_known_weeks_alone(panel):
    units, price = panel.units.copy(), panel.price.copy()
    units[25:], price[25:] = 9.0, 99.0
    worlds = [
        AgentPool.from_panel(each, known_weeks=25, refit_weeks=16)
        for each in (panel, replace(panel, units=units, price=price))
    ]
    for one, other in zip(*(jax.tree.leaves(world.population) for world in worlds), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(worlds[0].exogenous.demand, worlds[1].exogenous.demand)


def test_agents_that_never_sold_are_left_out(panel):
    units = panel.units.copy()
    units[:, 4] = 0
    units[:30, 7] = 0
    found = AgentPool.from_panel(replace(panel, units=units), known_weeks=30, refit_weeks=16)
    np.testing.assert_array_equal(found.population.names.labels, np.delete(panel.agents, [4, 7]))
    assert "2 products sold nothing in 30 weeks and are left out." in found.notes
    assert AgentPool.from_panel(replace(panel, units=units), refit_weeks=16).n_agents == AGENTS - 1


def test_who_sold_shortly_before_a_week_is_active_in_it(panel):
    units = np.ones_like(panel.units)
    units[:, 1], units[10, 1] = 0, 2
    found = AgentPool.from_panel(replace(panel, units=units), active_weeks=5, refit_weeks=16)
    np.testing.assert_array_equal(np.flatnonzero(found.active[:, 1]) + FIRST_FORECAST, np.arange(11, 16))
    assert found.active[:, 0].all() and ACTIVE_WEEKS > 5


def test_a_stored_world_is_the_same_world(world, tmp_path):
    world = replace(world, notes=("One.", "Two."))
    world.save(tmp_path / "a.world")
    assert [each.name for each in tmp_path.iterdir()] == ["a.world"]
    found = AgentPool.load(tmp_path / "a.world")
    assert same(found, world)
    assert not same(replace(found, on_sale=~found.on_sale), world)


def test_a_damaged_or_foreign_file_is_one_sentence(world, tmp_path):
    path = tmp_path / "a.world"
    world.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (tmp_path / "bad.world").write_bytes(content)
    with pytest.raises(DamagedFileError, match="is damaged"):
        AgentPool.load(tmp_path / "bad.world")
    stored = read_arrays(path, "world")
    write_arrays(path, "world", stored.arrays, stored.header | {"layout": 99})
    with pytest.raises(InputError, match="has fields of layout 99 but this walras reads 1"):
        AgentPool.load(path)


def test_worlds_are_made_one_by_one_and_can_be_made_again(monkeypatch):
    made = []
    from_panel = AgentPool.from_panel
    monkeypatch.setattr(AgentPool, "from_panel", lambda *args, **given: made.append(0) or from_panel(*args, **given))
    worlds = pools_from_generator(3, 8, 20, seed=5)
    first, second = next(worlds), next(worlds)
    assert len(made) == 2 and not same(first, second)
    assert same(next(pools_from_generator(1, 8, 20, seed=5)), first)
    assert not same(next(pools_from_generator(1, 8, 20, seed=6)), second)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"refit_weeks": 0}, "`refit_weeks` is 0 but needs to be at least 1"),
        ({"active_weeks": 0}, "`active_weeks` is 0 but needs to be at least 1"),
        ({"known_weeks": 41}, "`known_weeks` is 41 of a table of 40 weeks; give a number from 1 to 40"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(panel, given, words):
    with pytest.raises(SettingsError, match=words):
        AgentPool.from_panel(panel, **given)


def test_too_short_or_empty_a_history_is_one_sentence(panel):
    with pytest.raises(InputError, match="the table has 8 weeks but more than 8 are needed"):
        AgentPool.from_panel(panel.before(8))
    with pytest.raises(InputError, match="none of the 12 products sold in 40 weeks"):
        AgentPool.from_panel(replace(panel, units=np.zeros_like(panel.units)))
