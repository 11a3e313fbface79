"""Own the proof that the example of learned maps runs: on untrained ones, with few products.

EDGE: in this process, as in a user's session; pictures go to a folder of its own.
"""

import runpy
import sys
from pathlib import Path

import jax
import pytest
from small_maps import interface

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "learned_maps.py"


def test_the_example_of_learned_maps_runs(tmp_path, monkeypatch, capsys):
    interface().save(tmp_path / "maps")
    words = ["--agents", "60", "--maps", str(tmp_path / "maps"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *words])
    with jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(EXAMPLE))
    said = capsys.readouterr().out
    assert "33 plans answered in" in said and "simulated use is" in said
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["inverted.png", "sweep.png"]
