"""Simulation of populations that do not fit in memory: chunk after chunk of agents, totals added.

CONTRACT: the same chunk size gives the same bits, resumed or not.
"""

import abc
import contextlib
import io
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr
from jaxtyping import Array, Float

from walras import __version__
from walras.data.resume_log import ResumeLog, Span, digest
from walras.distribute.device_mesh import AgentMesh
from walras.errors import InputError, NotFiniteError, shape_mismatch
from walras.exogenous.disk_paths import StoredPaths
from walras.exogenous.paths import ExogenousPaths
from walras.parallel.process import AbstractEngine
from walras.policies.base import Policy
from walras.policies.user_policies import number_agents
from walras.population.agent_axis import map_per_agent
from walras.population.population import AgentNames, Population
from walras.progress import Progress
from walras.simulation.record import Record, Totals
from walras.simulation.run import Rollout, default_state, simulate
from walras.simulation.week import State, WeekRecord, empty_state

CHUNK_AGENTS = 65536
"""Agents per chunk: 156 weeks of them are about 220 MB of paths, and two chunks are in memory at once."""

Inputs = tuple[Population, ExogenousPaths, State | None]
"""A chunk of agents: who they are, what happens to them, and how they start (None: empty)."""

ChunkedPolicy = Policy | Callable[[int, int], Policy]
"""One policy for all agents, or a function from a chunk (start, stop) to the policy of these agents."""

Piece = dict[str, np.ndarray]
"""What is kept of a chunk, by name: `end_value`, `totals.*` [*scenario, week, ...], `final.*` and `agents.*`."""


class AbstractSource(abc.ABC):
    """Supplies any chunk of agents of a population that need not be in memory as a whole.

    `max_lead` is the longest lead time of all agents [weeks], so that every chunk gets the same pipeline.
    """

    n_agents: int
    n_weeks: int
    max_lead: int

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> Inputs:
        """Return agents start .. stop - 1, the same every time; called from another thread."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return text that changes whenever the data change: a journal of another identity is refused."""


class StoredSource(AbstractSource):
    """Reads chunks from a folder of stored paths; every agent starts empty."""

    def __init__(self, stored: StoredPaths) -> None:
        self.stored = stored
        self.n_agents, self.n_weeks, self.max_lead = stored.n_agents, stored.n_weeks, stored.max_lead

    def read(self, start: int, stop: int) -> Inputs:
        """Read the chunk from disk."""
        return self.stored.population(start, stop), self.stored.read(start, stop), None

    def identity(self) -> str:
        """Return that of the folder."""
        return self.stored.identity


class MemorySource(AbstractSource):
    """Cuts chunks out of a population and paths that are in memory."""

    def __init__(self, population: Population, exogenous: ExogenousPaths, initial: State | None = None) -> None:
        self._whole = population, exogenous, default_state(population, exogenous) if initial is None else initial
        self.n_agents, self.n_weeks, self.max_lead = population.n_agents, exogenous.n_weeks, self._whole[2].max_lead

    def read(self, start: int, stop: int) -> Inputs:
        """Cut the chunk."""
        return _take(self._whole, slice(start, stop))

    def identity(self) -> str:
        """Return the digest of all arrays."""
        return digest(self._whole)


@dataclass(frozen=True)
class ChunkedRecord:
    """Keep beyond totals the `WeekRecord` of agents, by index, and the state of all agents after the last week."""

    agents: Sequence[int] = ()
    final: bool = False


@dataclass(frozen=True, eq=False)
class ChunkedTotals:
    """The result of a simulation by chunks; names and units as in `Rollout`.

    Attributes:
        totals, end_value: as float64 NumPy arrays.
        agents: traces of the agents in the record [*scenario, week, agent], in its order.
        final: state of all agents after the last week, where the record asks for it.
        resumed: number of chunks that were taken from the journal.
    """

    totals: Totals
    agents: WeekRecord | None
    final: State | None
    end_value: np.ndarray
    shadow_prices: Float[Array, "*priced week resource"]
    n_agents: int
    n_chunks: int
    resumed: int

    @property
    def reward(self) -> np.ndarray:
        """Return total reward: money of all weeks plus the value of what is left."""
        return np.asarray(np.asarray(self.totals.reward).sum(-1) + self.end_value)

    def __str__(self) -> str:
        size = f"{self.n_agents:,} agents x {np.asarray(self.totals.reward).shape[-1]} weeks in {self.n_chunks} chunks"
        return f"{size} ({self.resumed} from the journal), reward {float(self.reward.mean()):,.2f}"


