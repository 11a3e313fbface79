"""Own the planner's view by learned maps: a population encoded once, asked in milliseconds.

CONTRACT: fills `maps.interface.PlannerView` and `DifferentiableView`; numpy in and out, or jax in and out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from walras.errors import InputError, NotFiniteError, shape_mismatch
from walras.maps.encoder import EncoderState
from walras.maps.features import HORIZON, AgentHistory, KnownFuture, Units
from walras.maps.file import PRIMAL
from walras.maps.history import History
from walras.maps.network import Encoded, MapNetwork
from walras.maps.support import QueryRange, TrainingSupport
from walras.population.population import Population, price_scale

PLANS = 64
"""Plans answered at once; more are answered one group after the other, so that memory does not grow with them."""

FIRST_ORDERS = 0.01
"""Share of demand whose orders must be able to arrive in a week for the week to count as controllable."""

NO_PRIMAL = "this interface holds no primal map but utilization needs one; load one that was saved with a primal map"
NO_DUAL = (
    "this interface holds no dual map but shadow prices need one; load one that was saved with a dual map, or search "
    "prices with the primal one (`walras.planning.prices`)"
)


class UnitConversion(eqx.Module):
    """Hold what turns a planner's numbers into a map's, and back.

    Attributes:
        use: S(P) [units of resource/week].
        price: median margin [money per unit of resource].
        now: use of the origin's own week, which is decided already [units of resource].
        room: 1 + reserve x relative error of each week of the view.
    """

    use: Float[Array, " resource"]
    price: Float[Array, " resource"]
    now: Float[Array, " resource"]
    room: Float[Array, "week resource"]


@dataclass(frozen=True, eq=False)
class LearnedView:
    """Answer a planner's questions by maps that were given one population at one origin.

    Week 0 is the origin's own: its receipts are in, so that its utilization is known and its price changes nothing.
    A plan that is shorter than the maps' horizon is continued by its last week.

    Attributes:
        population: everybody that the history tells of; a cohort carries its weights.
        units: in which the maps see them.
        primal, dual: their readings; None where the interface has no such map.
        n_weeks, resources: see `PlannerView`.
        history: at the origin; of a view that was advanced its last week alone.
        weeks_read: weeks of the past, in all.
        max_price: the price beyond which nobody would order [money per unit of the first resource].
        controllable: weeks into which orders still to be placed can arrive.
        scale_error: predicted relative standard error of `scale`, 0 where everybody is known.
        coverage: of training; None where the interface says nothing of it.
        found: what is outside of training whatever is asked.
        followed: fingerprint and name of the agents' policy; None where nobody says.
        reserve: standard deviations of the maps' error that a plan leaves room for.
        asked: extremes of the questions so far.
    """

    population: Population
    units: Units
    primal: EncoderState | None
    dual: EncoderState | None
    n_weeks: int
    history: History
    weeks_read: int
    max_price: float
    controllable: Bool[np.ndarray, "week resource"]
    scale_error: Float[np.ndarray, " resource"]
    coverage: TrainingSupport | None
    found: tuple[str, ...]
    followed: tuple[str, str] | None = None
    reserve: float = 0.0
    asked: QueryRange = field(default_factory=QueryRange)
    terms: UnitConversion = field(init=False)

    def __post_init__(self) -> None:
        """Say what turns a planner's numbers into the maps'."""
        room = 1.0 + self.reserve * self.relative_error
        now = use_now(self.population, self.history.ledger.receipts[-1], self.history.known)
        object.__setattr__(
            self, "terms", UnitConversion(self.units.use, self.units.price, now, jnp.asarray(room, jnp.float32))
        )

    @property
    def resources(self) -> tuple[str, ...]:
        """Name the resources in the order of their axis."""
        return self.population.resources

    @cached_property
    def price_scale(self) -> float:
        """Give the median margin per unit of the first resource [money per unit of resource].

        Not the unit in which maps receive prices (`units.price`), which counts agents by their demand.
        """
        return float(price_scale(self.population)[0])

    @property
    def scale(self) -> Float[np.ndarray, " resource"]:
        """Give S(P): the use of typical demand, of all that the population stands for [units of resource/week]."""
        return np.asarray(self.units.use, float)

    @property
    def queries(self) -> int:
        """Count the plans whose utilization was asked."""
        return self.asked.queries

    @property
    def relative_error(self) -> Float[np.ndarray, "week resource"]:
        """Give the standard deviation of the primal map's held-out error, relative; 0 where the map tells none."""
        facts: Mapping[str, Any] = {} if self.primal is None else self.primal.learned.facts
        return relative_error(facts, self.n_weeks, len(self.resources))

    def utilization(self, shadow_prices: Any) -> Any:
        """Return utilization to plan for: expected, and `reserve` standard deviations of the map's own error more.

        Args:
            shadow_prices: [*plans, week, resource] [money per unit of resource]. A jax array gives a jax array, through
                which derivatives pass; all else gives numpy.

        Raises:
            ShapeError, InputError: other weeks or resources, no number, or an interface without a primal map.
        """
        return self._use(shadow_prices, self.terms)

    def expected(self, shadow_prices: Any) -> Any:
        """Return expected utilization without any reserve, likewise."""
        return self._use(shadow_prices, self._without_reserve)

    def shadow_prices(self, capacity: Any) -> Any:
        """Return the prices at which the population fits a capacity, 0 in week 0, likewise.

        Args:
            capacity: [*plans, week, resource] [units of resource]; what the reserve needs of it is left free.
        """
        if self.dual is None:
            raise InputError(NO_DUAL)
        capacity = self._checked(capacity, "capacity")
        self.asked.note(capacity=_known(capacity, self.units.use))
        return self._in_groups(partial(_prices, *self._parts(self.dual)), capacity)

    def jacobian(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry], entries in the order week, then resource."""
        if self.primal is None:
            raise InputError(NO_PRIMAL)
        if np.ndim(shadow_prices) != 2:
            needed = f"({self.n_weeks}, {len(self.resources)}), one plan"
            raise shape_mismatch("shadow_prices", tuple(np.shape(shadow_prices)), needed, "ask plan by plan")
        prices = jnp.asarray(self._checked(shadow_prices, "shadow_prices"), jnp.float32)
        return _finite(np.asarray(_slope(*self._parts(self.primal), prices), float).reshape(prices.size, prices.size))

    def spread(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "week resource"]:
        """Return the standard deviation of the map's error over its answer: `relative_error`, whatever the prices."""
        self._checked(shadow_prices, "shadow_prices")
        return self.relative_error

    def outside(self, shadow_prices: Any = None, capacity: Any = None) -> tuple[str, ...]:
        """Say what of a question training has not seen, one sentence each, beside what the population is.

        Args:
            shadow_prices: [*plans, week, resource] [money per unit of resource].
            capacity: [*plans, week, resource] [units of resource].
        """
        asked = QueryRange()
        asked.note(prices=None if shadow_prices is None else _known(shadow_prices, self.units.price))
        asked.note(capacity=None if capacity is None else _known(capacity, self.units.use))
        return self.found + (() if self.coverage is None else self.coverage.judge(asked=asked))

    @property
    def outside_training(self) -> tuple[str, ...]:
        """Say what training has not seen of the population, its policy, and all questions so far."""
        return self.found + (() if self.coverage is None else self.coverage.judge(asked=self.asked))

    def advance(
        self, column: AgentHistory, known: KnownFuture, on_order: Float[Array, "lead agent"] | None = None
    ) -> "LearnedView":
        """Return the view one week later, without reading the past again.

        Args:
            column: the next week of the ledger, of the same agents [1 week, agent].
            known: of the weeks after it.
            on_order: open orders at it, as in `History`; needed by maps that ask delegates.

        Raises:
            ShapeError, InputError: more weeks than one, other agents, or no numbers.
        """
        if tuple(np.shape(column.receipts)) != (1, self.population.n_agents):
            given, needed = tuple(column.receipts.shape), f"(1, {self.population.n_agents}), the next week of everybody"
            raise shape_mismatch("column", given, needed, "give one week at a time")
        following = History(column, known, on_order)
        parts = (self.population, self.units, self.history.ledger, following)
        primal = None if self.primal is None else self.primal.advanced(*parts)
        dual = None if self.dual is None else self.dual.advanced(*parts)
        weeks = self.weeks_read + 1
        return replace(
            self,
            primal=primal,
            dual=dual,
            history=following,
            weeks_read=weeks,
            found=check_view(self.coverage, primal, dual, weeks, self.followed),
            asked=replace(self.asked),
        )

    @property
    def _without_reserve(self) -> UnitConversion:
        return eqx.tree_at(lambda terms: terms.room, self.terms, jnp.ones_like(self.terms.room))

    def _use(self, shadow_prices: Any, terms: UnitConversion) -> Any:
        if self.primal is None:
            raise InputError(NO_PRIMAL)
        prices = self._checked(shadow_prices, "shadow_prices")
        self.asked.note(prices=_known(prices, self.units.price), queries=int(np.prod(prices.shape[:-2])))
        return self._in_groups(partial(_utilization, *self._parts(self.primal, terms)), prices)

    def _parts(
        self, reading: EncoderState, terms: UnitConversion | None = None
    ) -> tuple[MapNetwork, Encoded, UnitConversion]:
        return reading.learned.network, reading.read.encoded, self.terms if terms is None else terms

    def _in_groups(self, answer: Any, plans: Any) -> Any:
        """Ask for a group of plans at a time; numpy arrays are filled up to few sizes, so that little is compiled."""
        flat = plans.reshape(-1, *plans.shape[-2:])
        if isinstance(plans, jax.Array):
            groups = [answer(flat[first : first + PLANS]) for first in range(0, len(flat), PLANS)]
            return _finite((groups[0] if len(groups) == 1 else jnp.concatenate(groups)).reshape(plans.shape))
        found = np.empty(flat.shape)
        for first in range(0, len(flat), PLANS):
            group = flat[first : first + PLANS].astype(np.float32)
            filled = np.concatenate([group, np.repeat(group[-1:], _size(len(group)) - len(group), axis=0)])
            found[first : first + PLANS] = np.asarray(answer(filled))[: len(group)]
        return _finite(found.reshape(plans.shape))

    def _checked(self, array: Any, name: str) -> Any:
        """Return a question as jax or numpy array, or refuse it."""
        needed = (self.n_weeks, len(self.resources))
        if tuple(np.shape(array)[-2:]) != needed:
            shape = f"[..., {needed[0]} weeks, {needed[1]} resources]"
            raise shape_mismatch(name, tuple(np.shape(array)), shape, "give one each")
        if not isinstance(array, jax.core.Tracer):
            _refuse_numbers(name, array)
        return array if isinstance(array, jax.Array) else np.asarray(array, float)


