"""A plan starts from the stock and orders that the table records, or else from a replay."""

from dataclasses import replace

import numpy as np
import pytest

from walras.data.panel import Panel
from walras.exogenous.demand.model import DemandModel
from walras.planning.problem import replay_history, state_after
from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.population.population import population_from_panel

PANEL = generate_panel(agents=12, weeks=40, seed=0)
PANEL = replace(PANEL, lead_time=np.tile([1.0, 2.0, 3.0, 4.0], 3))
AGENTS = PANEL.n_agents


def started(panel: Panel):
    population = population_from_panel(panel)
    past = replay_history(panel, population, PricedNewsvendor(), DemandModel.fit(panel), log_sd=0.0, seed=0)
    return state_after(past, panel, population)


@pytest.fixture(scope="module")
def replayed():
    return started(PANEL)


def test_without_records_the_policy_is_replayed(replayed):
    state, words = replayed
    stock, pipeline = np.asarray(state.stock_end), np.asarray(state.pipeline)
    assert pipeline.shape == (4, AGENTS) and (stock >= 0).all() and (pipeline >= 0).all()
    assert stock.sum() > 0 and pipeline.sum() > 0
    lead = np.asarray(PANEL.lead_time)
    assert all((pipeline[int(weeks) :, lead == weeks] == 0).all() for weeks in (1, 2, 3))
    assert "no stock on hand: the policy was replayed" in words[0] and "no replenishment orders" in words[1]


def test_recorded_stock_of_the_last_week_is_taken(replayed):
    on_hand = np.full(PANEL.units.shape, 99.0)
    on_hand[-1] = np.arange(AGENTS)
    on_hand[-1, 4] = np.nan
    state, words = started(replace(PANEL, on_hand=on_hand))
    expected = np.arange(AGENTS, dtype=float)
    expected[4] = replayed[0].stock_end[4]
    np.testing.assert_array_equal(state.stock_end, expected.astype(np.float32))
    assert (
        words[0]
        == f"Stock on hand at the start is as recorded for {AGENTS - 1} of {AGENTS} products, replayed for the rest."
    )
    np.testing.assert_array_equal(state.pipeline, replayed[0].pipeline)


def test_recorded_orders_are_due_after_their_lead_time(replayed):
    orders = np.zeros(PANEL.units.shape)
    orders[-1], orders[-2], orders[-3], orders[-5] = 10, 20, 30, 500
    orders[:, 11] = np.nan
    state, words = started(replace(PANEL, orders=orders))
    pipeline = np.asarray(state.pipeline)
    # An order of lead time L placed in the last week arrives L weeks later: in row L - 1 of the coming weeks.
    np.testing.assert_array_equal(pipeline[:, 0], [10, 0, 0, 0])
    np.testing.assert_array_equal(pipeline[:, 1], [20, 10, 0, 0])
    np.testing.assert_array_equal(pipeline[:, 2], [30, 20, 10, 0])
    np.testing.assert_array_equal(pipeline[:, 3], [0, 30, 20, 10])
    np.testing.assert_array_equal(pipeline[:, 11], np.asarray(replayed[0].pipeline)[:, 11])
    assert words[1] == f"Open orders are as recorded for {AGENTS - 1} of {AGENTS} products, replayed for the rest."
    np.testing.assert_array_equal(state.stock_end, replayed[0].stock_end)
