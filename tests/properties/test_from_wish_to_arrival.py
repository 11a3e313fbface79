"""No units appear or vanish between the wish and the arrival, under all constraints and vendors (hypothesis)."""

from functools import lru_cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops import (
    AGENTS,
    MAX_LEAD,
    SCENARIOS,
    WEEKS,
    Announcer,
    arrivals_of,
    assert_same,
    happenings,
    order_up_to,
    prices,
    shop,
    start,
)

from walras.exogenous.arrivals import Chained, ConstantLeadTime, FillRate, IntegerLeadTimes, SupplyLimit
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base_stock import ConstantOrder, OrderUpTo
from walras.policies.order_constraints import CasePacks, Constrained
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import empty_state

ARRIVALS = ("integer", "shares", "constant")
SUPPLY = ("all", "limit", "share", "share, then limit")
TERMS = ("none", "whole", "relaxed")
COMBINATIONS = list(product(ARRIVALS, SUPPLY, TERMS))
SIMULATED = (
    ("integer", "share, then limit", "whole"),
    ("integer", "all", "whole"),
    ("shares", "limit", "whole"),
    ("shares", "share", "none"),
    ("constant", "share, then limit", "relaxed"),
)
"""Few, since each is a compilation."""
STEP = 2.0**-5
seeds = st.integers(0, 10_000)


def supply_of(kind: str, seed: int):
    """Draw limits in whole units and shares in eighths, so that everything adds up to the bit."""
    random = np.random.default_rng([seed, 7])
    limit = SupplyLimit(jnp.asarray(random.integers(0, 30, (WEEKS, AGENTS)), jnp.float32))
    share = FillRate(jnp.asarray(random.integers(0, 9, (WEEKS, AGENTS)) / 8, jnp.float32))
    return {"all": None, "limit": limit, "share": share, "share, then limit": Chained(share, limit)}[kind]


def accepted_by_hand(kind: str, seed: int, placed: np.ndarray) -> np.ndarray:
    """Say what vendors accept without asking their objects."""
    random = np.random.default_rng([seed, 7])
    limit, share = random.integers(0, 30, (WEEKS, AGENTS)), random.integers(0, 9, (WEEKS, AGENTS)) / 8
    limit, share = (limit if "limit" in kind else np.inf), (share if "share" in kind else 1.0)
    return np.minimum(limit, share * placed)


