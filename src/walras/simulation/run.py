"""`simulate`: one pure function that runs a population through its exogenous paths.

CONTRACT: same arguments, same rollout.
"""

from dataclasses import fields, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.distribute.blocks import block_size, concatenate_pieces, pairwise_sum
from walras.distribute.device_mesh import AgentMesh
from walras.distribute.threads import map_ranges
from walras.errors import InputError, SettingsError, shape_mismatch
from walras.exogenous.paths import ExogenousPaths
from walras.parallel.process import AbstractEngine, EngineInfo, Sequential
from walras.policies.base import Policy
from walras.policies.user_policies import callback_names, number_agents
from walras.population.population import Population
from walras.simulation.checks import check_policy_call, check_shapes, check_values
from walras.simulation.controller import Controller, Prices, closed_loop
from walras.simulation.nan_report import raise_if_nonfinite
from walras.simulation.record import Record, Totals, as_totals
from walras.simulation.setup import Setup, run_range, run_sharded, swap_agents_resources
from walras.simulation.state import State, empty_state
from walras.simulation.week import WeekRecord

ROWS_PER_WEEK = 24
"""Numbers per agent that one week reads and writes beside the pipeline; sets how many agents fit in a cache."""


class Rollout(eqx.Module):
    """The result of a simulation.

    Attributes:
        totals: sums over agents per week.
        groups: utilization by group [*scenario, week, group, resource], where the record asks for it.
        agents: per-agent traces [*scenario, week, agent], where the record asks for them.
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
        """Return total reward: money of all weeks plus the value of what is left at the end (spec section 2)."""
        return self.totals.reward.sum(-1) + self.end_value

    def __str__(self) -> str:
        """Return totals over all weeks as a small table, averaged over scenarios."""
        if isinstance(self.end_value, jax.core.Tracer):
            return repr(self)
        scenarios, (weeks, resources) = self.end_value.size, self.totals.utilization.shape[-2:]
        rows = {"reward": self.reward, "value at the end": self.end_value}
        for field in fields(Totals)[2:]:
            values = getattr(self.totals, field.name)
            if values is not None:  # stock is no flow: its mean over weeks says more than its sum
                is_stock = field.name == "stock_end"
                rows["mean stock" if is_stock else field.name.replace("_", " ")] = (
                    values.mean(-1) if is_stock else values.sum(-1)
                )
        rows |= {f"utilization {i}": self.totals.utilization[..., i].sum(-1) for i in range(resources)}
        title = f"{weeks} weeks" + (f", mean of {scenarios} scenarios" if self.end_value.ndim else "")
        return "\n".join([title, *(f"  {name:<18}{float(np.mean(value)):>16,.2f}" for name, value in rows.items())])


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
        initial: stock and pipeline at the start; default empty, with room for the longest lead time.
        shadow_prices: announced in full at the start [money per unit of resource]; after the last week the last
            price holds. Default 0. May carry the scenario axis.
        controller: issues prices week by week instead; give one or the other.
        notice: weeks ahead of which each week's price is announced, 0 only in the week itself; before that agents see
            no price. By default all prices are known from the start.
        engine: how the weeks are strung together; default sequential.
        record: what to keep; default totals.
        backlog: unmet demand waits instead of being lost.
        block_agents: agents simulated together, a multiple of 256; by default what the processor's cache holds. No
            bit of the result depends on it where the policy treats agents independently (the compiler chooses the
            order of a matrix product).
        mesh: devices of this process (default one) to spread the agents over; totals agree to rounding. For several
            processes use `walras.simulation.out_of_core.simulate_out_of_core`.
        throw: raise where the rollout holds NaN or infinity.

    Raises:
        ShapeError: arrays whose axes do not agree, those of the policy included.
        InputError: numbers out of range, a policy that cannot be compiled, a Python callback that failed.
        SettingsError: a block size that is not a multiple of 256, a mesh with devices of another process.
        NotFiniteError: a NaN, with the week and agent where it appeared first (only with `throw`).
    """
    mesh = _several_devices(mesh)
    rest = (initial, shadow_prices, engine, record, backlog, block_agents)
    setup = prepare(population, exogenous, policy, *rest, values=throw)
    notice = _checked_notice(notice, population, exogenous)
    if controller is not None and shadow_prices is not None:
        raise InputError("both `shadow_prices` and `controller` were given but one of them sets prices; drop one")
    with callback_names(population):
        if controller is not None:
            rollout = _run_controlled(setup, controller, mesh)
        else:
            prices = full_prices(population, exogenous, shadow_prices)
            rollout = _run(_announced(setup, prices, notice), prices, mesh)
        if throw:
            retrace = partial(_retrace, setup, rollout.shadow_prices, notice, mesh)
            raise_if_nonfinite(population, rollout.totals.reward, rollout.end_value, retrace)
    return rollout


