"""The public names of `walras`: a fixed list, documented, loaded on first use."""

import subprocess
import sys
from pathlib import Path

import pytest

import walras

ROOT = Path(__file__).parents[2]

PUBLIC = {
    *("read_panel", "generate_panel", "Panel", "plan", "PlanSettings", "CostSettings", "PlanResult", "write_report"),
    *("simulate", "simulate_out_of_core", "generate", "reward_gradient", "Population", "ExogenousPaths", "Record"),
    *(
        "Rollout",
        "Policy",
        "Observation",
        "positive_part",
        "check_policy",
        "compare_policies",
        "Controller",
        "Interface",
    ),
}
NAMESPACES = {"policies", "costs", "exogenous", "maps", "train", "distribute", "parallel", "fulfilment"}


def test_the_public_names_are_these():
    assert set(walras.__all__) - {"__version__"} == PUBLIC | NAMESPACES


@pytest.mark.parametrize("name", sorted(PUBLIC | NAMESPACES))
def test_a_public_name_is_there_and_documented(name):
    assert getattr(walras, name).__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("name", sorted(NAMESPACES))
def test_the_names_of_a_namespace_are_there(name):
    namespace = getattr(walras, name)
    for inner in getattr(namespace, "__all__", ()):
        assert getattr(namespace, inner) is not None


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute `plam`"):
        _ = walras.plam


def test_the_python_reference_is_up_to_date():
    script = ROOT / "tools" / "api_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
