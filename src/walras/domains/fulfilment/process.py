"""Order fulfilment as a decision process, its run, and the audit of a trajectory.

CONTRACT: policies are `AbstractFulfilmentRule`s: a rule scores the options, the best available one is taken. Stock and
capacity mask the options, ties go to the lowest centre; the trajectory is that of one order after the other, whatever
engine runs it. The audit is computed from its actions alone.
"""

import abc
from collections.abc import Iterator
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from numpy import ndarray

from walras.domains.fulfilment.instance import NONE, UNIT, Instance
from walras.errors import InputError, SettingsError, shape_mismatch
from walras.parallel.autotune import default_engine
from walras.parallel.process import AbstractEngine, AdditiveProcess, EngineInfo

PerCentre = Int[Array, " centre"]
Scores = Int[Array, " option"]
PriceInputs = Int[Array, " some"]
DecisionInputs = tuple[Bool[Array, " centre"], PriceInputs]
Action = Int[Array, ""]

LEAST = -(1 << 31)
"""Score of an option that is not available."""

REASONS = ("no stock", "no capacity", "turned away")
"""Why an order was not filled: no centre had the units; none of those had the capacity; the policy rejected it.

CONTRACT: programs read these names.
"""

CHUNK = 1 << 16
"""Unfilled orders that are examined together, to bound memory."""


class Order(eqx.Module):
    """Orders, one or many, as events; `refills` counts the refills of capacity before each."""

    product: Int[Array, "*order"]
    destination: Int[Array, "*order"]
    quantity: Int[Array, "*order"]
    refills: Int[Array, "*order"]


class AbstractFulfilmentRule(eqx.Module):
    """Scores the options of an order: every centre and, last, rejecting it.

    Scores are integers in the unit of the rewards (1/65,536), so that every batch shape gives the same decision.
    """

    def inputs(self, row: PerCentre, order: Order) -> PyTree:
        """Return all that `scores` reads of the product's stock row; nothing by default."""
        return ()

    @abc.abstractmethod
    def scores(self, inputs: PyTree, reward: PerCentre, order: Order) -> Scores:
        """Score every centre and, last, no centre, without the capacity left: the expensive part."""

    def price_inputs(self, left: PerCentre, granted: PerCentre) -> PriceInputs:
        """Return what of the capacity left and granted the prices depend on; nothing by default."""
        return left[:0]

    def prices(self, inputs: PriceInputs) -> PerCentre | int:
        """Return the current price of a unit of capacity, taken off the scores of the centres; 0 by default."""
        return 0


class FulfilmentProcess(AdditiveProcess):
    """Send every order from the centre with the best score of those that have its units and the capacity."""

    rule: AbstractFulfilmentRule
    reward: Int[Array, "destination centre"]
    granted: Int[Array, "refills centre"]

    def key(self, event: Order) -> Action:
        """Return the product, whose stock is a row of the table."""
        return event.product

    def encoder_inputs(self, own: PerCentre, event: Order) -> PyTree:
        """Return what the scores depend on."""
        return self.rule.inputs(own, event)

    def encode(self, inputs: PyTree, event: Order) -> Scores:
        """Score the options."""
        return self.rule.scores(inputs, self.reward[event.destination], event)

    def decision_inputs(self, own: PerCentre, shared: PerCentre, event: Order) -> DecisionInputs:
        """Return which centres have the units and the capacity, and what the prices depend on."""
        granted = self.granted[event.refills]
        left = granted - shared
        return (own >= event.quantity) & (left >= event.quantity), self.rule.price_inputs(left, granted)

    def decide(self, code: Scores, inputs: DecisionInputs, event: Order) -> Action:
        """Take the best available option; an order is rejected only where that is better than all centres."""
        available, price_inputs = inputs
        scores = jnp.where(available, code[:-1] - self.rule.prices(price_inputs), LEAST)
        best = jnp.argmax(scores).astype(jnp.int32)
        return jnp.where(available.any() & (scores.max() >= code[-1]), best, NONE)

    def still_valid(self, action: Action, before: DecisionInputs, now: DecisionInputs) -> Bool[Array, ""]:
        """Certify where prices are the same, no option came back and the chosen one is still available.

        The best option remains the best when others disappear.
        """
        chosen = (action == NONE) | now[0][jnp.maximum(action, 0)]
        return chosen & ~jnp.any(now[0] & ~before[0]) & jnp.all(now[1] == before[1])

    def change(self, event: Order, action: Action) -> tuple[PerCentre, PerCentre]:
        """Take the units from the stock and count them as sent."""
        sent = jnp.where(jnp.arange(self.reward.shape[1]) == action, event.quantity, 0)
        return -sent, sent

    def noop(self, event: Order) -> Action:
        """Reject the order."""
        return jnp.asarray(NONE, jnp.int32)

    def allowed(self, state: PyTree, event: Order, action: Action) -> Bool[Array, ""]:
        """Say whether the centre has the units and the capacity."""
        own, shared = self.observe(state, event)
        return (action == NONE) | self.decision_inputs(own, shared, event)[0][jnp.maximum(action, 0)]


