"""Own the simulation of populations that do not fit in memory: range after range of agents, totals added.

CONTRACT: sources are implemented by others; the same range size gives the same bits, restarted or not.
"""

import abc
import contextlib
import io
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
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
from walras.simulation.state import State, empty_state
from walras.simulation.week import WeekRecord

RANGE_AGENTS = 65536
"""Agents per range: 156 weeks of them are about 220 MB of paths, and two ranges are in memory at once."""

Inputs = tuple[Population, ExogenousPaths, State | None]
"""A range of agents: who they are, what happens to them, and how they start (None: empty)."""

RangedPolicy = Policy | Callable[[int, int], Policy]
"""One policy for all agents, or a function from a range (start, stop) to the policy of these agents."""


class AbstractSource(abc.ABC):
    """Supply any range of agents of a population that need not be in memory as a whole.

    Attributes:
        n_agents, n_weeks: size of the whole.
        max_lead: longest lead time of all agents [weeks], so that every range gets the same pipeline.
    """

    n_agents: int
    n_weeks: int
    max_lead: int

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> Inputs:
        """Return agents start .. stop - 1: the same every time. Called from another thread."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return words that change whenever what is supplied changes: a journal of another identity is refused."""


class StoredSource(AbstractSource):
    """Read ranges from a folder of stored paths; every agent starts empty."""

    def __init__(self, stored: StoredPaths) -> None:
        """Keep the open folder."""
        self.stored = stored
        self.n_agents, self.n_weeks, self.max_lead = stored.n_agents, stored.n_weeks, stored.max_lead

    def read(self, start: int, stop: int) -> Inputs:
        """Read the range from disk."""
        return self.stored.population(start, stop), self.stored.read(start, stop), None

    def identity(self) -> str:
        """Return that of the folder."""
        return self.stored.identity


class MemorySource(AbstractSource):
    """Cut ranges out of a population and paths that are in memory."""

    def __init__(self, population: Population, exogenous: ExogenousPaths, initial: State | None = None) -> None:
        """Keep the arguments of `simulate`."""
        self._whole = population, exogenous, default_state(population, exogenous) if initial is None else initial
        self.n_agents, self.n_weeks, self.max_lead = population.n_agents, exogenous.n_weeks, self._whole[2].max_lead

    def read(self, start: int, stop: int) -> Inputs:
        """Cut the range."""
        return _take(self._whole, slice(start, stop))

    def identity(self) -> str:
        """Return the digest of all arrays."""
        return digest(self._whole)


@dataclass(frozen=True)
class ChunkedRecord:
    """Say what to keep beyond totals.

    Attributes:
        agents: indices of the agents whose `WeekRecord` is kept, in this order.
        final: also keep the state of all agents after the last week.
    """

    agents: Sequence[int] = ()
    final: bool = False


@dataclass(frozen=True, eq=False)
class ChunkedTotals:
    """Hold what a simulation by ranges found; words and units as in `Rollout`.

    Attributes:
        totals: sums over all agents per week, as float64 NumPy arrays.
        agents: traces of the agents asked for [*scenario, week, agent], in the order asked for.
        final: state of all agents after the last week, where asked for.
        end_value: worth of stock and open orders at the end, as float64 [money].
        shadow_prices: price charged in each week.
        n_agents: agents simulated.
        n_ranges: ranges they came in.
        resumed: how many of the ranges were taken from the journal.
    """

    totals: Totals
    agents: WeekRecord | None
    final: State | None
    end_value: np.ndarray
    shadow_prices: Float[Array, "*priced week resource"]
    n_agents: int
    n_ranges: int
    resumed: int

    @property
    def reward(self) -> np.ndarray:
        """Return total reward: money of all weeks plus the value of what is left."""
        return np.asarray(np.asarray(self.totals.reward).sum(-1) + self.end_value)

    def __str__(self) -> str:
        """Say how large the run was and what came out."""
        return (
            f"{self.n_agents:,} agents x {np.asarray(self.totals.reward).shape[-1]} weeks in {self.n_ranges} ranges "
            f"({self.resumed} from the journal), reward {float(self.reward.mean()):,.2f}"
        )


