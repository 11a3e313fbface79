"""Checks of what is simulated: shapes always, numbers where they are concrete, and a policy by its shapes.

Errors name the field, the week and the agent, all counted from 0.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from walras.errors import InputError, NotFiniteError, ShapeError, one_line, shape_mismatch
from walras.exogenous.arrivals import ArrivalShares, IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Observation, Policy, PolicyMemory, PublicObservation
from walras.population.agent_axis import is_broadcast, map_per_agent
from walras.population.population import Population
from walras.simulation.week import KNOWN, State, read_weeks

SHARE_TOLERANCE = 1e-4
"""Arrival shares may miss a sum of 1 by this: a hundred roundings of single precision."""

MOST_CHECKED = 1024
CHECKED_POLICIES: dict[Any, None] = {}
"""Shapes of the policies that have passed `check_policy_call`, oldest first; at most `MOST_CHECKED`."""


@dataclass(frozen=True)
class _Rule:
    """Which numbers a field may hold: from `lowest` (None: any) to `highest`, infinity where `unlimited`."""

    lowest: float | None = 0.0
    highest: float = math.inf
    unlimited: bool = False
    remedy: str = "correct it where the array was built"

    def allows(self, low: float, high: float) -> bool:
        """Tell whether all numbers between two extremes are allowed; NaN is not."""
        above = low > -math.inf if self.lowest is None else low >= self.lowest
        return above and high <= self.highest and (high < math.inf or (self.unlimited and not math.isnan(high)))

    def violations(self, values: np.ndarray) -> np.ndarray:
        """Mark the numbers that are not allowed."""
        bad = np.isnan(values) if self.unlimited else ~np.isfinite(values)
        bad |= values > self.highest
        return np.asarray(bad if self.lowest is None else bad | (values < self.lowest))

    def __str__(self) -> str:
        kind = "a number" if self.unlimited else "a finite number"
        least = "" if self.lowest is None else f" of at least {self.lowest:g}"
        most = "" if self.highest == math.inf else f" and at most {self.highest:g}"
        return f"it must be {kind}{least}{most}{', infinity for no limit' if self.unlimited else ''}"


CHECK_COST = "check that agent's prices and costs in the table"
COSTS = ("population.holding_cost", "population.lost_sale_penalty", "exogenous.sale_price", "exogenous.unit_cost")
RULES = dict.fromkeys(COSTS, _Rule(remedy=CHECK_COST)) | {
    "population.demand_scale": _Rule(remedy="check that agent's demand in the table"),
    "population.unit_margin": _Rule(lowest=None, remedy=CHECK_COST),
    "exogenous.demand": _Rule(remedy="fill gaps and take returns out before the paths are built"),
    "exogenous.lead_demand_mean": _Rule(lowest=None, remedy="check that agent's forecast"),
    "exogenous.lead_demand_sd": _Rule(remedy="check that agent's forecast"),
    "initial.stock_end": _Rule(remedy="start without backlog, or let demand wait with `backlog=True`"),
    "shadow_prices": _Rule(remedy="charge 0 where a resource is free"),
}
"""What each field may hold; supply may be infinite, unknown fields hold any finite number, all others none below 0."""

SHAPE_REMEDY = {
    "population": "give every field one row per agent",
    "exogenous": "build the paths for this population, all for the same weeks",
    "initial": "start from this population",
    "shadow_prices": "give one price for every week and resource",
}


@dataclass(frozen=True)
class _Field:
    """An array and its axes.

    Attributes:
        axes: names of its last axes; an axis before them is that of scenarios.
        scenarios: "may", "must" (where the paths have scenarios) or "never" be an axis of it.
        known: its axes are certain (not an arrival or supply model that this module does not know).
    """

    name: str
    array: Any
    axes: tuple[str, ...]
    scenarios: str = "never"
    known: bool = True

    @property
    def rule(self) -> _Rule:
        """Look up which numbers the field may hold."""
        if self.name.startswith("exogenous.supply"):
            if self.name.endswith(".share"):
                return _Rule(highest=1.0, remedy="give the share of an order that the vendor fills")
            return _Rule(unlimited=True)
        return RULES.get(self.name, _Rule() if self.known else _Rule(lowest=None))

    @property
    def all_axes(self) -> tuple[str, ...]:
        """Name all axes of the array."""
        return ("scenario",) * (self.array.ndim - len(self.axes)) + self.axes

    def check_shape(self, sizes: dict[str, int | None]) -> None:
        """Compare every axis with its length."""
        shape = tuple(self.array.shape)
        extra = len(shape) - len(self.axes)
        lengths = dict(zip(self.axes, shape[max(extra, 0) :], strict=False))
        one_row = "week" if self.scenarios == "never" else None  # one row stands for all weeks
        fits = extra >= 0 and all(
            length == sizes.get(axis, length) or (axis == one_row and length == 1) for axis, length in lengths.items()
        )
        several = sizes["scenario"]
        scenarios: tuple[int, ...] = () if several is None else (several,)
        own = shape[: max(extra, 0)]
        if fits and ((own == () and self.scenarios != "must") or (own == scenarios and self.scenarios != "never")):
            return
        first = [f"{several} scenarios"] if scenarios and self.scenarios == "must" else []
        either = " with or without an axis of scenarios" if scenarios and self.scenarios == "may" else ""
        named = ((axis, sizes.get(axis)) for axis in self.axes)
        needed = ", ".join([*first, *(axis if n is None else f"{n} {axis}{'s' * (n != 1)}" for axis, n in named)])
        raise shape_mismatch(self.name, shape, f"[{needed}]{either}", SHAPE_REMEDY[self.name.split(".")[0]])

    def first(self, is_bad: Callable[[np.ndarray], np.ndarray]) -> tuple[dict[str, int], float]:
        """Return the earliest bad number as an index per axis, and its value."""
        axes = self.all_axes
        along = next((axes.index(axis) for axis in ("week", "lead") if axis in axes), None)
        index, value = first_place(self.array, is_bad, along)
        return dict(zip(axes, index, strict=True)), value


def check_shapes(
    population: Population, exogenous: ExogenousPaths, initial: State, shadow_prices: Any | None = None
) -> None:
    """Refuse arrays whose axes do not agree; works inside JAX transforms too.

    Raises:
        ShapeError: naming the array, its shape and the one that is needed.
        InputError: no agent or no week.
    """
    sizes = _sizes(population, exogenous)
    empty = [name for name in ("agent", "week") if sizes[name] == 0]
    if empty:
        raise InputError(f"there is no {empty[0]} to simulate but at least one is needed; give one")
    for field in _fields(population, exogenous, initial, shadow_prices):
        field.check_shape(sizes)
    longest = exogenous.arrivals.shares.shape[-2] - 1 if isinstance(exogenous.arrivals, ArrivalShares) else 0
    if longest > initial.max_lead:
        raise _pipeline_too_short(initial, longest, population.n_agents)


def check_values(
    population: Population,
    exogenous: ExogenousPaths,
    initial: State,
    shadow_prices: Any = None,
    *,
    backlog: bool = False,
) -> None:
    """Refuse numbers out of range; tracers are skipped. With `backlog`, stock at the start may be negative.

    JAX arrays are read once, however often they are passed; numpy arrays every time, since they may have changed.

    Raises:
        NotFiniteError: a NaN or infinity, with the field, week and agent where it comes first.
        InputError: a number out of range, likewise.
        ShapeError: a lead time that the pipeline has no room for.
    """
    for field in _fields(population, exogenous, initial, shadow_prices):
        if not is_concrete(field.array):
            continue
        rule = _Rule(lowest=None) if backlog and field.name == "initial.stock_end" else field.rule
        if not rule.allows(*cached_stats(field.array, min_max)):
            place, value = field.first(rule.violations)
            kind = InputError if math.isfinite(value) else NotFiniteError
            raise kind(f"`{field.name}` is {value:g} {locate(population, **place)}; {rule}: {rule.remedy}")
    _check_lead_times(population, exogenous, initial)
    _check_shares(population, exogenous)


def _sizes(population: Population, exogenous: ExogenousPaths) -> dict[str, int | None]:
    demand = exogenous.demand
    if demand.ndim not in (2, 3):
        needed = f"[week, {population.n_agents} agents] or [scenario, week, {population.n_agents} agents]"
        raise shape_mismatch("exogenous.demand", tuple(demand.shape), needed, SHAPE_REMEDY["exogenous"])
    sizes = {"agent": population.n_agents, "resource": len(population.resources)}
    return {**sizes, "week": exogenous.n_weeks, "scenario": exogenous.n_scenarios}


def _fields(
    population: Population, exogenous: ExogenousPaths, initial: State, shadow_prices: Any | None
) -> Iterator[_Field]:
    """List every array that is simulated, in the order in which faults are reported."""
    for name, array in _leaves("population", population):
        yield _Field(name, array, ("agent", "resource") if name == "population.use" else ("agent",))
    for name, array in _leaves("exogenous", exogenous):
        yield _path_field(name, array, exogenous)
    yield _Field("initial.stock_end", initial.stock_end, ("agent",), "may")
    yield _Field("initial.pipeline", initial.pipeline, ("lead", "agent"), "may")
    if shadow_prices is not None:
        yield _Field("shadow_prices", shadow_prices, ("week", "resource"), "may")


def _leaves(root: str, tree: Any) -> list[tuple[str, Any]]:
    """Name every array of a tree by its path, as in `exogenous.arrivals.weeks`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(root + jax.tree_util.keystr(path), leaf) for path, leaf in leaves if hasattr(leaf, "ndim")]


