"""Hold the writing of files to its promise: the old file or the new one, and nothing beside it."""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from walras.data.read import read_panel
from walras.data.write import panel_to_table, write_atomic, write_table, write_text
from walras.errors import InputError
from walras.population.generate import generate_panel


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_leaves_the_old_file(failure, tmp_path):
    path = tmp_path / "report.html"
    write_text(path, "old")

    def half(aside):
        aside.write_text("ne")
        raise failure

    with pytest.raises(failure):
        write_atomic(path, half)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_finished_write_replaces_the_file_readably(tmp_path):
    path = tmp_path / "report.html"
    write_text(path, "old")
    write_text(path, "new, with ü")
    assert path.read_bytes().decode("utf-8") == "new, with ü"
    assert os.listdir(tmp_path) == ["report.html"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("place", ["missing/report.html", "."])
def test_an_impossible_place_is_refused_in_one_sentence(place, tmp_path):
    with pytest.raises(InputError) as refusal:
        write_text(tmp_path / place, "text")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_panel_survives_being_written_and_read(suffix, tmp_path):
    panel = generate_panel(agents=30, weeks=20, seed=4)
    path = tmp_path / f"table{suffix}"
    write_table(path, panel_to_table(panel))
    again = read_panel(path)
    for name in ("agents", "weeks", "units", "on_sale", "lead_time", "volume", "fill_rate", "vendor", "category"):
        np.testing.assert_array_equal(getattr(again, name), getattr(panel, name), err_msg=name)
    for name in ("price", "unit_cost"):
        np.testing.assert_array_equal(getattr(again, name)[panel.on_sale], getattr(panel, name)[panel.on_sale])


def test_a_forecast_survives_being_written_and_read():
    from dataclasses import replace

    panel = generate_panel(agents=5, weeks=10, seed=4)
    panel = replace(panel, forecast=np.arange(15.0).reshape(3, 5))
    np.testing.assert_array_equal(read_panel(panel_to_table(panel)).forecast, panel.forecast)


def test_a_table_of_arrays_is_written_by_its_suffix(tmp_path):
    write_table(tmp_path / "t.parquet", {"week": np.array([1, 2]), "label": np.array(["a", "b"])})
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == [{"week": 1, "label": "a"}, {"week": 2, "label": "b"}]
    with pytest.raises(InputError, match=r"\.xlsx"):
        write_table(tmp_path / "t.xlsx", {"week": np.array([1])})
