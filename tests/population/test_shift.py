"""Ask whether a shifted population has the mix that was asked for, under edges that stay."""

import numpy as np
import pytest

from lab.shift_cases import demand_ratio
from walras.errors import InputError, SettingsError
from walras.population.shift import CompositionShift

RANDOM = np.random.default_rng(2)
DEMAND = np.exp(1.5 * RANDOM.standard_normal(2000))
MARGIN = RANDOM.standard_normal(2000) - 0.2 * np.log(DEMAND)
LEAD = RANDOM.choice([1, 2, 3, 9], p=[0.45, 0.3, 0.15, 0.1], size=2000)
SHIFT = CompositionShift.fit(DEMAND)
ECONOMICS = CompositionShift.fit(MARGIN, "economics")


def rng(seed=0):
    return np.random.default_rng(seed)


def test_weights_are_tilted_exponentially():
    np.testing.assert_allclose(SHIFT.mass, 0.1)
    np.testing.assert_allclose(SHIFT.weights(0.0), SHIFT.mass)
    for alpha in (-2.0, 0.7, 2.0):
        raised = SHIFT.mass * np.exp(alpha * SHIFT.tilt)
        np.testing.assert_allclose(SHIFT.weights(alpha), raised / raised.sum())
    assert (np.diff(SHIFT.weights(1.0)) > 0).all() and (np.diff(SHIFT.weights(-1.0)) < 0).all()


def test_tilts_are_the_standardised_logarithm_of_the_bucket_mean_or_its_rank():
    means = np.array([part.mean() for part in np.array_split(np.sort(DEMAND), 10)])
    score = np.log(means + 0.01 * DEMAND.mean())
    np.testing.assert_allclose(SHIFT.tilt, (score - score.mean()) / score.std(), rtol=1e-9)
    rank = np.arange(10.0)
    np.testing.assert_allclose(ECONOMICS.tilt, (rank - rank.mean()) / rank.std(), rtol=1e-9)


def test_extreme_tilts_stay_finite():
    weights = SHIFT.weights(1000.0)
    assert weights[-1] == 1.0 and np.isfinite(weights).all()


def test_drawn_agents_have_the_mix_of_the_weights():
    bucket = np.searchsorted(SHIFT.edges, DEMAND, side="right")
    for replace, slack in ((True, 0.02), (False, 1 / 1000)):
        found = SHIFT.draw(DEMAND, 0.8, 1000 if not replace else 20_000, rng(), replace=replace)
        share = np.bincount(bucket[found], minlength=10) / len(found)
        np.testing.assert_allclose(share, SHIFT.weights(0.8), atol=slack + 1e-9)


def test_edges_stay_those_of_the_baseline():
    grown = 2.0 * DEMAND
    top = grown >= SHIFT.edges[-1]
    assert top.mean() > 0.15
    found = SHIFT.draw(grown, 0.0, 20_000, rng())
    assert top[found].mean() == pytest.approx(0.1, abs=0.01)


def test_the_mean_demand_that_is_promised_is_drawn():
    for shift, values in ((SHIFT, DEMAND), (ECONOMICS, MARGIN)):
        for alpha in (-0.5, 0.5):
            promised = demand_ratio(shift, values, alpha, DEMAND)
            drawn = DEMAND[shift.draw(values, alpha, 60_000, rng(1))].mean() / DEMAND.mean()
            assert drawn == pytest.approx(promised, rel=0.04)
    up, down, none = (demand_ratio(SHIFT, DEMAND, alpha, DEMAND) for alpha in (0.5, -0.5, 0.0))
    assert up > 1.2 > none == 1.0 > down


