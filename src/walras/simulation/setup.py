"""One run of all agents or some: what it needs (`Setup`), and how it goes over weeks, blocks and devices."""

from functools import partial
from typing import Any, TypeVar

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
from walras.simulation.week import (
    State,
    Week,
    WeekCarry,
    WeekInputs,
    encode_weeks,
    read_weeks,
    shared_inputs,
    split_static,
)

Tree = TypeVar("Tree")

KEEP_SIDES = jax.checkpoint_policies.save_only_these_names(SIDE)
"""A gradient keeps which side every clip took, and recomputes the rest of a week from its inputs."""


class Setup(eqx.Module):
    """Everything a run needs.

    Attributes:
        population, exogenous, policy, initial, engine, record, backlog: as in `simulate`.
        windows: prices announced in each week, from that week's on [money per unit of resource]; None until known.
        block: agents simulated together.
        following_cost: unit cost of the week after the last one; None for that of the last week [money].
        first_week: index of the first week.
        read: what the policy reads of the paths, as `read_paths` returns it; None to read it in the run.
    """

    population: Population
    exogenous: ExogenousPaths
    policy: Policy
    initial: State
    windows: Float[Array, "*priced week lead resource"] | None
    engine: AbstractEngine
    record: Record
    backlog: bool = eqx.field(static=True)
    block: int = eqx.field(static=True)
    following_cost: Float[Array, " agent"] | None = None
    first_week: Int[Array, ""] | int = 0
    read: Any = None

    def cut(self, start: Array | int, size: int) -> "Setup":
        """Return the setup of `size` agents from `start` on."""
        agents = cut_agents(self.population, self.exogenous, self.policy, self.initial, start, size)
        own = self.record, self.following_cost, self.read
        record, cost, read = slice_agents(own, start, size, self.population.n_agents)
        more: dict[str, Any] = {"following_cost": cost, "first_week": self.first_week, "read": read}
        return Setup(*agents, self.windows, self.engine, record, self.backlog, self.block, **more)

    def run(self) -> Any:
        """Run all agents at once and sum them by tile.

        Returns:
            `(rows, cells, end)`: the record's sums [*scenario, week, tile, row or cell] and the value of what is left
            [*scenario, tile, 1]; `(final, traces)`, agents last; the engine's account.
        """
        sums, (final, traces), info = self._run_paths()
        if self.record.means and self.exogenous.n_scenarios is not None:
            traces = jax.tree.map(lambda leaf: leaf.mean(0), traces)
        return sums, (final, traces), info

    def _run_paths(self) -> Any:
        exogenous, policy, windows = self.exogenous, self.policy, self.windows
        assert windows is not None  # prices are announced before a run
        weeks, fields = self._weeks()
        # A policy that does not read the past says the same in all scenarios, once.
        encoded = None if policy.reads_history else encode_weeks(self.population, policy, fields, weeks, windows)
        run_path = partial(self._run_path, weeks, fields)
        paths = (exogenous.demand, exogenous.arrivals, self.read)
        if exogenous.n_scenarios is None:
            return run_path(*paths, encoded, windows, self.initial)
        initial, own_prices = self._initial_states(), windows.ndim == 4
        if policy.scan_scenarios:
            # What is read has a row for every week: of all scenarios at once it would not stay in the cache.
            def next_path(path: Any) -> Any:
                demand, arrivals, read, state, window = path
                return run_path(demand, arrivals, read, None, window if own_prices else windows, state)

            return jax.lax.map(next_path, (*paths, initial, windows if own_prices else None))
        axis = 0 if own_prices else None
        return jax.vmap(run_path, in_axes=(0, 0, 0, axis, axis, 0))(*paths, encoded, windows, initial)

    def _weeks(self) -> tuple[Array, dict[str, Any]]:
        """Return the indices of the weeks, and what all scenarios share in them."""
        weeks = self.first_week + jnp.arange(self.exogenous.n_weeks)
        return weeks, shared_inputs(self.exogenous, self.following_cost)

    def _initial_states(self) -> State:
        """Return the initial state of every scenario."""
        if self.initial.stock_end.ndim == 2:
            return self.initial
        wide = lambda leaf: jnp.broadcast_to(leaf, (self.exogenous.n_scenarios, *leaf.shape))  # noqa: E731
        return jax.tree.map(wide, self.initial)

    def _read(self, weeks: Array, fields: dict[str, Any], demand: Array, state: State) -> tuple[Any, PolicyMemory]:
        memory = self.policy.begin(self.population) if state.memory is None else state.memory
        return read_weeks(self.population, self.policy, fields, weeks, demand, memory or PolicyMemory())

    def _run_path(
        self,
        weeks: Array,
        fields: dict[str, Any],
        demand: Array,
        arrivals: Any,
        read: Any,
        encoded: Any,
        windows: Array,
        state: State,
    ) -> Any:
        population, policy, exogenous, record = self.population, self.policy, self.exogenous, self.record
        memory = policy.begin(population) if state.memory is None else state.memory
        if policy.reads_history:
            if read is None:
                read, memory = self._read(weeks, fields, demand, state)
            encoded = encode_weeks(population, policy, fields, weeks, windows, read)
        steady, changing = split_static(fields, len(weeks))
        own = {"week": weeks, "demand": demand, "arrivals": arrivals, "encoded": encoded, "shadow_prices": windows}
        week, weight = Week(population=population, policy=policy, backlog=self.backlog), population.weight

        @partial(jax.checkpoint, policy=KEEP_SIDES, prevent_cse=False)
        def step(carry: WeekCarry, inputs: dict[str, Any]) -> Any:
            carry, happened = week(carry, WeekInputs(**steady, **inputs))
            return carry, (*record.sums(happened, weight), record.of_agents(happened))

        start = week.begin(State(state.stock_end, state.pipeline, memory))
        trajectory, info = self.engine.run(step, start, {**changing, **own})
        rows, cells, traces = trajectory.records
        final = trajectory.final.state
        end = blocked_sums([exogenous.unit_cost[-1] * (final.stock_end + final.pipeline.sum(0))], weight)
        return (rows, cells, end), (final, traces), info


