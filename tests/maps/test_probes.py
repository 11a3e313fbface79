"""Probes answer as a simulation of them does, and represent the whole population."""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import TWO, interface, people, some_prices, story, weighted
from small_stretches import WEEKS, Shy, cohort_index, window

from walras.errors import InputError, NotFiniteError, ShapeError, WalrasError
from walras.maps.features import HORIZON, units_of
from walras.maps.file import PRIMAL, load_map, probes_for, save_map
from walras.maps.probes import AgentState, draw_probes, gamma_demand, pipeline_at, prepare_probes
from walras.maps.rollout import probes_at, roll_out
from walras.policies.user_policies import CallbackPolicy, FunctionPolicy
from walras.population.cohort import UniformSample
from walras.simulation.record import Record
from walras.simulation.run import simulate

POLICY, WEEKS_OF_ORIGINS, WEEK = Shy(), (2, 18), 18
PEOPLE, MAPS = people(), interface(probes=12)


@pytest.fixture(scope="module")
def given():
    return window()


@pytest.fixture(scope="module")
def rolled(given):
    return roll_out(given, POLICY, jnp.zeros((WEEKS, 1)))


@functools.cache
def state_at(week):
    given = window()
    past = jax.tree.map(lambda leaf: leaf[:week], given.exogenous)
    return simulate(given.population, past, POLICY, initial=given.initial, record=Record.totals()).final


def standing_of(given, week, index):
    state, exogenous = state_at(week), given.exogenous
    names = ("sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd")
    now = {name: getattr(exogenous, name)[week][index] for name in names}
    return AgentState(stock_end=state.stock_end[index], pipeline=state.pipeline[:, index], **now)


@pytest.mark.parametrize("week", [0, *WEEKS_OF_ORIGINS])
def test_open_orders_are_read_off_what_was_ordered(given, rolled, week):
    orders = jnp.concatenate([rolled.agent_history.orders_before[1:], rolled.agent_history.orders_before[-1:]])
    pipeline = pipeline_at(given.exogenous.arrivals, orders, given.initial, week)
    expected = state_at(week).pipeline if week else given.initial.pipeline
    np.testing.assert_allclose(pipeline, expected, rtol=1e-5, atol=1e-4)


def test_probes_represent_the_demand_of_the_population():
    population = weighted(PEOPLE, np.arange(40) % 3)
    size = np.asarray(population.weight * population.demand_scale, float)
    for count in (12, 40, 130):
        drawn = draw_probes(population, count, 5, seed=3)
        assert drawn.noise.shape == drawn.lead_times.shape == (5, len(drawn.index))
        assert (size[np.asarray(drawn.index)] > 0).all()
        found = np.asarray(drawn.weight, float) @ size[np.asarray(drawn.index)]
        assert found == pytest.approx(size.sum(), rel=0.02)
    copies = np.bincount(np.asarray(drawn.index), minlength=40)
    assert set(copies) == {0, 130 // 26}


def test_the_same_seed_draws_the_same_probes_and_another_one_others():
    first, again, other = (draw_probes(PEOPLE, 12, 5, seed) for seed in (1, 1, 2))
    assert eqx.tree_equal(first, again)
    assert not np.array_equal(first.noise, other.noise)


def test_drawn_demand_has_the_mean_and_spread_that_is_expected():
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((40_000, 3)), jnp.float32)
    mean, sd = jnp.asarray([[100.0, 5.0, 1.0]]), jnp.asarray([[10.0, 4.0, 1.5]])
    drawn = np.asarray(gamma_demand(jnp.broadcast_to(mean, noise.shape), jnp.broadcast_to(sd, noise.shape), noise))
    np.testing.assert_allclose(drawn.mean(0), mean[0], rtol=0.06)
    np.testing.assert_allclose(drawn.std(0), sd[0], rtol=0.1)
    assert drawn.min() >= 0