def simulate_out_of_core(
    source: AbstractSource,
    policy: RangedPolicy,
    *,
    shadow_prices: Float[Array, "*scenario week resource"],
    engine: AbstractEngine | None = None,
    record: ChunkedRecord | None = None,
    backlog: bool = False,
    block_agents: int | None = None,
    range_agents: int = RANGE_AGENTS,
    journal: str | Path | None = None,
    mesh: AgentMesh | None = None,
    progress: Progress | None = None,
) -> ChunkedTotals:
    """Simulate range after range of agents, the next range being read while one is computed, and add the totals.

    Every range is a call of `simulate`, whose float32 totals are added as float64, in the order of the agents. So the
    result has the same bits run after run with the same `range_agents`, and agrees with `simulate` to its rounding.

    With a mesh of several processes, all of them make this call with the same arguments. Each reads and simulates its
    own part of every range on its own devices, and only totals (and the traces and states asked for) cross; the result
    is the same in all of them. Whether a range is finished is asked of process 0, which alone keeps the journal.

    Args:
        source: supplies population, paths and initial state of any range.
        policy: what agents order; its arrays have all agents on their last axis and are cut. A function
            (start, stop) -> policy builds the policy of a range, or of a process's part of one, instead.
        shadow_prices: announced in full at the start [money per unit of resource].
        engine: how the weeks are strung together; default sequential.
        record: what to keep beyond totals.
        backlog: unmet demand waits instead of being lost.
        block_agents: as in `simulate`; changes the time only.
        range_agents: agents in memory at once, twice (one range is computed, one is read).
        journal: a folder in which every finished range is noted, so that the same call goes on where it ended. A
            damaged note is computed again.
        mesh: devices to spread every range over; `AgentMesh.of()` for all devices of all processes that have joined
            (`walras.distribute.launch`). By default this process by itself. The same mesh gives the same bits.
        progress: hears of every finished range.

    Raises:
        InputError: a journal of another question, agents outside the population, an empty range size.
        ShapeError: arrays whose axes do not meet.
        NotFiniteError: a NaN, with the week and the agent where it appeared first in its range.
    """
    record, progress = record or ChunkedRecord(), progress or Progress()
    mesh = AgentMesh.of(jax.local_devices()[:1]) if mesh is None else mesh
    _check(source, shadow_prices, record, range_agents)
    prices = jnp.asarray(shadow_prices, jnp.float32)
    work = _Work(source, policy, prices, engine, record, backlog, block_agents, mesh)
    spans = [(at, min(at + range_agents, source.n_agents)) for at in range(0, source.n_agents, range_agents)]
    keeps = jax.process_index() == min(mesh.processes)
    notes = ResumeLog(Path(journal), work.question(range_agents)) if journal is not None and keeps else None
    pieces = _noted_by_first(notes, work, spans)
    resumed = len(pieces)
    progress.stage("Simulating")
    progress.step(resumed, len(spans))
    missing = [span for span in spans if span not in pieces]
    # Closed here and not when collected, so that a failing range does not leave a thread reading.
    with contextlib.closing(_read_ahead(source, [work.part(span) for span in missing])) as ahead:
        for span, (_, inputs) in zip(missing, ahead, strict=True):
            try:
                pieces[span] = work.run(span, *inputs)
            except NotFiniteError as error:
                raise NotFiniteError(f"in the range that begins with agent {span[0]}, {error}") from error
            del inputs  # or the range would be in memory while the one after the next is read
            if notes is not None:
                notes.record(span, digest(work.policy_of(span)), pieces[span])
            progress.step(len(pieces), len(spans))
    return _add([pieces[span] for span in spans], work, resumed)