def simulate_out_of_core(
    source: AbstractSource,
    policy: ChunkedPolicy,
    *,
    shadow_prices: Float[Array, "*scenario week resource"],
    engine: AbstractEngine | None = None,
    record: ChunkedRecord | None = None,
    backlog: bool = False,
    block_agents: int | None = None,
    chunk_agents: int = CHUNK_AGENTS,
    journal: str | Path | None = None,
    mesh: AgentMesh | None = None,
    progress: Progress | None = None,
) -> ChunkedTotals:
    """Simulate chunk after chunk of agents, the next one being read while one is computed, and add the totals.

    Every chunk is a call of `simulate`, whose float32 totals are added as float64 in the order of the agents, and agree
    with one call of it to its rounding. With a mesh of several processes all make the same call; each reads and
    simulates its part of every chunk, only totals (and what the record asks for) cross, and all get the same result.

    Args:
        source: supplies population, paths and initial state of any chunk.
        policy: what agents order; arrays with all agents on their last axis are cut. Or a function
            (start, stop) -> policy of a chunk, or of a process's part of one.
        shadow_prices: announced in full at the start [money per unit of resource].
        engine, backlog, block_agents: as in `simulate`.
        record: what to keep beyond totals.
        chunk_agents: agents in memory at once, twice (one chunk is computed, one is read).
        journal: a folder in which process 0 stores every finished chunk, so that the same call resumes. A damaged
            chunk is computed again.
        mesh: devices for every chunk; `AgentMesh.of()` for all devices of all processes that have joined
            (`walras.distribute.launch`). By default this process alone.
        progress: called after every chunk.

    Raises:
        InputError: a journal of another run, agents outside the population, an empty chunk size.
        ShapeError: arrays whose axes do not agree.
        NotFiniteError: a NaN, with the week and the agent where it appeared first in its chunk.
    """
    record, progress = record or ChunkedRecord(), progress or Progress()
    mesh = AgentMesh.of(jax.local_devices()[:1]) if mesh is None else mesh
    _check(source, shadow_prices, record, chunk_agents)
    prices = jnp.asarray(shadow_prices, jnp.float32)
    run = _ChunkedRun(source, policy, prices, engine, record, backlog, block_agents, mesh)
    chunks = [(at, min(at + chunk_agents, source.n_agents)) for at in range(0, source.n_agents, chunk_agents)]
    has_log = journal is not None and jax.process_index() == min(mesh.processes)
    log = ResumeLog(Path(journal), run.job(chunk_agents)) if has_log else None  # type: ignore[arg-type]
    pieces = run.finished(log, chunks)
    resumed = len(pieces)
    progress.stage("Simulating")
    progress.step(resumed, len(chunks))
    missing = [chunk for chunk in chunks if chunk not in pieces]
    with contextlib.closing(run.simulate_all(missing)) as simulated:
        for chunk, piece in simulated:
            pieces[chunk] = piece
            if log is not None:
                log.record(chunk, digest(run.policy_of(chunk)), piece)
            progress.step(len(pieces), len(chunks))
    return run.result([pieces[chunk] for chunk in chunks], resumed)


def _check(source: AbstractSource, shadow_prices: Array, record: ChunkedRecord, chunk_agents: int) -> None:
    if chunk_agents < 1:
        raise InputError(f"`chunk_agents` is {chunk_agents} but a chunk has at least 1 agent; give e.g. {CHUNK_AGENTS}")
    if shadow_prices.ndim < 2 or shadow_prices.shape[-2] != source.n_weeks:
        needed = f"[{source.n_weeks} weeks, resources]"
        raise shape_mismatch("shadow_prices", shadow_prices.shape, needed, "give one price each")
    outside = [agent for agent in record.agents if not 0 <= agent < source.n_agents]
    if outside or len(set(record.agents)) != len(record.agents):
        wrong = f"has agent {outside[0]}" if outside else "names an agent twice"
        raise InputError(
            f"`record.agents` {wrong} but needs different agents of 0 to {source.n_agents - 1}; correct the list"
        )