def test_an_answer_is_a_simulation_of_the_probes(given):
    """Use under prices is what `simulate` says of them, and all that is on order counts as due."""
    population, units = given.population, units_of(given.population)
    probes = draw_probes(population, 12, HORIZON + 1, 5)
    standing = standing_of(given, WEEK, probes.index)
    expected = given.expected_use[WEEK]
    ready = prepare_probes(population, probes, standing, expected, POLICY, units.price, units.use)
    prices = jnp.asarray(some_prices(population) / 4, jnp.float32)
    charged = jnp.pad(prices * units.price[None], ((1, 0), (0, 0)))
    parts, record = (ready.population, ready.exogenous, POLICY), Record.use_and_reward()
    done = simulate(*parts, initial=ready.state, shadow_prices=charged, record=record)
    use = np.asarray(ready.use(prices))
    np.testing.assert_allclose(use, done.totals.utilization[1:] / units.use[None], rtol=1e-5)
    np.testing.assert_allclose(ready.free, ready.use(jnp.zeros_like(prices)), rtol=1e-6)
    assert (use < np.asarray(ready.free)).mean() > 0.5
    due = standing.pipeline @ (ready.population.weight[:, None] * ready.population.use) / units.use[None]
    np.testing.assert_allclose(ready.due[: len(due) - 1], due[1:], rtol=1e-5)
    assert not np.asarray(ready.due[len(due) :]).any()
    assert (use >= np.asarray(ready.due) * (1 - 1e-5)).all()


def test_several_origins_and_plans_are_answered_as_one_by_one(given, rolled):
    probes = draw_probes(given.population, 12, HORIZON + 1, 5)
    ready = probes_at(rolled, given, probes, WEEK + 1, 2, 16)
    units = rolled.units
    alone = [
        prepare_probes(given.population, probes, standing_of(given, week, probes.index), given.expected_use[week],
              POLICY, units.price, units.use)
        for week in WEEKS_OF_ORIGINS
    ]  # fmt: skip
    prices = jnp.asarray(some_prices(given.population, plans=(3, 2)) / 4, jnp.float32)
    use = np.asarray(ready.use(prices))
    for plan, origin in np.ndindex(3, 2):
        np.testing.assert_allclose(use[plan, origin], alone[origin].use(prices[plan, origin]), rtol=1e-4)


def test_storage_is_never_due():
    population = people(resources=TWO)
    probes, units = draw_probes(population, 12, HORIZON + 1, 5), units_of(population)
    row = jnp.ones(12)
    standing = AgentState(row, jnp.ones((5, 12)), row, row, 3 * row, row)
    expected = jnp.ones((HORIZON + 1, 2))
    due = prepare_probes(population, probes, standing, expected, POLICY, units.price, units.use).due
    assert np.asarray(due[:, 0]).any() and not np.asarray(due[:, 1]).any()


def test_probes_of_a_cohort_are_drawn_out_of_it():
    population, learned = PEOPLE, MAPS.primal
    cohort = UniformSample().draw(np.asarray(population.demand_scale), 16, np.random.default_rng(0))
    drawn = probes_for(learned, population, cohort)
    assert set(np.asarray(drawn.index)) <= set(cohort.index)
    size = np.asarray(population.demand_scale, float)
    found = np.asarray(drawn.weight, float) @ size[np.asarray(drawn.index)]
    assert found == pytest.approx(cohort.total(size[cohort.index]), rel=0.02)
    assert probes_for(interface().primal, population, cohort) is None


@pytest.fixture(scope="module")
def view():
    return MAPS.encode(PEOPLE, history_with_orders(), POLICY)


@functools.cache
def history_with_orders():
    history = story(PEOPLE)
    pipeline = np.random.default_rng(9).uniform(0, 1, (5, 40)) * np.asarray(PEOPLE.demand_scale)
    return replace(history, on_order=jnp.asarray(pipeline, jnp.float32))


def test_a_view_simulates_its_probes(view):
    """Where the network adds nothing, use is what probes order, and what everybody has on order."""
    low, high = (view.utilization(np.full((view.n_weeks, 1), price)) for price in (0.0, 2.0))
    assert (high[8:] < low[8:]).all()
    still = eqx.tree_at(lambda n: (n.basis, n.representation.decoder), view.primal.learned.network, replace_fn=zeros)
    encoded = view.primal.encoded
    prices = jnp.asarray(some_prices(PEOPLE) / 4, jnp.float32)
    ordered = encoded.probes.use(prices) - encoded.probes.due
    expected = np.maximum(ordered, 1e-4 * encoded.baseline.level) + encoded.baseline.due
    np.testing.assert_allclose(still.utilization(encoded, prices), expected, rtol=1e-3)


