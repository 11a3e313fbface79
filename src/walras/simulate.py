"""Own the one pure function that runs a population through its exogenous paths.

CONTRACT: same arguments, same rollout; agents are processed in blocks that stay in the processor's cache.
"""

import abc
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.engine.base import AbstractEngine, EngineInfo
from walras.engine.lanes import over_ranges
from walras.engine.sequential import Sequential
from walras.engine.tiles import block_size, fold, join, over_blocks, tile_sums
from walras.errors import InputError
from walras.exogenous.paths import ExogenousPaths
from walras.model.check import check_shapes, check_values
from walras.model.inputs import WeekInputs, encode_weeks, shared_inputs, steady_and_changing
from walras.model.record import Record, Totals, as_totals
from walras.model.state import State, empty_state
from walras.model.trouble import refuse_not_finite
from walras.model.week import Running, Week, WeekRecord
from walras.policies.base import AbstractPolicy
from walras.population.population import Population
from walras.ties import SIDE

ROWS_PER_WEEK = 24
"""Numbers per agent that one week reads and makes beside the pipeline; sets how many agents fit in a cache."""

KEEP_SIDES = jax.checkpoint_policies.save_only_these_names(SIDE)
"""A gradient keeps which side every clip took, and recomputes the rest of a week from its inputs."""

EXTRA_WINDOW = 2
"""An announced window spans this week, the longest lead time, and the week after it."""


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


class AbstractCoordinator(abc.ABC):
    """Issue shadow prices week by week from what is known so far."""

    @abc.abstractmethod
    def issue(self, week: int, state: State) -> Float[Array, "*scenario ahead resource"]:
        """Return the prices of this week and the following ones, as issued now.

        The first row is this week's price. It was last issued before this week's receipts, so what is returned there
        changes nothing, except in the first week of a run.

        Args:
            week: index of the week in the run.
            state: state at the end of the previous week, so that this week's receipts are `pipeline[0]`.
        """


def simulate(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    *,
    initial: State | None = None,
    shadow_prices: Float[Array, "*scenario week resource"] | None = None,
    coordinator: AbstractCoordinator | None = None,
    engine: AbstractEngine | None = None,
    record: Record | None = None,
    backlog: bool = False,
    block_agents: int | None = None,
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
        coordinator: issues prices week by week instead; give one or the other.
        engine: how the weeks are strung together; default sequential.
        record: what to keep; default totals.
        backlog: unmet demand waits instead of being lost.
        block_agents: agents simulated together, a multiple of 256; by default what the machine's cache holds. Changes
            the time, never a bit of the answer.
        throw: refuse to return a rollout that holds NaN or infinity.

    Raises:
        ShapeError: arrays whose axes do not meet.
        SettingsError: a block size that is not a multiple of 256.
        NotFiniteError: a NaN, with the week and the agent where it appeared first (only with `throw`).
    """
    record = Record.totals() if record is None else record
    engine = Sequential() if engine is None else engine
    initial = default_state(population, exogenous) if initial is None else initial
    check_shapes(population, exogenous, initial, shadow_prices)
    if throw:
        check_values(population, exogenous, initial, shadow_prices, backlog=backlog)
    arguments = (population, exogenous, policy, initial)
    block = block_size(bytes_per_agent(exogenous, policy, initial), block_agents)
    if coordinator is not None:
        if shadow_prices is not None:
            raise InputError("both `shadow_prices` and `coordinator` were given but one of them sets prices; drop one")
        rollout = _run_coordinated(*arguments, coordinator, engine, record, backlog, block)
    else:
        prices = full_prices(population, exogenous, shadow_prices)
        windows = announced_windows(prices, initial.max_lead)
        rollout = _run(*arguments, windows, prices, engine, record, backlog, block)
    if throw:
        rerun = _tracer(*arguments, rollout, engine, backlog, block)
        refuse_not_finite(population, rollout.totals.reward, rollout.end_value, rerun)
    return rollout


def bytes_per_agent(exogenous: ExogenousPaths, policy: AbstractPolicy, initial: State) -> int:
    """Estimate what a block keeps at hand of an agent: what goes from week to week, and what was said beforehand."""
    carried = (initial.max_lead + ROWS_PER_WEEK) * (exogenous.n_scenarios or 1)
    encodes = type(policy).encode is not AbstractPolicy.encode
    return 4 * (carried + (exogenous.n_weeks if encodes else 0))


def default_state(population: Population, exogenous: ExogenousPaths) -> State:
    """Start empty, with a pipeline long enough for the paths' lead times."""
    return empty_state(population.n_agents, max(exogenous.arrivals.longest() or 1, 1))


@partial(jax.jit, static_argnames="max_lead")
def announced_windows(
    shadow_prices: Float[Array, "*scenario week resource"], max_lead: int
) -> Float[Array, "*scenario week lead resource"]:
    """Cut, for every week, the prices of that week and the next max_lead + 1; the last price holds after the end."""
    weeks = shadow_prices.shape[-2]
    index = np.minimum(np.arange(weeks)[:, None] + np.arange(max_lead + EXTRA_WINDOW)[None, :], weeks - 1)
    return shadow_prices[..., index, :]


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
    policy: AbstractPolicy,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    charged: Float[Array, "*scenario week resource"],
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    block: int,
    following_cost: Float[Array, " agent"] | None = None,
    first_week: Array | int = 0,
) -> Rollout:
    """Run all agents, on all cores where nothing is being traced, and add up their tiles.

    `following_cost` is the unit cost of the week after the last one; by default the last week's holds.
    """
    following = exogenous.unit_cost[-1] if following_cost is None else following_cost
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
        following,
        first_week,
    )
    return _gather(over_ranges(_range, everything, population.n_agents, block), charged, record, block)


