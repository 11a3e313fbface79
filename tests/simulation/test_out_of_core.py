"""Chunks add up to the whole, resume after a kill with the same bits, and need the memory of two chunks."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ranged import Killed, MadeUp, policy_of, simulate_made_up
from shops import Leaning, assert_same, happenings, order_up_to, prices, shop, start

from walras.data.array_file import read_arrays, write_arrays
from walras.data.resume_log import KIND
from walras.distribute.device_mesh import AgentMesh
from walras.errors import InputError, NotFiniteError, ShapeError
from walras.exogenous.disk_paths import PathsWriter, StoredPaths
from walras.policies.base_stock import PricedNewsvendor
from walras.progress import Progress
from walras.simulation.out_of_core import ChunkedRecord, MemorySource, StoredSource, simulate_out_of_core
from walras.simulation.record import Record
from walras.simulation.run import simulate

AGENTS, RANGE = 23, 9
SUPPORT = Path(__file__).parent / "support"


def leaning(agents):
    """Let every agent lean on its own level, a third of a unit apart, so that rounding shows."""
    return Leaning(jnp.linspace(10.0, 40.0, agents))


@pytest.fixture(scope="module")
def question():
    population = shop(AGENTS)
    return population, happenings(population), leaning(AGENTS), start(population), prices(population)


def in_chunks(question, **options):
    population, exogenous, policy, initial, shadow_prices = question
    source = MemorySource(population, exogenous, initial)
    return simulate_out_of_core(source, policy, shadow_prices=shadow_prices, **{"chunk_agents": RANGE, **options})


def whole(question, **options):
    population, exogenous, policy, initial, shadow_prices = question
    return simulate(population, exogenous, policy, initial=initial, shadow_prices=shadow_prices, **options)


def assert_adds_up(found, expected):
    """Compare totals to 1e-6 of their largest week: money of one sign and the other may cancel to nearly nothing."""
    for one, other in zip(jax.tree.leaves(found.totals), jax.tree.leaves(expected.totals), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * float(np.abs(other).max()))


@pytest.mark.parametrize("size", [RANGE, AGENTS])
def test_ranges_add_up_to_the_whole(question, size):
    found, expected = in_chunks(question, chunk_agents=size), whole(question)
    assert_adds_up(found, expected)
    np.testing.assert_allclose(found.reward, expected.reward, rtol=1e-6)
    assert found.totals.reward.dtype == np.float64 and (found.n_chunks, found.resumed) == (-(-AGENTS // size), 0)
    assert (found.agents, found.final) == (None, None)


def test_scenarios_and_backlog_pass_through(question):
    population = question[0]
    many = (population, happenings(population, scenarios=2), *question[2:])
    found, expected = in_chunks(many, backlog=True), whole(many, backlog=True)
    assert_adds_up(found, expected)
    assert found.reward.shape == (2,)


def test_the_same_bits_run_after_run(question):
    assert_same(in_chunks(question).totals, in_chunks(question).totals)


def test_a_wrong_sum_would_be_found(question):
    """Plant an agent counted twice."""
    population = eqx.tree_at(lambda p: p.weight, question[0], question[0].weight.at[RANGE].set(2.0))
    found, expected = in_chunks((population, *question[1:])), whole(question)
    assert not np.allclose(found.totals.demand, np.asarray(expected.totals.demand), rtol=1e-6)


def test_traces_of_the_agents_asked_for(question):
    asked = (20, 3, 11, 5, 4)
    found, expected = in_chunks(question, record=ChunkedRecord(agents=asked)), whole(question, record=Record.traces())
    for name in ("orders", "stock_end", "reward"):
        np.testing.assert_allclose(
            getattr(found.agents, name), getattr(expected.agents, name)[:, np.array(asked)], rtol=1e-6
        )
    np.testing.assert_allclose(
        found.agents.utilization, expected.agents.utilization[:, np.array(asked)], rtol=1e-6, atol=1e-6
    )


def test_the_final_state_where_asked_for(question):
    found = in_chunks(question, record=ChunkedRecord(final=True))
    assert_same(found.final, whole(question).final, exactly=False, rtol=1e-6)


class Part(AgentMesh):
    """Be one of two processes that does not hear of the other: the first takes four agents of every range."""

    number = 0

    def local_slice(self, start, stop):
        cut = min(start + 4, stop)
        return slice(start, cut) if self.number == 0 else slice(cut, stop)


class Other(Part):
    """Be the other one; of a range of four it has none."""

    number = 1


def test_parts_of_processes_add_up_to_the_whole(question):
    record = ChunkedRecord(agents=(20, 3, 1), final=True)
    whole = in_chunks(question, record=record, chunk_agents=RANGE + 1)  # 10, 10 and 3 agents
    parts = [
        in_chunks(question, record=record, chunk_agents=RANGE + 1, mesh=kind(AgentMesh.local().mesh))
        for kind in (Part, Other)
    ]
    for kept in ("totals", "end_value", "agents", "final"):
        one, other, expected = (jax.tree.leaves(getattr(found, kept)) for found in (*parts, whole))
        for ours, theirs, all_of_them in zip(one, other, expected, strict=True):
            assert ours.shape == all_of_them.shape
            np.testing.assert_allclose(ours + theirs, all_of_them, rtol=0, atol=2e-6 * np.abs(all_of_them).max())
    assert np.abs(parts[1].final.stock_end).sum() > 0 and np.abs(parts[1].final.stock_end[-3:]).sum() == 0


def test_a_policy_by_range(question):
    level = question[2].level
    found = in_chunks((*question[:2], lambda a, b: Leaning(level[a:b]), *question[3:]))
    assert_same(found.totals, in_chunks(question).totals)


def test_every_range_gets_the_longest_pipeline(question):
    """A window that ends before the planned lead time would show another price to some ranges."""
    population, exogenous = question[:2]
    late = jnp.zeros_like(exogenous.arrivals.weeks).at[:, 0].set(3)
    exogenous = eqx.tree_at(lambda e: e.arrivals.weeks, exogenous, late)
    source = MemorySource(population, exogenous)
    found = simulate_out_of_core(source, PricedNewsvendor(), shadow_prices=question[4], chunk_agents=RANGE)
    expected = simulate(population, exogenous, PricedNewsvendor(), shadow_prices=question[4])
    assert_adds_up(found, expected)


def test_from_disk_as_from_memory(question, tmp_path):
    population, exogenous, policy, _, shadow_prices = question
    with PathsWriter(tmp_path / "paths", AGENTS) as writer:
        writer.write(population, exogenous)
    source = StoredSource(StoredPaths.open(tmp_path / "paths"))
    found = simulate_out_of_core(source, policy, shadow_prices=shadow_prices, chunk_agents=RANGE)
    memory = simulate_out_of_core(
        MemorySource(population, exogenous), policy, shadow_prices=shadow_prices, chunk_agents=RANGE
    )
    assert_same(found.totals, memory.totals)
    assert np.asarray(found.totals.receipts).sum() > 0


def test_finished_ranges_are_not_computed_again(question, tmp_path):
    record = ChunkedRecord(agents=(2, 19), final=True)
    first = in_chunks(question, journal=tmp_path / "journal", record=record)
    again = in_chunks(question, journal=tmp_path / "journal", record=record)
    assert (first.resumed, again.resumed) == (0, first.n_chunks)
    for part in ("totals", "agents", "final", "end_value"):
        assert_same(getattr(again, part), getattr(first, part))


def damaged(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)


def swapped(path):
    shutil.copy(sorted(path.parent.glob("agents-*"))[0], path)


def of_another(path):
    stored = read_arrays(path, KIND)
    write_arrays(path, KIND, stored.arrays, {**stored.header, "job": "another"})


HARM = {
    "a flipped byte": damaged,
    "cut": lambda p: p.write_bytes(p.read_bytes()[:100]),
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("no"),
    "another job": of_another,
    "another range": swapped,
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_damaged_note_is_computed_again(question, tmp_path, harm):
    first = in_chunks(question, journal=tmp_path / "journal")
    harm(sorted((tmp_path / "journal").glob("agents-*"))[1])
    again = in_chunks(question, journal=tmp_path / "journal")
    assert again.resumed == first.n_chunks - 1
    assert_same(again.totals, first.totals)
    assert in_chunks(question, journal=tmp_path / "journal").resumed == first.n_chunks


OTHER = {
    "prices": (lambda q: (*q[:4], q[4] + 1), {}, "shadow_prices"),
    "policy": (lambda q: (*q[:2], leaning(AGENTS + 1), *q[3:]), {}, "policy"),
    "policy class": (lambda q: (*q[:2], order_up_to(q[0]), *q[3:]), {}, "policy"),
    "paths": (lambda q: (q[0], happenings(q[0], seed=1), *q[2:]), {}, "source"),
    "chunk size": (lambda q: q, {"chunk_agents": 7}, "chunk_agents"),
    "backlog": (lambda q: q, {"backlog": True}, "backlog"),
    "record": (lambda q: q, {"record": ChunkedRecord(final=True)}, "record"),
}


@pytest.mark.parametrize("change, options, word", OTHER.values(), ids=OTHER)
def test_the_journal_of_another_question_is_refused(question, tmp_path, change, options, word):
    in_chunks(question, journal=tmp_path / "journal")
    with pytest.raises(InputError, match=f"journal of another question .*{word}"):
        in_chunks(change(question), journal=tmp_path / "journal", **options)


def test_a_folder_that_is_no_journal_is_refused(question, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        in_chunks(question, journal=tmp_path)
    with pytest.raises(InputError, match="cannot be a journal"):
        in_chunks(question, journal=tmp_path / "mine.txt")
    in_chunks(question, journal=tmp_path / "journal")
    (tmp_path / "journal" / "question.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        in_chunks(question, journal=tmp_path / "journal")


WRONG = {
    "chunk size": (dict(chunk_agents=0), InputError, "at least 1 agent"),
    "prices": (dict(shadow_prices=jnp.zeros((3, 3))), ShapeError, "8 weeks"),
    "outside": (dict(record=ChunkedRecord(agents=(3, AGENTS))), InputError, "has agent 23 but"),
    "twice": (dict(record=ChunkedRecord(agents=(3, 3))), InputError, "names an agent twice"),
}


@pytest.mark.parametrize("options, error, sentence", WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_one_sentence(question, options, error, sentence):
    population, exogenous, policy, initial, shadow_prices = question
    source = MemorySource(population, exogenous, initial)
    with pytest.raises(error, match=sentence):
        simulate_out_of_core(source, policy, **{"shadow_prices": shadow_prices, **options})


def test_a_nan_is_found_in_its_range(question):
    exogenous = eqx.tree_at(lambda e: e.demand, question[1], question[1].demand.at[4, RANGE + 2].set(jnp.nan))
    with pytest.raises(NotFiniteError, match='week 4 for agent "11"'):
        in_chunks((question[0], exogenous, *question[2:]))


def test_a_source_that_fails_ends_the_run(question):
    class Failing(MemorySource):
        def read(self, start, stop):
            if start:
                raise OSError("gone")
            return super().read(start, stop)

    source = Failing(*question[:2])
    with pytest.raises(OSError, match="gone"):
        simulate_out_of_core(source, question[2], shadow_prices=question[4], chunk_agents=RANGE)


def test_progress_counts_ranges(question, tmp_path):
    class Steps(Progress):
        seen = []

        def step(self, done, total):
            self.seen.append((done, total))

    in_chunks(question, progress=Steps(), journal=tmp_path / "journal")
    assert Steps.seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def in_a_process(program, *words, ok=0):
    """Run a program in a fresh interpreter."""
    paths = os.pathsep.join([str(SUPPORT), *sys.path])
    cache = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir or "")}
    environment = {**os.environ, **cache, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == ok, done.stderr
    return done.stdout


KILL = "import sys, ranged; ranged.simulate_made_up(ranged.Killed(1024, 8, at=768), 256, sys.argv[1])"


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path):
    in_a_process(KILL, tmp_path / "journal", ok=-signal.SIGKILL)
    source = MadeUp(1024, 8)
    assert Killed(1024, 8, at=768).identity() == source.identity()
    resumed = simulate_made_up(source, 256, tmp_path / "journal")
    assert 0 < resumed.resumed < resumed.n_chunks
    straight = simulate_made_up(source, 256)
    for part in ("totals", "agents", "end_value"):
        assert_same(getattr(resumed, part), getattr(straight, part))


MEMORY = """
import json, resource, sys, ranged
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
agents, size = int(sys.argv[1]), int(sys.argv[2])
ranged.simulate_made_up(ranged.MadeUp(4 * 16384, 26), 16384)
before = peak()
ranged.simulate_made_up(ranged.MadeUp(agents, 26), size)
print(json.dumps({"grown": peak() - before}))
"""
ALL, BYTES = 18 * 16384, 26 * (5 * 4 + 1)


@pytest.mark.skipif(os.name == "nt", reason="needs resource")
def test_memory_is_that_of_the_range():
    """Paths of all agents are 154 MiB, and simulating them at once takes 500; fourteen more ranges take no more."""
    grown = json.loads(in_a_process(MEMORY, ALL, 16384))["grown"]
    assert grown < 75 < ALL * BYTES / 2**20 / 2


def test_the_made_up_source_does_not_depend_on_the_ranges():
    source = MadeUp(1000, 8)
    one, other = source.read(256, 1000), source.read(512, 700)
    cut = jax.tree.map(lambda leaf: leaf[..., 256:444] if leaf.ndim > 1 else leaf, one[1])
    assert_same(cut, other[1])
    assert policy_of() is not None
