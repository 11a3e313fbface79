"""Measures of coordination and reward against numbers worked out by hand."""

import numpy as np
import pytest

from walras.errors import InputError, NotFiniteError, SettingsError, ShapeError
from walras.evaluation.metrics import REWARD_MEASURES, ControlMetrics, control_intervals, control_tally, reward_tally


def weekly(*paths: list[float]) -> np.ndarray:
    """Build [path, week, resource] with one resource."""
    return np.array(paths, dtype=float)[:, :, None]


def control_metrics(*arrays: np.ndarray, **more: object) -> ControlMetrics:
    return control_tally(*arrays, **more).metrics()


# One path, one resource, K = 100. Weeks: fits far below; near-limit and 5 % over; near-limit and 20 % over; near-limit
# and short but held 10 % below capacity.
USED = weekly([50, 105, 120, 90])
FREE = weekly([60, 95, 150, 140])
CAPACITY = np.full((4, 1), 100.0)


def test_every_measure_by_hand():
    committed = weekly([10, 20, 110, 0])
    prices = np.array([[2.0], [0.0], [3.0], [0.5]])
    got = control_metrics(USED, FREE, CAPACITY, committed, prices, price_scale=4.0)
    assert got.mean_violation == pytest.approx((0 + 0.05 + 0.20 + 0) / 4)
    assert got.near_limit_share == pytest.approx(3 / 4)
    assert got.near_limit_mean_violation == pytest.approx((0.05 + 0.20 + 0) / 3)
    assert got.share_weeks_over_10_percent == pytest.approx(1 / 4)
    assert got.near_limit_share_over_10_percent == pytest.approx(1 / 3)
    assert got.irreducible_violation == pytest.approx(0.10 / 4)
    assert got.avoidable_violation == pytest.approx((0.25 - 0.10) / 4)
    # U0 > K in the last two weeks only: idle 0 and 0.1.
    assert got.idle_capacity == pytest.approx((0.0 + 0.1) / 2)
    # 2 * 50 + 0 + 3 * 0 + 0.5 * 10
    assert got.slackness == pytest.approx(105.0)
    # |min(lambda / 4, (K - U) / K)|: min(.5, .5), min(0, -.05), min(.75, -.2), min(.125, .1)
    assert got.complementarity_residual == pytest.approx((0.5 + 0.05 + 0.2 + 0.1) / 4)
    assert (got.paths, got.weeks, got.near_limit_weeks) == (1, 4, 3)
    assert got.as_dict()["mean_violation"] == got.mean_violation


def test_averages_per_path_and_resource_first():
    # Path 0 has one near-limit week (violation .3), path 1 has three (0, 0, .3): .3 and .1 average to .2, not .15.
    used = weekly([130, 10, 10], [100, 100, 130])
    free = weekly([130, 10, 10], [130, 130, 130])
    got = control_metrics(used, free, np.full((3, 1), 100.0))
    assert got.near_limit_mean_violation == pytest.approx(0.2)
    assert got.near_limit_share == pytest.approx((1 / 3 + 1) / 2)


def test_resources_are_averaged_but_money_is_summed():
    used = np.array([[[110.0, 50.0], [100.0, 40.0]]])
    prices = np.array([[1.0, 2.0], [1.0, 2.0]])
    got = control_metrics(used, used, np.array([[100.0, 50.0], [100.0, 50.0]]), shadow_prices=prices)
    assert got.mean_violation == pytest.approx((0.05 + 0.0) / 2)
    assert got.slackness == pytest.approx(2.0 * 10.0)
    assert got.complementarity_residual is None


def test_burn_in_weeks_are_skipped():
    got = control_metrics(USED, FREE, CAPACITY, burn_in=2)
    assert got.mean_violation == pytest.approx(0.2 / 2)
    assert got.weeks == 2