def whole_cases(seed: int) -> CasePacks:
    random = np.random.default_rng([seed, 8])
    case = random.integers(1, 7, AGENTS)
    minimum = random.integers(0, 12, AGENTS)
    least = case * -(-np.maximum(minimum, 1) // case)
    return CasePacks(minimum, case, least + random.integers(0, 20, AGENTS))


def arriving(kind: str, seed: int):
    if kind == "constant":
        return ConstantLeadTime(seed % 2 * MAX_LEAD)
    return arrivals_of(kind, (WEEKS, AGENTS), np.random.default_rng([seed, 9]))


def terms_of(kind: str, seed: int):
    whole = whole_cases(seed)
    return {"none": None, "whole": whole, "relaxed": whole.continuous()}[kind]


def assert_allowed(terms: CasePacks, placed: np.ndarray) -> None:
    """Refuse orders that are no whole number of cases, below the minimum unless nothing, or above the maximum."""
    case, minimum, maximum = (np.asarray(x, float) for x in (terms.case_pack, terms.minimum, terms.maximum))
    assert (placed % case == 0).all()
    assert ((placed == 0) | (placed >= minimum)).all() and (placed <= maximum).all()


@pytest.mark.parametrize("combination", COMBINATIONS, ids=", ".join)
@given(seed=seeds)
@settings(max_examples=4)
def test_nothing_is_lost_between_the_wish_and_the_arrival(combination, seed):
    arrivals, supply, terms = combination
    model, vendor, rule = arriving(arrivals, seed), supply_of(supply, seed), terms_of(terms, seed)
    wishes = jnp.asarray(np.random.default_rng([seed, 10]).integers(0, 160, (WEEKS, AGENTS)) / 4, jnp.float32)
    due = np.zeros((WEEKS + MAX_LEAD, AGENTS))
    placed, accepted = np.zeros((2, WEEKS, AGENTS))
    for week, wished in enumerate(wishes):
        now = jax.tree.map(lambda leaf, w=week: leaf[w], (model, vendor))
        order = wished if rule is None else rule.place(wished)
        taken = order if vendor is None else now[1].accept(order)
        rows = np.asarray(now[0].spread(taken, MAX_LEAD))
        assert (rows >= 0).all()
        placed[week], accepted[week] = order, taken
        due[week : week + MAX_LEAD + 1] += rows
    np.testing.assert_array_equal(accepted, accepted_by_hand(supply, seed, placed))
    assert (accepted >= 0).all() and (accepted <= placed).all()
    np.testing.assert_array_equal(due.sum(0), accepted.sum(0))
    if terms == "whole":
        assert_allowed(rule, placed)


@lru_cache
def shop_under(seed: int, combination: tuple[str, str, str]):
    """Build a shop of agents that order up to a level; return its start, paths and policy, and how to simulate it."""
    arrivals, supply, terms = combination
    population = shop(seed=seed)
    plain = happenings(population, seed=seed)
    paths = ExogenousPaths(**{**vars(plain), "arrivals": arriving(arrivals, seed), "supply": supply_of(supply, seed)})
    policy = order_up_to(population, seed)
    if terms != "none":
        policy = Constrained(policy, terms_of(terms, seed))
    first = start(population, seed)

    def ask(policy, throw=True):
        return simulate(population, paths, policy, initial=first, record=Record.traces(), throw=throw)

    return first, paths, policy, ask


@pytest.mark.parametrize("combination", SIMULATED, ids=", ".join)
@given(seed=seeds)
@settings(max_examples=4)
def test_simulated_orders_are_placed_refused_on_the_way_or_here(combination, seed):
    first, _, policy, ask = shop_under(seed, combination)
    rollout = ask(policy)
    seen = jax.tree.map(lambda leaf: np.asarray(leaf, float), rollout.agents)
    still_open = np.asarray(rollout.final.pipeline, float).sum(0)
    begun = np.asarray(first.pipeline, float).sum(0)
    np.testing.assert_allclose(begun + seen.orders.sum(0), seen.receipts.sum(0) + still_open, rtol=1e-6)
    placed = seen.orders + seen.refused
    np.testing.assert_allclose(seen.orders, accepted_by_hand(combination[1], seed, placed), rtol=1e-5, atol=1e-5)
    for units in (seen.orders, seen.refused, seen.receipts, seen.stock_end, np.asarray(rollout.final.pipeline)):
        assert (units >= 0).all()
    if combination[2] == "whole":
        assert_allowed(whole_cases(seed), placed)


@pytest.mark.parametrize("combination", SIMULATED[::2], ids=", ".join)
def test_gradients_are_those_of_a_level_about_to_fall(combination):
    combination = (*combination[:2], "relaxed")
    _, paths, policy, ask = shop_under(1, combination)

    def earned(level):
        rollout = ask(Constrained(OrderUpTo(level), policy.terms), throw=False)
        left = rollout.final.stock_end + rollout.final.pipeline.sum(0)
        return rollout.agents.reward.sum(0) + paths.unit_cost[-1] * left

    level = policy.policy.level
    slope = np.asarray(jax.grad(lambda x: earned(x).sum())(level))
    falling = np.asarray((earned(level) - earned(level - STEP)) / STEP)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    np.testing.assert_allclose(slope, falling, rtol=1e-3, atol=2e-2)


def test_whole_cases_order_what_their_continuous_form_orders_on_average():
    _, _, policy, ask = shop_under(2, ("constant", "all", "whole"))
    whole, relaxed = (ask(p).agents.orders.sum(0) for p in (policy, policy.continuous()))
    gap = np.abs(np.asarray(whole - relaxed))
    # Order positions differ by at most half a step at the end, where no maximum binds.
    free = np.asarray(ask(policy).agents.orders.max(0)) < np.asarray(policy.terms.most)
    assert free.any() and (gap[free] <= np.asarray(policy.terms.least)[free]).all() and gap.any()


def crossing(lead: list[int]):
    """Order 8, 4 and nothing more with these lead times; return what arrives in each week."""
    population = shop(agents=1)
    plain = happenings(population, weeks=6)
    weeks = jnp.asarray([lead + [1] * (6 - len(lead))], jnp.int8).T
    supply = SupplyLimit(jnp.asarray([[8.0], [4.0], [0.0], [0.0], [0.0], [0.0]]))
    paths = ExogenousPaths(**{**vars(plain), "arrivals": IntegerLeadTimes(weeks), "supply": supply})
    rollout = simulate(
        population,
        paths,
        ConstantOrder(jnp.asarray([9.0])),
        initial=empty_state(1, MAX_LEAD),
        record=Record.traces(),
    )
    return np.asarray(rollout.agents.receipts[:, 0])


def test_a_later_order_may_arrive_before_an_earlier_one():
    np.testing.assert_array_equal(crossing([3, 1]), [0, 0, 4, 8, 0, 0])
    np.testing.assert_array_equal(crossing([2, 0]), [0, 4, 8, 0, 0, 0])
    np.testing.assert_array_equal(crossing([2, 1]), [0, 0, 12, 0, 0, 0])


@pytest.mark.parametrize(
    ("lead", "scenarios", "issued"),
    [(0, None, False), (2, SCENARIOS, False), (2, SCENARIOS, True)],
)
def test_one_lead_time_for_all_is_that_lead_time_for_each(lead, scenarios, issued):
    population = shop()
    plain = happenings(population, scenarios=scenarios)
    each = IntegerLeadTimes(jnp.full(plain.demand.shape, lead, jnp.int8))
    charged = prices(population)
    more = {"controller": Announcer(charged)} if issued else {"shadow_prices": charged}
    rollouts = [
        simulate(
            population,
            ExogenousPaths(**{**vars(plain), "arrivals": arrivals}),
            order_up_to(population),
            initial=start(population),
            record=Record.traces(),
            **more,
        )
        for arrivals in (each, ConstantLeadTime(lead))
    ]
    assert_same(*rollouts)
    assert float(rollouts[0].totals.receipts.sum()) > 0


def test_a_vendor_that_can_supply_everything_changes_nothing():
    population = shop()
    plain = happenings(population)
    full = plain.demand.shape
    vendors = (None, SupplyLimit(jnp.full(full, jnp.inf)), FillRate(jnp.ones(full)))
    runs = [
        simulate(
            population,
            ExogenousPaths(**{**vars(plain), "supply": vendor}),
            order_up_to(population),
            initial=start(population),
        )
        for vendor in vendors
    ]
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])
