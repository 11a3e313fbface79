"""Hold reading to real weekly tables, where a folder with them is named by the environment."""

import os
from pathlib import Path

import numpy as np
import pytest

from walras.data.imputation import complete_panel
from walras.data.panel import active_agents
from walras.data.read import read_panel

FOLDER = os.environ.get("WALRAS_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="WALRAS_REAL_DATA names no folder with real tables")


def test_the_gift_wholesaler_is_read_and_completed():
    panel = read_panel(Path(FOLDER or "") / "online_retail_ii_weekly.parquet")
    assert panel.units.shape == (83, 4378)
    assert panel.n_agents - active_agents(panel).sum() == 1098
    completed = complete_panel(panel)
    for name in ("price", "unit_cost", "lead_time", "volume", "fill_rate"):
        assert np.isfinite(getattr(completed, name)).all(), name
    assert "unit_cost" in completed.assumed_columns and "price" not in completed.assumed_columns


def test_the_supermarket_is_read_and_rows_before_launch_do_not_count():
    panel = read_panel(Path(FOLDER or "") / "m5_weekly_2015_2016.parquet")
    assert panel.units.shape == (54, 30490)
    assert (~panel.on_sale).sum() == 8041 and np.isfinite(panel.price).all()
    assert any("8,041 rows of 551 products" in note for note in panel.notes)
