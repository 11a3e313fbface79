"""Hold the assumptions to the distributions that their words state."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from walras.data.imputation import complete_panel
from walras.data.panel import Panel, active_agents
from walras.data.read import read_panel
from walras.errors import SettingsError


def bare_panel(agents: int, weeks: int = 2) -> Panel:
    return Panel(
        agents=np.array([f"p{index:05d}" for index in range(agents)]),
        weeks=np.datetime64("2024-01-01", "D") + 7 * np.arange(weeks),
        units=np.ones((weeks, agents)),
        on_sale=np.ones((weeks, agents), dtype=bool),
        provenance={"units": "given"},
    )


@pytest.fixture(scope="module")
def completed() -> Panel:
    return complete_panel(bare_panel(20_000), seed=1)


def test_margins_have_the_published_percentiles(completed):
    margin = 1 - completed.unit_cost[0] / completed.price[0]
    np.testing.assert_allclose(np.quantile(margin, [0.05, 0.5, 0.95]), [0.074, 0.291, 0.457], atol=0.01)


def test_prices_have_the_stated_percentiles(completed):
    np.testing.assert_allclose(np.quantile(completed.price[0], [0.05, 0.5, 0.95]), [0.5, 3.5, 14.0], rtol=0.06)


def test_lead_times_are_whole_weeks_alike_within_a_vendor(completed):
    lead = completed.lead_time
    assert set(lead.tolist()) == {1.0, 2.0, 3.0, 4.0}
    assert np.median(lead) == 2.0
    vendors = np.unique(completed.vendor)
    assert 64 <= vendors.size <= 256  # about the square root of 20,000
    means = np.array([lead[completed.vendor == vendor].mean() for vendor in vendors])
    assert means.std() > 2 * lead.std() / np.sqrt(20_000 / vendors.size)  # more than chance alone


def test_the_words_say_what_was_assumed(completed):
    assert completed.assumed_columns == (
        "category",
        "fill_rate",
        "lead_time",
        "price",
        "unit_cost",
        "vendor",
        "volume",
    )
    assert "7, 29, 46 %" in completed.provenance["unit_cost"]
    assert completed.provenance["units"] == "given"
    assert (completed.fill_rate == 1.0).all()


def test_a_product_keeps_its_numbers_when_others_are_dropped(completed):
    keep = np.arange(0, 20_000, 2)[:9_000]
    fewer = complete_panel(bare_panel(20_000).take(keep), seed=1)
    np.testing.assert_array_equal(fewer.unit_cost, completed.unit_cost[:, keep])
    np.testing.assert_array_equal(fewer.volume, completed.volume[keep])


def test_another_seed_draws_other_numbers(completed):
    other = complete_panel(bare_panel(20_000), seed=2)
    assert abs(np.corrcoef(other.volume, completed.volume)[0, 1]) < 0.05
    assert (other.unit_cost != completed.unit_cost).mean() > 0.99


def test_what_is_given_is_kept_and_only_the_gaps_are_assumed():
    day = datetime.date(2024, 1, 1)
    table = pa.table({"unique_id": ["a", "b"], "ds": [day, day], "units": [1, 1], "price": [2.0, None]})
    static = pa.table({"unique_id": ["a", "b"], "lead_time": [None, 3.0], "vendor": ["x", None]})
    panel = complete_panel(read_panel(table, static=static))
    assert panel.price[0, 0] == 2.0
    assert np.isfinite(panel.price).all() and np.isfinite(panel.unit_cost).all()
    assert panel.lead_time[1] == 3.0 and panel.vendor[0] == "x" and panel.vendor[1].startswith("vendor ")
    assert panel.provenance["lead_time"].startswith("given; 1 of 2 products assumed: ")
    assert "price" not in panel.assumed_columns


def test_active_agents_sold_lately():
    panel = bare_panel(3, weeks=30)
    panel.units[:, 1] = 0
    panel.units[4:, 2] = 0
    assert active_agents(panel).tolist() == [True, False, False]
    assert active_agents(panel, weeks=27).tolist() == [True, False, True]
    with pytest.raises(SettingsError):
        active_agents(panel, weeks=0)
