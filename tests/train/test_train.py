"""The functions of `walras.train` hand settings, panels and folders on, and print results as tables."""

import subprocess
import sys

import pytest

import walras
from walras.population.generate import generate_panel
from walras.train.settings import BuyerTraining, map_training


@pytest.fixture
def calls(monkeypatch):
    """Stand in for trainings; list their arguments."""
    seen = []
    for name in ("maps_training.train_map", "buyer_training.train_buyer"):
        monkeypatch.setattr(f"walras.train.{name}", lambda *args, **named: seen.append((args, named)))
    return seen


def test_maps_take_presets_or_settings(calls, tmp_path):
    walras.train.dual("paper", out=tmp_path, resume=False)
    changed = map_training("small", "primal", steps=7)
    walras.train.primal(changed, out=tmp_path)
    (kind, panel, settings, out), named = calls[0]
    assert (kind, panel, out, named["resume"]) == ("dual map", None, tmp_path, False)
    assert settings == map_training("paper", "dual") and settings.price_weight == 1.0
    assert calls[1][0] == ("primal map", None, changed, tmp_path) and changed.steps == 7


def test_a_buyer_takes_a_panel(calls, tmp_path):
    panel = generate_panel(4, 20, 0)
    walras.train.buyer(panel, out=tmp_path)
    assert calls[0][0] == (panel, BuyerTraining(), tmp_path)


def test_policies_are_compared_on_the_last_weeks_of_a_panel():
    comparison = walras.train.compare_policies(generate_panel(12, 44, 5), ("newsvendor",), holdout=12)
    assert comparison.outcomes["newsvendor"].weeks == 12 and "newsvendor" in str(comparison)


def test_importing_it_imports_nothing_heavy():
    words = "import walras.train, sys; print(sorted({'jax', 'numpy', 'pydantic'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
