"""Several resources are priced at once, and that only those that bind cost anything."""

import jax.numpy as jnp
import numpy as np
import pytest

from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.planning.prices.dual_ascent import DualSolution, GaussNewton
from walras.planning.prices.simulated_view import SimulatedView
from walras.policies.base_stock import PricedNewsvendor
from walras.population.population import Population
from walras.simulation.week import State

RESOURCES = ("inbound_units", "inbound_volume", "storage")
STORAGE = RESOURCES.index("storage")
WEEKS, AGENTS, SCENARIOS, MAX_LEAD = 12, 800, 2, 4
TIGHT = slice(5, 10)
"""Weeks in which storage has less room than the shops would fill."""

PLENTY, SCARCE = 1.6, 0.85
TOLERANCE = 5e-4
"""Mean complementarity residual; the largest allowed is five times the mean in each of the five tight weeks."""
FITS = 0.01
NO_PRICE = 1e-4
"""Share of the median margin per unit below which a price is none."""


def single(values: np.ndarray) -> jnp.ndarray:
    return jnp.asarray(values, jnp.float32)


def season() -> np.ndarray:
    """Return demand over its mean: half as much again in the seventh week."""
    return 1 + 0.5 * np.exp(-(((np.arange(WEEKS) - 7) / 2.0) ** 2))


@pytest.fixture(scope="module")
def view() -> SimulatedView:
    rng = np.random.default_rng(0)
    lead, mean, margin = rng.integers(1, 4, AGENTS), rng.gamma(3.0, 4.0, AGENTS), rng.uniform(2.0, 8.0, AGENTS)
    volume, room = rng.uniform(0.2, 2.0, (2, AGENTS))
    people = Population(
        holding_cost=single(rng.uniform(0.05, 0.2, AGENTS)),
        lost_sale_penalty=single(rng.uniform(0.5, 2.0, AGENTS)),
        lead_time=jnp.asarray(lead, jnp.int32),
        demand_scale=single(mean),
        unit_margin=single(margin),
        use=single(np.stack([np.ones(AGENTS), volume, room], axis=1)),
        weight=single(np.ones(AGENTS)),
        resources=RESOURCES,
    )
    ahead = np.minimum(np.arange(WEEKS)[:, None] + np.arange(3), WEEKS - 1)
    paths = ExogenousPaths(
        demand=single(rng.gamma(4.0, mean / 4, (SCENARIOS, WEEKS, AGENTS)) * season()[:, None]),
        sale_price=single(4.0 + margin[None]),
        unit_cost=single(np.full((1, AGENTS), 4.0)),
        arrivals=IntegerLeadTimes(jnp.asarray(np.broadcast_to(lead, (SCENARIOS, WEEKS, AGENTS)), jnp.int8)),
        lead_demand_mean=single(mean * (lead + 1) * season()[ahead].mean(1)[:, None]),
        lead_demand_sd=single(np.broadcast_to(mean / 2 * np.sqrt(lead + 1), (WEEKS, AGENTS))),
    )
    pipeline = np.where(np.arange(MAX_LEAD)[:, None] < lead, mean, 0.0)
    return SimulatedView(people, paths, PricedNewsvendor(), State(single(1.5 * mean), single(pipeline)))


@pytest.fixture(scope="module")
def capacity(view) -> np.ndarray:
    """Give plenty of everything but storage in the tight weeks."""
    free = view.utilization(np.zeros((WEEKS, len(RESOURCES))))
    plan = PLENTY * free
    plan[TIGHT, STORAGE] = SCARCE * free[TIGHT, STORAGE]
    return plan


@pytest.fixture(scope="module", params=["from nothing", "from a price on everything"])
def found(request, view, capacity) -> DualSolution:
    start = np.full(capacity.shape, 0.0 if request.param == "from nothing" else 0.05 * view.price_scale)
    return view.solve(capacity, start, GaussNewton(tolerance=TOLERANCE))


def test_the_search_ends(found):
    assert found.converged and found.jacobians <= 5


def test_only_storage_costs_anything_and_only_where_it_binds(view, found):
    prices = found.prices.reshape(WEEKS, -1) / view.price_scale
    assert prices[:, :STORAGE].max() < NO_PRICE
    assert prices[TIGHT, STORAGE].min() > 100 * NO_PRICE
    slack = np.ones(WEEKS, bool)
    slack[TIGHT] = False
    assert prices[slack, STORAGE].max() < NO_PRICE


def test_storage_fits(view, found, capacity):
    use = view.utilization(found.prices.reshape(WEEKS, -1))
    assert (use <= (1 + FITS) * capacity)[view.controllable].all()
    np.testing.assert_allclose(use[TIGHT, STORAGE], capacity[TIGHT, STORAGE], rtol=FITS)
    assert (use[:, :STORAGE] < 0.9 * capacity[:, :STORAGE]).all()


def test_a_price_of_storage_lowers_storage(view, capacity):
    """The slope that steered the search has the sign of a demand curve where it matters."""
    shape = (*capacity.shape, *capacity.shape)
    slope = view.jacobian(np.zeros(capacity.shape)).reshape(shape)[:, STORAGE, :, STORAGE]
    assert (np.diag(slope)[TIGHT] < 0).all()
