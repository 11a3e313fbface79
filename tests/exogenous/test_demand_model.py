"""Ask whether the demand model recovers what made a history, and whether its paths keep what the history shows."""

import numpy as np
import pytest

from walras.data.panel import Panel
from walras.errors import InputError, SettingsError
from walras.exogenous.demand.model import DemandModel

START = np.datetime64("2020-01-06")


def panel_of(units: np.ndarray, on_sale: np.ndarray | None = None, **more: object) -> Panel:
    """Wrap demand [week, agent] in a panel; a product is on sale from the first week unless told otherwise."""
    weeks, agents = units.shape
    return Panel(
        agents=np.array([f"p{number:04d}" for number in range(agents)]),
        weeks=START + 7 * np.arange(weeks),
        units=units.astype(np.float32),
        on_sale=np.ones(units.shape, bool) if on_sale is None else on_sale,
        **more,
    )


def lumpy(weeks: int, agents: int, seed: int = 0, mean: float = 6.0) -> np.ndarray:
    """Draw whole units: half the weeks empty, the others Poisson."""
    random = np.random.default_rng(seed)
    level = mean * np.exp(random.normal(0.0, 0.6, agents))
    return random.poisson(2.0 * level, (weeks, agents)) * (random.random((weeks, agents)) < 0.5)


