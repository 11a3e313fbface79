"""Only final actions are reported, and a wrong argument ends in one sentence."""

import subprocess
import sys

import numpy as np
import pytest

from walras.domains.fulfilment.instance import NONE, generate_instance
from walras.domains.fulfilment.policies import Greedy
from walras.domains.fulfilment.process import audit_actions, fulfil, total_reward
from walras.parallel.picard import Picard
from walras.parallel.strategies import PerEvent, WarmStart


@pytest.fixture(scope="module")
def instance():
    return generate_instance(60, 7, 4, -0.8, capacity_share=0.5)


def test_of_an_unconverged_run_only_what_is_final_is_told(instance):
    expected = fulfil(instance, Greedy()).actions
    found = fulfil(instance, Greedy(), Picard(max_rounds=1, assignment=PerEvent(), verify=True))
    final = int(found.info.committed)
    assert not found.converged and 0 < final < 60 and f"{final} of 60" in str(found)
    np.testing.assert_array_equal(found.actions, np.where(np.arange(60) < final, expected, NONE))
    assert found.reward == total_reward(instance, found.actions) and found.fill_rate < np.mean(expected != NONE)
    assert f"fulfilled               {found.fill_rate:.1%}" in str(found)
    np.testing.assert_array_equal(
        found.exhausted, np.flatnonzero(audit_actions(instance, found.actions).out_after >= 0)
    )


def test_a_start_that_no_world_has_is_never_told(instance):
    found = fulfil(instance, Greedy(), Picard(start=WarmStart(np.full(60, 99)), max_rounds=0))
    assert not found.converged and found.fill_rate == 0 and found.reward == 0 and not len(found.exhausted)
    again = fulfil(instance, Greedy(), Picard(start=WarmStart(np.full(60, 99))))
    np.testing.assert_array_equal(again.actions, fulfil(instance, Greedy()).actions)


WRONG = """
from walras.domains.fulfilment.instance import generate_instance
from walras.domains.fulfilment.policies import Greedy
from walras.domains.fulfilment.process import fulfil
from walras.parallel.picard import Picard
from walras.errors import WalrasError

instance = generate_instance(6, 2, 2)
for call in (
    lambda: Picard(30), lambda: Picard(window=None), lambda: Picard(assignment=3), lambda: Picard(start="idle"),
    lambda: Picard(certified=0), lambda: Picard(verify="yes"), lambda: Picard(rows=16), lambda: Picard(rows=(16.0, 4)),
    lambda: Picard(rows=(0, 0)), lambda: Picard(max_rounds="x"), lambda: Picard(max_rounds=-1),
    lambda: fulfil(instance, lambda *a: 0), lambda: fulfil(instance, Greedy), lambda: fulfil(instance, Greedy(), "seq"),
):
    try:
        call()
    except WalrasError as error:
        print(type(error).__name__, error)
"""
SAID = ["`window` is 30", "`window` is None", "`assignment` is 3", "`start` is 'idle'", "`certified` is 0"]
SAID += ["`verify` is 'yes'", "`rows` is 16", "`rows` is (16.0, 4)", "`rows` is (0, 0)", "`max_rounds` is 'x'"]
SAID += ["`max_rounds` is -1", "the rule is a function", "the rule is a ", "`engine` is 'seq'"]


def test_a_part_of_another_kind_is_one_sentence():
    # Apart, since types are checked in this process, which would refuse everything in words of its own.
    found = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == len(SAID), found.stdout
    for line, said in zip(lines, SAID, strict=True):
        assert line.split()[0] == ("InputError" if "the rule" in said else "SettingsError")
        assert said in line and "; " in line