def zeros(module):
    return jax.tree.map(jnp.zeros_like, module)


def test_equal_queries_have_equal_answers_one_by_one_or_together(view):
    plans = some_prices(PEOPLE, view.n_weeks, (2,))
    together = view.utilization(plans)
    np.testing.assert_allclose(together, [view.utilization(plan) for plan in plans], rtol=1e-4)
    np.testing.assert_array_equal(view.utilization(plans[0]), view.utilization(plans[0]))
    assert view.jacobian(plans[0]).shape == (view.n_weeks, view.n_weeks)
    assert np.isfinite(view.shadow_prices(view.scale * np.ones((view.n_weeks, 1)))).all()


def test_a_view_advances_with_the_state_of_its_probes(view):
    history = history_with_orders()
    column = jax.tree.map(lambda leaf: leaf[-1:], history.agent_history)
    ahead = view.advance(column, history.known, history.on_order)
    longer = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), history.agent_history, column)
    fresh = MAPS.encode(PEOPLE, replace(history, agent_history=longer), POLICY)
    prices = some_prices(PEOPLE, view.n_weeks)
    np.testing.assert_allclose(ahead.utilization(prices), fresh.utilization(prices), rtol=1e-3)


def test_probes_without_policy_or_orders_are_refused():
    history = history_with_orders()
    with pytest.raises(InputError, match="lack `policy`, which they follow; give it"):
        MAPS.encode(PEOPLE, history)
    with pytest.raises(InputError, match="lack `on_order` in the history; give it"):
        MAPS.encode(PEOPLE, replace(history, on_order=None), POLICY)
    with pytest.raises(ShapeError, match=r"history\.on_order"):
        replace(history, on_order=jnp.ones((3, 39)))
    with pytest.raises(InputError, match=r"history\.on_order.*week 1, agent 2"):
        replace(history, on_order=jnp.ones((3, 40)).at[1, 2].set(jnp.nan))


def test_a_stored_map_has_as_many_probes(tmp_path):
    learned = MAPS.primal
    save_map(tmp_path / "map", learned)
    assert load_map(tmp_path / "map", PRIMAL).shape == learned.shape
    assert (learned.shape.name, interface().primal.shape.name) == ("bucketized+delegates", "bucketized")


def test_cohort_indices_may_have_no_probes(given):
    assert cohort_index(given).probes is None
    assert len(cohort_index(given, 12).probes.index) == 12


def test_open_orders_that_cannot_be_are_refused():
    history = history_with_orders()
    with pytest.raises(ShapeError, match="at least 5 weeks, the longest lead time"):
        MAPS.encode(PEOPLE, replace(history, on_order=history.on_order[:1]), POLICY)
    with pytest.raises(InputError, match="goes down to -1 but open orders are 0 or more"):
        replace(history, on_order=-jnp.ones((5, 40)))


def test_a_callback_receives_the_numbers_of_the_probes(given):
    """It looks agents up by their number in the whole population, however many probes there are."""
    population, units, right = given.population, units_of(given.population), []
    table = np.asarray(population.demand_scale)

    def orders(observation):
        right.append(np.allclose(table[observation.agent], observation.demand_scale))
        return observation.demand_scale

    probes = draw_probes(population, 12, HORIZON + 1, 5)
    parts = (standing_of(given, WEEK, probes.index), given.expected_use[WEEK], CallbackPolicy(orders))
    ready = prepare_probes(population, probes, *parts, units.price, units.use)
    assert np.isfinite(np.asarray(ready.free)).all()
    assert right and all(right)


def test_an_answer_that_is_no_number_is_refused():
    nowhere = FunctionPolicy(lambda observation, prices: observation.lead_demand_mean * jnp.nan)
    with pytest.raises(NotFiniteError, match="FunctionPolicy` would use .* not finite"):
        MAPS.encode(PEOPLE, history_with_orders(), nowhere)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "`seed` is -1 but must be 0 or more"),
        ({"population": weighted(PEOPLE, np.zeros(40))}, "all agents have weight 0"),
    ],
)
def test_other_arguments_are_refused(changes, words):
    given = {"population": PEOPLE, "history": history_with_orders(), "policy": POLICY, **changes}
    with pytest.raises(WalrasError, match=words):
        MAPS.encode(**given)