def _path_field(name: str, array: Any, exogenous: ExogenousPaths) -> _Field:
    """Return the axes of an array of the paths; for unknown models they follow from the number of axes."""
    arrivals = exogenous.arrivals
    if name == "exogenous.demand" or (isinstance(arrivals, IntegerLeadTimes) and name == "exogenous.arrivals.weeks"):
        return _Field(name, array, ("week", "agent"), "must")
    if isinstance(arrivals, ArrivalShares) and name == "exogenous.arrivals.shares":
        return _Field(name, array, ("week", "lead", "agent"), "must")
    if not name.startswith(("exogenous.arrivals", "exogenous.supply")):
        return _Field(name, array, ("week", "agent"))
    own = ("scenario",) if array.ndim > 2 and array.shape[0] == exogenous.n_scenarios else ()
    axes = {0: (), 1: ("agent",), 2: ("week", "agent")}.get(array.ndim - len(own), ("week", "lead", "agent"))
    return _Field(name, array, axes, "must" if own else "never", known=False)


def _pipeline_too_short(initial: State, longest: int, n_agents: int, because: str = "") -> ShapeError:
    needed = f"[at least {longest} weeks of lead time, {n_agents} agents]{because}"
    shape = tuple(initial.pipeline.shape)
    return shape_mismatch("initial.pipeline", shape, needed, "give it a row for every lead time that occurs")