@dataclass(frozen=True)
class _ChunkedRun:
    """What all chunks have in common, and the simulation of one."""

    source: AbstractSource
    policy: ChunkedPolicy
    prices: Float[Array, "*scenario week resource"]
    engine: AbstractEngine | None
    record: ChunkedRecord
    backlog: bool
    block_agents: int | None
    mesh: AgentMesh

    def job(self, chunk_agents: int) -> dict[str, object]:
        """Name everything that the bits of a chunk follow from; the policy is logged with each chunk."""
        return {
            "agents": self.source.n_agents,
            "weeks": self.source.n_weeks,
            "chunk_agents": chunk_agents,
            "source": self.source.identity(),
            "shadow_prices": digest(self.prices),
            "engine": digest(self.engine),
            "record": digest(self.record),
            "backlog": self.backlog,
            "mesh": f"{self.mesh.n_devices} devices of {len(self.mesh.processes)} processes",
            "versions": [__version__, jax.__version__, jax.default_backend(), platform.machine()],
        }

    def own_part(self, chunk: Span) -> Span:
        """Return this process's agents of a chunk; where it has none, the last agent, which then has weight zero."""
        own = self.mesh.local_slice(*chunk)
        return (own.start, own.stop) if own.start < own.stop else (chunk[1] - 1, chunk[1])

    def policy_of(self, chunk: Span) -> Policy:
        """Return the policy of a chunk."""
        if not isinstance(self.policy, Policy):
            return number_agents(self.policy(*chunk), chunk[1] - chunk[0], chunk[0])
        whole = number_agents(self.policy, self.source.n_agents)
        return _take_last(whole, slice(*chunk), self.source.n_agents)

    def finished(self, log: ResumeLog | None, chunks: list[Span]) -> dict[Span, Piece]:
        """Return the finished chunks of the journal that process 0 keeps, in every process."""
        logged = [] if log is None else [(chunk, log) for chunk in chunks if log.has(chunk)]
        stored = [(chunk, log.completed(chunk, digest(self.policy_of(chunk)))) for chunk, log in logged]
        pieces = {chunk: piece for chunk, piece in stored if piece is not None}
        if len(self.mesh.processes) == 1:
            return pieces
        done = self.mesh.first(np.array([chunk in pieces for chunk in chunks]))
        wanted = [chunk for chunk, is_done in zip(chunks, done, strict=True) if is_done]
        return {chunk: _broadcast(pieces.get(chunk), self.mesh) for chunk in wanted}

    def simulate_all(self, chunks: list[Span]) -> Generator[tuple[Span, Piece], None, None]:
        """Simulate chunk after chunk while a thread reads the next one."""
        # Closed here and not when collected, so that a failing chunk does not leave a thread reading.
        with contextlib.closing(_read_ahead(self.source, [self.own_part(chunk) for chunk in chunks])) as ahead:
            for chunk, inputs in zip(chunks, ahead, strict=True):
                try:
                    piece = self.simulate(chunk, *inputs)
                except NotFiniteError as error:
                    raise NotFiniteError(f"in the chunk that begins with agent {chunk[0]}, {error}") from error
                del inputs  # or the chunk would be in memory while the one after the next is read
                yield chunk, piece

    def simulate(self, chunk: Span, population: Population, exogenous: ExogenousPaths, initial: State | None) -> Piece:
        """Simulate this process's part of a chunk, and return what is kept of the whole chunk."""
        part, own = self.own_part(chunk), self.mesh.local_slice(*chunk)
        if initial is None:
            initial = empty_state(population.n_agents, max(self.source.max_lead, 1))
        if population.names.labels is None:  # so that errors name the agent of the whole and not of the chunk
            population = population.named(AgentNames(np.arange(*part)))
        if own.start == own.stop:
            population = eqx.tree_at(lambda p: p.weight, population, jnp.zeros_like(population.weight))
        inputs, policy = (population, exogenous, initial), self.policy_of(part)
        rollout = self._simulate(inputs, policy, Record.totals())
        piece: dict[str, Any] = {"end_value": rollout.end_value, **_named("totals", rollout.totals)}
        if self.record.final:
            places = np.arange(own.start, own.stop) - chunk[0]
            piece |= _placed(_named("final", rollout.final), places, chunk[1] - chunk[0])
        traced = np.array([at for at in sorted(self.record.agents) if chunk[0] <= at < chunk[1]], int)
        if len(traced):
            mine = (own.start <= traced) & (traced < own.stop)
            # A process without any of them traces one agent all the same, to send arrays of the same shapes.
            agents = traced[mine] - part[0] if mine.any() else np.zeros(1, int)
            piece |= _placed(self._traces(inputs, policy, agents), np.flatnonzero(mine), len(traced))
        return dict(self.mesh.totals({name: np.asarray(values) for name, values in piece.items()}))

    def _traces(self, inputs: Inputs, policy: Policy, agents: np.ndarray) -> dict[str, Array]:
        """Simulate some agents once more on their own: traces of the whole chunk would double its memory."""
        # Padded to a power of two, as every number of agents is a compilation of its own.
        count, size = len(agents), 1 << (len(agents) - 1).bit_length()
        padded = np.pad(agents, (0, size - count), mode="edge")
        policy = _take_last(policy, padded, inputs[0].n_agents)
        named = _named("agents", self._simulate(_take(inputs, padded), policy, Record.traces()).agents)
        cut = jax.lax.slice_in_dim
        return {name: cut(values, 0, count, axis=_agent_axis(name)) for name, values in named.items()}

    def _simulate(self, inputs: Inputs, policy: Policy, record: Record) -> Rollout:
        run = partial(simulate, *inputs[:2], policy, initial=inputs[2], shadow_prices=self.prices, mesh=self.mesh.here)
        return run(engine=self.engine, record=record, backlog=self.backlog, block_agents=self.block_agents)

    def result(self, pieces: list[Piece], resumed: int) -> ChunkedTotals:
        """Add the totals of all chunks in the order of the agents as float64, and line up agents."""
        names = [f"totals.{field.name}" for field in fields(Totals)]
        sums = {name: pieces[0][name].astype(np.float64) for name in [*names, "end_value"]}
        for piece in pieces[1:]:
            for name, values in sums.items():
                np.add(values, piece[name], out=values)
        # Built from the first chunk and refilled: the fields are arrays of jax, which hold no float64.
        first = Totals(*(jnp.asarray(pieces[0][name]) for name in names))
        totals = jax.tree.unflatten(jax.tree.structure(first), [sums[name] for name in names])
        agents = self._all_traces(pieces) if self.record.agents else None
        final = self._final_state(pieces) if self.record.final else None
        counts = (self.source.n_agents, len(pieces), resumed)
        return ChunkedTotals(totals, agents, final, sums["end_value"], self.prices, *counts)

    def _all_traces(self, pieces: list[Piece]) -> WeekRecord:
        place = np.argsort(np.argsort(np.asarray(self.record.agents)))  # from the agents' order to that of the record

        def whole(name: str) -> Array:
            axis = _agent_axis(name)
            return jnp.asarray(np.take(np.concatenate([p[name] for p in pieces if name in p], axis), place, axis))

        return WeekRecord(**{field.name: whole(f"agents.{field.name}") for field in fields(WeekRecord)})

    def _final_state(self, pieces: list[Piece]) -> State:
        one = empty_state(1, 1)
        like = State(one.stock_end, one.pipeline, self.policy_of((0, 1)).begin(self.source.read(0, 1)[0]))
        leaves = [jnp.asarray(np.concatenate([piece[name] for piece in pieces], -1)) for name in _named("final", like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _broadcast(piece: Piece | None, mesh: AgentMesh) -> Piece:
    """Return the arrays of process 0, whose shapes the others do not know, in every process."""
    packed = io.BytesIO()
    if piece is not None:
        np.savez(packed, allow_pickle=False, **piece)
    with np.load(io.BytesIO(mesh.first_bytes(packed.getvalue())), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _agent_axis(name: str) -> int:
    return -2 if name.endswith(".utilization") else -1


def _placed(named: Mapping[str, Array], places: np.ndarray, count: int) -> Piece:
    """Put agents in their places among `count`, zeros elsewhere, so that processes' parts can be added."""

    def put(values: np.ndarray, axis: int) -> np.ndarray:
        if len(places) == count == values.shape[axis]:
            return values
        agents_first = np.moveaxis(values, axis, 0)
        whole = np.zeros((count, *agents_first.shape[1:]), values.dtype)
        whole[places] = agents_first[: len(places)]
        return np.moveaxis(whole, 0, axis)

    return {name: put(np.asarray(values), _agent_axis(name)) for name, values in named.items()}


def _named(part: str, tree: Any) -> dict[str, Array]:
    """Name the arrays of a module, as in `totals.reward`."""
    return {f"{part}{keystr(path)}": leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _read_ahead(source: AbstractSource, parts: list[Span]) -> Generator[Inputs, None, None]:
    """Yield chunk after chunk while a thread reads the next one."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        coming = [thread.submit(source.read, *part) for part in parts[:1]]
        for number in range(len(parts)):
            # In a list that is emptied, so that only the consumer holds what was yielded.
            ready = [coming.pop().result()]
            coming = [thread.submit(source.read, *following) for following in parts[number + 1 : number + 2]]
            yield ready.pop()


def _take(inputs: Inputs, agents: np.ndarray | slice) -> Inputs:
    population, exogenous, state = inputs
    count = population.n_agents
    return population.take(agents), _take_last(exogenous, agents, count), _take_last(state, agents, count)


def _take_last(tree: Any, agents: np.ndarray | slice, count: int) -> Any:
    return map_per_agent(lambda leaf: leaf[..., agents], tree, count)
