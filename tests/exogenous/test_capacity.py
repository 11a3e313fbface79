"""Hold capacity and price paths to their basis, their bounds and the near-limit share."""

import numpy as np
import pytest

from lab.capacity_families import OnOffCapacity, PulseCapacity, StepCapacity, calibrate_level, unseen_families
from walras.errors import InputError, SettingsError, ShapeError
from walras.exogenous.capacity import LONGEST_NOTICE, HaarCapacity, HaarPrices, PulsePrices, Uniform, haar_noise

FAMILIES = {"training": HaarCapacity(), **unseen_families()}


def near_limit_share(capacity, free) -> float:
    """Return the share of weeks with unconstrained use above 0.9 of capacity."""
    return float(np.mean(np.asarray(free) > 0.9 * np.asarray(capacity)))


def issued(announced, week: int, horizon: int = LONGEST_NOTICE) -> np.ndarray:
    """Return the prices of the weeks after `week` as known in it; 0 where not announced or past the end."""
    ahead = np.arange(1, horizon + 1)[:, None]
    prices, notice = (values[week + 1 : week + 1 + horizon] for values in (announced.prices, announced.notice))
    path = np.zeros((horizon, announced.prices.shape[1]))
    path[: len(prices)] = np.where(notice >= ahead[: len(prices)], prices, 0.0)
    return path


def seasonal(paths: int = 8, weeks: int = 104) -> np.ndarray:
    """Build an unconstrained utilization with a peak of about 1.8 times its mean, two resources."""
    week = np.arange(weeks)
    season = 1 + 0.9 * np.exp(-(((week % 52 - 46) / 4) ** 2)) + 0.1 * np.sin(week / 8)
    noise = np.random.default_rng(0).lognormal(0, 0.1, (paths, weeks, 2))
    return season[None, :, None] * noise * np.array([1000.0, 30.0])


@pytest.mark.parametrize("block", [1, 3, 4, 8])
@pytest.mark.parametrize("weeks", [26, 64, 104, 156])
def test_paths_are_constant_on_the_finest_block_and_not_beyond(block, weeks):
    path = HaarCapacity(finest_block=block).sample(3, weeks, np.array([100.0]))[:, 0]
    jumps = np.flatnonzero(np.diff(path)) + 1
    assert np.all(jumps % block == 0)
    assert len(jumps) >= weeks // block // 2


def test_noise_has_mean_zero_and_unit_deviation_at_any_length():
    for weeks in (26, 64, 129, 156):
        noise = haar_noise(np.random.default_rng(0), weeks, 3, 4, 1.0)
        np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=1e-12)
        np.testing.assert_allclose(noise.std(axis=0), 1.0)


