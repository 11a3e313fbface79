"""Own the refusal of inputs that cannot be simulated: one sentence that names the field, the week and the agent.

CONTRACT: shapes are checked always, numbers where they are concrete; weeks, scenarios and agents count from 0.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from walras.errors import InputError, NotFiniteError, ShapeError, shape_mismatch
from walras.exogenous.arrivals import ArrivalShares, IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.population.population import Population
from walras.simulation.state import State


class ArrayStatsCache:
    """Remember what was measured of JAX arrays for as long as they live, since they never change.

    Numpy arrays can be written to between two calls and are measured every time.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._known: dict[tuple[int, Callable], tuple[weakref.ref, Any]] = {}

    def __len__(self) -> int:
        """Count the measurements kept."""
        return len(self._known)

    def of(self, array: Any, measure: Callable[[Any], Any]) -> Any:
        """Return `measure(array)`, from memory where it is known.

        Args:
            array: numpy or JAX array, concrete.
            measure: a module-level function of the array alone; with the array it is the key.
        """
        if not isinstance(array, jax.Array):
            return measure(array)
        key = (id(array), measure)
        known = self._known.get(key)
        if known is not None and known[0]() is array:
            return known[1]
        found = measure(array)
        self._known[key] = (weakref.ref(array, lambda gone: self._forget(key, gone)), found)
        return found

    def _forget(self, key: tuple[int, Callable], gone: weakref.ref) -> None:
        """Drop a dead array, unless its number already belongs to a new one."""
        known = self._known.get(key)
        if known is not None and known[0] is gone:
            del self._known[key]


def is_concrete(array: Any) -> bool:
    """Tell whether there are numbers to look at: not inside a JAX transform, and not an array of no elements."""
    return not isinstance(array, jax.core.Tracer) and array.size > 0


def min_max(array: Any) -> tuple[float, float]:
    """Return the least and the greatest number; both are NaN where any number is NaN. No copy is made."""
    lows, highs = zip(*(_extremes_of_piece(piece) for piece, _ in _pieces(array)), strict=True)
    return float(np.min(lows)), float(np.max(highs))


def gap_from_one(shares: Any) -> float:
    """Return the greatest distance from 1 of sums over the last axis but one, week by week [..., week, lead, agent]."""
    rows = (row for piece, _ in _pieces(shares) for _, row in _rows(piece, shares.ndim - 3))
    return max(float(np.max(np.abs(row.sum(-2) - 1.0))) for row in rows)


def first_place(
    array: Any, is_bad: Callable[[np.ndarray], np.ndarray], axis: int | None
) -> tuple[tuple[int, ...], float]:
    """Find the first number along `axis` that is bad, and the number itself; there must be one on this process.

    Args:
        array: numpy or JAX array, concrete.
        is_bad: marks the bad numbers of one slice.
        axis: the array is read slice by slice along it, in order; None reads it at once.
    """
    found = []
    for piece, start in _pieces(array):
        for number, row in _rows(piece, axis):
            bad = is_bad(row)
            if bad.any():
                inner = [int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape)]
                place = inner if axis is None else [*inner[:axis], number, *inner[axis:]]
                whole = tuple(at + first for at, first in zip(place, start, strict=True))
                found.append(((whole[axis] if axis is not None else 0, whole), float(row[tuple(inner)])))
                break
    (_, place_found), value = min(found)
    return place_found, value