def test_ties_leave_empty_buckets_that_weigh_nothing():
    shift = CompositionShift.fit(LEAD, "lead_time")
    assert (shift.mass == 0).sum() == 6
    for alpha in (-2.0, 0.0, 2.0):
        weights = shift.weights(alpha)
        assert np.isfinite(weights).all() and weights.sum() == pytest.approx(1.0)
        assert (weights[shift.mass == 0] == 0).all()
    assert (shift.tilt @ shift.mass, shift.tilt**2 @ shift.mass) == pytest.approx((0.0, 1.0))
    assert LEAD[shift.draw(LEAD, 1.5, 2000, rng())].mean() > 1.5 * LEAD.mean()
    assert LEAD[shift.draw(LEAD, -1.5, 400, rng(), replace=False)].mean() < 0.7 * LEAD.mean()


def test_an_attribute_without_any_difference_cannot_shift():
    shift = CompositionShift.fit(np.full(30, 4), "lead_time")
    assert not shift.tilt.any()
    assert sorted(shift.draw(np.full(30, 4), 2.0, 30, rng(), replace=False)) == list(range(30))


def test_without_replacement_nobody_comes_twice_until_a_bucket_runs_out():
    found = SHIFT.draw(DEMAND, 0.5, 500, rng(), replace=False)
    assert len(set(found.tolist())) == 500
    halves = np.log(DEMAND[found[:250]]).mean(), np.log(DEMAND[found[250:]]).mean()
    assert halves[0] == pytest.approx(halves[1], abs=0.5)  # in random order: any part of it has the same mix
    often = np.bincount(SHIFT.draw(DEMAND, 2.0, 2000, rng(), replace=False), minlength=2000)
    top = DEMAND >= SHIFT.edges[-1]
    assert often[top].min() >= 1 and np.ptp(often[top]) <= 1  # used up evenly
    assert often[~top].max() <= 2


def test_agents_within_a_bucket_come_as_often_as_asked():
    within = np.where(np.arange(2000) % 2, 3.0, 1.0)
    within[:400] = 0.0
    found = SHIFT.draw(DEMAND, 1.0, 20_000, rng(), within)
    assert found.min() >= 400 and (found % 2).mean() == pytest.approx(0.75, abs=0.02)
    once = SHIFT.draw(DEMAND, 1.0, 300, rng(), within, replace=False)
    assert once.min() >= 400 and (once % 2).mean() > 0.6
    share = np.bincount(np.searchsorted(SHIFT.edges, DEMAND[found], side="right"), minlength=10) / len(found)
    np.testing.assert_allclose(share, SHIFT.weights(1.0), atol=0.02)


def test_buckets_that_nobody_is_in_leave_their_weight_to_the_others():
    large = DEMAND[DEMAND >= SHIFT.edges[4]]
    chances = SHIFT.chances(large, 0.5)
    assert chances.sum() == pytest.approx(1.0)
    share = np.bincount(np.searchsorted(SHIFT.edges, large, side="right"), chances, minlength=10)
    np.testing.assert_allclose(share[5:], SHIFT.weights(0.5)[5:] / SHIFT.weights(0.5)[5:].sum())


@pytest.mark.parametrize("replace", [True, False])
def test_the_seed_decides(replace):
    one, same, other = (SHIFT.draw(DEMAND, 1.0, 50, rng(seed), replace=replace) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


MISTAKES = {
    "name": (
        lambda: CompositionShift.fit(DEMAND, "colour"),
        SettingsError,
        "`by` is `colour` but .* choose from demand",
    ),
    "dead": (lambda: CompositionShift.fit(0 * DEMAND), InputError, "`demand` is 0 for all agents"),
    "negative": (lambda: CompositionShift.fit(-DEMAND), InputError, "`demand` of agent 0 is -.* at least 0; correct"),
    "alpha": (lambda: SHIFT.weights(np.nan), SettingsError, "`alpha` is nan but must be a finite number; give"),
    "count": (lambda: SHIFT.draw(DEMAND, 0.0, 0, rng()), SettingsError, "`count` is 0 but must be at least 1"),
    "nobody": (lambda: SHIFT.draw(DEMAND, 0.0, 5, rng(), 0 * DEMAND), InputError, "no agent has a demand that"),
}


@pytest.mark.parametrize(("attempt", "kind", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_a_sentence(attempt, kind, sentence):
    with pytest.raises(kind, match=sentence):
        attempt()