def orders_of(instance: Instance) -> Order:
    """Return the orders of an instance as events."""
    parts = (instance.product, instance.destination, instance.quantity, instance.refill_count())
    return Order(*(jnp.asarray(part, jnp.int32) for part in parts))


def process_of(instance: Instance, rule: AbstractFulfilmentRule) -> FulfilmentProcess:
    """Return the process of an instance under a rule."""
    return FulfilmentProcess(rule, jnp.asarray(instance.reward), jnp.asarray(instance.cumulative_capacity()))


@dataclass(frozen=True)
class FulfilmentResult:
    """A trajectory; of one that has not converged only the orders that are final.

    Attributes:
        actions: the centre that sends each order, -1 for none and for what is not final [order].
        reward: of all orders [money].
        info: how much work it was.
    """

    instance: Instance
    actions: Int[ndarray, " order"]
    reward: float
    info: EngineInfo

    @property
    def exhausted(self) -> Int[ndarray, " centre"]:
        """Return the centres that sent their last unit of capacity at some time."""
        course = _capacity_course(self.instance, self.actions)
        return np.asarray([centre for centre, _, left in course if np.any(left == 0)], int)

    @property
    def fill_rate(self) -> float:
        """Return the share of orders that were fulfilled."""
        return float(np.mean(self.actions != NONE))

    @property
    def converged(self) -> bool:
        """Say whether all actions are final."""
        return bool(getattr(self.info, "converged", True))

    def __str__(self) -> str:
        """Print a small table."""
        return (
            f"{'orders':24}{self.instance.n_orders:,}\n{'fulfilled':24}{self.fill_rate:.1%}\n"
            f"{'reward':24}{self.reward:,.1f}\n"
            f"{'centres exhausted':24}{len(self.exhausted)} of {self.instance.n_centres}\n{self.info}"
        )


def fulfil(
    instance: Instance, rule: AbstractFulfilmentRule | FulfilmentProcess, engine: AbstractEngine | None = None
) -> FulfilmentResult:
    """Decide all orders of an instance by a rule, or by a whole process made by `from_choice`.

    The engine is the parallel one where not given.

    Raises:
        InputError: `rule` is no rule, or a user's rule sent an order from a centre that cannot send it.
        SettingsError: `engine` is no engine.
    """
    if not isinstance(rule, AbstractFulfilmentRule | FulfilmentProcess):
        raise InputError(
            f"the rule is a {type(rule).__name__} but needs to be a rule, e.g. `Greedy()`; make one of a function with "
            "`from_score` or `from_choice`"
        )
    if not isinstance(engine, AbstractEngine | None):
        raise SettingsError(
            f"`engine` is {engine!r} but needs to be an engine, e.g. `Picard()` or `Sequential()`; leave it out for "
            "the default one"
        )
    engine = default_engine(instance.n_orders) if engine is None else engine
    process = rule if isinstance(rule, FulfilmentProcess) else process_of(instance, rule)
    trajectory, info = engine.run(process, instance.initial_state(), orders_of(instance))
    final = int(getattr(info, "committed", instance.n_orders))
    # Guesses that are not final may be infeasible and are not reported.
    actions = np.where(np.arange(instance.n_orders) < final, np.asarray(trajectory.records), NONE)
    check_actions(instance, actions)
    return FulfilmentResult(instance, actions, total_reward(instance, actions), info)


@dataclass(frozen=True)
class Audit:
    """Account of a trajectory; arrays are by centre, and all but the numbers of orders are units."""

    orders: Int[ndarray, " centre"]  # sent
    units: Int[ndarray, " centre"]  # sent
    granted: Int[ndarray, " centre"]  # capacity with all refills
    lowest_capacity: Int[ndarray, " centre"]  # that was ever left
    capacity_left: Int[ndarray, " centre"]
    stock_start: Int[ndarray, " centre"]  # of all products together
    stock_left: Int[ndarray, " centre"]
    lowest_stock: int  # least that was left of any product in any centre
    out_after: Int[ndarray, " centre"]  # the order with which a centre first sent its last capacity, -1 for never
    unfilled: dict[str, int]  # orders, by reason
    filled: int  # orders
    filled_units: int
    ordered_units: int


def audit_actions(instance: Instance, actions: Int[ndarray, " order"]) -> Audit:
    """Account for a trajectory."""
    actions = np.asarray(actions)
    sent = np.flatnonzero(actions >= 0)
    units = np.bincount(actions[sent], instance.quantity[sent], instance.n_centres).astype(np.int64)
    stock_left = _stock_left(instance, actions)
    granted = instance.cumulative_capacity()[-1].astype(np.int64)
    lowest, out_after = instance.capacity.astype(np.int64), np.full(instance.n_centres, NONE)
    for centre, orders, left in _capacity_course(instance, actions):
        lowest[centre] = left.min(initial=int(lowest[centre]))
        out_after[centre] = next(iter(orders[left == 0]), NONE)
    return Audit(
        orders=np.bincount(actions[sent], minlength=instance.n_centres),
        units=units,
        granted=granted,
        lowest_capacity=lowest,
        capacity_left=granted - units,
        stock_start=instance.stock.sum(0, dtype=np.int64),
        stock_left=stock_left.sum(0),
        lowest_stock=int(stock_left.min(initial=0)),
        out_after=out_after,
        unfilled=_unfilled(instance, actions),
        filled=len(sent),
        filled_units=int(units.sum()),
        ordered_units=int(instance.quantity.sum(dtype=np.int64)),
    )


