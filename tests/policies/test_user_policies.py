"""Policies brought as functions: what they are shown, that they change nothing else, and how mistakes are told."""

import time
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import (
    AGENTS,
    SCENARIOS,
    WEEKS,
    Announcer,
    Leaning,
    assert_same,
    happenings,
    order_up_to,
    prices,
    shop,
    start,
)

from walras.clipping import positive_part
from walras.errors import InputError, NoDerivativeError, NotFiniteError, ShapeError
from walras.exogenous.arrivals import ConstantLeadTime
from walras.exogenous.paths import constant_paths
from walras.planning.prices.simulated_view import PricedSimulation, SimulatedView
from walras.policies.base import Policy, PolicyMemory
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.order_constraints import CasePacks, Constrained
from walras.policies.user_policies import (
    SEEN,
    STATIC,
    CallbackPolicy,
    CallbackSpec,
    CallbackView,
    FunctionPolicy,
    HostCall,
)
from walras.population.agent_axis import Broadcast
from walras.population.population import AgentNames
from walras.simulation.gradients import policy_gradient, reward_gradient, utilization_jacobian, utilization_jvp
from walras.simulation.out_of_core import ChunkedRecord, MemorySource, simulate_out_of_core
from walras.simulation.record import Record
from walras.simulation.run import simulate

PEOPLE = shop()
PATHS, STATE, CHARGED = happenings(PEOPLE), start(PEOPLE), prices(PEOPLE)
LEVEL = order_up_to(PEOPLE).level
LEANING = Leaning(LEVEL)


def lean(observation, shadow_prices, level):
    return positive_part(level - observation.position - observation.population.use @ shadow_prices.sum(0))


def lean_on_numbers(seen):
    return np.maximum(seen.parameters - seen.position - seen.use @ seen.shadow_prices.sum(0), 0.0)


BOX = CallbackPolicy(lean_on_numbers, LEVEL)


def run(policy, paths=PATHS, charged=CHARGED, people=PEOPLE, state=STATE, **more):
    return simulate(people, paths, policy, initial=state, shadow_prices=charged, record=Record.traces(), **more)


# ---- a function written in JAX


def test_a_function_is_a_policy_and_its_parameters_are_trained():
    policy = FunctionPolicy(lean, LEVEL)
    assert_same(run(policy).agents, run(LEANING).agents)
    ours = policy_gradient(PEOPLE, PATHS, policy, initial=STATE, shadow_prices=CHARGED)
    theirs = policy_gradient(PEOPLE, PATHS, LEANING, initial=STATE, shadow_prices=CHARGED)
    assert_same((ours[0], ours[1].parameters), (theirs[0], theirs[1].level), exactly=False)


def test_shared_parameters_are_read_as_they_were_given():
    def order(observation, shadow_prices, parameters):
        return jnp.full_like(observation.position, parameters["all"].sum()) + parameters["each"]

    many = jnp.ones(600)
    policy = FunctionPolicy(order, {"all": Broadcast(many), "each": jnp.arange(600.0)})
    people = shop(600)
    rollout = simulate(people, happenings(people, weeks=2), policy, record=Record.traces(), block_agents=256)
    np.testing.assert_array_equal(rollout.agents.orders[0], 600.0 + np.arange(600.0))


def test_whole_numbers_are_orders_too():
    assert float(run(FunctionPolicy(lambda o, s: jnp.full(o.position.shape, 3))).agents.orders.min()) == 3.0


def test_new_values_compile_nothing_anew():
    asked = []

    def order(observation, shadow_prices, level):
        asked.append(1)
        return positive_part(level - observation.position)

    run(FunctionPolicy(order, 5.0))
    before = len(asked)
    run(FunctionPolicy(order, 6.0))
    assert len(asked) == before > 0


@pytest.mark.parametrize("order", [lambda o, s: np.maximum(o.position, 0), lambda o, s: 1.0 if o.week > 2 else 2.0])
def test_a_function_for_numbers_is_told_of_the_other_road(order):
    with pytest.raises(InputError, match="looks at numbers that are only known .*CallbackPolicy"):
        run(FunctionPolicy(order))


@pytest.mark.parametrize("kind", [FunctionPolicy, CallbackPolicy])
def test_what_cannot_be_called_is_refused(kind):
    with pytest.raises(InputError, match="must be callable"):
        kind(3)


# ---- a black box called back


