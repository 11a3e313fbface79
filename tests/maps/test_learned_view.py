"""Own the proof that a view answers as its maps do: whoever stands where, in whatever groups, week after week.

FREE: maps are untrained; what they say means nothing, but it must be the same for the same population.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import (
    ONE,
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

from walras.errors import InputError, NotFiniteError, SettingsError, ShapeError
from walras.maps import learned_view
from walras.maps.history import History
from walras.maps.inputs import HORIZON
from walras.maps.interface import DifferentiableView, PlannerView
from walras.maps.reading import latest
from walras.maps.representations.named import REPRESENTATIONS
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


@pytest.mark.parametrize("resources", [ONE, TWO])
@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_every_representation_answers(representation, resources):
    population = people(resources=resources)
    view = interface(representation, resources).encode(population, story(population))
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
    other = LEARNED.encode(PEOPLE.take(order), History(cut(STORY.ledger, (slice(None), order)), STORY.known))
    np.testing.assert_allclose(answers(other), answers(view), **CLOSE)


def test_an_agent_that_stands_for_several_counts_as_so_many(view):
    times = np.random.default_rng(2).integers(1, 4, PEOPLE.n_agents)
    each = np.repeat(np.arange(PEOPLE.n_agents), times)
    ledger = cut(STORY.ledger, (slice(None), each))
    all_of_them = LEARNED.encode(PEOPLE.take(each), History(ledger, STORY.known))
    heavy = LEARNED.encode(weighted(PEOPLE, times), STORY)
    np.testing.assert_allclose(answers(heavy), answers(all_of_them), **CLOSE)
    assert np.abs(answers(heavy) - answers(view)).max() > 0.01


def test_a_cohort_of_exact_duplicates_embeds_like_the_population_it_stands_for(view):
    each = np.repeat(np.arange(PEOPLE.n_agents), 2)
    target = PEOPLE.take(each)
    history = History(cut(STORY.ledger, (slice(None), each)), STORY.known)
    chosen = 2 * np.arange(PEOPLE.n_agents)
    cohort = Cohort(chosen, np.full(len(chosen), 2.0), np.zeros_like(chosen), len(each), "every other")
    everybody = LEARNED.encode(target, history)
    read = LEARNED.encode(target, history, cohort=cohort)
    np.testing.assert_allclose(answers(read), answers(everybody), **CLOSE)
    alone = LEARNED.encode(cohort.people(target), History(cohort.along(history.ledger), STORY.known), cohort=cohort)
    np.testing.assert_allclose(answers(alone), answers(everybody), **CLOSE)
    np.testing.assert_allclose(alone.scale, 2 * view.scale, rtol=1e-5)
    assert not read.scale_error.any() and alone.scale_error.all()


def test_the_scales_error_is_that_of_the_cohort():
    cohort = UniformSample().draw(np.ones(PEOPLE.n_agents), 15, np.random.default_rng(3))
    few = History(cohort.along(STORY.ledger), STORY.known)
    view = LEARNED.encode(cohort.people(PEOPLE), few, cohort=cohort)
    size = cohort.along(np.asarray(PEOPLE.demand_scale * PEOPLE.use[:, 0], float))
    np.testing.assert_allclose(view.scale_error, cohort.standard_error(size) / cohort.total(size), rtol=1e-5)
    np.testing.assert_allclose(view.scale, cohort.total(size), rtol=1e-5)


def test_agents_without_weight_change_nothing(view):
    nobody = people(60, seed=9)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b[40:]]), PEOPLE, nobody)
    both = weighted(both, np.where(np.arange(60) < 40, 1.0, 0.0))
    ledger = jax.tree.map(lambda a, b: jnp.concatenate([a, b[:, 40:]], 1), STORY.ledger, past(nobody, seed=9))
    np.testing.assert_allclose(answers(LEARNED.encode(both, History(ledger, STORY.known))), answers(view), **CLOSE)


def test_many_plans_are_answered_as_each_alone(view, monkeypatch):
    prices = some_prices(PEOPLE, plans=(2, 3))
    together = view.utilization(prices)
    alone = np.stack([[view.utilization(plan) for plan in row] for row in prices])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    monkeypatch.setattr(learned_view, "PLANS", 4)
    np.testing.assert_allclose(view.utilization(prices), alone, rtol=1e-5)
    np.testing.assert_allclose(view.utilization(jnp.asarray(prices, jnp.float32)), alone, rtol=1e-5)
    capacity = together * 0.8
    singly = np.stack([[view.shadow_prices(plan) for plan in row] for row in capacity])
    np.testing.assert_allclose(view.shadow_prices(capacity), singly, rtol=1e-4)


@pytest.mark.parametrize("representation", ["bucketized", "per-agent", "bottom-up"])
def test_queries_laid_out_for_speed_answer_as_those_for_training(representation):
    maps = interface(representation)
    learned, view = maps.primal, maps.encode(PEOPLE, STORY)
    fast = view.primal.read.encoded
    keys = fast.prepared.first if representation == "bottom-up" else fast.prepared.keys
    assert keys.shape[:2] == (len(fast.crowd.bucket), fast.crowd.tile)  # laid out tile by tile
    plain = plain_reading(view)
    signal = jnp.asarray(some_prices(PEOPLE, plans=(3,)), jnp.float32)
    np.testing.assert_allclose(
        learned.network.utilization(fast, signal), learned.network.utilization(plain, signal), rtol=2e-5
    )


def plain_reading(view):
    """Encode as training does: all weeks in one pass, nothing packed."""
    from walras.maps.inputs import (
        MapInputs,
        agent_features,
        base_of,
        cohort_of,
        crowd_of,
        future_features,
        total_features,
    )

    learned, readers, units = view.primal.learned, view.primal.readers, view.units
    cohort = cohort_of(view.population, readers.index, readers.weight)
    ledger = cut(STORY.ledger, (slice(None), readers.index))
    known = jax.tree.map(lambda leaf: leaf[None], STORY.known)
    inputs = MapInputs(
        agent_features(cohort, ledger, units),
        total_features(view.population, STORY.ledger, units),
        future_features(known, units),
        base_of(known, units),
        crowd_of(cohort, readers.bucket, learned.shape.buckets, units),
        ledger.valid,
    )
    encoded = learned.network.encode(learned.scaling(inputs))
    single = jax.tree.map(lambda leaf: leaf[0], (encoded.prepared, encoded.totals, encoded.future, encoded.base))
    return type(encoded)(*single, encoded.crowd)


@pytest.mark.parametrize("representation", ["bucketized", "global"])
@pytest.mark.parametrize("first", [10, 64])
def test_reading_on_equals_reading_from_scratch(first, representation):
    maps = interface(representation)
    ledger = past(PEOPLE, first + 3)
    weeks = [jax.tree.map(lambda leaf, w=week: leaf[w : w + 1], ledger) for week in range(first + 3)]
    futures = [coming(PEOPLE, cut(ledger, slice(0, week + 1)), week) for week in range(first + 3)]
    view = maps.encode(PEOPLE, History(cut(ledger, slice(0, first)), futures[first - 1]))
    before = answers(view)
    following = view
    for week in range(first, first + 3):
        following = following.advance(weeks[week], futures[week])
    scratch = maps.encode(PEOPLE, History(ledger, futures[-1]))
    np.testing.assert_allclose(answers(following), answers(scratch), **CLOSE)
    np.testing.assert_array_equal(answers(view), before)
    assert following.weeks_read == first + 3 and np.abs(before - answers(scratch)).max() > 0.01


def test_only_the_last_64_weeks_are_read(view):
    longer = past(PEOPLE, 70, seed=7)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), longer, STORY.ledger)
    np.testing.assert_array_equal(answers(LEARNED.encode(PEOPLE, History(joined, STORY.known))), answers(view))
    assert latest(joined).receipts.shape[0] == 64


def test_a_short_history_is_not_one_without_demand():
    short = cut(STORY.ledger, slice(-10, None))
    flows = ("receipts", "stock_start", "position", "demand_before", "orders_before")
    padded = {name: np.zeros((64, PEOPLE.n_agents)) for name in flows}
    silent = type(short)(
        **{
            name: jnp.concatenate([jnp.asarray(padded.get(name, np.asarray(getattr(STORY.ledger, name))))[:54], values])
            for name, values in vars(short).items()
        }
    )
    found, other = (answers(LEARNED.encode(PEOPLE, History(each, STORY.known))) for each in (short, silent))
    assert np.abs(found - other).max() > 0.01
    # Weeks that are marked as no history say nothing about an agent, whatever is written there.
    masked = type(silent)(**{**vars(silent), "valid": silent.valid.at[:54].set(0.0)})
    read = [LEARNED.encode(PEOPLE, History(each, STORY.known)).primal.read for each in (short, masked)]
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
    received = np.asarray(history.ledger.receipts[-1] @ population.use[:, 0])
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
    sizes = [each._cache_size() for each in (learned_view._utilization, learned_view._prices)]
    other = people(seed=3)
    answers(LEARNED.encode(other, story(other, seed=3)))
    assert [each._cache_size() for each in (learned_view._utilization, learned_view._prices)] == sizes


def test_questions_that_do_not_fit_are_refused(view):
    with pytest.raises(ShapeError, match=r"`shadow_prices` has shape \(25, 1\) but needs \[..., 26 weeks"):
        view.utilization(np.zeros((25, 1)))
    with pytest.raises(InputError, match="`capacity` holds a NaN or infinity"):
        view.shadow_prices(np.full((26, 1), np.inf))
    with pytest.raises(NotFiniteError, match="not a finite number"):
        view.utilization(np.full((26, 1), 1e39))
    two = jax.tree.map(lambda leaf: leaf[-2:], STORY.ledger)
    with pytest.raises(ShapeError, match="give one week at a time"):
        view.advance(two, STORY.known)
