"""Own the one pure function that runs a population through its exogenous paths.

CONTRACT: same arguments, same rollout; agents are processed in blocks that stay in the processor's cache.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.distribute.blocks import block_size, join, pairwise_sum
from walras.distribute.device_mesh import AgentMesh
from walras.distribute.threads import map_ranges
from walras.errors import InputError, SettingsError, shape_mismatch
from walras.exogenous.paths import ExogenousPaths
from walras.parallel.process import AbstractEngine, EngineInfo, Sequential
from walras.policies.base import Policy
from walras.policies.user_policies import callback_names, number_agents
from walras.population.population import Population
from walras.simulation.checks import check_shapes, check_values
from walras.simulation.controller import Controller, Prices, closed_loop
from walras.simulation.nan_report import raise_if_nonfinite
from walras.simulation.policy_call import check_policy_call
from walras.simulation.record import Record, Totals, as_totals
from walras.simulation.sharded_run import agent_slicer, agents_before_resources, run_range, run_sharded
from walras.simulation.state import State, empty_state
from walras.simulation.week import WeekRecord

ROWS_PER_WEEK = 24
"""Numbers per agent that one week reads and makes beside the pipeline; sets how many agents fit in a cache."""


class Rollout(eqx.Module):
    """Hold what a simulation found.

    Attributes:
        totals: sums over agents per week.
        groups: utilization by group [*scenario, week, group, resource], where the record asked for it.
        agents: per-agent traces [*scenario, week, agent], where the record asked for them.
        final: state after the last week.
        end_value: unit cost x (stock + open orders) at the end, so that starving the last weeks earns nothing [money].
        shadow_prices: price charged in each week; no scenario axis where all scenarios were charged the same.
        info: the engine's account of its work.
        block_agents: agents that were simulated together.
    """

    totals: Totals
    groups: Float[Array, "*scenario week group resource"] | None
    agents: WeekRecord | None
    final: State
    end_value: Float[Array, "*scenario"]
    shadow_prices: Float[Array, "*priced week resource"]
    info: EngineInfo
    block_agents: int = eqx.field(static=True)

    @property
    def reward(self) -> Float[Array, "*scenario"]:
        """Return total reward: money of all weeks plus the value of what is left (spec section 2)."""
        return self.totals.reward.sum(-1) + self.end_value


def simulate(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    *,
    initial: State | None = None,
    shadow_prices: Float[Array, "*scenario week resource"] | None = None,
    controller: Controller | None = None,
    notice: Int[Array, "announced resource"] | None = None,
    engine: AbstractEngine | None = None,
    record: Record | None = None,
    backlog: bool = False,
    block_agents: int | None = None,
    mesh: AgentMesh | None = None,
    throw: bool = True,
) -> Rollout:
    """Run the population through the paths and return what happened.

    Args:
        population: who the agents are.
        exogenous: demand, prices, costs, arrivals; with a scenario axis all scenarios run at once.
        policy: what agents order.
        initial: stock and pipeline at the start; default empty with room for the longest lead time.
        shadow_prices: announced in full at the start [money per unit of resource]; after the last week the last
            price holds. Default 0. May carry the scenario axis.
        controller: issues prices week by week instead; give one or the other.
        notice: weeks ahead of which each week's price is announced, 0 only in the week itself; before that agents see
            no price. By default all prices are known from the start.
        engine: how the weeks are strung together; default sequential.
        record: what to keep; default totals.
        backlog: unmet demand waits instead of being lost.
        block_agents: agents simulated together, a multiple of 256; by default what the machine's cache holds. Changes
            the time, never a bit of the answer, as long as the policy treats agents one by one (a product of
            matrices in a policy of one's own is summed in the order the compiler likes).
        mesh: devices of this process to spread the agents over, each its own part from the first week to the last;
            totals agree with those of one device to rounding. Agents that do not divide evenly are filled up with some
            of weight zero. By default one device; several processes go through `walras.simulation.out_of_core.simulate_out_of_core`.
        throw: refuse to return a rollout that holds NaN or infinity.

    Raises:
        ShapeError: arrays whose axes do not meet, those of the policy included.
        InputError: numbers that mean nothing, a policy that cannot be compiled, a function called back that failed.
        SettingsError: a block size that is not a multiple of 256, a mesh with devices of another process.
        NotFiniteError: a NaN, with the week and the agent where it appeared first (only with `throw`).
    """
    record = Record.totals() if record is None else record
    engine = Sequential() if engine is None else engine
    mesh = _several(mesh)
    initial = default_state(population, exogenous) if initial is None else initial
    shadow_prices = None if shadow_prices is None else jnp.asarray(shadow_prices)
    check_shapes(population, exogenous, initial, shadow_prices)
    _check_groups(population, record)
    notice = _checked_notice(notice, population, exogenous)
    if throw:
        check_values(population, exogenous, initial, shadow_prices, backlog=backlog)
    if controller is not None and shadow_prices is not None:
        raise InputError("both `shadow_prices` and `controller` were given but one of them sets prices; drop one")
    block = block_size(bytes_per_agent(exogenous, policy, initial), block_agents)
    check_policy_call(population, policy, window_length(policy, initial.max_lead), block)
    arguments = (population, exogenous, number_agents(policy, population.n_agents), initial)
    with callback_names(population):
        if controller is not None:
            rollout = _run_controlled(*arguments, controller, engine, record, backlog, block, mesh)
        else:
            prices = full_prices(population, exogenous, shadow_prices)
            windows = announced_windows(prices, window_length(policy, initial.max_lead), notice)
            rollout = _run(*arguments, windows, prices, engine, record, backlog, block, mesh)
        if throw:
            rerun = _tracer(*arguments, rollout, notice, engine, backlog, block, mesh)
            raise_if_nonfinite(population, rollout.totals.reward, rollout.end_value, rerun)
    return rollout


def simulate_issued(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    *,
    initial: State,
    issued: Float[Array, "week ahead resource"],
    first: Float[Array, " resource"] | None = None,
    record: Record | None = None,
) -> Rollout:
    """Run one path through prices that are issued anew every week; may be compiled and differentiated.

    Args:
        population, exogenous, policy, initial: as in `simulate`, and not checked.
        issued: prices of the weeks after each week, as issued in it; the first of them is charged
            [money per unit of resource].
        first: charged in the first week; default 0.
        record: what to keep; default totals.
    """
    first = jnp.zeros((1, issued.shape[-1])) if first is None else first[None]
    charged = jnp.concatenate([first, issued[:-1, 0]])
    ahead = np.minimum(np.arange(window_length(policy, initial.max_lead) - 1), issued.shape[1] - 1)
    windows = jnp.concatenate([charged[:, None], issued[:, ahead]], axis=1)
    block = block_size(bytes_per_agent(exogenous, policy, initial), None)
    record = Record.totals() if record is None else record
    return _run(population, exogenous, policy, initial, windows, charged, Sequential(), record, False, block, None)


def _several(mesh: AgentMesh | None) -> AgentMesh | None:
    """Refuse devices of other processes; one device that is used anyway needs no mesh, and then has all its lanes."""
    if mesh is None or list(mesh.mesh.devices.flat) == jax.local_devices()[:1]:
        return None
    if mesh.processes != (jax.process_index(),):
        raise SettingsError(
            f"`mesh` holds devices of the processes {mesh.processes} but `simulate` runs on those of its own; give "
            "`AgentMesh.local()`, or give the mesh to `walras.simulation.out_of_core.simulate_out_of_core`"
        )
    return mesh


def _checked_notice(
    notice: Int[Array, "announced resource"] | None, population: Population, exogenous: ExogenousPaths
) -> Int[Array, "week resource"] | None:
    """Refuse a notice for other weeks or resources."""
    if notice is None:
        return None
    needed = (exogenous.n_weeks, len(population.resources))
    if np.shape(notice) != needed:
        raise shape_mismatch("notice", np.shape(notice), f"[{needed[0]} weeks, {needed[1]} resources]", "give one each")
    return jnp.asarray(notice)


def _check_groups(population: Population, record: Record) -> None:
    """Refuse groups of another number of agents."""
    if record.group is not None and record.group.shape != (population.n_agents,):
        needed = f"[{population.n_agents} agents]"
        raise shape_mismatch("record.group", record.group.shape, needed, "give every agent one group")


def bytes_per_agent(exogenous: ExogenousPaths, policy: Policy, initial: State) -> int:
    """Estimate what a block keeps at hand of an agent: what goes from week to week, and what was said beforehand."""
    carried = (initial.max_lead + ROWS_PER_WEEK) * (exogenous.n_scenarios or 1)
    encodes = type(policy).encode is not Policy.encode
    return 4 * (carried + (exogenous.n_weeks if encodes else 0))


def default_state(population: Population, exogenous: ExogenousPaths) -> State:
    """Start empty, with a pipeline long enough for the paths' lead times."""
    return empty_state(population.n_agents, max(exogenous.arrivals.longest() or 1, 1))


def window_length(policy: Policy, max_lead: int) -> int:
    """Count the weeks of an announced window: this one, the longest lead time, and what the policy wants after it."""
    return max_lead + 1 + policy.ahead


@partial(jax.jit, static_argnames="length")
def announced_windows(
    shadow_prices: Float[Array, "*scenario week resource"],
    length: int,
    notice: Int[Array, "week resource"] | None = None,
) -> Float[Array, "*scenario week lead resource"]:
    """Cut, for every week, the prices of that week and the next ones; the last price holds after the end.

    Args:
        shadow_prices: charged in each week [money per unit of resource].
        length: weeks of a window.
        notice: weeks ahead of which each price is announced; what is not announced yet is seen as 0.
    """
    ahead = np.arange(length)
    weeks = shadow_prices.shape[-2]
    index = np.minimum(np.arange(weeks)[:, None] + ahead[None, :], weeks - 1)
    window = shadow_prices[..., index, :]
    return window if notice is None else jnp.where(notice[index] >= ahead[None, :, None], window, 0.0)


def full_prices(
    population: Population, exogenous: ExogenousPaths, shadow_prices: Float[Array, "*scenario week resource"] | None
) -> Float[Array, "*scenario week resource"]:
    """Fill in zeros; prices that all scenarios share keep no scenario axis, so that policies see them once."""
    if shadow_prices is None:
        return jnp.zeros((exogenous.n_weeks, len(population.resources)))
    return jnp.asarray(shadow_prices, jnp.float32)


def _run(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    charged: Float[Array, "*scenario week resource"],
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    block: int,
    mesh: AgentMesh | None,
    following_cost: Float[Array, " agent"] | None = None,
    first_week: Array | int = 0,
) -> Rollout:
    """Run all agents, on the devices of a mesh or on all cores where nothing is being traced, and add up their tiles.

    `following_cost` is the unit cost of the week after the last one; by default the last week's holds.
    """
    everything = (
        population,
        exogenous,
        policy,
        initial,
        windows,
        engine,
        record,
        backlog,
        block,
        following_cost,
        first_week,
    )
    if mesh is not None:
        sums, kept, info = run_sharded(*everything, mesh)
        return _rollout(sums, kept, info, charged, record, block)
    return _gather(map_ranges(run_range, everything, population.n_agents, block), charged, record, block)


@eqx.filter_jit
def _gather(pieces: list[Any], charged: Float[Array, "*scenario week resource"], record: Record, block: int) -> Rollout:
    """Fold the tiles of all ranges in order, and line their agents up."""
    parts, kept, infos = zip(*pieces, strict=True)
    sums = jax.tree.map(pairwise_sum, join(lambda leaf: leaf, parts, 0))
    return _rollout(sums, join(lambda leaf: leaf, kept, -1), infos[0], charged, record, block)


def _rollout(
    sums: Any, kept: Any, info: EngineInfo, charged: Float[Array, "*scenario week resource"], record: Record, block: int
) -> Rollout:
    """Name the sums over all agents, and what is kept of each."""
    (rows, cells, end), (final, traces) = sums, kept
    groups = None if cells is None else cells.reshape(*cells.shape[:-1], record.n_groups, -1)
    agents = None if traces is None else agents_before_resources(traces)
    return Rollout(as_totals(rows, record.flows), groups, agents, final, end[..., 0], charged, info, block)


def _run_controlled(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    controller: Controller,
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    block: int,
    mesh: AgentMesh | None,
) -> Rollout:
    """Run week by week under prices that a controller issues."""
    ahead = window_length(policy, initial.max_lead) - 1

    def run_week(week: int, state: State, charged: Array, issued: Prices) -> tuple[State, Rollout]:
        now = _per_scenario(jnp.asarray(charged, jnp.float32)[..., None, :], exogenous)
        window = jnp.concatenate([now, _per_scenario(_cut_or_hold(issued, ahead), exogenous)], axis=-2)
        index = jnp.asarray(week)
        today = week_of(exogenous, index)
        following = exogenous.unit_cost[jnp.asarray(min(week + 1, exogenous.unit_cost.shape[0] - 1))]
        settings = (window[..., None, :, :], now, engine, record, backlog, block, mesh)
        part = _run(population, today, policy, state, *settings, following, index)
        return part.final, part

    weeks = closed_loop(controller, run_week, initial, exogenous.n_weeks, len(population.resources))
    return _string(weeks, None if exogenous.n_scenarios is None else 1)


def _cut_or_hold(issued: Prices, length: int) -> Float[Array, "*scenario length resource"]:
    """Cut prices to what policies see, or hold the last row."""
    issued = jnp.asarray(issued, jnp.float32)
    return issued[..., np.minimum(np.arange(length), issued.shape[-2] - 1), :]


def _per_scenario(prices: Array, exogenous: ExogenousPaths) -> Float[Array, "*scenario ahead resource"]:
    """Repeat prices for every scenario."""
    if exogenous.n_scenarios is not None and prices.ndim == 2:
        return jnp.broadcast_to(prices, (exogenous.n_scenarios, *prices.shape))
    return prices


@eqx.filter_jit
def week_of(exogenous: ExogenousPaths, week: Array, count: int = 1) -> ExogenousPaths:
    """Cut `count` weeks from `week` on; `week` is an array, so that one compilation serves all weeks."""
    axis = 0 if exogenous.n_scenarios is None else 1
    shared = eqx.tree_at(lambda e: (e.demand, e.arrivals), exogenous, (None, None))
    cut = jax.tree.map(lambda leaf: _weeks_of(leaf, week, count), shared)
    own = (exogenous.demand, exogenous.arrivals)
    own = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, week, count, axis=axis), own)
    return eqx.tree_at(lambda e: (e.demand, e.arrivals), cut, own, is_leaf=lambda x: x is None)