@pytest.mark.parametrize("charged", [None, CHARGED, prices(PEOPLE, scenarios=SCENARIOS)], ids=["free", "one", "own"])
@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_a_black_box_changes_nothing_else(scenarios, charged):
    if scenarios is None and charged is not None and charged.ndim == 3:
        pytest.skip("prices of scenarios need scenarios")
    paths = happenings(PEOPLE, scenarios=scenarios, supply=True)
    for wrap in (lambda policy: policy, lambda policy: Constrained(policy, CasePacks(3.0, 2.0))):
        assert_same(run(wrap(BOX), paths, charged).agents, run(wrap(LEANING), paths, charged).agents)


def test_week_by_week_and_range_after_range():
    told = Announcer(CHARGED)
    assert_same(run(BOX, charged=None, controller=told).agents, run(BOX).agents)
    ranged = simulate_out_of_core(
        MemorySource(PEOPLE, PATHS, STATE),
        BOX,
        shadow_prices=CHARGED,
        chunk_agents=3,
        record=ChunkedRecord(agents=range(AGENTS)),
    )
    assert_same(ranged.agents.orders, run(BOX).agents.orders)


def table_of(agents):
    rows = np.random.default_rng(0).integers(0, 9, (WEEKS, agents)).astype(np.float32)
    return rows, CallbackPolicy(lambda seen: rows[seen.week, seen.agent])


def test_a_table_is_looked_up_by_agent_in_blocks_and_ranges():
    people = shop(600)
    rows, policy = table_of(600)
    paths, state = happenings(people), start(people)
    found = run(policy, paths, prices(people), people, state, block_agents=256)
    np.testing.assert_array_equal(found.agents.orders, rows)
    for given in (policy, lambda first, last: policy):
        ranged = simulate_out_of_core(
            MemorySource(people, paths, state),
            given,
            shadow_prices=prices(people),
            chunk_agents=256,
            record=ChunkedRecord(agents=[3, 300, 599]),
        )
        np.testing.assert_array_equal(ranged.agents.orders, rows[:, [3, 300, 599]])


def test_what_is_shown():
    shown = []

    def order(seen):
        shown.append(seen)
        seen.position[:] = -1.0  # what it does to its copy harms nobody
        return np.ones(len(seen.agent))

    policy = CallbackPolicy(order, {"own": LEVEL, "all": jnp.arange(3.0)}, past=2)
    found = run(policy, happenings(PEOPLE, scenarios=SCENARIOS))
    assert len(shown) == WEEKS and all(isinstance(seen, CallbackView) for seen in shown)
    third = shown[2]
    assert third.week == 2 and third.resources == PEOPLE.resources
    np.testing.assert_array_equal(third.agent, np.tile(np.arange(AGENTS), SCENARIOS))
    np.testing.assert_array_equal(third.use, np.tile(PEOPLE.use, (SCENARIOS, 1)))
    np.testing.assert_array_equal(third.shadow_prices[0], CHARGED[2])
    np.testing.assert_array_equal(third.parameters["own"], np.tile(LEVEL, SCENARIOS))
    np.testing.assert_array_equal(third.parameters["all"], np.arange(3.0))
    past = np.moveaxis(np.asarray(found.agents.demand)[:, 0:2], 0, 1).reshape(2, -1)
    np.testing.assert_array_equal(third.past_demand, past)
    np.testing.assert_array_equal(shown[0].past_demand[1], np.tile(PEOPLE.demand_scale, SCENARIOS))
    assert found.agents.orders.shape == (SCENARIOS, WEEKS, AGENTS) and float(found.agents.orders.min()) == 1.0


def test_past_demand_is_that_of_the_weeks_before_also_week_by_week():
    policy = CallbackPolicy(lambda seen: seen.past_demand[-1] + 10 * seen.past_demand[0], past=2)
    known = np.concatenate([np.tile(PEOPLE.demand_scale, (2, 1)), np.asarray(PATHS.demand)])
    wanted = known[1 : WEEKS + 1] + 10 * known[:WEEKS]
    np.testing.assert_array_equal(run(policy).agents.orders, wanted)
    np.testing.assert_array_equal(run(policy, charged=None, controller=Announcer(CHARGED)).agents.orders, wanted)


def test_a_function_runs_in_one_thread_at_a_time(monkeypatch):
    monkeypatch.setattr("walras.distribute.threads.cores", lambda: 2)
    inside, most = [], []

    def order(seen):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return np.ones(len(seen.agent))

    people = shop(512)
    parts = happenings(people), prices(people), people, start(people)
    run(CallbackPolicy(order), *parts, block_agents=256)
    assert max(most) == 1 and len(most) == 2 * WEEKS
    own = {name: np.zeros(1) for name in (*SEEN, *STATIC)} | {"use": np.zeros((1, 1)), "past_demand": None}
    own |= {name: np.zeros(1, int) for name in ("lead_time", "agent", "row")}
    common = {"week": np.array(0), "shadow_prices": np.zeros((1, 1))}
    for safe, threads in ((False, 1), (True, 2)):
        most.clear()
        call = HostCall(CallbackSpec(order), safe, ("storage",))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _, call=call: call((own, None), (common, None)), range(8)))
        assert max(most) == threads


