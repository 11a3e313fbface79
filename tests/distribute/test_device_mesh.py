"""Agents on several devices give what one device gives, and only totals cross.

Several devices need a fresh interpreter; one program answers all questions about them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import happenings, order_up_to, shop

from walras.distribute import device_mesh
from walras.distribute.device_mesh import FIRST, LAST, SHARED, AgentMesh, pad, sharded
from walras.errors import SettingsError, ShapeError
from walras.simulation.run import simulate

CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def answer() -> dict:
    """Ask three forced host devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=3"
    cache = {name.upper(): str(value) for name in CACHE if (value := getattr(jax.config, name)) is not None}
    done = subprocess.run(
        [sys.executable, SUPPORT / "shard_run.py"],
        env={**os.environ, **cache, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_all_devices_hold_a_part(answer):
    assert (answer["devices"], answer["padded"], answer["held"]) == (3, 9, 3)


def test_totals_are_those_of_one_device(answer):
    assert answer["totals"] < 1e-6 and answer["same_bits"]


def test_agents_that_are_kept_are_lined_up_again(answer):
    assert answer["kept"] == 0.0
    assert answer["shared"] == [8, 8]


def test_gradients_are_those_of_one_device(answer):
    assert answer["gradient_size"] > 1.0
    assert answer["gradient"] < 1e-5 and answer["tangent"] < 1e-5


def test_nothing_crosses_inside_the_backward_pass(answer):
    assert answer["collectives"]["inside"] == 0 < answer["collectives"]["main"]


def test_simulate_over_a_mesh_is_simulate(answer):
    assert answer["simulate"] < 1e-6 and answer["simulate_shapes"] and answer["simulate_same_bits"]
    assert answer["simulate_scenarios"] < 1e-6 and answer["simulate_weekly"] < 1e-6
    assert answer["simulate_gradient"] < 1e-5 and answer["simulate_gradient_compiled"] < 1e-5


def test_agents_that_fill_a_mesh_up_weigh_nothing(answer):
    assert answer["simulate_weightless"] > 1e-2  # with weight they would be seen


def test_a_table_as_long_as_a_part_is_not_cut(answer):
    assert answer["simulate_like_a_part"] < 1e-6


def test_a_mesh_names_the_agent_of_an_infinity(answer):
    assert "week 3" in answer["simulate_nan"] and "agent 5" in answer["simulate_nan"]


def test_agents_that_do_not_divide_evenly_are_refused(answer):
    assert "7 agents but needs a multiple of 3" in answer["refused"]


def test_parts_follow_each_other():
    mesh = AgentMesh.local()
    assert mesh.n_devices == 1 and mesh.processes == (0,)
    assert mesh.local_slice(10, 17) == slice(10, 17)


class Apart(AgentMesh):
    """Pretend to be four devices of two processes."""

    n_devices, processes = 4, (0, 1)


def slices(monkeypatch, start, stop):
    monkeypatch.setattr(jax.sharding.Mesh, "local_devices", property(lambda mesh: [0, 1]))
    found = []
    for process in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        found.append(Apart(AgentMesh.of(jax.devices()[:1]).mesh).local_slice(start, stop))
    return found


@pytest.mark.parametrize("start, stop", [(0, 8), (3, 10), (5, 6), (4, 4)])
def test_parts_of_two_processes_cover_the_agents_once(monkeypatch, start, stop):
    parts = slices(monkeypatch, start, stop)
    assert [agent for part in parts for agent in range(part.start, part.stop)] == list(range(start, stop))
    assert parts[0].stop - parts[0].start <= -(-(stop - start) // 4) * 2


def test_simulate_refuses_devices_of_other_processes(monkeypatch):
    people = shop()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(SettingsError, match="devices of the processes .0, 1. but"):
        simulate(people, happenings(people), order_up_to(people), mesh=Apart(AgentMesh.of(jax.devices() * 2).mesh))


def test_bytes_of_process_0_reach_those_who_know_no_length(monkeypatch):
    monkeypatch.setattr(Apart, "processes", (0, 1))
    mesh, sent = Apart(AgentMesh.local().mesh), b"abc\0"
    ours = iter([np.array(len(sent), np.int64), np.frombuffer(sent, np.uint8)])
    monkeypatch.setattr(device_mesh, "_exchange", lambda row: np.stack([device_mesh._pack([next(ours)]), row]))
    assert mesh.first_bytes(b"") == sent
    assert AgentMesh.local().first_bytes(sent) == sent


def test_padding_repeats_the_last_agent_and_leaves_numbers_alone():
    tree = {"a": np.arange(6.0).reshape(2, 3), "b": jnp.asarray(2.0), "c": "name"}
    grown = pad(tree, LAST, 5)
    assert grown["a"].tolist() == [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5]]
    assert grown["b"] is tree["b"] and grown["c"] == "name"
    assert pad(tree, FIRST, 3)["a"].shape == (3, 3)


def test_one_device_is_the_function_itself():
    mesh = AgentMesh.local()
    total = sharded(lambda x, scale, word: (x * scale).sum(), mesh, (LAST, SHARED, SHARED))
    assert float(total(jnp.arange(4.0), 2.0, "word")) == 12.0


def test_totals_of_processes_are_added_exactly_in_their_own_types(monkeypatch):
    here = {"money": np.float32([1e8, 1.0]), "count": np.int64([2**40]), "flag": np.zeros((), np.int8)}
    there = {"money": np.float32([1.0, 2.0]), "count": np.int64([1]), "flag": np.ones((), np.int8)}
    rows = [device_mesh._pack(jax.tree.leaves(tree)) for tree in (here, there, here)]
    monkeypatch.setattr(device_mesh, "_exchange", lambda row: np.stack(rows))
    monkeypatch.setattr(Apart, "processes", (0, 1, 2))
    mesh = Apart(AgentMesh.local().mesh)
    total = mesh.totals(here)
    assert total["money"].tolist() == [float(np.float32(200000001.0)), 4.0]
    assert total["count"].tolist() == [2**41 + 1] and total["flag"] == 1
    assert {name: leaf.dtype for name, leaf in total.items()} == {name: leaf.dtype for name, leaf in here.items()}
    assert mesh.first(there)["count"].tolist() == [2**40]


def test_a_part_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(jax.sharding.Mesh, "local_devices", property(lambda mesh: [0, 1]))
    with pytest.raises(ShapeError, match="3 agents but needs a multiple of 2"):
        AgentMesh.local().place(np.zeros((2, 3)), LAST)
