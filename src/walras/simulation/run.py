"""`simulate`: one pure function that runs a population through its exogenous paths."""

from collections.abc import Callable, Iterator
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
from walras.errors import InputError, NotFiniteError, SettingsError, shape_mismatch
from walras.exogenous.paths import ExogenousPaths
from walras.parallel.process import AbstractEngine, EngineInfo, Sequential
from walras.policies.base import Policy
from walras.policies.user_policies import callback_names, number_agents
from walras.population.population import Population
from walras.simulation.checks import check_policy_call, check_shapes, check_values, locate
from walras.simulation.controller import Controller, Prices, closed_loop
from walras.simulation.record import AgentMeans, Record, Totals, as_totals, swap_agents_resources
from walras.simulation.setup import Setup, run_range, run_sharded
from walras.simulation.week import State, WeekRecord, empty_state

PathPrices = Float[Array, "*priced week resource"]
"""Prices of all weeks [money per unit of resource]; no scenario axis where all scenarios are charged the same."""

Notice = Int[Array, "week resource"] | None
Place = tuple[int, int, int]  # week, scenario and agent, in the order in which places are compared
ROWS_PER_WEEK = 24  # numbers per agent that a week reads and writes beside the pipeline: how many agents fit in a cache
TRACED_AGENTS, FEWEST_TRACED = (
    8192,
    256,
)  # traced at a time in the search for the first NaN; the most over all scenarios


class Rollout(eqx.Module):
    """The result of a simulation.

    Attributes:
        totals: sums over agents per week.
        groups: utilization by group [*scenario, week, group, resource], where the record asks for it.
        agents: per-agent traces [*scenario, week, agent], where the record asks for them; `means` are over scenarios.
        final: state after the last week.
        end_value: unit cost x (stock + open orders) at the end, so that starving the last weeks earns nothing [money].
        shadow_prices: price charged in each week.
        info, block_agents: the engine's account of its work, and the number of agents simulated together.
    """

    totals: Totals
    groups: Float[Array, "*scenario week group resource"] | None
    agents: WeekRecord | None
    final: State
    end_value: Float[Array, "*scenario"]
    shadow_prices: PathPrices
    info: EngineInfo
    block_agents: int = eqx.field(static=True)
    means: AgentMeans | None = None

    @property
    def reward(self) -> Float[Array, "*scenario"]:
        """Return total reward: money of all weeks plus the value of what is left at the end (docs/concepts/week.md)."""
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
                name = "mean stock" if is_stock else field.name.replace("_", " ")
                rows[name] = values.mean(-1) if is_stock else values.sum(-1)
        rows |= {f"utilization {i}": self.totals.utilization[..., i].sum(-1) for i in range(resources)}
        title = f"{weeks} weeks" + (f", mean of {scenarios} scenarios" if self.end_value.ndim else "")
        return "\n".join([title, *(f"  {name:<18}{float(np.mean(value)):>16,.2f}" for name, value in rows.items())])