def _pieces(array: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """List the parts of an array that this process holds, each once, with the index at which each starts."""
    if not isinstance(array, jax.Array):
        return [(array, (0,) * array.ndim)]
    parts: dict[tuple[int, ...], Any] = {}
    for shard in array.addressable_shards:
        starts = tuple(cut.indices(size)[0] for cut, size in zip(shard.index, array.shape, strict=True))
        parts.setdefault(starts, shard.data)
    return [(piece, starts) for starts, piece in parts.items() if piece.size > 0]


def _extremes_of_piece(piece: Any) -> tuple[float, float]:
    """Reduce on the host where the numbers lie there already, else on the device that holds them."""
    if isinstance(piece, jax.Array) and next(iter(piece.devices())).platform != "cpu":
        with jax.ensure_compile_time_eval():
            return float(jnp.min(piece)), float(jnp.max(piece))
    host = np.asarray(piece)  # of a CPU device's array this is a view
    return float(np.min(host)), float(np.max(host))


def _rows(piece: Any, axis: int | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield slices along an axis as numpy arrays, one at a time."""
    if isinstance(piece, jax.Array) and next(iter(piece.devices())).platform == "cpu":
        piece = np.asarray(piece)
    if axis is None:
        yield 0, np.asarray(piece)
        return
    for number in range(piece.shape[axis]):
        with jax.ensure_compile_time_eval():
            row = np.asarray(piece[(slice(None),) * axis + (number,)])
        yield number, row


SHARE_TOLERANCE = 1e-4
"""Arrival shares may miss a sum of 1 by this: a hundred roundings of single precision."""

MEMORY = ArrayStatsCache()
"""What was measured of arrays that cannot change, so that each is read through once however often it is simulated."""


@dataclass(frozen=True)
class _Rule:
    """Say which numbers a field may hold.

    Attributes:
        lowest: least number allowed; None for no least.
        highest: greatest number allowed.
        endless: infinity is allowed.
        remedy: what to do about others, an imperative phrase.
    """

    lowest: float | None = 0.0
    highest: float = math.inf
    endless: bool = False
    remedy: str = "correct it where the array was built"

    def allows(self, low: float, high: float) -> bool:
        """Tell whether all numbers between two extremes are allowed; NaN is not."""
        above = low > -math.inf if self.lowest is None else low >= self.lowest
        return above and high <= self.highest and (high < math.inf or (self.endless and not math.isnan(high)))

    def breaks(self, values: np.ndarray) -> np.ndarray:
        """Mark the numbers that are not allowed."""
        bad = np.isnan(values) if self.endless else ~np.isfinite(values)
        bad |= values > self.highest
        return np.asarray(bad if self.lowest is None else bad | (values < self.lowest))

    def words(self) -> str:
        """Say what is needed."""
        kind = "a number" if self.endless else "a finite number"
        least = "" if self.lowest is None else f" of at least {self.lowest:g}"
        most = "" if self.highest == math.inf else f" and at most {self.highest:g}"
        return f"it must be {kind}{least}{most}{', infinity for no limit' if self.endless else ''}"


FILL_GAPS = "fill gaps and take returns out before the paths are built"
CHECK_COST = "check that agent's prices and costs in the table"
ANY_NUMBER = _Rule(lowest=None)
NO_LESS_THAN_ZERO = _Rule()
RULES = {
    "population.demand_scale": _Rule(remedy="check that agent's demand in the table"),
    "population.holding_cost": _Rule(remedy=CHECK_COST),
    "population.lost_sale_penalty": _Rule(remedy=CHECK_COST),
    "population.unit_margin": _Rule(lowest=None, remedy=CHECK_COST),
    "exogenous.demand": _Rule(remedy=FILL_GAPS),
    "exogenous.sale_price": _Rule(remedy=CHECK_COST),
    "exogenous.unit_cost": _Rule(remedy=CHECK_COST),
    "exogenous.lead_demand_mean": _Rule(lowest=None, remedy="check that agent's forecast"),
    "exogenous.lead_demand_sd": _Rule(remedy="check that agent's forecast"),
    "initial.stock_end": _Rule(remedy="start without backlog, or let demand wait with `backlog=True`"),
    "shadow_prices": _Rule(remedy="charge 0 where a resource is free"),
}
"""What each field may hold; supply may be endless, unknown fields hold any finite number, all others none below 0."""


def check_shapes(
    population: Population, exogenous: ExogenousPaths, initial: State, shadow_prices: Any | None = None
) -> None:
    """Refuse arrays whose axes do not meet; works inside JAX transforms too.

    Args:
        population, exogenous, initial: what is simulated.
        shadow_prices: [*scenario, week, resource]; None for none.

    Raises:
        ShapeError: naming the array, its shape and the one that is needed.
    """
    sizes = _sizes(population, exogenous, initial)
    empty = [name for name in ("agent", "week") if sizes[name] == 0]
    if empty:
        raise InputError(f"there is no {empty[0]} to simulate but at least one is needed; give one")
    for field in _fields(population, exogenous, initial, shadow_prices):
        field.refuse_shape(sizes)
    _refuse_short_pipeline(exogenous, initial, population.n_agents)


def check_values(
    population: Population,
    exogenous: ExogenousPaths,
    initial: State,
    shadow_prices: Any | None = None,
    *,
    backlog: bool = False,
) -> None:
    """Refuse numbers that mean nothing; what a JAX transform has hidden is skipped.

    Each array is read through once, however often it is passed, except numpy arrays, which may have changed.

    Args:
        population, exogenous, initial: what is simulated; shapes meet.
        shadow_prices: [*scenario, week, resource]; None for none.
        backlog: stock at the start may be negative, which is demand that waits.

    Raises:
        NotFiniteError: a NaN or infinity, with the field, week and agent where it comes first.
        InputError: a number out of range, likewise.
        ShapeError: a lead time that the pipeline has no room for.
    """
    for field in _fields(population, exogenous, initial, shadow_prices):
        if is_concrete(field.array):
            rule = ANY_NUMBER if backlog and field.name == "initial.stock_end" else field.rule
            _refuse_values(field, rule, population)
    _refuse_lead_times(population, exogenous, initial)
    _refuse_shares(population, exogenous)


@dataclass(frozen=True)
class _Field:
    """Name an array and its axes.

    Attributes:
        name: as the caller of `simulate` knows it.
        array: numpy or JAX array, or what stands for it inside a transform.
        axes: names of its last axes; an axis before them is that of scenarios.
        scenarios: "may", "must" (where the paths have scenarios) or "never" be an axis of it.
        known: its axes are certain (not an arrival or supply model of another file).
    """

    name: str
    array: Any
    axes: tuple[str, ...]
    scenarios: str = "never"
    known: bool = True

    @property
    def rule(self) -> _Rule:
        """Look up which numbers the field may hold."""
        if self.name.startswith("exogenous.supply") and self.name.endswith(".share"):
            return _Rule(highest=1.0, remedy="give the share of an order that the vendor fills")
        if self.name.startswith("exogenous.supply"):
            return _Rule(endless=True)
        return RULES.get(self.name, NO_LESS_THAN_ZERO if self.known else ANY_NUMBER)

    @property
    def all_axes(self) -> tuple[str, ...]:
        """Name the axes that the array has in fact."""
        return ("scenario",) * (self.array.ndim - len(self.axes)) + self.axes

    def refuse_shape(self, sizes: dict[str, int | None]) -> None:
        """Compare every axis with its length."""
        shape = tuple(self.array.shape)
        given = dict(zip(self.axes, shape[len(shape) - len(self.axes) :], strict=False))
        one_row = ("week",) if self.scenarios == "never" else ()  # stands for all weeks
        fits = len(shape) >= len(self.axes) and all(
            given[axis] == sizes.get(axis, given[axis]) or (axis in one_row and given[axis] == 1) for axis in given
        )
        own = shape[: len(shape) - len(self.axes)]
        several = sizes["scenario"]
        scenarios: tuple[int, ...] = () if several is None else (several,)
        if fits and ((own == () and self.scenarios != "must") or (own == scenarios and self.scenarios != "never")):
            return
        first = [f"{scenarios[0]} scenarios"] if scenarios and self.scenarios == "must" else []
        either = " with or without an axis of scenarios" if scenarios and self.scenarios == "may" else ""
        needed = ", ".join([*first, *(_length(axis, sizes.get(axis)) for axis in self.axes)])
        raise shape_mismatch(self.name, shape, f"[{needed}]{either}", _SHAPE_REMEDY[self.name.split(".")[0]])


_SHAPE_REMEDY = {
    "population": "give every field one row per agent",
    "exogenous": "build the paths for this population, all for the same weeks",
    "initial": "start from this population",
    "shadow_prices": "give one price for every week and resource",
}


def _length(axis: str, size: int | None) -> str:
    """Say how long an axis is, `7 agents` or `agent` where any length does."""
    return axis if size is None else f"{size} {axis}{'' if size == 1 else 's'}"


def _sizes(population: Population, exogenous: ExogenousPaths, initial: State) -> dict[str, int | None]:
    """Say how long each axis must be; demand decides weeks and scenarios."""
    demand = exogenous.demand
    if demand.ndim not in (2, 3):
        needed = f"[week, {population.n_agents} agents] or [scenario, week, {population.n_agents} agents]"
        raise shape_mismatch("exogenous.demand", tuple(demand.shape), needed, _SHAPE_REMEDY["exogenous"])
    return {
        "agent": population.n_agents,
        "resource": len(population.resources),
        "week": exogenous.n_weeks,
        "scenario": exogenous.n_scenarios,
    }


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
    """Say which axes an array of the paths has; models of other files are known by the number of their axes."""
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


def _refuse_short_pipeline(exogenous: ExogenousPaths, initial: State, n_agents: int) -> None:
    """Refuse shares for more weeks than the pipeline holds; what arrives later than it reaches would vanish."""
    if isinstance(exogenous.arrivals, ArrivalShares):
        longest = exogenous.arrivals.shares.shape[-2] - 1
        if longest > initial.max_lead:
            raise _too_short(initial, longest, n_agents, "")


def _too_short(initial: State, longest: int, n_agents: int, because: str) -> ShapeError:
    needed = f"[at least {longest} weeks of lead time, {n_agents} agents]{because}"
    shape = tuple(initial.pipeline.shape)
    return shape_mismatch("initial.pipeline", shape, needed, "give it a row for every lead time that occurs")


def _refuse_values(field: _Field, rule: _Rule, population: Population) -> None:
    """Look at the extremes, and for the place only where they are out of range."""
    if not rule.allows(*MEMORY.of(field.array, min_max)):
        place, value = _find(field, rule.breaks)
        where = locate(population, **place)
        kind = InputError if math.isfinite(value) else NotFiniteError
        raise kind(f"`{field.name}` is {value:g} {where}; {rule.words()}: {rule.remedy}")


def _find(field: _Field, is_bad: Callable[[np.ndarray], np.ndarray]) -> tuple[dict[str, int], float]:
    """Find the earliest bad number of a field as a number per axis, and its value."""
    axes = field.all_axes
    along = next((axes.index(axis) for axis in ("week", "lead") if axis in axes), None)
    index, value = first_place(field.array, is_bad, along)
    return dict(zip(axes, index, strict=True)), value


def locate(
    population: Population,
    *,
    week: int | None = None,
    scenario: int | None = None,
    lead: int | None = None,
    agent: int | None = None,
    resource: int | None = None,
) -> str:
    """Say where a number stands: `in week 37 of scenario 2 for agent "X" (counted from 0)`."""
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


def _refuse_lead_times(population: Population, exogenous: ExogenousPaths, initial: State) -> None:
    """Refuse lead times that are no whole number of weeks or that the pipeline has no room for."""
    weeks = exogenous.arrivals.weeks if isinstance(exogenous.arrivals, IntegerLeadTimes) else None
    if weeks is None or not is_concrete(weeks):
        return
    if weeks.dtype.kind not in "iu":
        raise InputError(
            f"`exogenous.arrivals.weeks` holds {weeks.dtype} numbers but lead times are whole weeks; "
            "round them and convert to integers"
        )
    longest = int(MEMORY.of(weeks, min_max)[1])
    if longest > initial.max_lead:
        field = _path_field("exogenous.arrivals.weeks", weeks, exogenous)
        place, value = _find(field, lambda lead: lead > initial.max_lead)
        because = f", as the order {locate(population, **place)} takes {value:g} weeks"
        raise _too_short(initial, longest, population.n_agents, because)


def _refuse_shares(population: Population, exogenous: ExogenousPaths) -> None:
    """Refuse shares that lose or invent units."""
    shares = exogenous.arrivals.shares if isinstance(exogenous.arrivals, ArrivalShares) else None
    if shares is None or not is_concrete(shares) or MEMORY.of(shares, gap_from_one) <= SHARE_TOLERANCE:
        return
    field = _path_field("exogenous.arrivals.shares", shares, exogenous)

    def sums_wrongly(row: np.ndarray) -> np.ndarray:
        wrong = np.abs(row.sum(-2, keepdims=True) - 1.0) > SHARE_TOLERANCE
        return np.broadcast_to(wrong, row.shape)

    place, _ = _find(field, sums_wrongly)
    index = tuple(place[axis] if axis != "lead" else slice(None) for axis in field.all_axes)
    total = float(np.asarray(shares[index], np.float64).sum())
    place.pop("lead")
    raise InputError(
        f"`exogenous.arrivals.shares` adds up to {total:g} {locate(population, **place)}; "
        "the shares of an order must add up to 1: divide them by their sum"
    )