def _finite(answer: Any) -> Any:
    """Return an answer, or refuse one that is no number; inside a transform nobody can look."""
    if not isinstance(answer, jax.core.Tracer) and not np.isfinite(np.asarray(answer)).all():
        raise NotFiniteError(
            "the map's answer is not a finite number; ask for less extreme prices or capacities, or check the agents' "
            "policy, and the table for extreme values"
        )
    return answer


def _refuse_numbers(name: str, array: Any) -> None:
    """Refuse what is no number, not finite, or below 0."""
    try:
        values = np.asarray(array, float)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` holds what is no number; give one for every week and resource") from None
    if not np.isfinite(values).all():
        raise InputError(f"`{name}` holds a NaN or infinity; give a finite number for every week and resource")
    if values.min(initial=0.0) < 0.0:
        raise InputError(f"`{name}` goes down to {values.min():g} but is 0 or more by definition; cut it off at 0")


def check_view(
    coverage: TrainingSupport | None,
    primal: EncoderState | None,
    dual: EncoderState | None,
    weeks: int,
    followed: tuple[str, str] | None,
) -> tuple[str, ...]:
    """Say what training has not seen of a population that was read.

    Args:
        coverage: of training.
        primal, dual: readings.
        weeks: of history.
        followed: fingerprint and name of the agents' policy; None where nobody says.
    """
    if coverage is None:
        return ("what these maps were trained on is not known, since their interface was saved without it",)
    reading = primal if coverage.kind == PRIMAL else dual
    summary = None if reading is None or reading.read.summary is None else np.asarray(reading.read.summary, float)
    return coverage.judge(summary=summary, weeks=weeks, followed=followed)


@jax.jit
def use_now(population: Population, receipts: Float[Array, " agent"], known: KnownFuture) -> Float[Array, " resource"]:
    """Return use in the origin's own week: receipts, and for storage the stock that expected demand leaves."""
    weight = population.weight[:, None] * population.use
    received = receipts @ weight
    left = jnp.maximum(known.stock - known.expected[0], 0.0)
    return jnp.where(jnp.asarray(population.stock_resource), left, received)


def controllable_weeks(population: Population, weeks: int) -> Bool[np.ndarray, "week resource"]:
    """Mark the weeks into which orders of the origin's week or later can arrive, by the agents' lead times."""
    size = np.asarray(population.weight * population.demand_scale)[:, None] * np.asarray(population.use)
    lead = np.maximum(np.asarray(population.lead_time), 1)
    arrived = np.stack([size[lead <= week].sum(0) for week in range(weeks)])
    return arrived >= FIRST_ORDERS * size.sum(0)


def relative_error(facts: Mapping[str, Any], weeks: int, resources: int) -> Float[np.ndarray, "week resource"]:
    """Read the relative error of each week of a view off a map's facts; that of week 0 is 0.

    Args:
        facts: `relative_error` holds a number for each of the 26 coming weeks, or a row of one for each resource.
        weeks, resources: of the view.

    Raises:
        InputError: another number of them.
    """
    found = np.zeros((HORIZON + 1, resources))
    if "relative_error" in facts:
        told = np.asarray(facts["relative_error"], float)
        if told.shape not in ((HORIZON,), (HORIZON, resources)):
            needed = f"({HORIZON},) or ({HORIZON}, {resources})"
            raise shape_mismatch("relative_error", told.shape, needed, "give one for each coming week")
        found[1:] = told.reshape(HORIZON, -1)
    return found[:weeks]


def _known(array: Any, unit: Array) -> np.ndarray | None:
    """Return what was asked in the map's units, unless a transform runs."""
    return None if isinstance(array, jax.core.Tracer) else np.asarray(array, float) / np.asarray(unit, float)


def _size(count: int) -> int:
    """Return the next power of two."""
    return 1 << (count - 1).bit_length()


def _held(weeks: Float[Array, "plan week resource"]) -> Float[Array, "plan ahead resource"]:
    """Return the 26 weeks after the first one, the last of them going on."""
    last = jnp.repeat(weeks[:, -1:], HORIZON + 1 - weeks.shape[1], axis=1)
    return jnp.concatenate([weeks[:, 1:], last], axis=1)


def _like(values: Float[Array, " resource"], array: Array) -> Array:
    return values.reshape((1,) * (array.ndim - 1) + values.shape)


@eqx.filter_jit
def _utilization(
    network: MapNetwork, encoded: Encoded, terms: UnitConversion, plans: Float[Array, "plan week resource"]
) -> Float[Array, "plan week resource"]:
    signal = _held(plans / _like(terms.price, plans))
    use = network.utilization(encoded, signal) * _like(terms.use, signal)
    now = jnp.broadcast_to(_like(terms.now, plans), plans[:, :1].shape)
    return jnp.concatenate([now, use[:, : plans.shape[1] - 1]], axis=1) * terms.room[None]


@eqx.filter_jit
def _prices(
    network: MapNetwork, encoded: Encoded, terms: UnitConversion, plans: Float[Array, "plan week resource"]
) -> Float[Array, "plan week resource"]:
    signal = _held(plans / terms.room[None] / _like(terms.use, plans))
    prices = network.shadow_prices(encoded, signal) * _like(terms.price, signal)
    return jnp.concatenate([jnp.zeros_like(plans[:, :1]), prices[:, : plans.shape[1] - 1]], axis=1)


@eqx.filter_jit
def _slope(
    network: MapNetwork, encoded: Encoded, terms: UnitConversion, prices: Float[Array, "week resource"]
) -> Float[Array, "week resource week resource"]:
    return jax.jacfwd(lambda plan: _utilization(network, encoded, terms, plan[None])[0])(prices)