def check_actions(instance: Instance, actions: Int[ndarray, " order"]) -> None:
    """Check that every order is sent from a centre with the stock and the capacity for it.

    Raises:
        InputError: one is not; which order, and from which centre.
        ShapeError: there is not one action for every order.
    """
    actions = np.asarray(actions)
    if actions.shape != instance.product.shape:
        raise shape_mismatch(
            "actions", actions.shape, f"{instance.product.shape} [order]", "give each order one action"
        )
    known = (actions >= NONE) & (actions < instance.n_centres)
    if (
        known.all()
        and _stock_left(instance, actions).min(initial=0) >= 0
        and all(left.min(initial=0) >= 0 for _, _, left in _capacity_course(instance, actions))
    ):
        return
    # Only to name the first of them: order after order.
    stock, used = instance.stock.copy(), np.zeros(instance.n_centres, np.int64)
    granted = instance.cumulative_capacity()[instance.refill_count()]
    for order in np.flatnonzero(actions != NONE):
        centre, product, units = actions[order], instance.product[order], instance.quantity[order]
        if not known[order] or stock[product, centre] < units or granted[order, centre] - used[centre] < units:
            raise InputError(
                f"the policy sent order {order} ({units} units of product {product}) to centre {centre}, which has not "
                f"the stock and capacity for it; return a centre that has, or {NONE}"
            )
        stock[product, centre] -= units
        used[centre] += units


def total_reward(instance: Instance, actions: Int[ndarray, " order"]) -> float:
    """Return the reward of a trajectory [money]."""
    sent = np.asarray(actions) >= 0
    per_unit = instance.reward[instance.destination[sent], np.asarray(actions)[sent]].astype(np.int64)
    return float((per_unit * instance.quantity[sent]).sum()) / UNIT


def _capacity_course(
    instance: Instance, actions: Int[ndarray, " order"]
) -> Iterator[tuple[int, Int[ndarray, " some"], Int[ndarray, " some"]]]:
    """Yield every centre, the orders it sends, and its capacity left after each of them."""
    granted, refills = instance.cumulative_capacity(), instance.refill_count()
    for centre in range(instance.n_centres):
        orders = np.flatnonzero(actions == centre)
        yield centre, orders, granted[refills[orders], centre] - np.cumsum(instance.quantity[orders], dtype=np.int64)


def _stock_left(instance: Instance, actions: Int[ndarray, " order"]) -> Int[ndarray, "product centre"]:
    """Return the stock at the end."""
    sent = actions >= 0
    cell = instance.product[sent].astype(np.int64) * instance.n_centres + actions[sent]
    taken = np.bincount(cell, instance.quantity[sent], instance.stock.size).reshape(instance.stock.shape)
    return instance.stock - taken.astype(np.int64)


def _unfilled(instance: Instance, actions: Int[ndarray, " order"]) -> dict[str, int]:
    """Count the orders that were not filled, by reason."""
    unfilled = np.flatnonzero(actions == NONE)
    granted, refills = instance.cumulative_capacity(), instance.refill_count()
    # Sorted by product, then time: the units of a product sent before an order are a difference of running totals.
    first_key = instance.product.astype(np.int64) * instance.n_orders
    counts = np.zeros(3, int)
    for first in range(0, len(unfilled), CHUNK):
        orders = unfilled[first : first + CHUNK]
        units = instance.quantity[orders]
        stocked, able = (np.zeros((len(orders), instance.n_centres), bool) for _ in range(2))
        for centre in range(instance.n_centres):
            sent = np.flatnonzero(actions == centre)
            used = np.r_[0, np.cumsum(instance.quantity[sent], dtype=np.int64)][np.searchsorted(sent, orders)]
            able[:, centre] = granted[refills[orders], centre] - used >= units
            key = np.sort(first_key[sent] + sent)
            total = np.r_[0, np.cumsum(instance.quantity[key % instance.n_orders], dtype=np.int64)]
            start, now = (total[np.searchsorted(key, first_key[orders] + until)] for until in (0, orders))
            stocked[:, centre] = instance.stock[instance.product[orders], centre] - (now - start) >= units
        in_stock, possible = stocked.any(1), (stocked & able).any(1)
        counts += (~in_stock).sum(), (in_stock & ~possible).sum(), possible.sum()
    return dict(zip(REASONS, counts.tolist(), strict=True))