def test_noise_lies_in_the_span_of_the_truncated_basis():
    """Compare with the basis written out: one constant and 2^j square waves at each scale j."""
    weeks, block = 32, 4
    columns = [np.ones(weeks)]
    for j in range(3):
        length = weeks // 2**j
        for k in range(2**j):
            wave = np.zeros(weeks)
            wave[k * length : k * length + length // 2] = 1.0
            wave[k * length + length // 2 : (k + 1) * length] = -1.0
            columns.append(wave)
    basis = np.stack(columns, axis=1)
    noise = haar_noise(np.random.default_rng(1), weeks, 5, block, 1.0)
    residual = noise - basis @ np.linalg.lstsq(basis, noise, rcond=None)[0]
    assert np.abs(residual).max() < 1e-12


def test_scales_carry_the_variance_that_beta_gives_them():
    """With variance 2^{-beta j} and orthonormal waves, scale j holds 2^j 2^{-beta j} of the energy."""
    weeks, draws = 32, 4000
    for beta in (0.0, 1.0, 2.0):
        noise = haar_noise(np.random.default_rng(2), weeks, draws, 4, beta)
        halves = noise.reshape(2, 16, draws).mean(axis=1)
        coarse = np.median(halves.var(axis=0))
        eighths = noise.reshape(4, 2, 4, draws).mean(axis=2)
        fine = np.median(((eighths[:, 0] - eighths[:, 1]) / 2).__pow__(2).mean(axis=0))
        # Medians of a chi-square with 1 and with 4 degrees of freedom over their means: 0.455 and 0.839.
        assert fine / 0.839 / (coarse / 0.455) == pytest.approx(4 * 4.0**-beta, rel=0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_seed_decides_and_scale_passes_through(name):
    family = FAMILIES[name]
    one, same = (family.sample(5, 61, np.array([100.0, 7.0])) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (61, 2) and np.isfinite(one).all() and one.min() >= 0
    others = [family.sample(seed, 61, np.array([100.0, 7.0])) for seed in range(6, 10)]
    assert any(not np.array_equal(one, other) for other in others)
    np.testing.assert_allclose(family.sample(5, 61, np.array([200.0, 14.0])), 2 * one)


def test_level_is_the_mean_and_spread_the_deviation():
    path = HaarCapacity(level=1.1, spread=0.1, kmin=0.0, kmax=5.0).sample(0, 156, np.array([1000.0]))
    assert path.mean() == pytest.approx(1100.0)
    assert path.std() == pytest.approx(110.0)


def test_shape_is_clipped():
    path = HaarCapacity(level=1.0, spread=0.3, kmin=0.9, kmax=1.05).sample(0, 156, np.array([100.0]))
    assert path.min() == pytest.approx(90.0)
    assert path.max() == pytest.approx(105.0)


def test_a_mean_per_week_carries_its_season():
    mean = np.linspace(50, 150, 40)[:, None]
    np.testing.assert_allclose(HaarCapacity(level=1.2, spread=0.0).sample(0, 40, mean), 1.2 * mean)


def test_levels_fill_their_range_per_path_and_resource():
    family = HaarCapacity(level=Uniform(0.9, 1.3), spread=0.0)
    levels = np.array([family.sample(seed, 4, np.ones(2))[0] for seed in range(400)])
    assert 0.9 <= levels.min() < 0.92 and 1.28 < levels.max() <= 1.3
    assert abs(np.corrcoef(levels.T)[0, 1]) < 0.15


def test_step_by_hand():
    path = StepCapacity(start=3).sample(0, 6, np.array([100.0]))[:, 0]
    np.testing.assert_allclose(path, [100, 100, 100, 80, 80, 80])


def test_pulse_by_hand():
    path = PulseCapacity(change=-0.5, length=2, start=1).sample(0, 5, np.array([10.0]))[:, 0]
    np.testing.assert_allclose(path, [10, 5, 5, 10, 10])


def test_on_and_off_alternates():
    path = OnOffCapacity(depth=0.2, half_period=5).sample(1, 60, np.array([100.0]))[:, 0]
    assert set(np.round(path, 9)) == {80.0, 120.0}
    np.testing.assert_array_equal(path[:-10], path[10:])
    np.testing.assert_allclose(path[:-5] + path[5:], 200.0)


def test_a_path_of_one_week_is_flat():
    assert HaarCapacity(level=1.0).sample(0, 1, np.array([5.0]))[0, 0] == pytest.approx(5.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_tuned_families_reach_the_target_on_fresh_seeds(name):
    free = seasonal()
    family = calibrate_level(FAMILIES[name], free).family
    mean = free.mean(axis=(0, 1))
    fresh = np.mean([near_limit_share(family.sample(seed, 104, mean), free) for seed in range(1000, 1300)])
    assert fresh == pytest.approx(0.55, abs=0.03)


def test_tuning_changes_the_share_that_was_off():
    free = seasonal()
    paths = [HaarCapacity(level=1.3).sample(seed, 104, free.mean(axis=(0, 1))) for seed in range(50)]
    assert np.mean([near_limit_share(path, free) for path in paths]) < 0.45
    tuned = calibrate_level(HaarCapacity(level=1.3), free, target=0.7).family
    paths = [tuned.sample(seed, 104, free.mean(axis=(0, 1))) for seed in range(50)]
    assert np.mean([near_limit_share(path, free) for path in paths]) == pytest.approx(0.7, abs=0.03)


def test_spread_grows_only_where_the_level_alone_does_not_do():
    assert calibrate_level(HaarCapacity(spread=0.1), seasonal()).family.spread == 0.1
    # A path that never varies and one level: every week is near-limit or none, so that the spread has to grow.
    grown = calibrate_level(HaarCapacity(level=1.0, spread=0.0), np.full((1, 104, 1), 100.0))
    assert grown.reached and grown.family.spread > 0


def test_a_share_that_cannot_be_reached_is_reported():
    assert not calibrate_level(StepCapacity(start=26), np.full((1, 104, 1), 100.0)).reached


def test_haar_prices_are_nonnegative_and_in_units_of_the_margin():
    got = HaarPrices(level=0.2, spread=0.4).sample(0, 104, np.array([3.0, 30.0]))
    assert got.prices.min() == 0.0 and got.prices.max() > 0
    # A week's price below zero is cut; about a third of the weeks then has none (normal: 31 %).
    assert 0.1 < np.mean(got.prices == 0) < 0.6
    twice = HaarPrices(level=0.2, spread=0.4).sample(0, 104, np.array([6.0, 60.0]))
    np.testing.assert_allclose(twice.prices, 2 * got.prices)
    np.testing.assert_array_equal(issued(got, 10), got.prices[11:37])


def test_pulses_are_announced_once_and_stay_known():
    family = PulsePrices(height=Uniform(0.5, 1.5), every=60, longest=5)
    notices = set()
    for seed in range(60):
        got = family.sample(seed, 60, np.array([2.0]))
        charged = got.prices[:, 0] > 0
        assert 0.5 * 2 <= got.prices[charged].min() and got.prices.max() <= 1.5 * 2
        assert np.all(got.notice[~charged] == 0)
        first = int(np.flatnonzero(charged)[0])
        notice = int(got.notice[first, 0])
        notices.add(notice)
        for week in range(max(0, first - LONGEST_NOTICE), first):
            known = issued(got, week)[first - week - 1, 0]
            assert known == (got.prices[first, 0] if week >= first - notice else 0.0)
    assert min(notices) <= 2 and max(notices) >= 20


def test_a_pulse_is_announced_as_a_whole():
    family = PulsePrices(every=10_000, longest=8)
    for seed in range(20):
        got = family.sample(seed, 60, np.array([1.0]))
        weeks = np.flatnonzero(got.prices[:, 0])
        announced = weeks - got.notice[weeks, 0]
        assert np.all(announced == announced[0])


def test_issued_prices_end_with_the_path():
    got = HaarPrices(level=0.5, spread=0.0).sample(0, 10, np.array([1.0]))
    np.testing.assert_allclose(issued(got, 7, 4)[:, 0], [0.5, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: HaarCapacity(finest_block=0), SettingsError, "finest_block"),
        (lambda: HaarCapacity(kmin=1.2), SettingsError, "kmin"),
        (lambda: HaarCapacity(spread=-0.1), SettingsError, "spread"),
        (lambda: Uniform(1.0, 0.5), SettingsError, "smaller bound first"),
        (lambda: HaarCapacity().sample(0, 0, np.ones(1)), SettingsError, "weeks"),
        (lambda: HaarCapacity().sample(0, 5, np.ones((4, 1))), ShapeError, "mean_utilization"),
        (lambda: HaarCapacity().sample(0, 5, np.array([np.nan])), InputError, "mean_utilization"),
        (lambda: StepCapacity(change=-1.5).sample(0, 5, np.ones(1)), SettingsError, "change"),
        (lambda: calibrate_level(HaarCapacity(), np.ones((4, 1)), 1.5), SettingsError, "target"),
        (lambda: calibrate_level(HaarCapacity(), np.zeros((4, 1))), InputError, "unconstrained"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
