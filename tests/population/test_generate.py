"""Hold the embedded population to the published statistics it was made from."""

import numpy as np
import pytest

from walras.errors import SettingsError
from walras.population.generate import closed_weeks, generate_panel


@pytest.fixture(scope="module", params=[0, 5])
def panel(request):
    return generate_panel(seed=request.param)


def test_mean_demand_has_the_published_quantiles(panel):
    found = np.quantile(panel.units.mean(axis=0), [0.05, 0.25, 0.5, 0.75, 0.95])
    published = np.array([0.08, 1.16, 5.74, 19.5, 92.2])
    assert (np.abs(np.log(found / published)) < np.log([2.0, 1.5, 1.35, 1.35, 1.5])).all(), found


def test_half_of_the_series_are_lumpy(panel):
    sold = np.where((panel.units > 0) & panel.on_sale, panel.units, np.nan)
    often = np.isfinite(sold).sum(axis=0) >= 2
    sizes, on_sale = sold[:, often], panel.on_sale[:, often]
    spread = (np.nanstd(sizes, axis=0, ddof=1) / np.nanmean(sizes, axis=0)) ** 2
    interval = on_sale.sum(axis=0) / np.isfinite(sizes).sum(axis=0)
    assert 0.40 < ((spread >= 0.49) & (interval >= 1.32)).mean() < 0.60
    assert ((spread < 0.49) & (interval < 1.32)).mean() > 0.08  # and some are smooth


def test_the_total_peaks_before_christmas_and_the_christmas_week_is_closed(panel):
    total = panel.units.sum(axis=1)
    assert 1.9 < total.max() / total.mean() < 2.9
    assert panel.weeks[total.argmax()].astype("datetime64[M]").astype(int) % 12 + 1 in (10, 11, 12)
    closed = closed_weeks(panel.weeks)
    assert panel.weeks[closed].tolist() == [d.tolist() for d in np.array(["2022-12-19", "2023-12-25"], "datetime64[D]")]
    assert (total[closed] == 0).all() and (total[~closed] > 0).all()


def test_prices_and_margins_have_the_published_percentiles(panel):
    price = np.median(panel.price, axis=0)
    np.testing.assert_allclose(np.quantile(price, [0.05, 0.5, 0.95]), [0.42, 2.2, 10.8], rtol=0.15)
    margin = 1 - panel.unit_cost[0] / price
    np.testing.assert_allclose(np.quantile(margin, [0.05, 0.5, 0.95]), [0.07, 0.29, 0.46], atol=0.03)


def test_shared_weeks_move_products_together(panel):
    """Common shocks: leaving season out, halves of the population still move together."""
    quiet = (panel.weeks >= np.datetime64("2023-01-15")) & (panel.weeks < np.datetime64("2023-08-01"))
    capped = np.minimum(panel.units, np.quantile(panel.units, 0.99))[quiet]
    halves = np.log(capped[:, ::2].sum(axis=1)), np.log(capped[:, 1::2].sum(axis=1))
    assert np.corrcoef(*halves)[0, 1] > 0.5


def test_everything_a_plan_needs_is_there_and_says_it_was_generated(panel):
    for name in ("price", "unit_cost", "lead_time", "volume", "fill_rate", "vendor", "category"):
        assert getattr(panel, name) is not None
        assert panel.provenance[name].startswith("generated")
    assert panel.assumed_columns == ()
    assert np.isfinite(panel.units).all() and (panel.units == np.round(panel.units)).all()
    assert (panel.units[~panel.on_sale] == 0).all() and not panel.on_sale[0].all()
    assert set(panel.lead_time.tolist()) <= {1.0, 2.0, 3.0, 4.0}
    assert ((panel.fill_rate > 0) & (panel.fill_rate <= 1)).all()
    active = (panel.units[-26:] > 0).any(axis=0).mean()
    assert 0.75 < active < 0.95


def test_the_seed_decides():
    one, same, other = (generate_panel(agents=50, weeks=30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.units, same.units)
    assert (one.units != other.units).any()


@pytest.mark.parametrize(("agents", "weeks"), [(0, 100), (10, 3)])
def test_impossible_sizes_are_refused(agents, weeks):
    with pytest.raises(SettingsError):
        generate_panel(agents=agents, weeks=weeks)


def test_one_product_and_few_weeks_work():
    panel = generate_panel(agents=1, weeks=8)
    assert panel.units.shape == (8, 1)
