"""View of a population by learned maps: encoded once, queried in milliseconds.

CONTRACT: implements `planning.protocols.PlannerView` and `DifferentiableView`; numpy in and out, or jax in and out.
"""

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
from walras.maps.layers import prepend_axes
from walras.maps.network import EncodedPopulation, MapNetwork
from walras.maps.support import QueryRange, TrainingSupport
from walras.population.population import Population, price_scale

Plans = Float[Array, "plan week resource"]

PLANS = 64  # plans answered at once; more are answered in groups, so that memory does not grow with them

FIRST_ORDERS = 0.01  # share of demand whose orders must be able to arrive in a week for it to count as controllable

NO_PRIMAL = "this interface holds no primal map but utilization needs one; load one that was saved with a primal map"
NO_DUAL = (
    "this interface holds no dual map but shadow prices need one; load one that was saved with a dual map, or search "
    "prices with the primal one (`walras.planning.prices`)"
)


class UnitConversion(eqx.Module):
    """Factors between a planner's numbers and a map's."""

    use: Float[Array, " resource"]  # S(P) [units of resource/week]
    price: Float[Array, " resource"]  # median margin [money per unit of resource]
    now: Float[Array, " resource"]  # use of the origin's own week, which is decided already [units of resource]
    reserve_factor: Float[Array, "week resource"]  # 1 + reserve x relative error of each week of the view