@dataclass(frozen=True)
class _Work:
    """Hold what all ranges have in common, and compute one range."""

    source: AbstractSource
    policy: RangedPolicy
    prices: Float[Array, "*scenario week resource"]
    engine: AbstractEngine | None
    record: ChunkedRecord
    backlog: bool
    block_agents: int | None
    mesh: AgentMesh

    def part(self, span: Span) -> Span:
        """Give this process's agents of a range; where there is none for it the last one, which then counts nothing."""
        own = self.mesh.local_slice(*span)
        return (own.start, own.stop) if own.start < own.stop else (span[1] - 1, span[1])

    def question(self, range_agents: int) -> dict[str, object]:
        """Name everything that the bits of a range follow from, but for the policy, which may differ by range."""
        return {
            "agents": self.source.n_agents,
            "weeks": self.source.n_weeks,
            "range_agents": range_agents,
            "source": self.source.identity(),
            "shadow_prices": digest(self.prices),
            "engine": digest(self.engine),
            "record": digest(self.record),
            "backlog": self.backlog,
            "mesh": f"{self.mesh.n_devices} devices of {len(self.mesh.processes)} processes",
            "versions": [__version__, jax.__version__, jax.default_backend(), platform.machine()],
        }

    def policy_of(self, span: Span) -> Policy:
        """Give the policy of a range."""
        if not isinstance(self.policy, Policy):
            return number_agents(self.policy(*span), span[1] - span[0], span[0])
        whole = number_agents(self.policy, self.source.n_agents)
        return _take_last(whole, slice(*span), self.source.n_agents)

    def run(
        self, span: Span, population: Population, exogenous: ExogenousPaths, initial: State | None
    ) -> dict[str, np.ndarray]:
        """Simulate this process's part of a range, and name the arrays that are kept of the whole range."""
        part, own = self.part(span), self.mesh.local_slice(*span)
        if initial is None:
            initial = empty_state(population.n_agents, max(self.source.max_lead, 1))
        policy = self.policy_of(part)
        if population.names.labels is None:  # so that a sentence names the agent of the whole and not of the range
            population = population.named(AgentNames(np.arange(*part)))
        if own.start == own.stop:
            population = eqx.tree_at(lambda p: p.weight, population, jnp.zeros_like(population.weight))
        rollout = self._simulate(population, exogenous, policy, initial, Record.totals())
        kept: dict[str, Any] = {"end_value": rollout.end_value, **_named("totals", rollout.totals)}
        if self.record.final:
            final = _named_state(rollout.final)
            kept |= _placed(final, np.arange(own.start, own.stop) - span[0], span[1] - span[0])
        asked = np.array([at for at in sorted(self.record.agents) if span[0] <= at < span[1]], int)
        if len(asked):
            mine = (own.start <= asked) & (asked < own.stop)
            # Who has none of them simulates some agent all the same, so as to send arrays of the same shapes.
            traced = asked[mine] - part[0] if mine.any() else np.zeros(1, int)
            traces = self._traces((population, exogenous, initial), policy, traced)
            kept |= _placed(traces, np.flatnonzero(mine), len(asked))
        return dict(self.mesh.totals({name: np.asarray(values) for name, values in kept.items()}))

    def _traces(self, inputs: Inputs, policy: Policy, asked: np.ndarray) -> dict[str, Array]:
        """Simulate the agents asked for once more on their own: tracing the whole range would take its memory again."""
        # A power of two, or every number of agents would be a compilation of its own.
        padded = np.pad(asked, (0, (1 << (len(asked) - 1).bit_length()) - len(asked)), mode="edge")
        count, policy = len(asked), _take_last(policy, padded, inputs[0].n_agents)
        people, paths, state = _take(inputs, padded)
        traces = self._simulate(people, paths, policy, state, Record.traces()).agents
        return {
            name: values[..., :count, :] if name.endswith(".utilization") else values[..., :count]
            for name, values in _named("agents", traces).items()
        }

    def _simulate(
        self,
        population: Population,
        exogenous: ExogenousPaths,
        policy: Policy,
        state: State | None,
        record: Record,
    ) -> Rollout:
        return simulate(
            population,
            exogenous,
            policy,
            initial=state,
            shadow_prices=self.prices,
            engine=self.engine,
            record=record,
            backlog=self.backlog,
            block_agents=self.block_agents,
            mesh=self.mesh.here,
        )


def _check(source: AbstractSource, shadow_prices: Array, record: ChunkedRecord, range_agents: int) -> None:
    if range_agents < 1:
        raise InputError(f"`range_agents` is {range_agents} but a range has at least 1 agent; give e.g. {RANGE_AGENTS}")
    if shadow_prices.ndim < 2 or shadow_prices.shape[-2] != source.n_weeks:
        needed = f"[{source.n_weeks} weeks, resources]"
        raise shape_mismatch("shadow_prices", shadow_prices.shape, needed, "give one price each")
    outside = [agent for agent in record.agents if not 0 <= agent < source.n_agents]
    if outside or len(set(record.agents)) != len(record.agents):
        wrong = f"has agent {outside[0]}" if outside else "names an agent twice"
        raise InputError(f"`record.agents` {wrong} but needs different agents of 0 to {source.n_agents - 1}; mend it")


def _noted_by_first(notes: ResumeLog | None, work: _Work, spans: list[Span]) -> dict[Span, dict[str, np.ndarray]]:
    """Collect the finished ranges of the journal that process 0 keeps, in every process."""
    here = {} if notes is None else _noted(notes, work, spans)
    if len(work.mesh.processes) == 1:
        return here
    done = work.mesh.first(np.array([span in here for span in spans]))
    return {span: _sent(here.get(span), work.mesh) for span, known in zip(spans, done, strict=True) if known}


def _noted(notes: ResumeLog, work: _Work, spans: list[Span]) -> dict[Span, dict[str, np.ndarray]]:
    """Collect the finished ranges of a journal."""
    found = {span: notes.completed(span, digest(work.policy_of(span))) for span in spans if notes.has(span)}
    return {span: piece for span, piece in found.items() if piece is not None}