def test_no_near_limit_week_gives_none_and_not_zero():
    got = control_metrics(weekly([50, 60]), weekly([50, 90]), np.full((2, 1), 100.0))
    assert got.near_limit_share == 0.0
    assert got.near_limit_mean_violation is None
    assert got.near_limit_share_over_10_percent is None
    assert got.idle_capacity is None
    assert got.irreducible_violation is None and got.avoidable_violation is None
    assert got.slackness is None


def test_weeks_without_capacity_have_no_ratio_but_are_counted_and_marked():
    used, capacity = weekly([5, 0, 120]), np.array([[0.0], [0.0], [100.0]])
    got = control_metrics(used, used, capacity, shadow_prices=np.ones((3, 1)), price_scale=1.0)
    assert got.mean_violation == pytest.approx(0.2)
    assert got.near_limit_mean_violation == pytest.approx(0.2)
    assert got.share_weeks_over_10_percent == pytest.approx(2 / 3)
    assert got.near_limit_share == pytest.approx(2 / 3)
    assert (got.zero_capacity_weeks, got.zero_capacity_weeks_used) == (2, 1)
    assert got.slackness == 0.0
    assert got.complementarity_residual == pytest.approx(0.2)


def test_no_capacity_at_all_gives_none_and_no_nan():
    got = control_metrics(weekly([5, 0]), weekly([5, 0]), np.zeros((2, 1)))
    assert got.mean_violation is None
    assert all(value is None or np.isfinite(value) for value in got.as_dict().values())


def test_exactly_ninety_percent_is_not_near_the_limit():
    got = control_metrics(weekly([90, 91]), weekly([90, 91]), np.full((2, 1), 100.0))
    assert got.near_limit_weeks == 1


def random_study(seed: int = 0, paths: int = 6, weeks: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (paths, weeks, 2)
    free = rng.gamma(8, 12, shape)
    return {
        "utilization": np.minimum(free, 90) + rng.gamma(2, 5, shape),
        "unconstrained": free,
        "capacity": rng.uniform(70, 130, shape),
        "committed": free * rng.uniform(0, 1, shape),
        "shadow_prices": rng.gamma(1, 1, shape),
    }


def test_pieces_over_paths_and_over_weeks_add_up_to_the_whole():
    study = random_study()
    whole = control_tally(**study, price_scale=2.0)

    def piece(paths: slice, weeks: slice):
        part = {name: values[paths, weeks] for name, values in study.items()}
        return control_tally(**part, price_scale=2.0, first_path=paths.start)

    pieces = [piece(slice(a, b), slice(c, d)) for a, b in ((4, 6), (0, 4)) for c, d in ((0, 5), (5, 12))]
    merged = sum(pieces)
    assert merged.metrics().as_dict() == pytest.approx(whole.metrics().as_dict())
    np.testing.assert_array_equal(merged.paths, np.arange(6))


def test_pieces_that_do_not_fit_are_refused():
    study = random_study()
    whole = control_tally(**study)
    with pytest.raises(InputError, match="committed_violation"):
        whole + control_tally(study["utilization"], study["unconstrained"], study["capacity"])
    with pytest.raises(ShapeError, match="same resources"):
        whole + control_tally(**{name: values[..., :1] for name, values in study.items()})


def test_value_per_path_averages_to_the_measure():
    # One resource of path 0 is never near its limit, so that the mean is a ratio of sums over paths.
    study = random_study()
    study["capacity"][0, :, 1] = 1e6
    tally = control_tally(**study, price_scale=2.0)
    metrics = tally.metrics().as_dict()
    for measure in control_intervals(tally):
        assert np.mean(list(tally.path_values(measure).values())) == pytest.approx(metrics[measure])


def test_intervals_hold_the_measure():
    tally = control_tally(**random_study(paths=40))
    low, high = control_intervals(tally)["mean_violation"]
    assert low < tally.metrics().mean_violation < high


def test_unknown_measure_is_refused():
    with pytest.raises(SettingsError, match="mean_violation"):
        control_tally(**random_study()).path_values("violations")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"capacity": np.full((3, 1), 100.0)}, ShapeError, "capacity"),
        ({"capacity": np.full((4, 1), -1.0)}, InputError, "capacity"),
        ({"unconstrained": FREE[0, :, 0]}, ShapeError, "unconstrained"),
        ({"utilization": np.full((1, 4, 1), np.nan)}, NotFiniteError, "path 0, week 0, resource 0"),
        ({"shadow_prices": np.full((4, 1), -0.1)}, InputError, "shadow_prices"),
        ({"burn_in": 4}, SettingsError, "burn_in"),
        ({"price_scale": 0.0}, SettingsError, "price_scale"),
        ({"utilization": np.zeros((0, 4, 1))}, InputError, "utilization"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, error, words):
    given = {"utilization": USED, "unconstrained": FREE, "capacity": CAPACITY, **change}
    with pytest.raises(error, match=words) as caught:
        control_metrics(**given)
    assert "\n" not in str(caught.value)


