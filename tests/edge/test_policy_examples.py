"""Own the proof that the code of docs/how-to/write-a-policy.md and of the examples runs.

EDGE: in this process, as in a user's session.
"""

import re
import runpy
from pathlib import Path

import jax
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_document_runs_from_top_to_bottom(capsys):
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "how-to" / "write-a-policy.md").read_text(), re.M | re.S
    )
    assert len(blocks) >= 8
    names: dict = {}
    with jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(compile(block, "docs/how-to/write-a-policy.md", "exec"), names)
    said = capsys.readouterr().out
    assert "is a black box whose orders have no derivative" in said and "passed all 7 checks" in said


def test_the_example_of_own_policies_runs(capsys):
    with jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(ROOT / "examples" / "own_policy.py"))
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()][:1] == ["newsvendor"]


def test_the_example_of_torch_runs(capsys):
    pytest.importorskip("torch")
    with jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(ROOT / "examples" / "torch_policy.py"))
    assert "reward of the model" in capsys.readouterr().out


def test_the_example_of_an_own_process_runs(capsys):
    runpy.run_path(str(ROOT / "examples" / "own_process.py"))
    said = capsys.readouterr().out
    assert re.search(r"exact +True", said) and re.search(r"converged +True", said)
    taken, left = map(int, re.search(r"(\d+) rides taken, (\d+) licences left", said).groups())
    assert 0 < taken == 450 - left
    code = (ROOT / "examples" / "own_process.py").read_text()
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 40


def test_the_document_of_parallel_decisions_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "how-to" / "parallel-in-time.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    names: dict = {}
    with jax.numpy_rank_promotion("allow"):
        for block in blocks[:2]:  # learning prices is run by the command
            smaller = block.replace("orders=20_000, products=6_600", "orders=60, products=7, centres=4")
            exec(compile(smaller.replace("width=64", "width=8"), "docs/how-to/parallel-in-time.md", "exec"), names)
    assert len(blocks) == 3 and "equal to one by one" in capsys.readouterr().out
