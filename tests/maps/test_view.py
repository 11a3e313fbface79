"""A view answers as its maps do, in any order of agents, in any group of plans, week after week."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import (
    ALL,
    FEW,
    TWO,
    coming,
    cut,
    interface,
    past,
    people,
    some_prices,
    story,
    weighted,
)

import walras.maps.view as module
from walras.errors import InputError, NotFiniteError, SettingsError, ShapeError
from walras.maps.encoder import latest
from walras.maps.features import (
    HORIZON,
    MapInputs,
    agent_features,
    baseline_of,
    cohort_of,
    future_features,
    pool_agents,
    total_features,
)
from walras.maps.history import History
from walras.maps.representations import REPRESENTATIONS
from walras.planning.protocols import DifferentiableView, PlannerView
from walras.population.cohort import Cohort, UniformSample

CLOSE = {"rtol": 2e-4, "atol": 1e-4}
PEOPLE = people()
STORY = story(PEOPLE)
LEARNED = interface()


@pytest.fixture(scope="module")
def view():
    return LEARNED.encode(PEOPLE, STORY)


def answers(view) -> np.ndarray:
    """Ask both maps."""
    prices = some_prices(view.population, view.n_weeks)
    capacity = np.linspace(0.5, 1.5, prices.size).reshape(prices.shape) * view.scale
    return np.concatenate([view.utilization(prices) / view.scale, view.shadow_prices(capacity)])


def test_it_fills_the_planners_protocols(view):
    assert isinstance(view, PlannerView) and isinstance(view, DifferentiableView)
    assert view.controllable.dtype == bool and view.controllable.shape == (HORIZON, 1)
    assert not view.controllable[:2].any() and view.controllable[6:].all()  # lead times are 2 to 5 weeks
    assert 1.0 < view.price_scale * 0.9 < view.max_price


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_every_representation_answers(representation):
    population = people(resources=TWO)
    view = interface(representation, TWO).encode(population, story(population))
    prices = some_prices(population)
    use = view.utilization(prices)
    assert use.shape == prices.shape and (use >= 0).all() and np.ptp(use[1:], axis=0).all()
    assert np.abs(view.utilization(prices + 1.0)[1:] - use[1:]).max() > 1e-3 * use.mean()
    if representation == "bottom-up":
        with pytest.raises(InputError, match="holds no dual map but shadow prices need one"):
            view.shadow_prices(use)
    else:
        found = view.shadow_prices(use)
        assert (found[1:] > 0).all() and not found[0].any() and found.shape == use.shape


def test_the_order_of_agents_does_not_matter(view):
    order = np.random.default_rng(1).permutation(PEOPLE.n_agents)
    other = LEARNED.encode(PEOPLE.take(order), History(cut(STORY.agent_history, (slice(None), order)), STORY.known))
    np.testing.assert_allclose(answers(other), answers(view), **CLOSE)


def test_a_weight_counts_as_that_many_agents():
    """Half of the agents stand for all, the others for nobody: the same number of slots, so nothing is compiled."""
    times = np.array([1, 3] * 10 + [0] * 20)
    each = np.repeat(np.arange(40), times)
    past_weeks = cut(STORY.agent_history, (slice(None), each))
    all_of_them = LEARNED.encode(PEOPLE.take(each), History(past_weeks, STORY.known))
    heavy = LEARNED.encode(weighted(PEOPLE, times), STORY)
    np.testing.assert_allclose(answers(heavy), answers(all_of_them), **CLOSE)
    once = LEARNED.encode(weighted(PEOPLE, times > 0), STORY)
    assert np.abs(answers(heavy) - answers(once)).max() > 0.01


def test_a_cohort_of_exact_duplicates_embeds_like_the_population_it_stands_for(view):
    each = np.repeat(np.arange(40), 2)
    target = PEOPLE.take(each)
    history = History(cut(STORY.agent_history, (slice(None), each)), STORY.known)
    cohort = Cohort(2 * np.arange(40), np.full(40, 2.0), np.zeros(40, int), 80, "every other")
    everybody = answers(LEARNED.encode(weighted(PEOPLE, np.full(40, 2.0)), STORY))
    read = LEARNED.encode(target, history, cohort=cohort)
    np.testing.assert_allclose(answers(read), everybody, **CLOSE)
    alone = LEARNED.encode(
        cohort.subset(target), History(cohort.select(history.agent_history), STORY.known), cohort=cohort
    )
    np.testing.assert_allclose(answers(alone), everybody, **CLOSE)
    np.testing.assert_allclose(alone.scale, 2 * view.scale, rtol=1e-5)
    assert not read.scale_error.any() and alone.scale_error.all()


def test_the_scales_error_is_that_of_the_cohort():
    target = people(100)
    cohort = UniformSample().draw(np.ones(100), 40, np.random.default_rng(3))
    drawn = cohort.subset(target)
    view = LEARNED.encode(drawn, History(past(drawn), STORY.known), cohort=cohort)
    size = cohort.select(np.asarray(target.demand_scale * target.use[:, 0], float))
    np.testing.assert_allclose(view.scale_error, cohort.standard_error(size) / cohort.total(size), rtol=1e-5)
    np.testing.assert_allclose(view.scale, cohort.total(size), rtol=1e-5)


def test_agents_without_weight_change_nothing():
    there = np.arange(40) < 30
    found = []
    for seed in (8, 9):
        nobody = people(seed=seed)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a[:30], b[30:]]), PEOPLE, nobody)
        past_weeks = jax.tree.map(
            lambda a, b: jnp.concatenate([a[:, :30], b[:, 30:]], 1), STORY.agent_history, past(nobody, seed=seed)
        )
        found.append(answers(LEARNED.encode(weighted(both, there), History(past_weeks, STORY.known))))
    np.testing.assert_allclose(*found, **CLOSE)


def test_many_plans_are_answered_as_each_alone(view, monkeypatch):
    prices = some_prices(PEOPLE, plans=(2, 3))
    together = view.utilization(prices)
    alone = np.stack([[view.utilization(plan) for plan in row] for row in prices])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    monkeypatch.setattr(module, "PLANS", 4)
    np.testing.assert_allclose(view.utilization(prices), alone, rtol=1e-5)
    np.testing.assert_allclose(view.utilization(jnp.asarray(prices, jnp.float32)), alone, rtol=1e-5)
    capacity = together * 0.8
    singly = np.stack([[view.shadow_prices(plan) for plan in row] for row in capacity])
    np.testing.assert_allclose(view.shadow_prices(capacity), singly, rtol=1e-4)


def test_a_reading_answers_as_one_in_training(view):
    learned, fast = view.primal.learned, view.primal.encoded
    assert fast.prepared.keys.shape[:2] == (len(fast.pooled.bucket), fast.pooled.tile)  # laid out tile by tile
    signal = jnp.asarray(some_prices(PEOPLE, plans=(3,)), jnp.float32)
    parts = (learned.network, learned.scaling, view.population, view.units, view.primal.reader.cohort_index)
    found, wanted = answered_as_in_training(*parts, fast, signal)
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


@eqx.filter_jit
def answered_as_in_training(network, scaling, population, units, index_, fast, signal):
    """Answer on a packed reading, and on one as training has it: all weeks in one pass, nothing packed."""
    cohort = cohort_of(population, index_.index, index_.weight)
    past_weeks = cut(STORY.agent_history, (slice(None), index_.index))
    known = jax.tree.map(lambda leaf: leaf[None], STORY.known)
    inputs = MapInputs(
        agent_features(cohort, past_weeks, units),
        total_features(population, STORY.agent_history, units),
        future_features(known, units),
        baseline_of(population, known, units),
        pool_agents(cohort, index_.bucket, fast.pooled.n_buckets, units),
        past_weeks.valid,
    )
    plain = network.encode(scaling(inputs))
    single = jax.tree.map(lambda leaf: leaf[0], (plain.prepared, plain.totals, plain.future, plain.baseline))
    alone = type(plain)(*single, plain.pooled)
    return network.utilization(fast, signal), network.utilization(alone, signal)


@pytest.mark.parametrize("representation, first", [("bucketized", 64), ("global", 2)])
def test_reading_on_equals_reading_from_scratch(first, representation):
    maps = interface(representation, dilations=ALL if first == 64 else FEW)
    past_weeks = past(PEOPLE, first + 2)
    known = [coming(PEOPLE, past_weeks, seed) for seed in range(3)]
    view = maps.encode(PEOPLE, History(cut(past_weeks, slice(0, first)), known[0]))
    before = answers(view)
    following = view
    for week in (1, 2):
        following = following.advance(cut(past_weeks, slice(first + week - 1, first + week)), known[week])
    scratch = maps.encode(PEOPLE, History(past_weeks, known[-1]))
    np.testing.assert_allclose(answers(following), answers(scratch), **CLOSE)
    np.testing.assert_array_equal(answers(view), before)
    assert following.weeks_read == first + 2 and np.abs(before - answers(scratch)).max() > 0.01


def test_only_the_last_64_weeks_are_read(view):
    longer = past(PEOPLE, 6, seed=7)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), longer, STORY.agent_history)
    np.testing.assert_array_equal(answers(LEARNED.encode(PEOPLE, History(joined, STORY.known))), answers(view))
    assert latest(joined).receipts.shape[0] == 64


def test_a_short_history_is_not_one_without_demand():
    short = cut(STORY.agent_history, slice(-10, None))
    flows = ("receipts", "stock_start", "position", "demand_before", "orders_before")
    padded = {name: np.zeros((64, PEOPLE.n_agents)) for name in flows}
    silent = type(short)(
        **{
            name: jnp.concatenate(
                [jnp.asarray(padded.get(name, np.asarray(getattr(STORY.agent_history, name))))[:54], values]
            )
            for name, values in vars(short).items()
        }
    )
    maps = interface(dilations=ALL)
    found, other = (answers(maps.encode(PEOPLE, History(each, STORY.known))) for each in (short, silent))
    assert np.abs(found - other).max() > 0.01
    # Weeks that are marked as no history say nothing about an agent, whatever is written there.
    masked = type(silent)(**{**vars(silent), "valid": silent.valid.at[:54].set(0.0)})
    read = [maps.encode(PEOPLE, History(each, STORY.known)).primal for each in (short, masked)]
    np.testing.assert_allclose(read[0].summary, read[1].summary, **CLOSE)


def test_derivatives_are_those_of_the_answers(view):
    prices = some_prices(PEOPLE)
    direction = np.random.default_rng(5).standard_normal(prices.shape)
    weight = np.random.default_rng(6).standard_normal(prices.shape)
    slope = jax.grad(lambda p: (view.utilization(p) * jnp.asarray(weight, jnp.float32)).sum())
    found = slope(jnp.asarray(prices, jnp.float32))
    step = 0.03
    change = (view.utilization(prices + step * direction) - view.utilization(prices - step * direction)) / (2 * step)
    np.testing.assert_allclose((np.asarray(found) * direction).sum(), (change * weight).sum(), rtol=0.02)
    jacobian = view.jacobian(prices)
    np.testing.assert_allclose((weight.reshape(-1) @ jacobian).reshape(prices.shape), found, rtol=1e-3, atol=1e-3)
    assert not jacobian[0].any() and not jacobian[:, 0].any()  # the origin's own week is decided


def test_the_origins_week_is_what_is_known():
    population = people(resources=TWO)
    history = story(population)
    view = interface(resources=TWO).encode(population, history)
    now = view.utilization(some_prices(population))[0]
    received = np.asarray(history.agent_history.receipts[-1] @ population.use[:, 0])
    left = max(float(history.known.stock[1] - history.known.expected[0, 1]), 0.0)
    np.testing.assert_allclose(now, [received, left], rtol=1e-5)


def test_a_shorter_plan_goes_on_with_its_last_week(view):
    short = LEARNED.encode(PEOPLE, STORY, weeks=8)
    prices = some_prices(PEOPLE, 8)
    longer = np.concatenate([prices, np.repeat(prices[-1:], HORIZON - 8, axis=0)])
    np.testing.assert_allclose(short.utilization(prices), view.utilization(longer)[:8], rtol=1e-6)
    longest = LEARNED.encode(PEOPLE, STORY, weeks=27)
    assert longest.utilization(some_prices(PEOPLE, 27)).shape == (27, 1)


def test_a_reserve_is_what_the_map_knows_of_its_error():
    told = list(np.linspace(0.01, 0.26, 26))
    maps = interface(relative_error=told)
    view, plain = maps.encode(PEOPLE, STORY, reserve=2.0), maps.encode(PEOPLE, STORY)
    prices = some_prices(PEOPLE)
    spread = np.array([0.0, *told[:25]])[:, None]
    np.testing.assert_allclose(view.spread(prices), spread)
    np.testing.assert_allclose(view.expected(prices), plain.utilization(prices), rtol=1e-6)
    np.testing.assert_allclose(view.utilization(prices), view.expected(prices) * (1 + 2 * spread), rtol=1e-5)
    capacity = view.expected(prices)
    np.testing.assert_allclose(
        view.shadow_prices(capacity), plain.shadow_prices(capacity / (1 + 2 * spread)), rtol=1e-4
    )
    with pytest.raises(SettingsError, match="do not say how far off"):
        LEARNED.encode(PEOPLE, STORY, reserve=1.0)


def test_a_new_population_of_the_same_size_compiles_nothing(view):
    answers(view)
    sizes = [each._cached._cache_size() for each in (module._utilization, module._prices)]
    other = people(seed=3)
    answers(LEARNED.encode(other, story(other, seed=3)))
    assert [each._cached._cache_size() for each in (module._utilization, module._prices)] == sizes


def test_questions_that_do_not_fit_are_refused(view):
    with pytest.raises(ShapeError, match=r"`shadow_prices` has shape \(25, 1\) but needs \[..., 26 weeks"):
        view.utilization(np.zeros((25, 1)))
    with pytest.raises(InputError, match="`capacity` holds a NaN or infinity"):
        view.shadow_prices(np.full((26, 1), np.inf))
    with pytest.raises(NotFiniteError, match="not a finite number"):
        view.utilization(np.full((26, 1), 3e38))
    two = jax.tree.map(lambda leaf: leaf[-2:], STORY.agent_history)
    with pytest.raises(ShapeError, match="give one week at a time"):
        view.advance(two, STORY.known)
