"""Importing walras is light and changes nothing; help never waits for jax. Checks run in fresh interpreters."""

import json
import subprocess
import sys

HEAVY = ("jax", "numpy", "scipy", "equinox", "pyarrow", "matplotlib", "pandas", "polars")
LONGEST_IMPORT = 0.3
"""Seconds of processor time; a person does not notice less."""

LOADED = """
import json, sys, time
start = time.process_time()
{statement}
spent = time.process_time() - start
print(json.dumps({{"spent": spent, "heavy": sorted(set({heavy!r}) & set(sys.modules))}}))
"""

CHANGES = """
import json, os, pkgutil, signal, warnings
import jax, matplotlib, numpy
def picture():
    return {
        "jax": {name: repr(value) for name, value in jax.config.values.items()},
        "matplotlib": repr(dict(matplotlib.rcParams)),
        "numpy": repr(numpy.geterr()),
        "environment": dict(os.environ),
        "interrupts": repr(signal.getsignal(signal.SIGINT)),
        "folder": sorted(os.listdir(".")),
        "random": repr(numpy.random.get_state()),
    }
before = picture()
import walras
for module in pkgutil.walk_packages(walras.__path__, "walras."):
    __import__(module.name)
%s
after = picture()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""


def answer(program: str, folder=None):
    """Run a program in a fresh interpreter and read the JSON on its last line."""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def loaded(statement: str) -> dict:
    """Say which heavy packages a statement pulls in and what it costs at best (other work may slow one run)."""
    runs = [answer(LOADED.format(statement=statement, heavy=HEAVY)) for _ in range(3)]
    return {"heavy": runs[0]["heavy"], "spent": min(run["spent"] for run in runs)}


def test_importing_the_package_is_light():
    got = loaded("import walras")
    assert got["heavy"] == []
    assert got["spent"] < LONGEST_IMPORT


def test_help_does_not_wait_for_jax():
    commands = (
        ["--help"],
        ["plan", "--help"],
        ["demo", "--help"],
        ["simulate", "--help"],
        ["train", "buyer", "--help"],
    )
    heavy = answer(
        LOADED.format(
            statement=f"from walras.cli.app import main; assert not any(main(list(words)) for words in {commands!r})",
            heavy=HEAVY,
        )
    )["heavy"]
    assert heavy == []


def test_heavy_imports_would_be_found():
    assert answer(LOADED.format(statement="import numpy", heavy=HEAVY))["heavy"] == ["numpy"]


def test_importing_every_module_changes_nothing(tmp_path):
    assert answer(CHANGES % "", tmp_path) == []


def test_a_planted_change_would_be_found(tmp_path):
    planted = "jax.config.update('jax_enable_x64', True); open('planted', 'w').close()"
    assert answer(CHANGES % planted, tmp_path) == ["jax", "folder"]