def _retrace(
    setup: Setup,
    shadow_prices: Float[Array, "*priced week resource"],
    notice: Int[Array, "week resource"] | None,
    mesh: AgentMesh | None,
    first: int,
    last: int,
) -> WeekRecord:
    """Simulate a range of agents again under the prices that were charged, and return their traces."""
    part = replace(setup.cut(first, last - first), record=Record.traces())
    agents = _run(_announced(part, shadow_prices, notice), shadow_prices, mesh).agents
    assert agents is not None  # the record asks for them
    return agents


def prepare(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State | None = None,
    shadow_prices: Float[Array, "*priced week resource"] | None = None,
    engine: AbstractEngine | None = None,
    record: Record | None = None,
    backlog: bool = False,
    block_agents: int | None = None,
    *,
    values: bool = True,
    carried: int = 1,
) -> Setup:
    """Check the arguments of `simulate`, and fill in its defaults; no windows of prices yet.

    Args:
        population, exogenous, policy, initial, shadow_prices, engine, record, backlog, block_agents: as in `simulate`.
        values: also check the numbers, not only the shapes.
        carried: how many copies of an agent's state are carried from week to week; sets the block size.
    """
    record = Record.totals() if record is None else record
    initial = default_state(population, exogenous) if initial is None else initial
    shadow_prices = None if shadow_prices is None else jnp.asarray(shadow_prices)
    check_shapes(population, exogenous, initial, shadow_prices)
    if record.group is not None and record.group.shape != (population.n_agents,):
        needed = f"[{population.n_agents} agents]"
        raise shape_mismatch("record.group", record.group.shape, needed, "give every agent one group")
    if values:
        check_values(population, exogenous, initial, shadow_prices, backlog=backlog)
    block = block_size(carried * bytes_per_agent(exogenous, policy, initial), block_agents)
    check_policy_call(population, policy, window_length(policy, initial.max_lead), block)
    policy = number_agents(policy, population.n_agents)
    engine = Sequential() if engine is None else engine
    return Setup(population, exogenous, policy, initial, None, engine, record, backlog, block)


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
    """Run one path through prices that are re-issued every week; may be compiled and differentiated.

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
    setup = Setup(population, exogenous, policy, initial, windows, Sequential(), record, False, block)
    return _run(setup, charged, None)


def _several_devices(mesh: AgentMesh | None) -> AgentMesh | None:
    """Refuse devices of other processes; the default device alone needs no mesh, and then uses all cores."""
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


def bytes_per_agent(exogenous: ExogenousPaths, policy: Policy, initial: State) -> int:
    """Estimate what a run keeps in cache of an agent: its state, and what its policy has encoded beforehand."""
    carried = (initial.max_lead + ROWS_PER_WEEK) * (exogenous.n_scenarios or 1)
    encodes = type(policy).encode is not Policy.encode
    return 4 * (carried + (exogenous.n_weeks if encodes else 0))


def default_state(population: Population, exogenous: ExogenousPaths) -> State:
    """Start empty, with a pipeline long enough for the paths' lead times."""
    return empty_state(population.n_agents, max(exogenous.arrivals.longest() or 1, 1))


def window_length(policy: Policy, max_lead: int) -> int:
    """Count the weeks of an announced window: this one, the longest lead time, and what the policy needs after it."""
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