def simulate(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    *,
    initial: State | None = None,
    shadow_prices: PathPrices | None = None,
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
        engine, record: how the weeks are strung together (sequentially) and what to keep (totals).
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
            rollout = run_setup(announce(setup, prices, notice), prices, mesh)
        if throw:
            retrace = partial(_retrace, setup, rollout.shadow_prices, notice, mesh)
            raise_if_nonfinite(population, rollout.totals.reward, rollout.end_value, retrace)
    return rollout


def _retrace(
    setup: Setup, shadow_prices: PathPrices, notice: Notice, mesh: AgentMesh | None, first: int, last: int
) -> WeekRecord:
    part = replace(setup.cut(first, last - first), record=Record.traces())
    agents = run_setup(announce(part, shadow_prices, notice), shadow_prices, mesh).agents
    assert agents is not None  # the record asks for them
    return agents


def prepare(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State | None = None,
    shadow_prices: PathPrices | None = None,
    engine: AbstractEngine | None = None,
    record: Record | None = None,
    backlog: bool = False,
    block_agents: int | None = None,
    *,
    values: bool = True,
    carried: int = 1,
) -> Setup:
    """Check the arguments of `simulate`, and fill in its defaults; no windows of prices yet.

    With `values` numbers are checked too. The block size follows from `carried`, the copies of an agent's state that
    are carried from week to week.
    """
    if not isinstance(policy, Policy):
        raise InputError(
            f"`policy` is {type(policy).__name__!r} but agents follow a `Policy`; give one, or wrap a function as "
            "`policies.FunctionPolicy`"
        )
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


def raise_if_nonfinite(
    population: Population,
    reward: Float[Array | np.ndarray, "*scenario week"],
    end_value: Float[Array | np.ndarray, "*scenario"],
    retrace: Callable[[int, int], WeekRecord],
) -> None:
    """Refuse a simulation whose reward or end value [money] is not finite; never inside a JAX transform.

    Instead of storing all traces, `retrace` simulates agents first to last - 1 again and returns theirs
    [*scenario, week, agent]. All calls have ranges of one length, so that one compilation serves them.

    Raises:
        NotFiniteError: naming the week and agent of the first order or reward that is NaN or infinite.
    """
    if isinstance(reward, jax.core.Tracer) or isinstance(end_value, jax.core.Tracer):
        return
    if np.isfinite(np.asarray(reward)).all() and np.isfinite(np.asarray(end_value)).all():
        return
    several = reward.ndim == 2
    orders: list[Place] = []
    rewards: list[Place] = []
    for first, last in agent_ranges(population.n_agents, reward.shape[0] if several else 1):
        traces = retrace(first, last)
        orders += _first_nonfinite(traces.orders, first)
        rewards += _first_nonfinite(traces.reward, first)
    order, money = min(orders, default=None), min(rewards, default=None)

    def words(place: Place) -> str:
        week, scenario, agent = place
        return locate(population, week=week, scenario=scenario if several else None, agent=agent)

    if order is not None and (money is None or order[0] <= money[0]):
        raise NotFiniteError(
            f"the policy's order is not a finite number {words(order)}; "
            "check the policy and the paths of that agent for NaN and huge values"
        )
    if money is not None:
        raise NotFiniteError(
            f"the reward is not a finite number {words(money)}; "
            "check that agent's demand, prices and costs for NaN and huge values"
        )
    raise NotFiniteError("the total reward is not a finite number; check the prices, costs and weights for huge values")


def agent_ranges(n_agents: int, n_scenarios: int = 1) -> Iterator[tuple[int, int]]:
    """Cut agents into ranges of one length, shorter for more scenarios; the last range overlaps the one before it."""
    size = min(n_agents, max(TRACED_AGENTS // n_scenarios, FEWEST_TRACED))
    for first in range(0, n_agents, size):
        start = min(first, n_agents - size)
        yield start, start + size


def _first_nonfinite(values: Float[Array | np.ndarray, "*scenario week agent"], offset: int) -> list[Place]:
    """Return the earliest week, and the first scenario and agent in it, with a NaN or infinity, if any."""
    bad = ~np.isfinite(np.asarray(values))
    by_week = np.moveaxis(bad.reshape(-1, *bad.shape[-2:]), 1, 0)  # [week, scenario, agent]
    week, scenario, agent = np.unravel_index(int(np.argmax(by_week)), by_week.shape)
    return [(int(week), int(scenario), int(agent) + offset)] if by_week[week, scenario, agent] else []


def _several_devices(mesh: AgentMesh | None) -> AgentMesh | None:
    """Refuse devices of other processes; the default device alone needs no mesh and uses all cores."""
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
) -> Notice:
    weeks, resources = exogenous.n_weeks, len(population.resources)
    if notice is not None and np.shape(notice) != (weeks, resources):
        raise shape_mismatch("notice", np.shape(notice), f"[{weeks} weeks, {resources} resources]", "give one each")
    return None if notice is None else jnp.asarray(notice)


def bytes_per_agent(exogenous: ExogenousPaths, policy: Policy, initial: State) -> int:
    """Estimate what a run keeps in cache of an agent: its state, and what its policy has encoded [bytes]."""
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
    shadow_prices: PathPrices, length: int, notice: Notice = None
) -> Float[Array, "*scenario week lead resource"]:
    """Cut, for every week, the prices of that week and the next ones (`length` in all); the last price holds.

    `notice` is the number of weeks ahead of which each price is announced; before that it is seen as 0.
    """
    ahead = np.arange(length)
    weeks = shadow_prices.shape[-2]
    index = np.minimum(np.arange(weeks)[:, None] + ahead[None, :], weeks - 1)
    window = shadow_prices[..., index, :]
    return window if notice is None else jnp.where(notice[index] >= ahead[None, :, None], window, 0.0)


def full_prices(population: Population, exogenous: ExogenousPaths, shadow_prices: PathPrices | None) -> PathPrices:
    """Fill in zeros; shared prices get no scenario axis, so that policies see them once."""
    if shadow_prices is None:
        return jnp.zeros((exogenous.n_weeks, len(population.resources)))
    return jnp.asarray(shadow_prices, jnp.float32)


def announce(setup: Setup, shadow_prices: PathPrices, notice: Notice = None) -> Setup:
    """Return the setup with the windows of prices that agents see."""
    length = window_length(setup.policy, setup.initial.max_lead)
    return replace(setup, windows=announced_windows(shadow_prices, length, notice))


def run_setup(setup: Setup, charged: PathPrices, mesh: AgentMesh | None = None) -> Rollout:
    """Run all agents, on a mesh or on all cores where nothing is being traced, and add up their tiles."""
    if mesh is not None:
        sums, kept, info = run_sharded(setup, mesh)
        return _rollout(sums, kept, info, charged, setup.record, setup.block)
    pieces = map_ranges(run_range, (setup,), setup.population.n_agents, setup.block)
    return _gather(pieces, charged, setup.record, setup.block)


@eqx.filter_jit
def _gather(pieces: list[Any], charged: PathPrices, record: Record, block: int) -> Rollout:
    """Add up the tiles of all ranges in order, and put their agents one after the other."""
    parts, kept, infos = zip(*pieces, strict=True)
    sums = jax.tree.map(pairwise_sum, concatenate_pieces(parts, 0))
    return _rollout(sums, concatenate_pieces(kept, -1), infos[0], charged, record, block)


def _rollout(sums: Any, kept: Any, info: EngineInfo, charged: PathPrices, record: Record, block: int) -> Rollout:
    """Name the sums over all agents, and what is kept of each agent."""
    (rows, cells, end), (final, traces) = sums, kept
    groups = None if cells is None else cells.reshape(*cells.shape[:-1], record.n_groups, -1)
    kept = None if traces is None else swap_agents_resources(traces)
    agents, means = (None, kept) if record.means else (kept, None)
    return Rollout(as_totals(rows, record.flows), groups, agents, final, end[..., 0], charged, info, block, means)


def _run_controlled(setup: Setup, controller: Controller, mesh: AgentMesh | None) -> Rollout:
    """Run week by week under prices that a controller issues."""
    exogenous, ahead = setup.exogenous, window_length(setup.policy, setup.initial.max_lead) - 1

    def run_week(week: int, state: State, charged: Array, issued: Prices) -> tuple[State, Rollout]:
        index = jnp.asarray(week)
        now, window, paths, following = _inputs_of_week(exogenous, index, charged, issued, ahead)
        part = replace(setup, exogenous=paths, initial=state, windows=window)
        rollout = run_setup(replace(part, following_cost=following, first_week=index), now, mesh)
        # States of all weeks would be by far the largest of what is kept.
        last = week == exogenous.n_weeks - 1
        return rollout.final, rollout if last else eqx.tree_at(lambda done: done.final, rollout, None)

    weeks = closed_loop(controller, run_week, setup.initial, exogenous.n_weeks, len(setup.population.resources))
    return _concatenate(weeks, 0 if exogenous.n_scenarios is None else 1)


@eqx.filter_jit
def _inputs_of_week(
    exogenous: ExogenousPaths, week: Array, charged: Array, issued: Prices, ahead: int
) -> tuple[Array, Array, ExogenousPaths, Array]:
    """Return the prices charged, the window of prices, the paths of this week, and the unit cost of the next one."""
    scenarios = exogenous.n_scenarios

    def per_scenario(prices: Array) -> Float[Array, "*scenario ahead resource"]:
        return prices if scenarios is None or prices.ndim == 3 else jnp.broadcast_to(prices, (scenarios, *prices.shape))

    now = per_scenario(jnp.asarray(charged, jnp.float32)[..., None, :])
    # Cut to what policies see, or the last row held.
    issued = jnp.asarray(issued, jnp.float32)[..., np.minimum(np.arange(ahead), issued.shape[-2] - 1), :]
    window = jnp.concatenate([now, per_scenario(issued)], axis=-2)[..., None, :, :]
    following = exogenous.unit_cost[jnp.minimum(week + 1, exogenous.unit_cost.shape[0] - 1)]
    return now, window, week_of(exogenous, week), following


@eqx.filter_jit
def week_of(exogenous: ExogenousPaths, week: Array, count: int = 1) -> ExogenousPaths:
    """Cut `count` weeks from `week` on; `week` is an array, so that one compilation serves all weeks."""
    axis = 0 if exogenous.n_scenarios is None else 1
    shared = eqx.tree_at(lambda e: (e.demand, e.arrivals), exogenous, (None, None))
    slice_weeks = partial(jax.lax.dynamic_slice_in_dim, start_index=week, slice_size=count)
    # One row for all weeks stays one.
    cut = jax.tree.map(lambda leaf: leaf if leaf.shape[0] == 1 else slice_weeks(leaf, axis=0), shared)
    own = jax.tree.map(partial(slice_weeks, axis=axis), (exogenous.demand, exogenous.arrivals))
    return eqx.tree_at(lambda e: (e.demand, e.arrivals), cut, own, is_leaf=lambda x: x is None)


@eqx.filter_jit
def _concatenate(weeks: list[Rollout], week_axis: int) -> Rollout:
    last = weeks[-1]

    def joined(part: Callable[[Rollout], Any], axis: int) -> Any:
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=axis), *map(part, weeks))

    parts = lambda week: (week.totals, week.groups, week.agents, week.shadow_prices)  # noqa: E731
    totals, groups, agents, prices = joined(parts, week_axis)
    means = joined(lambda week: week.means, 0)
    info = jax.tree.map(lambda *leaves: sum(leaves), *[week.info for week in weeks])
    return Rollout(totals, groups, agents, last.final, last.end_value, prices, info, last.block_agents, means)