def test_reward_by_hand():
    got = reward_tally([90.0, 160.0], [95.0, 180.0], [100.0, 200.0]).metrics()
    assert got.reward_kept == pytest.approx((90 / 95 + 160 / 180) / 2)
    assert got.regret_ratio == pytest.approx((10 / 5 + 40 / 20) / 2)
    assert got.pooled_regret_ratio == pytest.approx(50 / 25)
    assert (got.paths, got.reward_kept_left_out, got.regret_left_out) == (2, 0, 0)


def test_regret_averages_ratios_and_pooled_does_not():
    got = reward_tally([90.0, 190.0], [95.0, 180.0], [100.0, 200.0]).metrics()
    assert got.regret_ratio == pytest.approx((2.0 + 0.5) / 2)
    assert got.pooled_regret_ratio == pytest.approx(20 / 25)


def test_a_path_where_the_oracle_gave_up_nothing_has_no_regret_ratio():
    got = reward_tally([90.0, 99.0, 50.0], [95.0, 100.0, 120.0], [100.0, 100.00001, 100.0]).metrics()
    assert got.regret_ratio == pytest.approx(2.0)
    assert got.regret_left_out == 2
    slack = reward_tally([99.0], [100.0], [100.0]).metrics()
    assert slack.regret_ratio is None and slack.pooled_regret_ratio is None
    assert slack.reward_kept == pytest.approx(0.99)


def test_a_share_of_no_reward_is_none():
    got = reward_tally([-2.0, 0.0], [-1.0, 0.0], [5.0, 0.0]).metrics()
    assert got.reward_kept is None
    assert got.reward_kept_left_out == 2


def test_reward_pieces_add_by_path():
    whole = reward_tally([90.0, 160.0], [95.0, 180.0], [100.0, 200.0])
    weeks = reward_tally([40.0, 100.0], [45.0, 80.0], [60.0, 90.0]) + reward_tally(
        [50.0, 60.0], [50.0, 100.0], [40.0, 110.0]
    )
    paths = reward_tally([160.0], [180.0], [200.0], first_path=1) + reward_tally([90.0], [95.0], [100.0])
    assert weeks.metrics() == whole.metrics() == paths.metrics()


def test_rewards_of_other_paths_are_refused():
    with pytest.raises(ShapeError, match="oracle_reward"):
        reward_tally([1.0, 2.0], [1.0], [1.0, 2.0]).metrics()


def test_rewards_by_path_have_the_measures_as_means():
    tally = reward_tally([8.0, 9.0, 10.0], [9.0, 9.5, 10.0], [10.0, 10.0, 10.0])
    metrics = tally.metrics().as_dict()
    for measure in REWARD_MEASURES:
        assert np.mean(list(tally.path_values(measure).values())) == pytest.approx(metrics[measure])
    assert list(tally.path_values("regret_ratio")) == [0, 1]
    with pytest.raises(SettingsError, match="measure"):
        tally.path_values("joy")