@dataclass(frozen=True, eq=False)
class LearnedView:
    """Answers of maps about one population at one origin.

    Week 0 is the origin's own: its receipts are in, so that its utilization is known and its price changes nothing.
    A plan shorter than the maps' horizon is continued by its last week.

    Attributes:
        population: the whole population; a cohort carries its weights.
        units: in which the maps see it.
        primal, dual: the encoded population; None where the interface has no such map.
        n_weeks: of the view, the origin's own included.
        history: at the origin; after `advance` its last week alone.
        weeks_read: weeks of the past in all.
        max_price: choke price, beyond which nothing is ordered [money per unit of the first resource].
        controllable: weeks into which orders still to be placed can arrive.
        scale_error: predicted relative standard error of `scale`, 0 where the whole population is known.
        support: what training covered; None where it is not known.
        ood_reasons: what is outside of training whatever the query.
        policy_id: hash and name of the agents' policy; None where it is not given.
        reserve: standard deviations of the maps' error that a plan leaves room for.
        query_range: extremes of the queries so far.
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
    support: TrainingSupport | None
    ood_reasons: tuple[str, ...]
    policy_id: tuple[str, str] | None = None
    reserve: float = 0.0
    query_range: QueryRange = field(default_factory=QueryRange)
    conversion: UnitConversion = field(init=False)

    def __post_init__(self) -> None:
        """Compute the factors between a planner's numbers and the maps'."""
        factor = jnp.asarray(1.0 + self.reserve * self.relative_error, jnp.float32)
        now = use_now(self.population, self.history.agent_history.receipts[-1], self.history.known)
        object.__setattr__(self, "conversion", UnitConversion(self.units.use, self.units.price, now, factor))

    def __str__(self) -> str:
        """Return a small table: size, units, and what is outside of training."""
        scale = ", ".join(f"{name} {use:.4g}/week" for name, use in zip(self.resources, self.scale, strict=True))
        lines = [
            f"View by learned maps: {self.population.n_agents} agents, {self.n_weeks} weeks",
            f"  typical use     {scale}",
            f"  median margin   {self.price_scale:.4g} per unit of {self.resources[0]}",
            *(f"  not in training {reason}" for reason in self.out_of_distribution),
        ]
        return "\n".join(lines)

    __repr__ = __str__

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of the resources in the order of their axis."""
        return self.population.resources

    @cached_property
    def price_scale(self) -> float:
        """Median margin per unit of the first resource [money per unit of resource].

        Maps receive prices in another unit, `units.price`, which weights agents by their demand.
        """
        return float(price_scale(self.population)[0])

    @property
    def scale(self) -> Float[np.ndarray, " resource"]:
        """S(P): the use of typical demand of the whole population [units of resource/week]."""
        return np.asarray(self.units.use, float)

    @property
    def queries(self) -> int:
        """Number of plans whose utilization was computed."""
        return self.query_range.queries

    @property
    def relative_error(self) -> Float[np.ndarray, "week resource"]:
        """Relative standard deviation of the primal map's held-out error; 0 where it is not known, and in week 0.

        A map's facts give it by coming week, or by resource too.
        """
        resources = len(self.resources)
        errors = np.zeros((HORIZON + 1, resources))
        if self.primal is not None and "relative_error" in self.primal.learned.facts:
            given = np.asarray(self.primal.learned.facts["relative_error"], float)
            if given.shape not in ((HORIZON,), (HORIZON, resources)):
                needed = f"({HORIZON},) or ({HORIZON}, {resources})"
                raise shape_mismatch("relative_error", given.shape, needed, "give one for each coming week")
            errors[1:] = given.reshape(HORIZON, -1)
        return errors[: self.n_weeks]

    def utilization(self, shadow_prices: Any) -> Any:
        """Return utilization to plan for: expected, and `reserve` standard deviations of the map's own error more.

        Prices are [*plans, week, resource] [money per unit of resource]. A jax array gives a jax array, through which
        derivatives pass; all else gives numpy.

        Raises:
            ShapeError, InputError: other weeks or resources, no number, or an interface without a primal map.
        """
        return self._use(shadow_prices, self.conversion)

    def expected(self, shadow_prices: Any) -> Any:
        """Return expected utilization without any reserve, likewise."""
        ones = jnp.ones_like(self.conversion.reserve_factor)
        return self._use(shadow_prices, replace(self.conversion, reserve_factor=ones))

    def shadow_prices(self, capacity: Any) -> Any:
        """Return the prices at which the population fits a capacity [units of resource], 0 in week 0, likewise.

        The reserve's share of capacity is left free.
        """
        if self.dual is None:
            raise InputError(NO_DUAL)
        capacity = self._checked(capacity, "capacity")
        self.query_range.note(capacity=_in_units(capacity, self.units.use))
        return self._in_groups(partial(_prices, *self.dual.parts, self.conversion), capacity)

    def jacobian(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry], entries in the order week, then resource."""
        if self.primal is None:
            raise InputError(NO_PRIMAL)
        if np.ndim(shadow_prices) != 2:
            needed = f"({self.n_weeks}, {len(self.resources)}), one plan"
            raise shape_mismatch("shadow_prices", tuple(np.shape(shadow_prices)), needed, "ask plan by plan")
        prices = jnp.asarray(self._checked(shadow_prices, "shadow_prices"), jnp.float32)
        slope = np.asarray(_slope(*self.primal.parts, self.conversion, prices), float)
        return _finite(slope.reshape(prices.size, prices.size))

    def spread(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "week resource"]:
        """Return the relative standard deviation of the map's error, which does not depend on the prices."""
        self._checked(shadow_prices, "shadow_prices")
        return self.relative_error

    def check_query(self, shadow_prices: Any = None, capacity: Any = None) -> tuple[str, ...]:
        """Say what of a query [*plans, week, resource] and of the population training did not cover, in sentences."""
        query = QueryRange()
        query.note(prices=None if shadow_prices is None else _in_units(shadow_prices, self.units.price))
        query.note(capacity=None if capacity is None else _in_units(capacity, self.units.use))
        return self._ood(query)

    @property
    def out_of_distribution(self) -> tuple[str, ...]:
        """What of the population, its policy, and all queries so far is outside of training, one sentence each."""
        return self._ood(self.query_range)

    def _ood(self, query_range: QueryRange) -> tuple[str, ...]:
        return self.ood_reasons + (() if self.support is None else self.support.check(query_range=query_range))

    def advance(
        self, column: AgentHistory, known: KnownFuture, on_order: Float[Array, "lead agent"] | None = None
    ) -> "LearnedView":
        """Return the view one week later, without reading the past again.

        Args:
            column: the next week of the same agents' history [1 week, agent].
            known: of the weeks after it.
            on_order: open orders at it, as in `History`; needed by maps with probes.

        Raises:
            ShapeError, InputError: more weeks than one, other agents, or no numbers.
        """
        if tuple(np.shape(column.receipts)) != (1, self.population.n_agents):
            needed = f"(1, {self.population.n_agents}), the next week of all agents"
            raise shape_mismatch("column", tuple(column.receipts.shape), needed, "give one week at a time")
        history, before = History(column, known, on_order), self.history.agent_history
        primal = None if self.primal is None else self.primal.step(before, history)
        dual = None if self.dual is None else self.dual.step(before, history)
        weeks = self.weeks_read + 1
        return replace(
            self,
            primal=primal,
            dual=dual,
            history=history,
            weeks_read=weeks,
            ood_reasons=population_ood_reasons(self.support, primal, dual, weeks, self.policy_id),
            query_range=replace(self.query_range),
        )

    def _use(self, shadow_prices: Any, conversion: UnitConversion) -> Any:
        if self.primal is None:
            raise InputError(NO_PRIMAL)
        prices = self._checked(shadow_prices, "shadow_prices")
        self.query_range.note(_in_units(prices, self.units.price), queries=int(np.prod(prices.shape[:-2])))
        return self._in_groups(partial(_utilization, *self.primal.parts, conversion), prices)

    def _in_groups(self, answer: Any, plans: Any) -> Any:
        """Answer a group of plans at a time; numpy arrays are padded to a few sizes, so that little is compiled."""
        flat = plans.reshape(-1, *plans.shape[-2:])
        if isinstance(plans, jax.Array):
            groups = [answer(flat[first : first + PLANS]) for first in range(0, len(flat), PLANS)]
            return _finite((groups[0] if len(groups) == 1 else jnp.concatenate(groups)).reshape(plans.shape))
        answers = np.empty(flat.shape)
        for first in range(0, len(flat), PLANS):
            group = flat[first : first + PLANS].astype(np.float32)
            power_of_two = 1 << (len(group) - 1).bit_length()
            padded = np.concatenate([group, np.repeat(group[-1:], power_of_two - len(group), axis=0)])
            answers[first : first + PLANS] = np.asarray(answer(padded))[: len(group)]
        return _finite(answers.reshape(plans.shape))

    def _checked(self, array: Any, name: str) -> Any:
        """Return a query as jax or numpy array."""
        needed = (self.n_weeks, len(self.resources))
        if tuple(np.shape(array)[-2:]) != needed:
            shape = f"[..., {needed[0]} weeks, {needed[1]} resources]"
            raise shape_mismatch(name, tuple(np.shape(array)), shape, "give one each")
        if not isinstance(array, jax.core.Tracer):
            _check_numbers(name, array)
        return array if isinstance(array, jax.Array) else np.asarray(array, float)