def locate(
    population: Population,
    *,
    week: int | None = None,
    scenario: int | None = None,
    lead: int | None = None,
    agent: int | None = None,
    resource: int | None = None,
) -> str:
    """Name a place in words: `in week 37 of scenario 2 for agent "X" (counted from 0)`."""
    words = [] if week is None else [f"in week {week}"]
    if lead is not None:
        words.append(f"in row {lead} (arriving {lead + 1} weeks on)" if week is None else f"after {lead} weeks")
    if scenario is not None:
        words.append(f"{'in' if week is None else 'of'} scenario {scenario}")
    if agent is not None:
        words.append(f"for {population.name_of(agent)}")
    if resource is not None:
        words.append(f"for resource `{population.resources[resource]}`")
    named = week is None and scenario is None and (agent is None or population.name_of(agent).endswith('"'))
    return " ".join(words if named else [*words, "(counted from 0)"])


def _check_lead_times(population: Population, exogenous: ExogenousPaths, initial: State) -> None:
    if not isinstance(exogenous.arrivals, IntegerLeadTimes) or not is_concrete(weeks := exogenous.arrivals.weeks):
        return
    if weeks.dtype.kind not in "iu":
        raise InputError(
            f"`exogenous.arrivals.weeks` holds {weeks.dtype} numbers but lead times are whole weeks; "
            "round them and convert to integers"
        )
    longest = int(cached_stats(weeks, min_max)[1])
    if longest > initial.max_lead:
        field = _path_field("exogenous.arrivals.weeks", weeks, exogenous)
        place, value = field.first(lambda lead: lead > initial.max_lead)
        because = f", as the order {locate(population, **place)} takes {value:g} weeks"
        raise _pipeline_too_short(initial, longest, population.n_agents, because)


