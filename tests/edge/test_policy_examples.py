"""Own the proof that the code of docs/policies.md and of the examples runs.

EDGE: in this process, as in a user's session.
"""

import re
import runpy
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]


def test_the_document_runs_from_top_to_bottom(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "policies.md").read_text(), re.M | re.S)
    assert len(blocks) >= 8
    names: dict = {}
    with jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(compile(block, "docs/policies.md", "exec"), names)
    said = capsys.readouterr().out
    assert "is a black box whose orders have no derivative" in said and "kept all 7 promises" in said


def test_the_example_of_own_policies_runs(capsys):
    with jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(ROOT / "examples" / "own_policy.py"))
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()][:1] == ["newsvendor"]


def test_the_example_of_torch_runs(capsys):
    pytest.importorskip("torch")
    with jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(ROOT / "examples" / "torch_policy.py"))
    assert "reward of the model" in capsys.readouterr().out