def _sent(piece: dict[str, np.ndarray] | None, mesh: AgentMesh) -> dict[str, np.ndarray]:
    """Give every process the arrays that process 0 holds, whose shapes the others do not know."""
    packed = io.BytesIO()
    if piece is not None:
        np.savez(packed, allow_pickle=False, **piece)
    with np.load(io.BytesIO(mesh.first_bytes(packed.getvalue())), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _placed(named: Mapping[str, Array], places: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Put agents in their places among `count` of a range, zeros elsewhere, so that processes' parts may be added."""

    def put(values: np.ndarray, axis: int) -> np.ndarray:
        if len(places) == count == values.shape[axis]:
            return values
        agents_first = np.moveaxis(values, axis, 0)
        whole = np.zeros((count, *agents_first.shape[1:]), values.dtype)
        whole[places] = agents_first[: len(places)]
        return np.moveaxis(whole, 0, axis)

    return {
        name: put(np.asarray(values), -2 if name.endswith(".utilization") else -1) for name, values in named.items()
    }


def _read_ahead(source: AbstractSource, spans: list[Span]) -> Generator[tuple[Span, Inputs], None, None]:
    """Yield range after range while a thread reads the next one."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        coming = [thread.submit(source.read, *span) for span in spans[:1]]
        for number, span in enumerate(spans):
            # In a list that is emptied, so that what was yielded is held by the consumer alone.
            ready = [coming.pop().result()]
            coming = [thread.submit(source.read, *following) for following in spans[number + 1 : number + 2]]
            yield span, ready.pop()


def _add(pieces: list[dict[str, np.ndarray]], work: _Work, resumed: int) -> ChunkedTotals:
    """Add the ranges in the order of the agents, as float64."""
    names = [name for name in pieces[0] if name == "end_value" or name.startswith("totals.")]
    added = {name: pieces[0][name].astype(np.float64) for name in names}
    for piece in pieces[1:]:
        for name in names:
            added[name] += piece[name]
    # Built from the first range and refilled: the fields' own type, an array of jax, holds no float64.
    first = Totals(**{each.name: jnp.asarray(pieces[0][f"totals.{each.name}"]) for each in fields(Totals)})
    wide = [added[f"totals.{each.name}"] for each in fields(Totals)]
    return ChunkedTotals(
        totals=jax.tree.unflatten(jax.tree.structure(first), wide),
        agents=_lined_up_traces(pieces, work.record) if work.record.agents else None,
        final=_lined_up_state(pieces, work) if work.record.final else None,
        end_value=added["end_value"],
        shadow_prices=work.prices,
        n_agents=work.source.n_agents,
        n_ranges=len(pieces),
        resumed=resumed,
    )


def _lined_up_traces(pieces: list[dict[str, np.ndarray]], record: ChunkedRecord) -> WeekRecord:
    place = np.argsort(np.argsort(np.asarray(record.agents)))  # from the agents' order to the order asked for

    def whole(name: str) -> Array:
        axis = -2 if name == "utilization" else -1
        found = [piece[f"agents.{name}"] for piece in pieces if f"agents.{name}" in piece]
        return jnp.asarray(np.take(np.concatenate(found, axis), place, axis))

    return WeekRecord(**{each.name: whole(each.name) for each in fields(WeekRecord)})


def _named_state(state: State) -> dict[str, Array]:
    """Name the arrays of a state, those that a policy remembers among them."""
    return {f"final{keystr(path)}": leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _lined_up_state(pieces: list[dict[str, np.ndarray]], work: _Work) -> State:
    people = work.source.read(0, 1)[0]
    one = empty_state(1, 1)
    like = State(one.stock_end, one.pipeline, work.policy_of((0, 1)).begin(people))
    named = {name: [piece[name] for piece in pieces] for name in _named_state(like)}
    return jax.tree.unflatten(
        jax.tree.structure(like), [jnp.asarray(np.concatenate(found, -1)) for found in named.values()]
    )


def _named(part: str, module: Any) -> dict[str, Array]:
    """Name the arrays of a flat module."""
    return {f"{part}.{each.name}": getattr(module, each.name) for each in fields(module)}


def _take(inputs: Inputs, agents: np.ndarray | slice) -> Inputs:
    """Take agents out of a population (agent axis first), paths and a state (agent axis last)."""
    population, exogenous, state = inputs
    count = population.n_agents
    return population.take(agents), _take_last(exogenous, agents, count), _take_last(state, agents, count)


def _take_last(tree: Any, agents: np.ndarray | slice, count: int) -> Any:
    """Take agents out of every array whose last axis has `count` agents; others are shared by all."""
    return map_per_agent(lambda leaf: leaf[..., agents], tree, count)
