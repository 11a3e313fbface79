"""Known costs of lost-sales stores with Poisson(5) demand, holding cost 1 and lead times 1 to 4."""

import jax.numpy as jnp
import numpy as np
import pytest
from textbook import AGENTS, ERRORS, WARM_UP, WEEKS, Store, assert_costs, standard_error

from lab.textbook import LOST_SALES
from walras.policies.base_stock import ConstantOrder, OrderUpTo

BEST = {
    (1, 4): 4.16,
    (2, 4): 4.64,
    (3, 4): 4.98,
    (4, 4): 5.20,
    (1, 9): 5.55,
    (2, 9): 6.32,
    (3, 9): 6.86,
    (4, 9): 7.27,
}
"""Cost of the best base-stock policy, to two digits."""

OPTIMAL = {
    (1, 4): 4.041,
    (2, 4): 4.395,
    (3, 4): 4.599,
    (4, 4): 4.728,
    (1, 9): 5.438,
    (2, 9): 6.094,
    (3, 9): 6.531,
    (4, 9): 6.836,
}
"""Cost of the best of all policies."""

HALF_DIGIT = 0.005

EVERY_LEVEL = [(lead, penalty, level) for (lead, penalty), costs in LOST_SALES.items() for level in costs]


@pytest.fixture(scope="module")
def demand() -> np.ndarray:
    return np.random.default_rng(20_080).poisson(5.0, (WEEKS, AGENTS)).astype(np.float32)


@pytest.fixture(scope="module")
def base_stock(demand):
    """Return every store's cost under a base-stock level; each case is simulated once."""
    known: dict[tuple[int, float, int], np.ndarray] = {}

    def costs(lead: int, penalty: float, level: int) -> np.ndarray:
        case = (lead, penalty, level)
        if case not in known:
            policy = OrderUpTo(jnp.asarray(level, jnp.float32))
            known[case] = Store(penalty=penalty, lead=lead).costs(policy, demand, level)
        return known[case]

    return costs


@pytest.mark.parametrize(("lead", "penalty", "level"), EVERY_LEVEL)
def test_base_stock_costs_what_it_must(base_stock, lead: int, penalty: int, level: int) -> None:
    costs = base_stock(lead, float(penalty), level)
    assert standard_error(costs) < 0.01 * costs.mean()
    assert_costs(costs, LOST_SALES[lead, penalty][level], slack=5e-6)


@pytest.mark.parametrize(("lead", "penalty"), [case for case in LOST_SALES if len(LOST_SALES[case]) > 1])
def test_levels_rank_as_their_exact_costs(base_stock, lead: int, penalty: int) -> None:
    """On the same demand a level differs from the best one by the exact difference, and is no cheaper."""
    exact = LOST_SALES[lead, penalty]
    best = min(exact, key=exact.get)
    for level in exact.keys() - {best}:
        extra = base_stock(lead, float(penalty), level) - base_stock(lead, float(penalty), best)
        assert_costs(extra, exact[level] - exact[best], slack=1e-5)
        assert extra.mean() > -ERRORS * standard_error(extra)
        if exact[level] - exact[best] > 2 * ERRORS * standard_error(extra):
            assert extra.mean() > ERRORS * standard_error(extra)


@pytest.mark.parametrize(("lead", "penalty"), BEST)
def test_the_best_base_stock_level_has_the_published_cost(base_stock, lead: int, penalty: int) -> None:
    """The cheapest level costs what the table says, and its neighbours are not cheaper."""
    known = LOST_SALES.get((lead, penalty), {28: 7.27, 29: 7.27})
    levels = sorted({level + step for level in known for step in (-1, 0, 1)})
    costs = {level: base_stock(lead, float(penalty), level) for level in levels}
    best = min(costs, key=lambda level: costs[level].mean())
    assert best not in (min(levels), max(levels))
    assert_costs(costs[best], BEST[lead, penalty], slack=HALF_DIGIT)
    assert costs[best].mean() > OPTIMAL[lead, penalty]


def test_the_best_constant_order_is_four_a_week_whatever_the_lead_time(demand) -> None:
    costs = {order: Store().costs(ConstantOrder(jnp.float32(order)), demand, order) for order in (2, 3, 4)}
    assert_costs(costs[4], 5.27, slack=HALF_DIGIT)
    assert costs[3].mean() > costs[4].mean() and costs[2].mean() > costs[3].mean()
    late = Store(lead=3).costs(ConstantOrder(jnp.float32(4)), demand, 16)
    assert abs((late - costs[4]).mean()) < ERRORS * standard_error(late - costs[4]) + 1e-3


def test_the_warm_up_is_long_enough(demand) -> None:
    """Half of the weeks that count cost what the other half costs."""
    happened = Store(penalty=9.0, lead=2).traces(OrderUpTo(jnp.float32(19)), demand, 19, 4)
    cost = -np.asarray(happened.reward, float)
    middle = (WARM_UP + WEEKS) // 2
    drift = cost[middle:].mean(0) - cost[WARM_UP:middle].mean(0)
    assert_costs(drift, 0.0)