def _finite(answer: Any) -> Any:
    """Return an answer if it is finite; inside a transform that cannot be checked."""
    if not isinstance(answer, jax.core.Tracer) and not np.isfinite(np.asarray(answer)).all():
        raise NotFiniteError(
            "the map's answer is not a finite number; ask for less extreme prices or capacities, or check the agents' "
            "policy, and the table for extreme values"
        )
    return answer


def _check_numbers(name: str, array: Any) -> None:
    try:
        values = np.asarray(array, float)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` holds what is no number; give one for every week and resource") from None
    if not np.isfinite(values).all():
        raise InputError(f"`{name}` holds a NaN or infinity; give a finite number for every week and resource")
    if values.min(initial=0.0) < 0.0:
        raise InputError(f"`{name}` goes down to {values.min():g} but is 0 or more by definition; cut it off at 0")


def population_ood_reasons(
    support: TrainingSupport | None,
    primal: EncoderState | None,
    dual: EncoderState | None,
    weeks: int,
    policy_id: tuple[str, str] | None,
) -> tuple[str, ...]:
    """Say what of an encoded population, its history and its policy (hash and name) is outside of training."""
    if support is None:
        return ("what these maps were trained on is not known, since their interface was saved without it",)
    state = primal if support.kind == PRIMAL else dual
    summary = None if state is None or state.summary is None else np.asarray(state.summary, float)
    return support.check(summary=summary, weeks=weeks, policy_id=policy_id)


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


def _in_units(array: Any, unit: Array) -> np.ndarray | None:
    """Return a query in the map's units; None inside a transform."""
    return None if isinstance(array, jax.core.Tracer) else np.asarray(array, float) / np.asarray(unit, float)


def _coming_weeks(weeks: Float[Array, "plan week resource"]) -> Float[Array, "plan ahead resource"]:
    """Return the 26 weeks after the first one; the last of them goes on."""
    last = jnp.repeat(weeks[:, -1:], HORIZON + 1 - weeks.shape[1], axis=1)
    return jnp.concatenate([weeks[:, 1:], last], axis=1)


@eqx.filter_jit
def _utilization(network: MapNetwork, encoded: EncodedPopulation, conversion: UnitConversion, plans: Plans) -> Plans:
    signal = _coming_weeks(plans / prepend_axes(conversion.price, plans.ndim))
    use = network.utilization(encoded, signal) * prepend_axes(conversion.use, signal.ndim)
    now = jnp.broadcast_to(prepend_axes(conversion.now, plans.ndim), plans[:, :1].shape)
    return jnp.concatenate([now, use[:, : plans.shape[1] - 1]], axis=1) * conversion.reserve_factor[None]


@eqx.filter_jit
def _prices(network: MapNetwork, encoded: EncodedPopulation, conversion: UnitConversion, plans: Plans) -> Plans:
    signal = _coming_weeks(plans / conversion.reserve_factor[None] / prepend_axes(conversion.use, plans.ndim))
    prices = network.shadow_prices(encoded, signal) * prepend_axes(conversion.price, signal.ndim)
    return jnp.concatenate([jnp.zeros_like(plans[:, :1]), prices[:, : plans.shape[1] - 1]], axis=1)


@eqx.filter_jit
def _slope(network: MapNetwork, encoded: EncodedPopulation, conversion: UnitConversion, prices: Array) -> Array:
    return jax.jacfwd(lambda plan: _utilization(network, encoded, conversion, plan[None])[0])(prices)
