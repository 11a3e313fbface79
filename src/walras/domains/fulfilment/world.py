"""Own the world of order fulfilment: orders, centres with stock and capacity, and what must hold of every trajectory.

LAW: one order after the other, each to one centre that has its units in stock and the capacity, or to none.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from numpy import ndarray
from numpy.typing import ArrayLike

from walras.engine.decided import Sums
from walras.errors import InputError, shape_mismatch

NONE = -1
"""Action of an order that no centre fulfils."""

UNIT = 1 << 16
"""Whole numbers in a reward of 1: decisions compare whole numbers, which are the same wherever they are taken."""

LARGEST = 1 << 30
"""Numbers stay below, so that sums of two fit 32 bits."""


@dataclass(frozen=True)
class World:
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

    def state(self) -> Sums:
        """Return the state before the first order: stock by product, and units sent by every centre."""
        return Sums(jnp.asarray(self.stock, jnp.int32), jnp.zeros(self.n_centres, jnp.int32))

    def first_orders(self, count: int) -> "World":
        """Cut the first orders, with all stock and capacity: a sub-trajectory to measure on."""
        known = self.refill_before < count
        return World(
            self.product[:count],
            self.destination[:count],
            self.quantity[:count],
            self.reward,
            self.stock,
            self.capacity,
            self.refill_before[known],
            self.refill[known],
            self.names,
        )


def make_world(
    product: ArrayLike,
    destination: ArrayLike,
    reward: ArrayLike,
    stock: ArrayLike,
    capacity: ArrayLike,
    quantity: ArrayLike | None = None,
    refill_before: ArrayLike | None = None,
    refill: ArrayLike | None = None,
    names: tuple[str, ...] = (),
) -> World:
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
    product, destination, stock, capacity = (np.asarray(a) for a in (product, destination, stock, capacity))
    centres = len(capacity)
    quantity = np.ones(len(product), np.int32) if quantity is None else np.asarray(quantity)
    refill_before = np.zeros(0, np.int32) if refill_before is None else np.asarray(refill_before)
    refill = np.zeros((0, centres), np.int32) if refill is None else np.asarray(refill)
    _check_shapes(product, destination, quantity, np.asarray(reward), stock, capacity, refill_before, refill)
    _check_values(product, destination, quantity, np.asarray(reward), stock, capacity, refill_before, refill)
    whole = [np.asarray(a, np.int32) for a in (product, destination, quantity)]
    money = np.rint(np.asarray(reward, np.float64) * UNIT).astype(np.int32)
    held = [np.asarray(a, np.int32) for a in (stock, capacity, refill_before, refill)]
    return World(*whole, money, *held, names)  # type: ignore[arg-type, call-arg]


def _check_shapes(
    product: ndarray,
    destination: ndarray,
    quantity: ndarray,
    reward: ndarray,
    stock: ndarray,
    capacity: ndarray,
    refill_before: ndarray,
    refill: ndarray,
) -> None:
    """Hold all arrays to the number of orders and of centres."""
    orders, centres = (len(product),), len(capacity)
    if not orders[0]:
        raise InputError("there are 0 orders but a trajectory needs at least one; give orders")
    needed = (
        ("destination", destination, f"{orders} [order]", destination.shape == orders),
        ("quantity", quantity, f"{orders} [order]", quantity.shape == orders),
        ("reward", reward, f"(any, {centres}) [destination, centre]", reward.ndim == 2 and reward.shape[1] == centres),
        ("stock", stock, f"(any, {centres}) [product, centre]", stock.ndim == 2 and stock.shape[1] == centres),
        (
            "refill",
            refill,
            f"{(len(refill_before), centres)} [refill, centre]",
            refill.shape == (len(refill_before), centres),
        ),
    )
    for name, given, shape, fits in needed:
        if not fits:
            raise shape_mismatch(name, given.shape, shape, "give one value for each of them")


def _check_values(
    product: ndarray,
    destination: ndarray,
    quantity: ndarray,
    reward: ndarray,
    stock: ndarray,
    capacity: ndarray,
    refill_before: ndarray,
    refill: ndarray,
) -> None:
    """Refuse values that no world can have."""
    for name, values in (
        ("product", product),
        ("destination", destination),
        ("quantity", quantity),
        ("stock", stock),
        ("capacity", capacity),
        ("refill_before", refill_before),
        ("refill", refill),
    ):
        if not np.issubdtype(values.dtype, np.integer):
            raise InputError(f"`{name}` is {values.dtype} but needs whole numbers; round it first")
    _within("product", product, 0, len(stock), "order {0} asks for product {1}", "there are {2} products")
    _within("destination", destination, 0, len(reward), "order {0} goes to destination {1}", "there are {2}")
    _within("quantity", quantity, 1, LARGEST, "order {0} asks for {1} units", "at least one is needed")
    _within("capacity", capacity, 0, LARGEST, "centre {0} has capacity {1}", "it must be within 0 and {2}")
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
    if len(refill_before) and (np.diff(refill_before).min(initial=0) < 0 or refill_before.min() < 0):
        raise InputError(
            "`refill_before` falls or is negative but needs the numbers of orders in rising order; sort it"
        )
    if capacity.astype(np.int64).sum() + refill.astype(np.int64).sum() >= LARGEST:
        raise InputError(f"capacity and refills add up to more than {LARGEST}; count in larger units")
    if not np.isfinite(reward).all() or np.abs(reward).max(initial=0) > 1024:
        raise InputError("`reward` has a value that is no number within -1,024 and 1,024; rescale it")


def _within(name: str, values: ndarray, least: int, beyond: int, found: str, needed: str) -> None:
    """Name the first value outside its range."""
    wrong = np.flatnonzero((values < least) | (values >= beyond))
    if len(wrong):
        at = int(wrong[0])
        raise InputError(f"{found.format(at, values[at])} but {needed.format(at, values[at], beyond)}; mend `{name}`")


def check_actions(world: World, actions: Int[ndarray, " order"]) -> None:
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


def _lacking_stock(world: World, actions: ndarray, sent: ndarray) -> ndarray:
    """List orders sent where their product had run out."""
    place = world.product[sent].astype(np.int64) * world.n_centres + actions[sent]
    order = np.argsort(place, kind="stable")
    units = np.cumsum(world.quantity[sent][order], dtype=np.int64)
    first = np.flatnonzero(np.r_[True, np.diff(place[order]) > 0]) if len(order) else order
    before = np.repeat(units[first] - world.quantity[sent][order][first], np.diff(np.r_[first, len(order)]))
    return sent[order][units - before > world.stock.reshape(-1)[place[order]]]


def _lacking_capacity(world: World, actions: ndarray, sent: ndarray) -> ndarray:
    """List orders sent from a centre whose capacity had run out."""
    granted, refills, found = world.granted(), world.refills(), []
    for centre in range(world.n_centres):
        own = sent[actions[sent] == centre]
        used = np.cumsum(world.quantity[own], dtype=np.int64)
        found.append(own[used > granted[refills[own], centre]])
    return np.concatenate(found)


def exhausted(world: World, actions: Int[ndarray, " order"]) -> Int[ndarray, " centre"]:
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


def earned(world: World, actions: Int[ndarray, " order"]) -> float:
    """Return the reward of a trajectory [money]."""
    sent = np.asarray(actions) >= 0
    each = world.reward[world.destination[sent], np.asarray(actions)[sent]].astype(np.int64)
    return float((each * world.quantity[sent]).sum()) / UNIT
