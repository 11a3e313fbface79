"""Own the world of order fulfilment: orders, centres with stock and capacity, and what must hold of every trajectory.

LAW: one order after the other, each to one centre that has its units in stock and the capacity, or to none.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from numpy import ndarray
from numpy.typing import ArrayLike

from walras.errors import InputError, shape_mismatch
from walras.parallel.process import AdditiveState

NONE = -1
"""Action of an order that no centre fulfils."""

UNIT = 1 << 16
"""Whole numbers in a reward of 1: decisions compare whole numbers, which are the same wherever they are taken."""

LARGEST = 1 << 30
"""Numbers stay below, so that sums of two fit 32 bits."""


@dataclass(frozen=True)
class Instance:
    """Describe what is to be decided; all arrays are whole numbers.

    Attributes:
        product: what each order wants [order].
        destination: where each order goes, a row of `reward` [order].
        quantity: units of each order [order].
        reward: of one unit sent from a centre to a destination [1/65,536 of money].
        stock: units of each product in each centre at the start.
        capacity: units that each centre can send in all, before refills.
        refill_before: numbers of the orders before which capacity is refilled, rising.
        refill: units of capacity that are added.
        names: of the centres.
        products, destinations: their names, where they have some.
        times: when each order came, where that is known [order].
    """

    product: Int[ndarray, " order"]
    destination: Int[ndarray, " order"]
    quantity: Int[ndarray, " order"]
    reward: Int[ndarray, "destination centre"]
    stock: Int[ndarray, "product centre"]
    capacity: Int[ndarray, " centre"]
    refill_before: Int[ndarray, " refill"]
    refill: Int[ndarray, "refill centre"]
    names: tuple[str, ...] = ()
    products: ndarray | None = None
    destinations: ndarray | None = None
    times: ndarray | None = None

    @property
    def n_orders(self) -> int:
        """Count orders."""
        return len(self.product)

    @property
    def n_centres(self) -> int:
        """Count centres."""
        return len(self.capacity)

    def granted(self) -> Int[ndarray, "refills centre"]:
        """Return the capacity granted after 0, 1, ... refills [units]."""
        return np.concatenate([self.capacity[None], self.capacity + np.cumsum(self.refill, axis=0)]).astype(np.int32)

    def refills(self) -> Int[ndarray, " order"]:
        """Count the refills before each order."""
        return np.searchsorted(self.refill_before, np.arange(self.n_orders), side="right").astype(np.int32)

    def state(self) -> AdditiveState:
        """Return the state before the first order: stock by product, and units sent by every centre."""
        return AdditiveState(jnp.asarray(self.stock, jnp.int32), jnp.zeros(self.n_centres, jnp.int32))

    def first_orders(self, count: int) -> "Instance":
        """Cut the first orders, with all stock and capacity: a sub-trajectory to measure on."""
        known = self.refill_before < count
        return self.with_orders(slice(count), refill_before=self.refill_before[known], refill=self.refill[known])

    def halves(self) -> tuple["Instance", "Instance"]:
        """Cut the earlier and the later half of the orders, each with half of the stock and of the capacity.

        Raises:
            InputError: there is only one order.
        """
        if self.n_orders < 2:
            raise InputError("there is 1 order but two halves need at least 2; give more orders")
        middle = self.n_orders // 2
        early = self.refill_before < middle
        half = replace(self, stock=self.stock // 2, capacity=self.capacity // 2, refill=self.refill // 2)
        return (
            half.with_orders(slice(middle), refill_before=self.refill_before[early], refill=half.refill[early]),
            half.with_orders(
                slice(middle, None), refill_before=self.refill_before[~early] - middle, refill=half.refill[~early]
            ),
        )

    def resampled(self, seed: int) -> "Instance":
        """Draw as many orders with replacement from those there are: other orders of the same kind."""
        rows = np.random.default_rng((seed, self.n_orders)).integers(self.n_orders, size=self.n_orders)
        return self.with_orders(rows)

    def with_orders(self, rows: slice | ndarray, **changed: Any) -> "Instance":
        """Take some of the orders, in that order, and change what is named."""
        cut: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("product", "destination", "quantity")}
        times = self.times if self.times is None or isinstance(rows, ndarray) else self.times[rows]
        return replace(self, **cut, times=times, **changed)


def make_instance(
    product: ArrayLike,
    destination: ArrayLike,
    reward: ArrayLike,
    stock: ArrayLike,
    capacity: ArrayLike,
    quantity: ArrayLike | None = None,
    refill_before: ArrayLike | None = None,
    refill: ArrayLike | None = None,
    names: tuple[str, ...] = (),
) -> Instance:
    """Build a world from a user's arrays and check it.

    Args:
        product: [order].
        destination: [order].
        reward: of one unit [money, destination, centre]; rounded to 1/65,536.
        stock: [product, centre].
        capacity: [centre].
        quantity: [order]; one unit each where not given.
        refill_before: [refill].
        refill: [refill, centre].
        names: of the centres.

    Raises:
        InputError: zero orders, negative stock or capacity, an order for an unknown product, ...: which one, and what
            is needed.
        ShapeError: arrays that do not meet.
    """
    given = _Given.of(
        product=product,
        destination=destination,
        quantity=np.ones(np.shape(product)[:1], np.int32) if quantity is None else quantity,
        reward=reward,
        stock=stock,
        capacity=capacity,
        refill_before=np.zeros(0, np.int32) if refill_before is None else refill_before,
        refill=np.zeros((0, *np.shape(capacity)[:1]), np.int32) if refill is None else refill,
    )
    _check_shapes(given)
    _check_values(given)
    if names and len(names) != len(given.capacity):
        raise shape_mismatch("names", (len(names),), f"({len(given.capacity)},) [centre]", "name every centre, or none")
    whole = {name: np.asarray(getattr(given, name), np.int32) for name in _WHOLE}
    return Instance(**whole, reward=np.rint(given.reward.astype(np.float64) * UNIT).astype(np.int32), names=names)


@dataclass(frozen=True)
class _Given:
    """Hold the arrays of a world as they came, the reward in money."""

    product: ndarray
    destination: ndarray
    quantity: ndarray
    reward: ndarray
    stock: ndarray
    capacity: ndarray
    refill_before: ndarray
    refill: ndarray

    @classmethod
    def of(cls, **arrays: ArrayLike) -> "_Given":
        """Make arrays of what came."""
        return cls(**{name: np.asarray(values) for name, values in arrays.items()})


_WHOLE = ("product", "destination", "quantity", "stock", "capacity", "refill_before", "refill")


def _check_shapes(given: _Given) -> None:
    """Hold all arrays to the number of orders and of centres."""
    for name, axes in (("product", "[order]"), ("capacity", "[centre]"), ("refill_before", "[refill]")):
        values = getattr(given, name)
        if values.ndim != 1:
            raise shape_mismatch(name, values.shape, f"one axis {axes}", "give a list of numbers")
    orders, centres, refills = len(given.product), len(given.capacity), len(given.refill_before)
    if not orders:
        raise InputError("there are 0 orders but a trajectory needs at least one; give orders")
    if not centres:
        raise InputError("there are 0 centres but a world needs at least one; give `capacity` a number for each")
    for name, needed, axes in (
        ("destination", (orders,), "[order]"),
        ("quantity", (orders,), "[order]"),
        ("reward", (None, centres), "[destination, centre]"),
        ("stock", (None, centres), "[product, centre]"),
        ("refill", (refills, centres), "[refill, centre]"),
    ):
        shape = getattr(given, name).shape
        if len(shape) != len(needed) or any(one not in (None, other) for one, other in zip(needed, shape, strict=True)):
            wanted = f"({', '.join('any' if one is None else str(one) for one in needed)}) {axes}"
            raise shape_mismatch(name, shape, wanted, "give one value for each of them")


def _check_values(given: _Given) -> None:
    """Refuse values that no world can have."""
    for name in _WHOLE:
        kind = getattr(given, name).dtype
        if not np.issubdtype(kind, np.integer):
            raise InputError(f"`{name}` is {kind} but needs whole numbers; round it first")
    stock, reward, refill, before = given.stock, given.reward, given.refill, given.refill_before
    _within("product", given.product, 0, len(stock), "order {0} asks for product {1}", "there are {2} products")
    _within("destination", given.destination, 0, len(reward), "order {0} goes to destination {1}", "there are {2}")
    _within("quantity", given.quantity, 1, LARGEST, "order {0} asks for {1} units", "it must be within 1 and {2}")
    _within("capacity", given.capacity, 0, LARGEST, "centre {0} has capacity {1}", "it must be within 0 and {2}")
    if stock.size and (stock.min() < 0 or stock.max() >= LARGEST):
        row, centre = np.argwhere((stock < 0) | (stock >= LARGEST))[0]
        raise InputError(
            f"product {row} has stock {stock[row, centre]} in centre {centre} but stock cannot be negative or beyond "
            f"{LARGEST}; mend that row"
        )
    if refill.size and refill.min() < 0:
        raise InputError(
            f"refill {int(np.argwhere(refill < 0)[0][0])} is negative but only adds; give units of 0 or more"
        )
    if len(before) and (np.diff(before).min(initial=0) < 0 or before.min() < 0):
        raise InputError(
            "`refill_before` falls or is negative but needs the numbers of orders in rising order; sort it"
        )
    if len(before) and before[-1] >= len(given.product):
        raise InputError(
            f"`refill_before` names order {before[-1]} but the last of {len(given.product)} orders is number "
            f"{len(given.product) - 1}; leave later refills out"
        )
    if given.capacity.astype(np.int64).sum() + refill.astype(np.int64).sum() >= LARGEST:
        raise InputError(f"capacity and refills add up to more than {LARGEST}; count in larger units")
    if reward.dtype.kind not in "iuf" or not np.isfinite(reward).all() or np.abs(reward).max(initial=0) > 1024:
        raise InputError("`reward` has a value that is no number within -1,024 and 1,024; rescale it")


def _within(name: str, values: ndarray, least: int, beyond: int, found: str, needed: str) -> None:
    """Name the first value outside its range."""
    wrong = np.flatnonzero((values < least) | (values >= beyond))
    if len(wrong):
        at = int(wrong[0])
        raise InputError(f"{found.format(at, values[at])} but {needed.format(at, values[at], beyond)}; mend `{name}`")


def check_actions(world: Instance, actions: Int[ndarray, " order"]) -> None:
    """Hold a trajectory to every invariant: no stock and no capacity below zero, every order at most once.

    Raises:
        InputError: the first order whose action no centre can carry out; a policy of one's own returned it.
    """
    actions = np.asarray(actions)
    if actions.shape != world.product.shape:
        raise shape_mismatch("actions", actions.shape, f"{world.product.shape} [order]", "give each order one action")
    unknown = np.flatnonzero((actions < NONE) | (actions >= world.n_centres))
    sent = np.flatnonzero((actions >= 0) & (actions < world.n_centres))
    lacking = [_lacking_stock(world, actions, sent), _lacking_capacity(world, actions, sent)]
    wrong = np.concatenate([unknown, *lacking])
    if len(wrong):
        order = int(wrong.min())
        raise InputError(
            f"the policy sent order {order} ({world.quantity[order]} units of product {world.product[order]}) to "
            f"centre {actions[order]}, which has not the stock and capacity for it; return a centre that has, or {NONE}"
        )


def _lacking_stock(world: Instance, actions: ndarray, sent: ndarray) -> ndarray:
    """List orders sent where their product had run out."""
    place = world.product[sent].astype(np.int64) * world.n_centres + actions[sent]
    order = np.argsort(place, kind="stable")
    units = np.cumsum(world.quantity[sent][order], dtype=np.int64)
    first = np.flatnonzero(np.r_[True, np.diff(place[order]) > 0]) if len(order) else order
    before = np.repeat(units[first] - world.quantity[sent][order][first], np.diff(np.r_[first, len(order)]))
    return sent[order][units - before > world.stock.reshape(-1)[place[order]]]


def _lacking_capacity(world: Instance, actions: ndarray, sent: ndarray) -> ndarray:
    """List orders sent from a centre whose capacity had run out."""
    granted, refills, found = world.granted(), world.refills(), []
    for centre in range(world.n_centres):
        own = sent[actions[sent] == centre]
        used = np.cumsum(world.quantity[own], dtype=np.int64)
        found.append(own[used > granted[refills[own], centre]])
    return np.concatenate(found)


def exhausted(world: Instance, actions: Int[ndarray, " order"]) -> Int[ndarray, " centre"]:
    """List the centres that send their last unit of capacity at some time."""
    granted, refills = world.granted(), world.refills()
    sent = np.flatnonzero(np.asarray(actions) >= 0)
    found = []
    for centre in range(world.n_centres):
        own = sent[np.asarray(actions)[sent] == centre]
        used = np.cumsum(world.quantity[own])
        if np.any(used == granted[refills[own], centre]):
            found.append(centre)
    return np.asarray(found, int)


def total_reward(world: Instance, actions: Int[ndarray, " order"]) -> float:
    """Return the reward of a trajectory [money]."""
    sent = np.asarray(actions) >= 0
    each = world.reward[world.destination[sent], np.asarray(actions)[sent]].astype(np.int64)
    return float((each * world.quantity[sent]).sum()) / UNIT
