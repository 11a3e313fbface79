"""Ask whether the numbers moved: two small runs by every engine against what was kept, and proof that a move shows."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from walras.parallel.sequential import Sequential

FOLDER = Path(__file__).parent
ENGINES = [Sequential()]
RELATIVE = 1e-5
"""Rounding in single precision stays below; a move of one in ten thousand is caught."""


def load_refresh():
    """Import the script that lies beside this file."""
    spec = importlib.util.spec_from_file_location("golden_refresh", FOLDER / "refresh.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


refresh = load_refresh()
CONFIGURATIONS = refresh.configurations()
KEPT = json.loads(refresh.EXPECTED.read_text())


def compare(found: dict[str, list], kept: dict[str, list]) -> None:
    """Refuse any number that moved, relative to itself and to the largest of its kind."""
    assert found.keys() == kept.keys()
    for name, values in kept.items():
        scale = np.abs(np.asarray(values)).max()
        np.testing.assert_allclose(found[name], values, rtol=RELATIVE, atol=RELATIVE * scale / 10, err_msg=name)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_the_numbers_did_not_move(name, engine):
    compare(refresh.found(CONFIGURATIONS[name], engine), KEPT[name])


def test_what_is_kept_is_what_is_run_and_has_something_to_move():
    assert KEPT.keys() == CONFIGURATIONS.keys()
    for kept in KEPT.values():
        assert all(np.abs(kept[name]).max() > 0 for name in ("reward", "sales", "orders", "utilization"))
    assert np.max(KEPT["lost sales, one resource"]["lost_sales"]) > 0
    assert np.max(KEPT["backlog, volume and storage, shares"]["refused"]) > 0


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_a_move_of_one_in_ten_thousand_is_caught(name):
    for key, values in KEPT[name].items():
        if np.abs(values).max() > 0:
            moved = {**KEPT[name], key: (np.asarray(values) * (1 + 1e-4)).tolist()}
            with pytest.raises(AssertionError):
                compare(moved, KEPT[name])


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_a_change_of_the_simulator_is_caught(name):
    configuration = CONFIGURATIONS[name]
    for part in ("shadow_prices", "backlog"):
        changed = {"shadow_prices": 1.01 * configuration["shadow_prices"], "backlog": "backlog" not in configuration}
        with pytest.raises(AssertionError):
            compare(refresh.found({**configuration, part: changed[part]}), KEPT[name])
