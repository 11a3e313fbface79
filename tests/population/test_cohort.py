"""Ask whether a cohort stands for all: unbiased totals, errors as predicted, large agents surely, parts in step."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from shops import happenings, order_up_to, shop, start

from lab.eval_cohorts import predicted_error
from walras.errors import InputError, SettingsError, ShapeError
from walras.population.cohort import (
    FEWEST,
    ProportionalSample,
    StratifiedSample,
    UniformSample,
    clip_to_total,
    demand_size,
    neyman_allocation,
)
from walras.population.population import AgentNames

PEOPLE = shop(agents=60).named(AgentNames([f"shop-{number}" for number in range(60)]))
DESIGNS = (UniformSample(), StratifiedSample(), ProportionalSample())
RANDOM = np.random.default_rng(4)
SIZE = np.exp(1.3 * RANDOM.standard_normal(3000))
USE = SIZE * np.exp(0.4 * RANDOM.standard_normal(3000))
DRAWS = 500


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module", params=DESIGNS, ids=str)
def many(request):
    """Draw many cohorts of 300 and estimate the total use of each."""
    cohorts = [request.param.draw(SIZE, 300, rng(seed)) for seed in range(DRAWS)]
    used = [cohort.select(USE) for cohort in cohorts]
    totals = np.array([c.total(u) for c, u in zip(cohorts, used, strict=True)])
    errors = np.array([c.standard_error(u) for c, u in zip(cohorts, used, strict=True)])
    return request.param, totals / USE.sum(), errors / USE.sum()


def test_totals_are_unbiased(many):
    _, totals, errors = many
    assert totals.mean() == pytest.approx(1.0, abs=4 * errors.mean() / np.sqrt(DRAWS))


def test_the_error_is_as_predicted_and_as_estimated_from_the_drawn(many):
    design, totals, errors = many
    predicted = predicted_error(design, SIZE, USE, 300)
    assert totals.std() == pytest.approx(predicted, rel=0.15)
    assert np.sqrt((errors**2).mean()) == pytest.approx(totals.std(), rel=0.15)


def test_better_designs_have_smaller_errors():
    uniform, stratified, proportional = (predicted_error(design, SIZE, USE, 300) for design in DESIGNS)
    assert proportional < 0.75 * stratified < 0.5 * uniform


def test_uniform_errors_are_those_of_the_textbook():
    spread = USE.std(ddof=1) / USE.mean()
    found = predicted_error(UniformSample(), SIZE, USE, 300)
    assert found == pytest.approx(spread * np.sqrt((1 - 300 / 3000) / 300), rel=1e-9)
    cohort = UniformSample().draw(SIZE, 300, rng())
    drawn = USE[cohort.index]
    textbook = 3000 * np.sqrt((1 - 300 / 3000) / 300) * drawn.std(ddof=1)
    assert cohort.standard_error(drawn) == pytest.approx(textbook, rel=1e-9)


def test_stratified_errors_are_those_of_the_textbook():
    cohort = StratifiedSample().draw(SIZE, 300, rng())
    drawn, variance = USE[cohort.index], 0.0
    for stratum in range(10):
        mine = cohort.stratum == stratum
        n, members = mine.sum(), cohort.weight[mine].sum()
        variance += members**2 * (1 - n / members) / n * drawn[mine].var(ddof=1) if n < members - 0.5 else 0.0
    assert cohort.standard_error(drawn) == pytest.approx(np.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_the_number_asked_for_is_drawn_and_stands_for_all(design):
    for n in (25, 300, 2999):
        cohort = design.draw(SIZE, n, rng(n))
        assert cohort.n_drawn == n and (np.diff(cohort.index) > 0).all() and cohort.design == str(design)
        assert (cohort.weight >= 1.0 - 1e-9).all()
    counts = [design.draw(SIZE, 300, rng(seed)).weight.sum() for seed in range(40)]
    assert np.mean(counts) == pytest.approx(3000, rel=0.02)


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_where_there_are_no_more_everybody_is_taken_once(design):
    for n in (60, 1000):
        cohort = design.draw(demand_size(PEOPLE), n, rng())
        assert cohort.is_complete and (cohort.weight == 1.0).all()
        assert cohort.subset(PEOPLE) is PEOPLE and cohort.select(PEOPLE.use) is PEOPLE.use
        assert cohort.standard_error(USE[:60]) == 0.0 and cohort.total(USE[:60]) == pytest.approx(USE[:60].sum())
    assert predicted_error(design, SIZE, USE, 3000) == 0.0


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_the_seed_decides(design):
    one, same, other = (design.draw(SIZE, 100, rng(seed)).index for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_allocations_add_up_and_follow_members_times_spread():
    members, spread = np.array([100, 100, 50]), np.array([1.0, 3.0, 2.0])
    np.testing.assert_array_equal(neyman_allocation(members, spread, 50), [10, 30, 10])
    for n in range(6, 251):
        found = neyman_allocation(members, spread, n)
        assert found.sum() == n and (found >= FEWEST).all() and (found <= members).all()


def test_strata_that_are_used_up_leave_the_rest_to_others():
    found = neyman_allocation(np.array([100, 100, 5, 1]), np.array([1.0, 1.0, 1000.0, 0.0]), 46)
    np.testing.assert_array_equal(found, [20, 20, 5, 1])
    found = neyman_allocation(np.array([10, 30]), np.array([5.0, 0.0]), 25)
    np.testing.assert_array_equal(found, [10, 15])
    np.testing.assert_array_equal(neyman_allocation(np.array([10, 30]), np.zeros(2), 8), [2, 6])


@pytest.mark.parametrize("design", [StratifiedSample, ProportionalSample])
def test_small_agents_that_have_grown_do_not_spoil_the_total(design):
    grown = np.where(np.arange(3000) % 200 == 0, SIZE.max(), SIZE)
    careful, careless = (predicted_error(design(floor_share=share), SIZE, grown, 300) for share in (0.1, 1e-6))
    assert careful < 0.7 * careless
    assert predicted_error(design(), SIZE, SIZE, 300) < 0.3 * predicted_error(UniformSample(), SIZE, SIZE, 300)


def test_equal_sizes_share_strata():
    size = np.repeat([1.0, 5.0], [900, 100])
    cohort = StratifiedSample().draw(size, 20, rng())
    assert cohort.n_drawn == 20 and cohort.total(size[cohort.index]) == pytest.approx(size.sum())
    assert np.bincount(cohort.stratum).tolist() == [18, 2]


def test_chances_are_in_proportion_and_add_up_with_the_largest_certain():
    size = np.concatenate([np.ones(90), np.full(10, 100.0)])
    chance, _ = ProportionalSample().chances(size, 20)
    assert chance.sum() == pytest.approx(20) and (chance[90:] == 1).all() and (chance > 0).all()
    chance, _ = ProportionalSample(1e-9).chances(SIZE, 30)
    free = chance < 1
    np.testing.assert_allclose(chance[free] / SIZE[free], (chance[free] / SIZE[free]).mean(), rtol=1e-6)
    cohort = ProportionalSample().draw(size, 20, rng())
    assert set(range(90, 100)) <= set(cohort.index.tolist()) and (cohort.weight[-10:] == 1).all()


def test_agents_without_size_are_drawn_too():
    size = np.where(np.arange(400) < 200, 0.0, 1.0)
    found = [ProportionalSample().draw(size, 150, rng(seed)).weight.sum() for seed in range(500)]
    assert np.mean(found) == pytest.approx(400, rel=0.03)  # 3 standard errors
    assert ProportionalSample().draw(np.zeros(50), 10, rng()).weight == pytest.approx(5.0)


@pytest.mark.parametrize("total", [3.0, 5.5, 11.0, 14.0])
def test_filled_parts_add_up_within_their_bounds(total):
    lowest, highest = np.array([1.0, 0.0, 2.0]), np.array([2.0, 10.0, 2.0])
    found = clip_to_total(np.array([1.0, 3.0, 7.0]), lowest, highest, total)
    assert found.sum() == pytest.approx(total)
    assert (found >= lowest - 1e-12).all() and (found <= highest + 1e-12).all()


def test_values_may_have_weeks_before_agents():
    cohort = StratifiedSample().draw(SIZE, 100, rng())
    weekly = np.stack([USE, 2 * USE, SIZE])
    drawn = cohort.select(weekly)
    assert drawn.shape == (3, 100)
    np.testing.assert_allclose(cohort.total(drawn), [cohort.total(row) for row in drawn])
    np.testing.assert_allclose(cohort.standard_error(drawn), [cohort.standard_error(row) for row in drawn])


def test_all_parts_are_cut_in_step_and_names_follow():
    cohort = ProportionalSample().draw(demand_size(PEOPLE), 20, rng())
    drawn, chosen = cohort.subset(PEOPLE), cohort.index
    assert drawn.name_of(3) == PEOPLE.name_of(int(chosen[3]))
    paths, policy, state = happenings(PEOPLE), order_up_to(PEOPLE), start(PEOPLE)
    np.testing.assert_array_equal(cohort.select(paths).arrivals.weeks, np.asarray(paths.arrivals.weeks)[:, chosen])
    np.testing.assert_array_equal(cohort.select(policy).level, np.asarray(policy.level)[chosen])
    np.testing.assert_array_equal(cohort.select(state).pipeline, np.asarray(state.pipeline)[:, chosen])
    np.testing.assert_array_equal(drawn.use, np.asarray(PEOPLE.use)[chosen])
    assert drawn.weight.dtype == PEOPLE.weight.dtype
    np.testing.assert_allclose(drawn.weight, cohort.weight, rtol=1e-6)


def test_a_cohort_of_a_cohort_stands_for_all():
    heavy = eqx.tree_at(lambda p: p.weight, PEOPLE, jnp.full(60, 50.0))
    cohort = UniformSample().draw(demand_size(heavy), 20, rng())
    assert float(cohort.subset(heavy).weight.sum()) == pytest.approx(3000, rel=1e-5)


def test_agents_that_stand_for_many_are_drawn_more_often():
    heavy = eqx.tree_at(lambda p: p.weight, PEOPLE, jnp.ones(60).at[7].set(1000.0))
    for seed in range(5):
        cohort = ProportionalSample().draw(demand_size(heavy), 20, rng(seed))
        at = int(np.flatnonzero(cohort.index == 7)[0])
        assert float(cohort.subset(heavy).weight[at]) == 1000.0


BAD = np.where(np.arange(3000) == 17, np.nan, SIZE)
MISTAKES = {
    "no number": (lambda d: d.draw(BAD, 100, rng()), InputError, "`size` of agent 17 is nan but must be finite and at"),
    "negative": (lambda d: d.draw(-SIZE, 100, rng()), InputError, "`size` of agent 0 is -.* at least 0; correct"),
    "nobody": (lambda d: d.draw(SIZE[:0], 100, rng()), InputError, "`size` is empty but needs at least one agent"),
    "none": (
        lambda d: d.draw(SIZE, 0, rng()),
        SettingsError,
        "`n` is 0 but must be at least 1; give a larger number",
    ),
    "nothing": (lambda d: predicted_error(d, SIZE, 0 * USE, 99), InputError, "`values` add up to 0 but a relative"),
    "uncut": (
        lambda d: d.draw(SIZE, 99, rng()).total(USE),
        ShapeError,
        r"`values` has .*99., the drawn .* with `select`",
    ),
    "strangers": (lambda d: d.draw(SIZE, 99, rng()).subset(PEOPLE), ShapeError, "`population` has shape .*drawn from"),
}


@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize(("attempt", "kind", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_a_sentence(design, attempt, kind, sentence):
    with pytest.raises(kind, match=sentence):
        attempt(design)


def test_too_few_for_the_design_end_in_a_sentence():
    with pytest.raises(SettingsError, match="`n` is 12 but 10 strata need at least 20 agents; draw more or cut fewer"):
        StratifiedSample().draw(SIZE, 12, rng())
    with pytest.raises(InputError, match="one agent alone was drawn by chance in stratum 0 of a cohort of 1 but"):
        UniformSample().draw(SIZE, 1, rng()).standard_error(np.ones(1))
    with pytest.raises(SettingsError, match="`floor_share` is 0 but must be above 0"):
        ProportionalSample(0.0).draw(SIZE, 12, rng())
    with pytest.raises(SettingsError, match="`floor_share` is -1 but must be above 0"):
        StratifiedSample(floor_share=-1.0).draw(SIZE, 30, rng())
    with pytest.raises(SettingsError, match="`strata` is 0 but must be at least 1"):
        StratifiedSample(0).draw(SIZE, 12, rng())