@eqx.filter_jit
def read_paths(setup: Setup) -> Any:
    """Return what the policy reads in every week [*scenario week ... agent], which does not depend on prices."""
    weeks, fields = setup._weeks()
    demand = setup.exogenous.demand
    if setup.exogenous.n_scenarios is None:
        return setup._read(weeks, fields, demand, setup.initial)[0]
    paths = demand, setup._initial_states()
    return jax.lax.map(lambda path: setup._read(weeks, fields, *path)[0], paths)


def run_range(setup: Setup, first: Array | int, count: int) -> Any:
    """Run `count` agents from `first` on, block after block; sums by tile, tiles first."""
    return map_blocks(lambda start, size: setup.cut(start, size).run(), first, count, setup.block)


def cut_agents(
    population: Population, exogenous: ExogenousPaths, policy: Policy, initial: State, start: Array | int, size: int
) -> tuple[Population, ExogenousPaths, Policy, State]:
    """Cut `size` agents from `start` on out of everything that is theirs."""
    people = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size, axis=0), population)
    return people, *slice_agents((exogenous, policy, initial), start, size, population.n_agents)


def slice_agents(tree: Tree, start: Array | int, size: int, n_agents: int) -> Tree:
    """Cut agents out of every array whose last axis is that of the agents; other values pass."""

    def cut(leaf: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, size, axis=leaf.ndim - 1)

    return map_per_agent(cut, tree, n_agents)


def run_sharded(setup: Setup, mesh: AgentMesh) -> Any:
    """Run all agents, every device its own part of them.

    Returns sums over all agents, the same on every device; what is kept by agent, each on the device that ran it; and
    the engine's account.
    """
    count = setup.population.n_agents
    rest = eqx.tree_at(_placed_apart, setup, (None,) * 4)
    by_agent, shared = eqx.partition(rest, agent_axis_of(rest, count))
    padded = _padded(mesh, count, (shared, setup.windows))
    people, by_agent = pad(setup.population, FIRST, padded), pad(by_agent, LAST, padded)
    people = eqx.tree_at(lambda p: p.weight, people, jnp.where(jnp.arange(padded) < count, people.weight, 0))
    common = mesh.place((setup.windows, setup.engine, setup.first_week, shared), SHARED)
    people, by_agent = mesh.place(people, FIRST), mesh.place(by_agent, LAST)
    sums, kept, info = _run_placed(people, by_agent, common, mesh)
    return sums, kept if padded == count else jax.tree.map(lambda leaf: leaf[..., :count], kept), info


def _placed_apart(setup: Setup) -> tuple[Any, ...]:
    """Name what is not cut along a last axis of agents."""
    return setup.population, setup.windows, setup.engine, setup.first_week


@eqx.filter_jit
def _run_placed(population: Population, by_agent: Any, common: Any, mesh: AgentMesh) -> Any:
    """Sum the tiles of its own agents on every device, and add the devices' sums at the end."""

    def part(population: Population, by_agent: Any, common: Any) -> Any:
        windows, engine, first_week, shared = common
        apart = (population, windows, engine, first_week)
        setup = eqx.tree_at(_placed_apart, eqx.combine(by_agent, shared), apart, is_leaf=lambda node: node is None)
        tiles, kept, info = run_range(setup, 0, population.n_agents)
        return jax.tree.map(pairwise_sum, tiles), (kept, info)

    run = sharded(part, mesh, (FIRST, LAST, SHARED), kept=(LAST, SHARED))
    sums, (kept, info) = run(population, by_agent, common)
    return sums, kept, info


def _padded(mesh: AgentMesh, count: int, shared: Any) -> int:
    """Fill the devices, so that no array that all share looks as if it had one entry for each agent of a part."""
    lengths = {jnp.shape(leaf)[-1] for leaf in jax.tree.leaves(shared) if eqx.is_array(leaf) and jnp.ndim(leaf)}
    part = mesh.padded(count) // mesh.n_devices
    while not lengths.isdisjoint((part, part * mesh.n_devices)):
        part += 1
    return part * mesh.n_devices