def _check_shares(population: Population, exogenous: ExogenousPaths) -> None:
    if not isinstance(exogenous.arrivals, ArrivalShares) or not is_concrete(shares := exogenous.arrivals.shares):
        return
    if cached_stats(shares, gap_from_one) <= SHARE_TOLERANCE:
        return
    field = _path_field("exogenous.arrivals.shares", shares, exogenous)

    def sums_wrongly(row: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.abs(row.sum(-2, keepdims=True) - 1.0) > SHARE_TOLERANCE, row.shape)

    place, _ = field.first(sums_wrongly)
    index = tuple(place[axis] if axis != "lead" else slice(None) for axis in field.all_axes)
    total = float(np.asarray(shares[index], np.float64).sum())
    place.pop("lead")
    raise InputError(
        f"`exogenous.arrivals.shares` adds up to {total:g} {locate(population, **place)}; "
        "the shares of an order must add up to 1: divide them by their sum"
    )


# --- a policy by its shapes -------------------------------------------------------------------------------------------

_NOT_IN_JAX = (  # the last covers conversions to bool
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
)


def check_policy_call(population: Population, policy: Policy, ahead: int, block: int) -> None:
    """Refuse a policy whose arrays do not fit the agents, or that JAX cannot compile; other errors of it pass.

    Orders of one week, with prices of `ahead` weeks, are traced without computing a number, for all agents and for one
    block, so that a wrong length is found even where it fits a block. Policies of the same shapes are traced once.

    Raises:
        ShapeError: an array that is neither one number, nor one per agent, nor marked as shared.
        InputError: a policy that looks at numbers which are only known while the program runs.
    """
    leaves, structure = jax.tree.flatten(policy)
    kinds = tuple((jnp.shape(leaf), jnp.result_type(leaf)) if eqx.is_array_like(leaf) else leaf for leaf in leaves)
    key = (structure, kinds, population.n_agents, population.resources, ahead, block)
    if key in CHECKED_POLICIES:
        return
    for agents in sorted({population.n_agents, min(block, population.n_agents)}, reverse=True):
        _trace_orders(population, policy, agents, ahead)
    while len(CHECKED_POLICIES) >= MOST_CHECKED:
        CHECKED_POLICIES.pop(next(iter(CHECKED_POLICIES)), None)
    CHECKED_POLICIES[key] = None


def _trace_orders(population: Population, policy: Policy, agents: int, ahead: int) -> None:
    """Trace one week's orders of the first few agents, and translate what goes wrong."""
    part = map_per_agent(lambda leaf: leaf[..., :agents], policy, population.n_agents)
    people = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((agents, *leaf.shape[1:]), leaf.dtype), population)
    try:
        shape = eqx.filter_eval_shape(partial(_one_week, ahead=ahead), people, part).shape
    except _NOT_IN_JAX as error:
        first = one_line(str(error).strip().splitlines()[0])[:160] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the policy `{name_of(policy)}` looks at numbers that are only known while the program runs "
            f"({first}); write it with `jax.numpy` (`jnp.where` for `if`), or wrap the function in "
            "`walras.policies.user_policies.CallbackPolicy`"
        ) from error
    except (TypeError, ValueError) as error:
        suspect = _suspect(policy, population.n_agents)
        if suspect is None:
            raise
        needed = f"one number or [..., {population.n_agents} agents], as the policy cannot be evaluated with it"
        shared = "mark as `walras.population.agent_axis.Broadcast` what all agents share"
        remedy = f"give one number for every agent, or {shared}"
        raise shape_mismatch(f"{name_of(policy)}{suspect[0]}", suspect[1], needed, remedy) from error
    if shape != (agents,):
        raise shape_mismatch("the policy's orders", shape, "[agents]", "order one number for every agent")


def _one_week(population: Population, policy: Policy, *, ahead: int) -> Any:
    zeros = jnp.zeros_like(population.demand_scale)
    prices, fields = jnp.zeros((ahead, len(population.resources))), dict.fromkeys(KNOWN, zeros)
    memory, read, week = policy.begin(population), None, jnp.asarray(0, jnp.int32)
    if policy.reads_history:
        rows = dict.fromkeys(KNOWN, zeros[None])
        reads, memory = read_weeks(population, policy, rows, week[None], zeros[None], memory or PolicyMemory())
        read = jax.tree.map(lambda leaf: leaf[0], reads)
    encoded = policy.encode(PublicObservation(week=week, population=population, read=read, **fields), prices)
    seen = Observation(week=week, population=population, stock_start=zeros, position=zeros, memory=memory, **fields)
    return policy.decide(encoded, seen, prices)


