"""Own the proof that modules import only what lies below them, and that the check can fail.

EDGE: runs import-linter on the package with the contracts of pyproject.toml.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess:
    """Run import-linter on the package under `folder`/src with the pyproject.toml of `folder`."""
    # `--no-cache`: a cached graph of the real package must not answer for the planted one.
    call = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", call, "--config", str(folder / "pyproject.toml"), "--no-cache"],
        cwd=folder / "src",
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_layers_point_down():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


PLANTED = {
    "data knows the planner": ("data", "import walras.planning.result\n", "walras.data is not allowed to import"),
    "the parallel engine knows inventory": (
        "parallel",
        "from walras.simulation import week\n",
        "walras.parallel is not allowed to import",
    ),
    "evaluation knows the data": ("evaluation", "import walras.data.panel\n", "walras.evaluation is not allowed"),
    "a planner prints a report": ("planning", "import walras.report\n", "walras.planning is not allowed to import"),
    "somebody needs the commands": ("report", "import walras.cli.app\n", "walras.report is not allowed to import"),
}


@pytest.mark.parametrize("layer, line, complaint", PLANTED.values(), ids=PLANTED)
def test_a_planted_import_is_found(tmp_path, layer, line, complaint):
    shutil.copytree(ROOT / "src" / "walras", tmp_path / "src" / "walras", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src" / "walras" / layer / "planted.py").write_text(line)
    result = lint(tmp_path)
    assert result.returncode != 0
    assert complaint in " ".join(result.stdout.split())


def test_a_module_outside_the_layers_is_found(tmp_path):
    shutil.copytree(ROOT / "src" / "walras", tmp_path / "src" / "walras", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src" / "walras" / "stray.py").write_text("")
    result = lint(tmp_path)
    assert result.returncode != 0 and "stray" in result.stdout