def _range(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    block: int,
    following_cost: Float[Array, " agent"],
    first_week: Array | int,
    first: Array | int,
    count: int,
) -> Any:
    """Run `count` agents from `first` on, block after block."""
    weeks = first_week + jnp.arange(exogenous.n_weeks)

    def body(start: Array | int, size: int) -> Any:
        take = _slicer(start, size, population.n_agents)
        kept = eqx.tree_at(lambda r: r.group, record, take(record.group)) if record.group is not None else record
        agents = cut_agents(population, exogenous, policy, initial, start, size)
        return run_agents(*agents, windows, engine, kept, backlog, take(following_cost), weeks)

    return over_blocks(body, first, count, block)


def cut_agents(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    start: Array | int,
    size: int,
) -> tuple[Population, ExogenousPaths, AbstractPolicy, State]:
    """Cut `size` agents from `start` on out of everything that is theirs."""
    take = _slicer(start, size, population.n_agents)
    people = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size, axis=0), population)
    return people, take(exogenous), take(policy), take(initial)


def run_agents(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    following_cost: Float[Array, " agent"],
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


@eqx.filter_jit
def _gather(pieces: list[Any], charged: Float[Array, "*scenario week resource"], record: Record, block: int) -> Rollout:
    """Fold the tiles of all ranges in order, and line their agents up."""
    parts, kept, infos = zip(*pieces, strict=True)
    rows, cells, end = jax.tree.map(fold, join(lambda leaf: leaf, parts, 0))
    groups = None if cells is None else cells.reshape(*cells.shape[:-1], record.n_groups, -1)
    final, traces = join(lambda leaf: leaf, kept, -1)
    agents = None if traces is None else _agents_before_resources(traces)
    return Rollout(as_totals(rows, record.flows), groups, agents, final, end[..., 0], charged, infos[0], block)


def _slicer(start: Array | int, size: int, n_agents: int) -> Callable[[Any], Any]:
    """Cut a block of agents out of every array whose last axis is that of the agents; other values pass."""

    def cut(leaf: Any) -> Any:
        if eqx.is_array(leaf) and leaf.ndim > 0 and leaf.shape[-1] == n_agents:
            return jax.lax.dynamic_slice_in_dim(leaf, start, size, axis=leaf.ndim - 1)
        return leaf

    return lambda tree: jax.tree.map(cut, tree)


def _spread(state: State, scenarios: int) -> State:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (scenarios, *leaf.shape)), state)


def _agents_last(record: WeekRecord) -> WeekRecord:
    return eqx.tree_at(lambda r: r.utilization, record, jnp.moveaxis(record.utilization, -1, -2))


