"""The contract of every policy of the package: shapes, jit, vmap, finite gradients, independent agents."""

import importlib
import inspect
import pkgutil
from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from buyers import FORGETFUL, FULL, loud, profile_of
from shops import AGENTS, MAX_LEAD, Counted, assert_same, happenings, order_up_to, prices, reorder_point, shop, start

import walras.policies
from lab.linear_program import PerfectForesight
from walras.clipping import positive_part
from walras.errors import InputError
from walras.policies.base import Observation, Policy, PolicyMemory, PublicObservation
from walras.policies.base_stock import (
    CappedBaseStock,
    ConstantOrder,
    ForecastBaseStock,
    GammaDemand,
    NormalDemand,
    PricedBaseStock,
    PricedNewsvendor,
    ScaledNewsvendor,
)
from walras.policies.buyer import Buyer
from walras.policies.order_constraints import CasePacks, Constrained
from walras.policies.user_policies import CallbackPolicy, FunctionPolicy
from walras.population.agent_axis import map_per_agent
from walras.simulation.run import simulate

POPULATION = shop()
TERMS = CasePacks(jnp.arange(0.0, AGENTS), jnp.arange(1.0, AGENTS + 1), jnp.full(AGENTS, 30.0))


def cautious(observation, shadow_prices, parameters):
    charged = observation.population.use @ shadow_prices.sum(0)
    return positive_part(parameters["level"] - parameters["share"] * charged - observation.position)


def looked_up(seen):
    return np.maximum(seen.lead_demand_mean + seen.lead_demand_sd - seen.position - seen.shadow_prices.sum(), 0.0)


POLICIES = [
    order_up_to(POPULATION),
    ConstantOrder(jnp.arange(1.0, AGENTS + 1)),
    reorder_point(POPULATION),
    CappedBaseStock(jnp.arange(20.0, 20.0 + AGENTS), jnp.arange(1.0, AGENTS + 1)),
    ForecastBaseStock(jnp.linspace(0.5, 1.5, AGENTS), jnp.linspace(-1.0, 2.0, AGENTS)),
    PricedNewsvendor(),
    ScaledNewsvendor(mean_factor=jnp.linspace(0.5, 1.5, AGENTS), sd_factor=jnp.linspace(0.0, 2.0, AGENTS)),
    PricedNewsvendor(law=NormalDemand(), discount=0.99),
    PricedBaseStock(),
    PricedBaseStock(law=GammaDemand(), discount=0.99),
    PerfectForesight(happenings(POPULATION).demand),
    Constrained(order_up_to(POPULATION), TERMS),
    Constrained(PricedNewsvendor(), TERMS.continuous()),
    FunctionPolicy(cautious, {"level": jnp.arange(20.0, 20.0 + AGENTS), "share": jnp.full(AGENTS, 0.5)}),
    CallbackPolicy(looked_up, surrogate=PricedNewsvendor()),
    loud(FULL).with_profile(profile_of(POPULATION)),
    loud(FORGETFUL),
]
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)


def observed(policy: Policy, seed: int = 0) -> Observation:
    random = np.random.default_rng(seed)

    def drawn(low: int, high: int) -> jax.Array:
        return jnp.asarray(random.integers(low, high, AGENTS), jnp.float32)

    seen = Observation(
        week=jnp.asarray(seed),
        population=POPULATION,
        stock_start=drawn(0, 10),
        position=drawn(0, 30),
        lead_demand_mean=drawn(5, 40),
        lead_demand_sd=drawn(0, 20),
        sale_price=drawn(10, 20),
        unit_cost=drawn(3, 9),
        next_unit_cost=drawn(3, 9),
    )
    return remembering(policy, seen)