def seasonal(weeks: int, agents: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw Poisson demand with one yearly peak; return it and its profile [week]."""
    random = np.random.default_rng(seed)
    profile = np.exp(0.6 * np.cos(2 * np.pi * (np.arange(weeks) - 45) / 52.1775))
    return random.poisson(profile[:, None] * random.uniform(5, 20, agents)), profile


def test_mean_of_the_samples_is_the_mean():
    model = DemandModel.fit(panel_of(lumpy(60, 40)))
    drawn = model.sample(600, 12, seed=1)
    mean = model.mean(12)
    error = (drawn.mean(axis=0) - mean) / (model.sd(12) / np.sqrt(600))
    assert np.abs(error).max() < 5.0
    assert drawn.mean() == pytest.approx(mean.mean(), rel=0.01)


def test_sd_is_the_spread_of_the_samples():
    model = DemandModel.fit(panel_of(lumpy(60, 40)))
    drawn = model.sample(800, 6, seed=2)
    np.testing.assert_allclose(drawn.std(axis=0).mean(axis=1), model.sd(6).mean(axis=1), rtol=0.06)


def test_the_same_seed_draws_the_same_paths_and_another_does_not():
    model = DemandModel.fit(panel_of(lumpy(40, 10)))
    first = model.sample(4, 8, seed=3)
    np.testing.assert_array_equal(first, model.sample(4, 8, seed=3))
    assert (first != model.sample(4, 8, seed=4)).any()


def test_totals_are_the_sums_of_the_paths():
    model = DemandModel.fit(panel_of(lumpy(40, 10)))
    np.testing.assert_allclose(model.sample_total(5, 8, seed=3), model.sample(5, 8, seed=3).sum(axis=2))


def test_whole_units_stay_whole_and_fractions_stay_fractions():
    units = lumpy(40, 10)
    whole = DemandModel.fit(panel_of(units)).sample(3, 8, seed=0)
    np.testing.assert_array_equal(whole, np.rint(whole))
    parts = DemandModel.fit(panel_of(units * 0.37)).sample(3, 8, seed=0)
    assert (parts != np.rint(parts)).any()
    assert (parts >= 0).all()


def test_relabelling_the_products_relabels_the_answer():
    panel = panel_of(lumpy(60, 30))
    order = np.random.default_rng(5).permutation(30)
    plain, mixed = DemandModel.fit(panel), DemandModel.fit(panel.take(order))
    np.testing.assert_allclose(mixed.mean(8), plain.mean(8)[:, order], rtol=1e-4)
    same = mixed.sample(6, 8, seed=0) == plain.sample(6, 8, seed=0)[:, :, order]
    assert same.mean() > 0.995


def test_shocks_that_hit_all_products_stay_common():
    random = np.random.default_rng(0)
    shock = np.exp(random.normal(0.0, 0.4, 80))
    units = random.poisson(10.0 * shock[:, None], (80, 200))
    alone = random.poisson(10.0 * np.exp(random.normal(0.0, 0.4, (80, 200))))
    for history, least, most in ((units, 0.25, 0.7), (alone, 0.0, 0.2)):
        drawn = DemandModel.fit(panel_of(history), season="none").sample_total(300, 4, seed=0)
        spread = drawn.std(axis=0).mean() / drawn.mean()
        assert least < spread < most


def test_zeros_stay():
    units = lumpy(80, 60)
    drawn = DemandModel.fit(panel_of(units)).sample(40, 12, seed=0)
    assert (drawn == 0).mean() == pytest.approx((units == 0).mean(), abs=0.04)


def test_runs_within_a_block_stay():
    random = np.random.default_rng(1)
    busy = np.repeat(random.random((20, 50)) < 0.5, 4, axis=0)
    model = DemandModel.fit(panel_of(8.0 * busy), season="none")
    drawn = model.sample(60, 24, seed=0) > 0
    together = np.mean(drawn[:, 1:] == drawn[:, :-1])
    assert together > 0.7


@pytest.mark.parametrize("weeks", [70, 120])
def test_a_season_is_recovered(weeks):
    units, profile = seasonal(weeks + 26, 150)
    model = DemandModel.fit(panel_of(units[:weeks]))
    total = model.mean(26).sum(axis=1)
    truth = profile[weeks:] * units.sum() / profile.sum()
    assert np.abs(total - truth).mean() / truth.mean() < 0.08
    flat = DemandModel.fit(panel_of(units[:weeks]), season="none").mean(26).sum(axis=1)
    assert np.abs(flat - truth).mean() > 3 * np.abs(total - truth).mean()


def test_a_closed_week_is_expected_closed_a_year_later():
    units, _ = seasonal(70, 60)
    units[20] = 0
    model = DemandModel.fit(panel_of(units))
    mean = model.mean(10)
    assert mean[20 + 52 - 70].sum() == 0.0
    assert (mean[[0, 1, 3, 4]].sum(axis=1) > 0).all()
    assert model.sample(5, 10, seed=0)[:, 2].sum() == 0.0
    assert any("closed or short" in sentence for sentence in model.limits)


def test_the_interval_of_the_total_widens_with_the_horizon():
    random = np.random.default_rng(3)
    walk = np.exp(np.cumsum(random.normal(0.0, 0.08, 50)))
    model = DemandModel.fit(panel_of(random.poisson(30.0 * walk[:, None], (50, 100))))
    spread = model.sample_total(400, 26, seed=0).std(axis=0)
    assert spread[-4:].mean() > 1.5 * spread[:4].mean()


def test_the_users_forecast_is_the_mean_where_it_is_given():
    units = lumpy(60, 8)
    plain = DemandModel.fit(panel_of(units))
    forecast = np.full((4, 8), 100.0)
    forecast[1, 2] = np.nan
    model = DemandModel.fit(panel_of(units, forecast=forecast))
    mean = model.mean(6)
    assert mean[0, 0] == 100.0
    assert mean[1, 2] == plain.mean(6)[1, 2]
    np.testing.assert_array_equal(mean[4:], plain.mean(6)[4:])
    drawn = model.sample(400, 4, seed=0)
    assert drawn[:, 0].mean() == pytest.approx(100.0, rel=0.05)
    assert (drawn[:, 0] == 0).mean() == pytest.approx((units == 0).mean(), abs=0.08)


def test_history_mean_takes_levels_from_earlier_weeks():
    units = np.full((40, 30), 10.0)
    units[30:, 0] = 50.0
    model = DemandModel.fit(panel_of(units), season="none")
    past = model.history_mean()
    assert past.shape == (40, 30)
    assert past[30, 0] < 12.0
    assert past[39, 0] > 20.0
    np.testing.assert_allclose(past[10:30, 5], 10.0, rtol=0.15)


@pytest.mark.parametrize(("weeks", "agents"), [(1, 1), (2, 3), (8, 1), (8, 20), (30, 1), (64, 5)])
def test_short_histories_work_and_say_what_they_lack(weeks, agents):
    units = lumpy(weeks, agents)
    units[0] += 1
    model = DemandModel.fit(panel_of(units))
    for answer in (model.mean(26), model.sd(26), model.sample(3, 26, seed=0), model.history_mean()):
        assert np.isfinite(answer).all()
        assert (answer >= 0).all()
    assert any("season" in sentence for sentence in model.limits)


def test_products_without_sales_expect_little_and_new_ones_lean_on_their_category():
    units = np.random.default_rng(0).poisson(12.0, (60, 40)).astype(float)
    units[:, 0] = 0.0
    on_sale = np.ones(units.shape, bool)
    on_sale[:57, 1] = False
    units[:57, 1] = 0.0
    model = DemandModel.fit(panel_of(units, on_sale))
    mean = model.mean(8)
    assert (mean[:, 0] < 2.0).all()
    assert (mean[:, 1] > 6.0).all()
    assert (mean[:, 1] < 24.0).all()
    assert model.sample(50, 8, seed=0)[:, :, 1].std() > 1.0
    assert any("lean" in sentence for sentence in model.limits)


def test_an_empty_history_expects_nothing():
    model = DemandModel.fit(panel_of(np.zeros((20, 3))))
    assert model.mean(4).sum() == 0.0
    assert model.sample(2, 4, seed=0).sum() == 0.0
    assert np.isfinite(model.sd(4)).all()


def test_one_giant_order_does_not_become_the_level():
    units = np.random.default_rng(0).poisson(4.0, (80, 50)).astype(float)
    units[60, 7] = 8000.0
    model = DemandModel.fit(panel_of(units), season="none")
    assert model.mean(8)[:, 7].max() < 15.0


def test_launch_decay_is_learned():
    random = np.random.default_rng(2)
    launch = np.concatenate([np.zeros(100, int), np.tile(np.arange(8, 56), 4)])
    age = np.arange(60)[:, None] - launch[None, :]
    units = random.poisson(np.where(age < 0, 0.0, 10.0 * np.where((age < 12) & (launch > 0), 2.0, 1.0)))
    model = DemandModel.fit(panel_of(units, age >= 0), season="none")
    young = (launch > 50) & (launch < 56)
    # Twelve weeks after the end these products are grown up: half of what they sell now.
    assert 8.0 < model.mean(26)[-6:, young].mean() < 15.0
    assert model.mean(26)[0, young].mean() > 1.4 * model.mean(26)[-1, young].mean()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"season": "monthly"}, SettingsError, "season"),
        ({"units": np.full((3, 2), -1.0)}, InputError, "p0000"),
        ({"units": np.full((3, 2), np.nan)}, InputError, "finite"),
        ({"units": np.zeros((0, 2))}, InputError, "0 weeks"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, error, words):
    with pytest.raises(error, match=words):
        DemandModel.fit(panel_of(change.get("units", lumpy(10, 2))), season=change.get("season", "auto"))


def test_bad_requests_are_refused():
    model = DemandModel.fit(panel_of(lumpy(10, 2)))
    with pytest.raises(SettingsError, match="scenarios"):
        model.sample(0, 3, seed=0)
    with pytest.raises(SettingsError, match="weeks"):
        model.mean(0)


def test_weeks_without_stock_do_not_lower_demand():
    units = lumpy(60, 30, mean=10.0) + 1.0
    on_hand = np.full(units.shape, 50.0)
    censored, empty = units.copy(), on_hand.copy()
    censored[-12:, :6], empty[-12:, :6] = 0.0, 0.0
    true = DemandModel.fit(panel_of(units, on_hand=on_hand)).mean(8)
    known = DemandModel.fit(panel_of(censored, on_hand=empty)).mean(8)
    as_it_sold = DemandModel.fit(panel_of(censored)).mean(8)
    assert known[:, :6].sum() == pytest.approx(true[:, :6].sum(), rel=0.15)
    assert as_it_sold[:, :6].sum() < 0.7 * true[:, :6].sum()


def test_what_is_made_to_order_is_never_out_of_stock():
    units = lumpy(60, 30)
    panel = panel_of(units, on_hand=np.zeros(units.shape))
    assert not panel.out_of_stock.any()
    np.testing.assert_array_equal(DemandModel.fit(panel).mean(8), DemandModel.fit(panel_of(units)).mean(8))
