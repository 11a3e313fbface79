"""Ask whether a population is what the table's latest weeks say."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from walras.errors import SettingsError
from walras.population.generate import generate_panel
from walras.population.population import (
    bucket_edges,
    bucket_of,
    latest_prices,
    mean_demand,
    population_from_panel,
    price_scale,
)

PANEL = generate_panel(agents=20, weeks=30, seed=0)


def test_attributes_come_from_the_latest_week():
    panel = replace(PANEL, lead_time=np.linspace(0.2, 4.6, 20))
    found = population_from_panel(panel, resources=("storage", "inbound_units"), annual_holding_rate=0.52)
    price, cost = latest_prices(panel)
    np.testing.assert_allclose(price, panel.price[-1], rtol=1e-6)
    np.testing.assert_allclose(found.unit_margin, price - cost, rtol=1e-5)
    np.testing.assert_allclose(found.holding_cost, 0.01 * cost, rtol=1e-5)
    np.testing.assert_array_equal(found.lead_time, np.maximum(np.rint(panel.lead_time), 1))
    np.testing.assert_allclose(found.use[:, 0], panel.volume, rtol=1e-6)
    np.testing.assert_array_equal(found.use[:, 1], 1.0)
    np.testing.assert_array_equal(found.weight, 1.0)
    assert found.resources == ("storage", "inbound_units") and found.stock_resource == (True, False)
    assert found.n_agents == 20 and not found.lost_sale_penalty.any()


def test_lost_sales_cost_a_share_of_the_price():
    found = population_from_panel(PANEL, lost_sale_penalty_share=0.1)
    np.testing.assert_allclose(found.lost_sale_penalty, 0.1 * PANEL.price[-1], rtol=1e-5)


def test_mean_demand_counts_the_weeks_on_sale():
    on_sale = np.ones(PANEL.units.shape, bool)
    on_sale[:20, 3] = False
    on_sale[:, 4] = False
    units = np.ones(PANEL.units.shape)
    units[20:, 3] = 5.0
    found = mean_demand(replace(PANEL, units=units, on_sale=on_sale))
    assert (found[0], found[3], found[4]) == (1.0, 5.0, 0.0)


def test_unknown_resources_are_named():
    with pytest.raises(SettingsError, match="resource `pallets` is not known; choose from inbound_units, "):
        population_from_panel(PANEL, resources=("pallets",))


def test_buckets_are_equal_and_their_edges_stay():
    value = np.random.default_rng(0).permutation(100).astype(float)
    edges = bucket_edges(value)
    np.testing.assert_array_equal(np.bincount(bucket_of(value, edges)), np.full(10, 10))
    assert bucket_of(value, edges)[value.argmin()] == 0
    # Everybody twice as large: more agents in the upper buckets under the frozen edges.
    assert np.bincount(bucket_of(2 * value, edges), minlength=10)[9] > 50


def test_the_price_scale_is_the_median_margin_per_unit_of_each_resource():
    found = population_from_panel(PANEL, resources=("inbound_units", "inbound_volume"))
    margin = np.asarray(found.unit_margin)[:, None] / np.asarray(found.use)
    np.testing.assert_allclose(price_scale(found), np.median(margin, axis=0))
    twice = eqx.tree_at(lambda each: each.weight, found, jnp.asarray([3.0] + [0.0] * (found.n_agents - 1)))
    np.testing.assert_allclose(price_scale(twice), margin[0])  # an agent of weight 3 is three agents
