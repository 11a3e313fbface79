"""Ask whether any number, word or digest that cases compute moved from what was stored, and prove that a move shows."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parent


def load(name: str):
    """Import a script that lies beside this file."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cases, refresh = load("cases"), load("refresh")
STORED = json.loads(refresh.EXPECTED.read_text())

# Processors and compiler flags change the last bits of single precision, which stays below 1e-5. Longer networks add
# up more of them, and the search of a plan goes on from its own results: with and without optimization by the compiler
# maps differed by up to 1e-5 and plans by up to 2e-4. Whole numbers, words and digests are the same everywhere.
ROUNDING, NETWORKS, SEARCHES = 1e-5, 5e-5, 1e-3
WIDER = {
    "edge, numbers of the demo": SEARCHES,
    "maps, default": NETWORKS,
    "maps, retail": NETWORKS,
    "plan, cohort": SEARCHES,
    "plan, learned maps": SEARCHES,
    "plan, one resource": SEARCHES,
    "plan, other rules": SEARCHES,
    "plan, revised": SEARCHES,
    "plan, two resources": SEARCHES,
    "training, buyer": NETWORKS,
    "training, dual map": NETWORKS,
    "training, primal map": NETWORKS,
}


def is_number(value: Any) -> bool:
    """Say whether a value is compared with a tolerance: Booleans and whole numbers are not."""
    return isinstance(value, float)


def flat_numbers(values: Any) -> list[float] | None:
    """Return the numbers of nested lists that hold nothing else, at least one of them with a fraction; else None."""
    if not isinstance(values, list) or not values:
        return None
    flat: list[float] = []
    for value in values:
        if isinstance(value, list):
            inner = flat_numbers(value) if value else []
            if inner is None:
                return None
            flat += inner
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat.append(float(value))
        else:
            return None
    return flat


def differences(now: Any, stored: Any, rtol: float, where: str = "") -> list[str]:
    """List what moved; numbers of one list are compared relative to the largest of them."""
    if isinstance(stored, dict) and isinstance(now, dict):
        found = [f"{where}: keys {sorted(now.keys() ^ stored.keys())}"] if now.keys() != stored.keys() else []
        shared = [name for name in stored if name in now]
        return found + sum((differences(now[name], stored[name], rtol, f"{where}/{name}") for name in shared), [])
    if isinstance(stored, list) and isinstance(now, list):
        if len(stored) != len(now):
            return [f"{where}: {len(now)} items instead of {len(stored)}"]
        ours, theirs = flat_numbers(now), flat_numbers(stored)
        if ours is not None and theirs is not None and len(ours) == len(theirs):
            whole = all(float(value).is_integer() for value in theirs)
            scale = max(abs(value) for value in theirs)
            gaps = np.abs(np.subtract(ours, theirs))
            if whole and isinstance(_first(stored), int):
                return [] if not gaps.any() else [f"{where}: {now} instead of {stored}"]
            allowed = rtol * np.maximum(np.abs(theirs), scale / 10)
            moved = gaps > allowed
            return [f"{where}: off by {float((gaps / (scale or 1.0)).max()):.2g} of the largest"] if moved.any() else []
        pairs = zip(now, stored, strict=True)
        return sum((differences(a, b, rtol, f"{where}[{place}]") for place, (a, b) in enumerate(pairs)), [])
    if is_number(stored) and isinstance(now, int | float) and not isinstance(now, bool):
        return [] if abs(now - stored) <= rtol * abs(stored) else [f"{where}: {now} instead of {stored}"]
    return [] if type(now) is type(stored) and now == stored else [f"{where}: {now!r} instead of {stored!r}"]


def _first(values: Any) -> Any:
    """Return the first number of nested lists."""
    return _first(values[0]) if isinstance(values, list) and values else values


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_what_a_case_computes_did_not_move(name):
    moved = differences(refresh.plain(cases.CASES[name]()), STORED[name], WIDER.get(name, ROUNDING))
    assert not moved, "\n".join(moved)


def test_what_is_stored_is_what_is_computed():
    assert STORED.keys() == cases.CASES.keys()
    assert set(WIDER) <= set(STORED)


@pytest.mark.parametrize("name", [cases.LOST, cases.BACKLOG])
def test_blocks_change_no_bit(name):
    assert len({cases.run_in_blocks(name, block)[0] for block in cases.BLOCKS}) == 1


def test_the_runs_have_something_to_move():
    lost, backlog = STORED["run, " + cases.LOST], STORED["run, " + cases.BACKLOG]
    for kept in (lost, backlog):
        assert all(np.abs(kept[name]).max() > 0 for name in ("reward", "sales", "orders", "utilization"))
    assert np.max(lost["lost_sales"]) > 0 and np.max(backlog["refused"]) > 0


# --- a move shows -----------------------------------------------------------------------------------------------------


def moved_leaves(values: Any) -> list[Any]:
    """Return copies of values in each of which one leaf is another one: numbers by one in a hundred, words, flags."""
    if isinstance(values, dict):
        return [{**values, name: moved} for name, value in values.items() for moved in moved_leaves(value)[:2]]
    if isinstance(values, list):
        return [
            [*values[:place], moved, *values[place + 1 :]]
            for place, value in enumerate(values)
            if not isinstance(value, float) or abs(value) > 0.5 * max(map(abs, flat_numbers(values) or [value]))
            for moved in moved_leaves(value)[:1]
        ]
    if isinstance(values, bool):
        return [not values]
    if isinstance(values, int):
        return [values + 1]
    if isinstance(values, float):
        return [values * 1.01] if values else []
    return [f"{values}?"]


@pytest.mark.parametrize("name", sorted(STORED))
def test_a_move_of_a_stored_value_is_noticed(name):
    """Prove that the comparison can fail, and that it passes where nothing moved."""
    rtol = WIDER.get(name, ROUNDING)
    assert not differences(STORED[name], STORED[name], rtol)
    changed = moved_leaves(STORED[name])
    assert changed and all(differences(each, STORED[name], rtol) for each in changed)
    assert differences({}, STORED[name], rtol)


@pytest.mark.parametrize("name", [cases.LOST, cases.BACKLOG])
def test_a_change_of_the_simulator_is_noticed(name):
    """Charge one percent more, or let unmet demand wait where it was lost: the numbers move."""
    given = cases.configuration(name)
    dearer = {**given, "shadow_prices": 1.01 * given["shadow_prices"]}
    other = {**given, "backlog": not given.get("backlog", False)}
    for changed in (dearer, other):
        assert differences(refresh.plain(cases.totals_of(changed)), STORED["run, " + name], ROUNDING)
