"""Own the compiled run of a range of agents: block after block, week after week, sums by tile.

LAW: what a week does is `model.week`; this strings weeks and agents together, and no block size changes a bit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.clipping import SIDE
from walras.distribute.blocks import blocked_sums, map_blocks, pairwise_sum
from walras.distribute.device_mesh import FIRST, LAST, SHARED, AgentMesh, pad, sharded
from walras.exogenous.paths import ExogenousPaths
from walras.parallel.process import AbstractEngine
from walras.policies.base import Policy, PolicyMemory
from walras.population.agent_axis import agent_axis_of, map_per_agent
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.state import State, WeekInputs, encode_weeks, read_weeks, shared_inputs, split_static
from walras.simulation.week import Week, WeekCarry, WeekRecord

KEEP_SIDES = jax.checkpoint_policies.save_only_these_names(SIDE)
"""A gradient keeps which side every clip took, and recomputes the rest of a week from its inputs."""


def run_range(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    block: int,
    following_cost: Float[Array, " agent"] | None,
    first_week: Array | int,
    first: Array | int,
    count: int,
) -> Any:
    """Run `count` agents from `first` on, block after block."""
    weeks = first_week + jnp.arange(exogenous.n_weeks)

    def body(start: Array | int, size: int) -> Any:
        take = agent_slicer(start, size, population.n_agents)
        kept = eqx.tree_at(lambda r: r.group, record, take(record.group)) if record.group is not None else record
        agents = cut_agents(population, exogenous, policy, initial, start, size)
        return run_agents(*agents, windows, engine, kept, backlog, take(following_cost), weeks)

    return map_blocks(body, first, count, block)


def cut_agents(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    start: Array | int,
    size: int,
) -> tuple[Population, ExogenousPaths, Policy, State]:
    """Cut `size` agents from `start` on out of everything that is theirs."""
    take = agent_slicer(start, size, population.n_agents)
    people = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size, axis=0), population)
    return people, take(exogenous), take(policy), take(initial)


def run_agents(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    following_cost: Float[Array, " agent"] | None,
    weeks: Int[Array, " week"],
) -> Any:
    """Run a few agents all at once and sum them by tile.

    Returns:
        `(rows, cells, end)`: the record's sums [*scenario, week, tile, row or cell] and the value of what is left
        [*scenario, tile, 1]; `(final, traces)`, agents last; the engine's account.
    """
    scenarios = exogenous.n_scenarios
    states = initial if scenarios is None or initial.stock_end.ndim == 2 else _spread(initial, scenarios)
    week = Week(population=population, policy=policy, backlog=backlog)
    return _run_block(week, exogenous, states, windows, engine, record, following_cost, weeks)


def agent_slicer(start: Array | int, size: int, n_agents: int) -> Callable[[Any], Any]:
    """Cut a block of agents out of every array whose last axis is that of the agents; other values pass."""

    def cut(leaf: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, size, axis=leaf.ndim - 1)

    return lambda tree: map_per_agent(cut, tree, n_agents)


def _spread(state: State, scenarios: int) -> State:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (scenarios, *leaf.shape)), state)


def _agents_last(record: WeekRecord) -> WeekRecord:
    return eqx.tree_at(lambda r: r.utilization, record, jnp.moveaxis(record.utilization, -1, -2))


agents_before_resources = _agents_last  # the same exchange of the last two axes of utilization, back again


def _run_block(
    week: Week,
    exogenous: ExogenousPaths,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    record: Record,
    following_cost: Float[Array, " agent"] | None,
    weeks: Int[Array, " week"],
) -> Any:
    """Run one block; a scenario axis on demand (and arrivals) is mapped over."""
    population, policy, weight = week.population, week.policy, week.population.weight
    fields = shared_inputs(exogenous, following_cost)
    # A policy that does not read the past says the same in all scenarios, once.
    encoded = None if policy.reads else encode_weeks(population, policy, fields, weeks, windows)
    steady, changing = split_static(fields, len(weeks))

    def one(demand: Array, arrivals: Any, encoded: Any, window: Array, state: State) -> Any:
        memory = policy.begin(population) if state.memory is None else state.memory
        if policy.reads:
            read, memory = read_weeks(population, policy, fields, weeks, demand, memory or PolicyMemory())
            encoded = encode_weeks(population, policy, fields, weeks, window, read)
        state = State(state.stock_end, state.pipeline, memory)
        own = {"week": weeks, "demand": demand, "arrivals": arrivals, "encoded": encoded, "shadow_prices": window}

        @partial(jax.checkpoint, policy=KEEP_SIDES, prevent_cse=False)
        def step(running: WeekCarry, inputs: dict[str, Any]) -> Any:
            running, happened = week(running, WeekInputs(**steady, **inputs))
            return running, (*record.sums(happened, weight), _agents_last(happened) if record.agents else None)

        trajectory, info = engine.run(step, week.begin(state), {**changing, **own})
        rows, cells, traces = trajectory.records
        final = trajectory.final.state
        end = blocked_sums([exogenous.unit_cost[-1] * (final.stock_end + final.pipeline.sum(0))], weight)
        return (rows, cells, end), (final, traces), info

    paths = (exogenous.demand, exogenous.arrivals)
    if exogenous.n_scenarios is None:
        return one(*paths, encoded, windows, initial)
    own_prices = windows.ndim == 4
    if policy.one_by_one:
        # What is read has a row for every week: of all scenarios at once it would not stay in the cache.
        def next_path(path: Any) -> Any:
            demand, arrivals, state, window = path
            return one(demand, arrivals, None, window if own_prices else windows, state)

        return jax.lax.map(next_path, (*paths, initial, windows if own_prices else None))
    per_path = 0 if own_prices else None
    return jax.vmap(one, in_axes=(0, 0, per_path, per_path, 0))(*paths, encoded, windows, initial)


def run_sharded(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    block: int,
    following_cost: Float[Array, " agent"] | None,
    first_week: Array | int,
    mesh: AgentMesh,
) -> Any:
    """Run all agents, every device its own part of them.

    Returns:
        Sums over all agents, the same on every device; what is kept by agent, each on the device that ran it; and the
        engine's account.
    """
    count = population.n_agents
    told = (exogenous, policy, initial, record, following_cost)
    by_agent, shared = eqx.partition(told, agent_axis_of(told, count))
    padded = _padded(mesh, count, (shared, windows))
    people, by_agent = pad(population, FIRST, padded), pad(by_agent, LAST, padded)
    people = eqx.tree_at(lambda p: p.weight, people, jnp.where(jnp.arange(padded) < count, people.weight, 0))
    windows, engine, first_week, shared = mesh.place((windows, engine, first_week, shared), SHARED)
    people, by_agent = mesh.place(people, FIRST), mesh.place(by_agent, LAST)
    sums, kept, info = _run_placed(people, by_agent, shared, windows, engine, first_week, backlog, block, mesh)
    return sums, kept if padded == count else jax.tree.map(lambda leaf: leaf[..., :count], kept), info


@eqx.filter_jit
def _run_placed(
    population: Population,
    by_agent: Any,
    shared: Any,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    first_week: Array | int,
    backlog: bool,
    block: int,
    mesh: AgentMesh,
) -> Any:
    """Fold on every device the tiles of its own agents, and add the devices' sums at the end."""

    def part(
        population: Population, by_agent: Any, shared: Any, windows: Array, engine: AbstractEngine, week: Array | int
    ) -> Any:
        exogenous, policy, initial, record, following = eqx.combine(by_agent, shared)
        parts = (population, exogenous, policy, initial, windows, engine, record, backlog, block, following, week)
        tiles, kept, info = run_range(*parts, 0, population.n_agents)
        return jax.tree.map(pairwise_sum, tiles), (kept, info)

    run = sharded(part, mesh, (FIRST, LAST, SHARED, SHARED, SHARED, SHARED), kept=(LAST, SHARED))
    sums, (kept, info) = run(population, by_agent, shared, windows, engine, first_week)
    return sums, kept, info


def _padded(mesh: AgentMesh, count: int, shared: Any) -> int:
    """Fill the devices; an array that all share must not look as if it had one entry for each agent of a part."""
    lengths = {jnp.shape(leaf)[-1] for leaf in jax.tree.leaves(shared) if eqx.is_array(leaf) and jnp.ndim(leaf)}
    each = mesh.padded(count) // mesh.n_devices
    while not lengths.isdisjoint((each, each * mesh.n_devices)):
        each += 1
    return each * mesh.n_devices