_agents_before_resources = _agents_last  # the same exchange of the last two axes of utilization, back again


def _run_block(
    week: Week,
    exogenous: ExogenousPaths,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    record: Record,
    following_cost: Float[Array, " agent"],
    weeks: Int[Array, " week"],
) -> Any:
    """Run one block; a scenario axis on demand (and arrivals) is mapped over."""
    weight = week.population.weight
    fields = shared_inputs(exogenous, following_cost)
    encoded = encode_weeks(week.population, week.policy, fields, weeks, windows)
    steady, changing = steady_and_changing(fields, len(weeks))

    def one(demand: Array, arrivals: Any, encoded: Any, window: Array, state: State) -> Any:
        own = {"week": weeks, "demand": demand, "arrivals": arrivals, "encoded": encoded, "shadow_prices": window}

        @partial(jax.checkpoint, policy=KEEP_SIDES, prevent_cse=False)
        def step(running: Running, inputs: dict[str, Any]) -> Any:
            running, happened = week(running, WeekInputs(**steady, **inputs))
            return running, (*record.sums(happened, weight), _agents_last(happened) if record.agents else None)

        trajectory, info = engine.run(step, week.begin(state), {**changing, **own})
        rows, cells, traces = trajectory.records
        final = trajectory.final.state
        end = tile_sums([exogenous.unit_cost[-1] * (final.stock_end + final.pipeline.sum(0))], weight)
        return (rows, cells, end), (final, traces), info

    paths = (exogenous.demand, exogenous.arrivals)
    if exogenous.n_scenarios is None:
        return one(*paths, encoded, windows, initial)
    per_path = 0 if windows.ndim == 4 else None
    return jax.vmap(one, in_axes=(0, 0, per_path, per_path, 0))(*paths, encoded, windows, initial)


def _run_coordinated(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    coordinator: AbstractCoordinator,
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    block: int,
) -> Rollout:
    """Step week by week; the coordinator may do anything in between, so this loop is not compiled as a whole."""
    state, weeks, issued_before = initial, [], None
    for week in range(exogenous.n_weeks):
        issued = _full_window(coordinator.issue(week, state), exogenous, initial.max_lead)
        charged = issued[..., :1, :] if issued_before is None else issued_before[..., 1:2, :]
        window = jnp.concatenate([charged, issued[..., 1:, :]], axis=-2)[..., None, :, :]
        today = week_of(exogenous, jnp.asarray(week))
        following = exogenous.unit_cost[jnp.asarray(min(week + 1, exogenous.unit_cost.shape[0] - 1))]
        index = jnp.asarray(week)
        part = _run(population, today, policy, state, window, charged, engine, record, backlog, block, following, index)
        state, issued_before = part.final, issued
        weeks.append(part)
    return _string(weeks, None if exogenous.n_scenarios is None else 1)


def _full_window(issued: Array, exogenous: ExogenousPaths, max_lead: int) -> Float[Array, "*scenario lead resource"]:
    """Cut or hold what was issued to the window that policies see, for every scenario."""
    issued = jnp.asarray(issued, jnp.float32)
    index = np.minimum(np.arange(max_lead + EXTRA_WINDOW), issued.shape[-2] - 1)
    window = issued[..., index, :]
    if exogenous.n_scenarios is not None and window.ndim == 2:
        window = jnp.broadcast_to(window, (exogenous.n_scenarios, *window.shape))
    return window


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
    policy: AbstractPolicy,
    initial: State,
    rollout: Rollout,
    engine: AbstractEngine,
    backlog: bool,
    block: int,
) -> Callable[[int, int], WeekRecord]:
    """Return what traces a range of agents again, under the prices that were charged."""

    def rerun(first: int, last: int) -> WeekRecord:
        windows = announced_windows(rollout.shadow_prices, initial.max_lead)
        take = _slicer(first, last - first, population.n_agents)
        people = population.take(slice(first, last))
        parts = (people, take(exogenous), take(policy), take(initial), windows, rollout.shadow_prices)
        again = _run(*parts, engine, Record.traces(), backlog, block)
        assert again.agents is not None  # traces were asked for
        return again.agents

    return rerun