def remembering(policy: Policy, seen: Observation) -> Observation:
    """Add what a policy knows in its first week, where it reads or remembers."""
    memory = policy.begin(POPULATION)
    known = (seen.lead_demand_mean, seen.lead_demand_sd, seen.sale_price, seen.unit_cost, seen.next_unit_cost)
    outlooks = PublicObservation(seen.week[None], POPULATION, *(row[None] for row in known))
    if policy.reads_history:
        read, after = policy.read(memory.exogenous_state, outlooks, jnp.ones((1, AGENTS)))
        seen = replace(seen, read=jax.tree.map(lambda leaf: leaf[0], read))
        memory = PolicyMemory(after, memory.own_state)
    return replace(seen, memory=memory)


def announced(seed: int = 0) -> jax.Array:
    random = np.random.default_rng(seed)
    return jnp.asarray(np.maximum(random.integers(-4, 8, (MAX_LEAD + 2, 3)), 0) / 4.0, jnp.float32)


def test_every_policy_of_the_package_is_asked():
    found = set()
    for module in pkgutil.iter_modules(walras.policies.__path__, "walras.policies."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, Policy) and kind is not Policy and not inspect.isabstract(kind):
                found.add(kind)
    assert found == {type(policy) for policy in POLICIES if type(policy).__module__.startswith("walras.")}


def test_a_policy_without_orders_is_refused():
    with pytest.raises(InputError, match="the policy `Policy` orders nothing; give it a method `orders` or `decide`"):
        Policy().orders(observed(Policy()), announced())


@every_policy
def test_orders_are_finite_and_not_negative(policy):
    wanted = policy.orders(observed(policy), announced())
    assert wanted.shape == (AGENTS,) and wanted.dtype == jnp.float32
    assert np.isfinite(wanted).all() and (np.asarray(wanted) >= 0).all() and float(wanted.sum()) > 0


@every_policy
def test_compiled_orders_are_the_same(policy):
    compiled = eqx.filter_jit(lambda policy, seen, path: policy.orders(seen, path))
    assert_same(
        policy.orders(observed(policy), announced()), compiled(policy, observed(policy), announced()), exactly=False
    )


@every_policy
def test_many_price_paths_at_once_are_each_by_itself(policy):
    paths = jnp.stack([announced(seed) for seed in range(4)])
    together = jax.vmap(lambda path: policy.orders(observed(policy), path))(paths)
    alone = jnp.stack([policy.orders(observed(policy), path) for path in paths])
    assert_same(together, alone, exactly=False)


NO_MONEY = ("sale_price", "unit_cost", "next_unit_cost", "lost_sale_penalty", "holding_cost")
AWKWARD = {
    "as drawn": {},
    "no demand": {"lead_demand_mean": 0.0, "lead_demand_sd": 0.0},
    "demand that never varies": {"lead_demand_sd": 0.0},
    "no margin": {"sale_price": 4.0, "unit_cost": 4.0, "next_unit_cost": 4.0, "lost_sale_penalty": 0.0},
    "a loss on every unit": {"sale_price": 1.0, "unit_cost": 4.0, "lost_sale_penalty": 0.0},
    "no cost at all": dict.fromkeys(NO_MONEY, 0.0),
    "nothing at all": dict.fromkeys((*NO_MONEY, "lead_demand_mean", "lead_demand_sd"), 0.0),
    "waiting costs more than ordering": {"next_unit_cost": 50.0},
    "lead times beyond what is announced": {"lead_time": 40},
}


def with_values(seen: Observation, **values: float) -> Observation:
    """Set fields of an observation or of its population to one number for all agents."""
    people = {name: jnp.full_like(getattr(POPULATION, name), v) for name, v in values.items() if name in PEOPLE}
    own = {name: jnp.full_like(getattr(seen, name), v) for name, v in values.items() if name not in PEOPLE}
    return replace(seen, population=replace(seen.population, **people), **own)


PEOPLE = {field.name for field in fields(type(POPULATION))}


@eqx.filter_jit
def orders_and_slopes(policy, seen, path):
    def total(parts):
        orders = parts[0].orders(*parts[1:])
        return orders.sum(), orders

    return eqx.filter_value_and_grad(total, has_aux=True)((policy, seen, path))