def _weeks_of(leaf: Float[Array, "#week agent"], week: Array, count: int) -> Float[Array, "#count agent"]:
    """Cut the weeks; one row for all weeks stays one."""
    return leaf if leaf.shape[0] == 1 else jax.lax.dynamic_slice_in_dim(leaf, week, count, axis=0)


def _string(parts: list[Rollout], axis: int | None) -> Rollout:
    """Put one-week rollouts one after the other."""
    week_axis = axis or 0
    join = lambda *leaves: jnp.concatenate(leaves, axis=week_axis)  # noqa: E731
    last = parts[-1]
    kept = [(p.totals, p.groups, p.agents, p.shadow_prices) for p in parts]
    totals, groups, agents, prices = jax.tree.map(join, *kept)
    info = jax.tree.map(lambda *leaves: sum(leaves), *[p.info for p in parts])
    return Rollout(totals, groups, agents, last.final, last.end_value, prices, info, last.block_agents)


def _tracer(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    rollout: Rollout,
    notice: Int[Array, "week resource"] | None,
    engine: AbstractEngine,
    backlog: bool,
    block: int,
    mesh: AgentMesh | None,
) -> Callable[[int, int], WeekRecord]:
    """Return what traces a range of agents again, under the prices that were charged."""

    def rerun(first: int, last: int) -> WeekRecord:
        windows = announced_windows(rollout.shadow_prices, window_length(policy, initial.max_lead), notice)
        take = agent_slicer(first, last - first, population.n_agents)
        people = population.take(slice(first, last))
        parts = (people, take(exogenous), take(policy), take(initial), windows, rollout.shadow_prices)
        again = _run(*parts, engine, Record.traces(), backlog, block, mesh)
        assert again.agents is not None  # traces were asked for
        return again.agents

    return rerun