def _announced(
    setup: Setup,
    shadow_prices: Float[Array, "*priced week resource"],
    notice: Int[Array, "week resource"] | None = None,
) -> Setup:
    """Announce the prices of all weeks."""
    length = window_length(setup.policy, setup.initial.max_lead)
    return replace(setup, windows=announced_windows(shadow_prices, length, notice))


def _run(setup: Setup, charged: Float[Array, "*priced week resource"], mesh: AgentMesh | None) -> Rollout:
    """Run all agents, on the devices of a mesh or on all cores where nothing is being traced, and add up their tiles."""
    if mesh is not None:
        sums, kept, info = run_sharded(setup, mesh)
        return _rollout(sums, kept, info, charged, setup.record, setup.block)
    pieces = map_ranges(run_range, (setup,), setup.population.n_agents, setup.block)
    return _gather(pieces, charged, setup.record, setup.block)


@eqx.filter_jit
def _gather(pieces: list[Any], charged: Float[Array, "*priced week resource"], record: Record, block: int) -> Rollout:
    """Add up the tiles of all ranges in order, and put their agents one after the other."""
    parts, kept, infos = zip(*pieces, strict=True)
    sums = jax.tree.map(pairwise_sum, concatenate_pieces(parts, 0))
    return _rollout(sums, concatenate_pieces(kept, -1), infos[0], charged, record, block)


def _rollout(
    sums: Any, kept: Any, info: EngineInfo, charged: Float[Array, "*priced week resource"], record: Record, block: int
) -> Rollout:
    """Name the sums over all agents, and what is kept of each agent."""
    (rows, cells, end), (final, traces) = sums, kept
    groups = None if cells is None else cells.reshape(*cells.shape[:-1], record.n_groups, -1)
    agents = None if traces is None else swap_agents_resources(traces)
    return Rollout(as_totals(rows, record.flows), groups, agents, final, end[..., 0], charged, info, block)


def _run_controlled(setup: Setup, controller: Controller, mesh: AgentMesh | None) -> Rollout:
    """Run week by week under prices that a controller issues."""
    exogenous, ahead = setup.exogenous, window_length(setup.policy, setup.initial.max_lead) - 1

    def run_week(week: int, state: State, charged: Array, issued: Prices) -> tuple[State, Rollout]:
        now = _per_scenario(jnp.asarray(charged, jnp.float32)[..., None, :], exogenous)
        window = jnp.concatenate([now, _per_scenario(_cut_or_hold(issued, ahead), exogenous)], axis=-2)
        index = jnp.asarray(week)
        following = exogenous.unit_cost[jnp.asarray(min(week + 1, exogenous.unit_cost.shape[0] - 1))]
        part = replace(
            setup,
            exogenous=week_of(exogenous, index),
            initial=state,
            windows=window[..., None, :, :],
            following_cost=following,
            first_week=index,
        )
        rollout = _run(part, now, mesh)
        return rollout.final, rollout

    weeks = closed_loop(controller, run_week, setup.initial, exogenous.n_weeks, len(setup.population.resources))
    return _concatenate(weeks, 0 if exogenous.n_scenarios is None else 1)


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
    cut = jax.tree.map(
        # one row for all weeks stays one
        lambda leaf: leaf if leaf.shape[0] == 1 else jax.lax.dynamic_slice_in_dim(leaf, week, count, axis=0),
        shared,
    )
    own = (exogenous.demand, exogenous.arrivals)
    own = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, week, count, axis=axis), own)
    return eqx.tree_at(lambda e: (e.demand, e.arrivals), cut, own, is_leaf=lambda x: x is None)


def _concatenate(weeks: list[Rollout], week_axis: int) -> Rollout:
    """Put one-week rollouts one after the other."""
    last = weeks[-1]
    parts = [(week.totals, week.groups, week.agents, week.shadow_prices) for week in weeks]
    totals, groups, agents, prices = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=week_axis), *parts)
    info = jax.tree.map(lambda *leaves: sum(leaves), *[week.info for week in weeks])
    return Rollout(totals, groups, agents, last.final, last.end_value, prices, info, last.block_agents)