@every_policy
def test_gradients_are_finite_in_everything(policy):
    for values in AWKWARD.values():
        seen = with_values(observed(policy), **values)
        for path in (announced(), jnp.zeros_like(announced()), 1e4 + announced()):
            (_, orders), slopes = orders_and_slopes(policy, seen, path)
            assert np.isfinite(orders).all() and (np.asarray(orders) >= 0).all()
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@every_policy
@pytest.mark.parametrize("agents", [np.random.default_rng(3).permutation(AGENTS), np.arange(0, AGENTS, 3)], ids=len)
def test_an_agent_orders_the_same_in_any_place_and_company(policy, agents):
    seen = observed(policy)
    taken = lambda tree: map_per_agent(lambda leaf: leaf[..., agents], tree, AGENTS)  # noqa: E731
    moved = replace(taken(seen), population=jax.tree.map(lambda leaf: leaf[agents], POPULATION))
    orders = taken(policy).orders(moved, announced())
    assert_same(policy.orders(seen, announced())[agents], orders, exactly=False)


def test_an_agent_with_enough_orders_nothing():
    for policy in POLICIES:
        if not isinstance(policy, ConstantOrder | Buyer):
            orders = policy.orders(with_values(observed(policy), position=1e6), announced())
            assert not np.asarray(orders).any(), policy


PRICED = [law for kind in (PricedNewsvendor, PricedBaseStock) for law in (kind(NormalDemand()), kind(GammaDemand()))]


@pytest.mark.parametrize("policy", PRICED, ids=lambda policy: f"{type(policy).__name__}-{type(policy.law).__name__}")
def test_priced_orders_fall_with_the_price_of_their_arrival_week(policy):
    """They rise or stay with the price of the week after, and no other week's price changes them."""
    given = {"lead_time": 2, "lost_sale_penalty": 4.0, "lead_demand_sd": 8.0, "position": 0.0, "unit_cost": 4.0}
    seen = with_values(observed(policy), **given)
    slopes = np.asarray(jax.jacfwd(lambda path: policy.orders(seen, path))(jnp.full((MAX_LEAD + 3, 3), 0.1)))
    flow = slopes[:, :, :2]
    assert (flow[:, 2] <= 0).all() and (flow[:, 2] < 0).any()
    assert (slopes[:, 2, 2] <= 0).all() and (slopes[:, 2, 2] < 0).any()
    assert (flow[:, 3] >= 0).all() and (flow[:, 3] > 0).any()
    assert not slopes[:, [0, 1, 4, 5]].any() and not slopes[:, 3, 2].any()


@pytest.mark.parametrize("policy", [PricedNewsvendor(), PricedBaseStock()], ids=lambda policy: type(policy).__name__)
def test_a_dear_week_of_arrival_orders_less(policy):
    free = policy.orders(observed(policy), jnp.zeros((MAX_LEAD + 2, 3)))
    pulse = jnp.zeros((MAX_LEAD + 2, 3)).at[2, 0].set(1.0)
    dear = policy.orders(observed(policy), pulse)
    lead = np.asarray(POPULATION.lead_time)
    touched = np.asarray(free > dear)
    assert touched[(lead == 2) & (np.asarray(free) > 0)].all() and touched.any()
    assert_same(free[lead > 2], dear[lead > 2])
    assert (np.asarray(dear)[lead == 1] >= np.asarray(free)[lead == 1]).all()


def test_no_policy_is_traced_again_for_new_values():
    policy = Counted(PricedNewsvendor())

    def run(seed: int) -> None:
        people = shop(seed=seed)
        paths, state = happenings(people, seed=seed), start(people, seed)
        simulate(people, paths, policy, initial=state, shadow_prices=prices(people, seed=seed))

    run(0)
    before = Counted.calls
    run(1)
    run(2)
    assert Counted.calls == before > 0
