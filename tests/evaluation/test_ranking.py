"""Rankings are of totals, paired by agent, with intervals that cover."""

import numpy as np
import pytest

from walras.errors import InputError, NotFiniteError, SettingsError, ShapeError
from walras.evaluation.ranking import MOST_UNITS, PolicyOutcome, rank, reward_ratio

AGENTS = 60


def outcome(name: str, reward: np.ndarray, **more) -> PolicyOutcome:
    ones = np.ones(len(reward))
    return PolicyOutcome(name, np.asarray(reward, float), 52 * ones, 39 * ones, 3 * ones, weeks=26, **more)


@pytest.fixture
def base() -> np.ndarray:
    return np.random.default_rng(0).lognormal(3.0, 1.0, AGENTS)


def test_the_best_comes_first_and_the_others_are_compared_with_it(base):
    ranking = rank([outcome("low", 0.9 * base), outcome("high", base, seconds=2.0), outcome("mid", base - 1.0)])
    assert [row.name for row in ranking.rows] == ["high", "mid", "low"] and ranking.reference == "high"
    best, mid, low = ranking.rows
    assert best.ratio.estimate == 1.0 and best.difference.low == best.difference.high == 0.0
    assert mid.difference.estimate == pytest.approx(-AGENTS)
    # A difference that is the same for every agent, or a ratio that is, has no width.
    assert mid.difference.high - mid.difference.low == pytest.approx(0.0, abs=1e-6)
    assert low.ratio.estimate == pytest.approx(0.9)
    assert low.ratio.high - low.ratio.low == pytest.approx(0.0, abs=1e-9)
    assert low.difference.low < -0.1 * base.sum() < low.difference.high < 0
    assert (best.service, best.stock_weeks, best.seconds) == (0.75, 1.5, 2.0)


def test_another_reference(base):
    ranking = rank([outcome("a", base), outcome("b", 1.1 * base)], against="a")
    assert ranking.reference == "a" and ranking.rows[0].ratio.estimate == pytest.approx(1.1)
    assert "ratio to a" in str(ranking) and "ratio to the best" in str(
        rank([outcome("a", base), outcome("b", 2 * base)])
    )


def test_pairing_makes_intervals_narrow():
    random = np.random.default_rng(1)
    common, ours = random.lognormal(3.0, 1.0, AGENTS), random.normal(1.0, 0.1, AGENTS)
    paired = reward_ratio(common + ours, common)
    apart = reward_ratio(random.permutation(common + ours), common)
    assert paired.low > 1.0 and apart.low <= 1.0 <= apart.high
    assert paired.high - paired.low < 0.2 * (apart.high - apart.low)


def test_intervals_of_ratios_cover():
    """Of 200 samples about 95 % must hold the true ratio 1.05; skewed rewards of few agents cost a few percent."""
    random, inside = np.random.default_rng(2), 0
    for seed in range(200):
        theirs = random.lognormal(0.0, 0.6, AGENTS)
        ours = theirs * random.normal(1.05, 0.2, AGENTS)
        interval = reward_ratio(ours, theirs, seed=seed)
        inside += interval.low <= 1.05 <= interval.high
    assert 0.88 <= inside / 200 <= 0.99


def test_many_agents_are_pooled_and_totals_stay():
    random = np.random.default_rng(3)
    theirs = random.lognormal(0.0, 1.0, 4 * MOST_UNITS)
    ours = 1.02 * theirs + random.normal(0.0, 0.1, len(theirs))
    found = reward_ratio(ours, theirs)
    error = (ours - ours.sum() / theirs.sum() * theirs).std() / theirs.mean() / np.sqrt(len(theirs))
    assert found.count == MOST_UNITS and found.estimate == pytest.approx(ours.sum() / theirs.sum())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_a_reference_that_earns_nothing_has_no_ratio(base):
    ranking = rank([outcome("loss", -base), outcome("worse", -2 * base)])
    assert all(row.ratio is None for row in ranking.rows) and ranking.as_dict()["policies"][1]["ratio"] is None
    assert "-" in str(ranking) and reward_ratio(base, -base) is None


def test_the_record_names_every_number(base):
    record = rank([outcome("a", base), outcome("b", 2 * base)]).as_dict()
    assert record["reference"] == "b" and record["agents"] == AGENTS and record["level"] == 0.95
    assert {"policy", "reward", "ratio", "ratio_low", "ratio_high", "difference", "service", "seconds"} <= set(
        record["policies"][0]
    )


def test_what_cannot_be_ranked_is_refused(base):
    with pytest.raises(InputError, match="there is no policy to rank"):
        rank([])
    with pytest.raises(InputError, match="`a` is the name of two policies"):
        rank([outcome("a", base), outcome("a", base)])
    with pytest.raises(InputError, match="at least two"):
        rank([outcome("a", base[:1])])
    with pytest.raises(ShapeError, match="run all on the same agents"):
        rank([outcome("a", base), outcome("b", base[1:])])
    with pytest.raises(SettingsError, match="`against` is c, which is not ranked; choose from a"):
        rank([outcome("a", base)], against="c")
    with pytest.raises(NotFiniteError):
        outcome("a", np.where(base > base.mean(), np.nan, base))
