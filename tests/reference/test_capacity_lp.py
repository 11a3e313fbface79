"""A capacity plan under perfect information is a linear program: its objective and its duals."""

import jax.numpy as jnp
import numpy as np
import pytest

from lab.bundle import LevelBundle, MixedSolution, ValuedProblem
from lab.linear_program import PerfectForesight
from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import constant_paths
from walras.planning.prices.simulated_view import SimulatedView
from walras.population.population import Population
from walras.simulation.week import empty_state

WEEKS, PRODUCTS, UNIT_COST = 26, 100, 0.01
OBJECTIVE, SUM_OF_PRICES, LARGEST_PRICE = 13294.955, 137.5487, 7.1488


def plan() -> tuple[SimulatedView, np.ndarray]:
    """Draw demand, costs and stock, and a capacity of 80 % of the demand from the third week on."""
    rng = np.random.default_rng(0)
    demand = rng.poisson(rng.uniform(1, 9, PRODUCTS)[:, None], (PRODUCTS, WEEKS)).astype(float)
    holding, penalty = rng.uniform(0.5, 1.5, PRODUCTS), rng.uniform(5, 15, PRODUCTS)
    capacity = np.concatenate([demand.sum(0)[:2], 0.8 * demand.sum(0)[2:]])
    single = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    population = Population(
        holding_cost=single(holding),
        lost_sale_penalty=single(penalty),
        lead_time=jnp.zeros(PRODUCTS, jnp.int32),
        demand_scale=single(demand.mean(1)),
        unit_margin=single(penalty - UNIT_COST),  # what a unit is worth to its agent
        use=jnp.ones((PRODUCTS, 1)),
        weight=jnp.ones(PRODUCTS),
        resources=("inbound_units",),
    )
    arrivals = IntegerLeadTimes(jnp.zeros((1, WEEKS, PRODUCTS), jnp.int8))
    paths = constant_paths(demand.T[None], arrivals, unit_cost=UNIT_COST)
    initial = empty_state(PRODUCTS, WEEKS, single(2 * demand.mean(1)))
    return SimulatedView(population, paths, PerfectForesight(single(demand.T)), initial), capacity[:, None]


@pytest.fixture(scope="module")
def solved() -> MixedSolution:
    view, capacity = plan()
    return LevelBundle().solve(ValuedProblem.from_view(view, capacity), np.zeros(WEEKS))


def test_the_bundle_closes_in_few_queries(solved: MixedSolution) -> None:
    assert solved.converged and solved.queries <= 120


def test_both_values_meet_the_program(solved: MixedSolution) -> None:
    """Rewards are costs with the sign turned: no plan earns more than the dual value, the mix earns as much."""
    assert -solved.dual_value == pytest.approx(OBJECTIVE, rel=1e-3)
    assert -solved.primal_value == pytest.approx(OBJECTIVE, rel=1e-3)
    assert -solved.dual_value <= OBJECTIVE * (1 + 1e-6)


def test_the_mix_fits_the_capacity(solved: MixedSolution) -> None:
    _, capacity = plan()
    assert (solved.utilization <= 1.005 * capacity.ravel()).all()
    assert solved.violation <= 0.005
    assert solved.shares.sum() == pytest.approx(1.0) and (solved.shares >= 0).all()


def test_prices_are_the_duals_of_capacity(solved: MixedSolution) -> None:
    assert solved.prices.sum() == pytest.approx(SUM_OF_PRICES, rel=0.01)
    assert solved.prices.max() == pytest.approx(LARGEST_PRICE, rel=0.03)


def test_other_weeks_have_other_prices(solved: MixedSolution) -> None:
    """Half the missing capacity halves nothing: the figures are those of this capacity, not of any."""
    view, capacity = plan()
    looser = LevelBundle(tolerance=1e-3).solve(ValuedProblem.from_view(view, 1.125 * capacity), np.zeros(WEEKS))
    assert looser.prices.sum() < 0.95 * SUM_OF_PRICES and -looser.dual_value < 0.7 * OBJECTIVE