def _suspect(policy: Policy, n_agents: int) -> tuple[str, tuple[int, ...]] | None:
    """Return the first array that is neither of the agents, nor of length 1, nor marked as shared."""
    for path, node in jax.tree_util.tree_flatten_with_path(policy, is_leaf=is_broadcast)[0]:
        shape = np.shape(node) if eqx.is_array_like(node) else ()
        if shape and shape[-1] not in (1, n_agents):
            return jax.tree_util.keystr(path), shape
    return None


def name_of(policy: Policy) -> str:
    """Name a policy by its function where it is one, else by its class."""
    return str(getattr(getattr(policy, "function", None), "name", type(policy).__name__))


# --- statistics of arrays ---------------------------------------------------------------------------------------------

_STATS: dict[tuple[int, Callable], Any] = {}


def cached_stats(array: Any, measure: Callable[[Any], Any]) -> Any:
    """Return what a module-level function measures, remembered for as long as a JAX array lives."""
    if not isinstance(array, jax.Array):
        return measure(array)
    key = (id(array), measure)
    if key not in _STATS:
        _STATS[key] = measure(array)
        weakref.finalize(array, _STATS.pop, key, None).atexit = False
    return _STATS[key]


def is_concrete(array: Any) -> bool:
    """Tell whether there are numbers to look at: no tracer of a JAX transform, and not empty."""
    return not isinstance(array, jax.core.Tracer) and array.size > 0


def min_max(array: Any) -> tuple[float, float]:
    """Return the least and the greatest number, or NaN where any number is NaN; no copy is made."""
    lows, highs = zip(*(_min_max_of_piece(piece) for piece, _ in _pieces(array)), strict=True)
    return float(np.min(lows)), float(np.max(highs))


def gap_from_one(shares: Any) -> float:
    """Return the greatest distance from 1 of sums over the last axis but one, week by week [..., week, lead, agent]."""
    rows = (row for piece, _ in _pieces(shares) for _, row in _rows(piece, shares.ndim - 3))
    return max(float(np.max(np.abs(row.sum(-2) - 1.0))) for row in rows)


def first_place(
    array: Any, is_bad: Callable[[np.ndarray], np.ndarray], axis: int | None
) -> tuple[tuple[int, ...], float]:
    """Return the index of the first bad number, and the number; this process must hold one.

    The array is read slice by slice along `axis`, in order, or at once (None).
    """
    places = []
    for piece, start in _pieces(array):
        for number, row in _rows(piece, axis):
            bad = is_bad(row)
            if bad.any():
                inner = [int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape)]
                place = inner if axis is None else [*inner[:axis], number, *inner[axis:]]
                whole = tuple(at + first for at, first in zip(place, start, strict=True))
                places.append(((whole[axis] if axis is not None else 0, whole), float(row[tuple(inner)])))
                break
    (_, index), value = min(places)
    return index, value


def _pieces(array: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """List the parts of an array that this process holds, each once, with the index of its start."""
    if not isinstance(array, jax.Array):
        return [(array, (0,) * array.ndim)]
    parts: dict[tuple[int, ...], Any] = {}
    for shard in array.addressable_shards:
        starts = tuple(cut.indices(size)[0] for cut, size in zip(shard.index, array.shape, strict=True))
        parts.setdefault(starts, shard.data)
    return [(piece, starts) for starts, piece in parts.items() if piece.size > 0]


def _on_host(piece: Any) -> bool:
    return not isinstance(piece, jax.Array) or next(iter(piece.devices())).platform == "cpu"


def _min_max_of_piece(piece: Any) -> tuple[float, float]:
    """Reduce on the host where the numbers are there already (a view, no copy), else on their device."""
    if _on_host(piece):
        host = np.asarray(piece)
        return float(np.min(host)), float(np.max(host))
    with jax.ensure_compile_time_eval():
        return float(jnp.min(piece)), float(jnp.max(piece))


def _rows(piece: Any, axis: int | None) -> Iterator[tuple[int, np.ndarray]]:
    piece = np.asarray(piece) if axis is None or _on_host(piece) else piece
    if axis is None:
        yield 0, piece
        return
    for number in range(piece.shape[axis]):
        with jax.ensure_compile_time_eval():
            row = np.asarray(piece[(slice(None),) * axis + (number,)])
        yield number, row