def test_functions_are_told_apart_by_identity():
    class Model:
        def order(self, seen):
            return np.ones(len(seen.agent))

    model, other = Model(), Model()
    assert CallbackSpec(model.order) == CallbackSpec(model.order) != CallbackSpec(other.order)
    assert hash(CallbackSpec(model.order)) == hash(CallbackSpec(model.order))


# ---- mistakes


def wrong(kind):
    def order(seen):
        orders = np.ones(len(seen.agent))
        if seen.week == 3:
            if kind == "raises":
                raise KeyError("zebra")
            if kind == "shape":
                return orders[1:]
            if kind == "words":
                return "many"
            orders[seen.agent == 5] = {"negative": -2.0, "nan": np.nan}[kind]
        return orders

    return CallbackPolicy(order)


MISTAKES = {
    "raises": (InputError, r"failed in week 3 \(KeyError: 'zebra'\)"),
    "shape": (ShapeError, r"returned orders of shape \(\d+,\) in week 3 but needs \(\d+,\)"),
    "words": (InputError, "failed in week 3 .*convert"),
    "negative": (InputError, "ordered -2 in week 3 for agent 5 but must"),
    "nan": (NotFiniteError, "ordered nan in week 3 for agent 5 but must"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_of_the_function_is_one_sentence(kind):
    error, words = MISTAKES[kind]
    for attempt in (
        lambda: run(wrong(kind)),
        lambda: PricedSimulation(PEOPLE, happenings(PEOPLE, scenarios=2), wrong(kind), STATE)(None),
    ):
        with pytest.raises(error, match=f"the policy `order` {words}") as caught:
            attempt()
        assert type(caught.value) is error and "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
        if kind == "raises":
            assert isinstance(caught.value.__cause__, KeyError)
            assert caught.value.__cause__.__traceback__ is not None


def test_agents_have_their_names_in_sentences():
    named = PEOPLE.named(AgentNames([f"P{number}" for number in range(AGENTS)]))
    with pytest.raises(InputError, match='ordered -2 in week 3 for agent "P5"'):
        run(wrong("negative"), people=named)
    with pytest.raises(InputError, match='ordered -2 in week 3 for agent "P5"'):
        simulate_out_of_core(
            MemorySource(named, PATHS, STATE), wrong("negative"), shadow_prices=CHARGED, chunk_agents=3
        )


def test_a_run_after_a_mistake_is_as_any_other():
    with pytest.raises(InputError):
        run(wrong("raises"))
    assert_same(run(BOX).agents, run(LEANING).agents)


def test_a_negative_past_is_refused():
    with pytest.raises(InputError, match="`past` is -1"):
        CallbackPolicy(lean_on_numbers, past=-1)


# ---- derivatives

DOUBLE = np.asarray(CHARGED, float)
NEEDS = {
    "planner": lambda policy: SimulatedView(PEOPLE, happenings(PEOPLE, scenarios=2), policy, STATE).jacobian(DOUBLE),
    "grad": lambda policy: jax.grad(lambda p: simulate(PEOPLE, PATHS, policy, shadow_prices=p).reward)(CHARGED),
    "reward": lambda policy: reward_gradient(PEOPLE, PATHS, policy, shadow_prices=CHARGED),
    "policy": lambda policy: policy_gradient(PEOPLE, PATHS, policy, shadow_prices=CHARGED),
    "jacobian": lambda policy: utilization_jacobian(PEOPLE, PATHS, policy, shadow_prices=CHARGED),
    "direction": lambda policy: utilization_jvp(
        PEOPLE, PATHS, policy, shadow_prices=CHARGED, direction=jnp.ones_like(CHARGED)
    ),
}


@pytest.mark.parametrize("need", NEEDS)
def test_a_black_box_says_that_it_has_no_derivative(need):
    with pytest.raises(NoDerivativeError, match="`lean_on_numbers` is a black box whose orders have no derivative"):
        NEEDS[need](Constrained(BOX, CasePacks().continuous()))


def test_what_needs_no_derivative_of_the_orders_has_one():
    # Reward in the holding cost alone would need the orders' derivative, reward in the sale price of the last week not.
    def reward(price):
        return simulate(PEOPLE, eqx.tree_at(lambda e: e.demand, PATHS, PATHS.demand * price), BLIND).reward

    assert np.isfinite(jax.grad(reward)(1.0))


BLIND = CallbackPolicy(lambda seen: np.ones(len(seen.agent)), surrogate=LEANING)


@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_a_surrogate_lends_its_derivative_where_the_black_box_led(scenarios):
    paths, charged = happenings(PEOPLE, scenarios=scenarios), prices(PEOPLE, scenarios=scenarios)
    box = CallbackPolicy(lean_on_numbers, LEVEL, surrogate=LEANING)
    for ask in (reward_gradient, utilization_jacobian):
        ours = ask(PEOPLE, paths, box, initial=STATE, shadow_prices=charged)
        assert_same(ours, ask(PEOPLE, paths, LEANING, initial=STATE, shadow_prices=charged), exactly=False)


def test_the_value_stays_that_of_the_black_box():
    value, slope = reward_gradient(PEOPLE, PATHS, BLIND, initial=STATE, shadow_prices=CHARGED)
    assert_same(value, run(BLIND).reward, exactly=False)
    assert np.asarray(slope).any()


def test_neither_parameters_nor_the_surrogate_pass_for_trained():
    box = CallbackPolicy(lean_on_numbers, LEVEL, surrogate=LEANING)
    with pytest.raises(NoDerivativeError, match="without derivative in its `parameters`"):
        policy_gradient(PEOPLE, PATHS, box, initial=STATE, shadow_prices=CHARGED)
    _, slope = policy_gradient(PEOPLE, PATHS, BLIND, initial=STATE, shadow_prices=CHARGED)
    assert not np.asarray(slope.surrogate.level).any()


class Remembering(Policy):
    """A surrogate with memory: last week's demand plus a share of its own last order, priced."""

    def begin(self, population):
        return PolicyMemory(jnp.zeros(population.n_agents), jnp.zeros(population.n_agents))

    def read(self, memory, outlooks, demand):
        return jnp.concatenate([memory[None], demand[:-1]]), demand[-1]

    def remember(self, observation, orders):
        return orders

    def encode(self, outlook, shadow_prices):
        return outlook.read - outlook.population.use @ shadow_prices.sum(0)

    def decide(self, encoded, observation, shadow_prices):
        return positive_part(encoded + 0.25 * observation.memory.own_state)


@pytest.mark.parametrize("past", [0, 2])
def test_a_surrogate_may_have_a_memory_of_its_own(past):
    last = []

    def order(seen):  # what the surrogate would order, by a memory that Python keeps
        if seen.week == 0:
            last[:] = [np.zeros(AGENTS), np.zeros(AGENTS)]
        demand = np.asarray(PATHS.demand)[seen.week]
        orders = np.maximum(last[0] - seen.use @ seen.shadow_prices.sum(0) + 0.25 * last[1], 0.0).astype(np.float32)
        last[:] = [demand, orders]
        return orders

    box, plain = CallbackPolicy(order, surrogate=Remembering(), past=past), Remembering()
    few = 0.05 * CHARGED
    assert_same(run(box, charged=few).agents, run(plain, charged=few).agents, exactly=False)
    ours, theirs = (reward_gradient(PEOPLE, PATHS, policy, shadow_prices=few) for policy in (box, plain))
    assert_same(ours, theirs, exactly=False)


def test_a_cheap_surrogate_may_be_any_policy():
    box = CallbackPolicy(lean_on_numbers, LEVEL, surrogate=PricedNewsvendor())
    _, slope = reward_gradient(PEOPLE, PATHS, box, initial=STATE, shadow_prices=CHARGED)
    assert np.isfinite(slope).all() and np.asarray(slope).any()


# ---- models of other libraries


class Module:
    """Stand in for a PyTorch module: called on a matrix, answers with something that NumPy can read."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, columns):
        return Answer(columns @ self.weights)


class Answer:
    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def features(seen):
    return np.stack(
        [seen.lead_demand_mean, seen.lead_demand_sd, seen.position, seen.use @ seen.shadow_prices[0]], axis=1
    )


def test_a_model_of_another_library_answers_through_numpy():
    module = Module(np.array([1.0, 0.5, 0.0, 0.0], np.float32))
    policy = CallbackPolicy(lambda seen: module(features(seen)))
    paths = constant_paths(np.asarray(PATHS.demand), ConstantLeadTime(2), lead_demand_mean=8.0, lead_demand_sd=2.0)
    np.testing.assert_array_equal(run(policy, paths).agents.orders, np.full((WEEKS, AGENTS), 9.0))
    module.weights = module.weights * 2  # trained on, in place: nothing has to be compiled again
    np.testing.assert_array_equal(run(policy, paths).agents.orders, np.full((WEEKS, AGENTS), 18.0))
