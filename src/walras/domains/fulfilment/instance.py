"""Instances of order fulfilment: orders that come one after the other, and centres with stock and capacity.

LAW: each order is sent from one centre that has its units in stock and the capacity, or not at all.
"""

from collections.abc import Mapping
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
"""A reward of 1 as a whole number: integer comparisons give the same decision in every batch shape."""

LARGEST = 1 << 30
"""Upper limit of all numbers, so that sums of two fit 32 bits."""

_INTEGERS = ("product", "destination", "quantity", "stock", "capacity", "refill_before", "refill")


@dataclass(frozen=True)
class Instance:
    """Orders and centres; all numbers are integers.

    Attributes:
        product: of each order [order].
        destination: of each order, a row of `reward` [order].
        quantity: units of each order [order].
        reward: of one unit sent from a centre to a destination [1/65,536 of money].
        stock: units of each product in each centre at the start.
        capacity: units that each centre can send in all, before refills.
        refill_before: numbers of the orders before which capacity is refilled, rising.
        refill: units of capacity that are added.
        names: of the centres.
        products, destinations: their names, if known.
        times: of the orders, if known [order].
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
        """Return the number of orders."""
        return len(self.product)

    @property
    def n_centres(self) -> int:
        """Return the number of centres."""
        return len(self.capacity)

    def cumulative_capacity(self) -> Int[ndarray, "refills centre"]:
        """Return the capacity granted so far after 0, 1, ... refills [units]."""
        return np.concatenate([self.capacity[None], self.capacity + np.cumsum(self.refill, axis=0)]).astype(np.int32)

    def refill_count(self) -> Int[ndarray, " order"]:
        """Return the number of refills before each order."""
        return np.searchsorted(self.refill_before, np.arange(self.n_orders), side="right").astype(np.int32)

    def initial_state(self) -> AdditiveState:
        """Return the state before the first order: stock by product, and units sent by every centre."""
        return AdditiveState(jnp.asarray(self.stock, jnp.int32), jnp.zeros(self.n_centres, jnp.int32))

    def first_orders(self, count: int) -> "Instance":
        """Return the first orders, with all stock and capacity."""
        early = self.refill_before < count
        return self.take(slice(count), refill_before=self.refill_before[early], refill=self.refill[early])

    def halves(self) -> tuple["Instance", "Instance"]:
        """Return the earlier and the later half of the orders, each with half of the stock and of the capacity."""
        if self.n_orders < 2:
            raise InputError("there is 1 order but two halves need at least 2; give more orders")
        middle, refill = self.n_orders // 2, self.refill // 2
        early = self.refill_before < middle
        half = replace(self, stock=self.stock // 2, capacity=self.capacity // 2)
        return (
            half.take(slice(middle), refill_before=self.refill_before[early], refill=refill[early]),
            half.take(slice(middle, None), refill_before=self.refill_before[~early] - middle, refill=refill[~early]),
        )

    def resampled(self, seed: int) -> "Instance":
        """Return a bootstrap sample of the orders, as many as there are."""
        return self.take(np.random.default_rng((seed, self.n_orders)).integers(self.n_orders, size=self.n_orders))

    def take(self, rows: slice | ndarray, **changed: Any) -> "Instance":
        """Return some of the orders, in that order, with other fields changed; resampled orders have no times."""
        orders: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("product", "destination", "quantity")}
        times = self.times[rows] if self.times is not None and isinstance(rows, slice) else None
        return replace(self, **orders, times=times, **changed)


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
    """Build an instance from arrays of the shapes of its fields and check it.

    Args:
        product, destination, stock, capacity, refill_before, refill, names: fields of the instance.
        reward: of one unit [money, destination, centre]; rounded to 1/65,536.
        quantity: [order]; one unit each where not given.

    Raises:
        InputError: a value out of range; which one, and what is needed.
        ShapeError: shapes that do not agree.
    """
    arrays = {
        "product": product,
        "destination": destination,
        "quantity": np.ones(np.shape(product)[:1], np.int32) if quantity is None else quantity,
        "reward": reward,
        "stock": stock,
        "capacity": capacity,
        "refill_before": np.zeros(0, np.int32) if refill_before is None else refill_before,
        "refill": np.zeros((0, *np.shape(capacity)[:1]), np.int32) if refill is None else refill,
    }
    given = {name: np.asarray(values) for name, values in arrays.items()}
    _check_shapes(given, names)
    _check_values(given)
    integers = {name: given[name].astype(np.int32) for name in _INTEGERS}
    return Instance(**integers, reward=np.rint(given["reward"].astype(np.float64) * UNIT).astype(np.int32), names=names)


def _check_shapes(given: Mapping[str, ndarray], names: tuple[str, ...]) -> None:
    """Check all arrays against the numbers of orders and of centres."""
    for name, axes in (("product", "[order]"), ("capacity", "[centre]"), ("refill_before", "[refill]")):
        if given[name].ndim != 1:
            raise shape_mismatch(name, given[name].shape, f"one axis {axes}", "give a list of numbers")
    orders, centres, refills = len(given["product"]), len(given["capacity"]), len(given["refill_before"])
    if not orders:
        raise InputError("there are 0 orders but a trajectory needs at least one; give orders")
    if not centres:
        raise InputError("there are 0 centres but at least one is needed; give `capacity` a number for each")
    for name, needed, axes in (
        ("destination", (orders,), "[order]"),
        ("quantity", (orders,), "[order]"),
        ("reward", (None, centres), "[destination, centre]"),
        ("stock", (None, centres), "[product, centre]"),
        ("refill", (refills, centres), "[refill, centre]"),
    ):
        shape = given[name].shape
        if len(shape) != len(needed) or any(one not in (None, other) for one, other in zip(needed, shape, strict=True)):
            wanted = f"({', '.join('any' if one is None else str(one) for one in needed)}) {axes}"
            raise shape_mismatch(name, shape, wanted, "give one value for each of them")
    if names and len(names) != centres:
        raise shape_mismatch("names", (len(names),), f"({centres},) [centre]", "name every centre, or none")


def _check_values(given: Mapping[str, ndarray]) -> None:
    """Check types and ranges."""
    for name in _INTEGERS:
        if not np.issubdtype(given[name].dtype, np.integer):
            raise InputError(f"`{name}` is {given[name].dtype} but needs whole numbers; round it first")
    stock, reward, refill, before = (given[name] for name in ("stock", "reward", "refill", "refill_before"))
    for name, least, beyond, what, needed in (
        ("product", 0, len(stock), "order {0} is for product {1}", "there are {2} products"),
        ("destination", 0, len(reward), "order {0} goes to destination {1}", "there are {2}"),
        ("quantity", 1, LARGEST, "order {0} is for {1} units", "it must be within 1 and {2}"),
        ("capacity", 0, LARGEST, "centre {0} has capacity {1}", "it must be within 0 and {2}"),
    ):
        wrong = np.flatnonzero((given[name] < least) | (given[name] >= beyond))
        if len(wrong):
            values = int(wrong[0]), given[name][wrong[0]], beyond
            raise InputError(f"{what.format(*values)} but {needed.format(*values)}; correct `{name}`")
    if stock.size and (stock.min() < 0 or stock.max() >= LARGEST):
        row, centre = np.argwhere((stock < 0) | (stock >= LARGEST))[0]
        raise InputError(
            f"product {row} has stock {stock[row, centre]} in centre {centre} but stock cannot be negative or beyond "
            f"{LARGEST}; correct that row"
        )
    if refill.size and refill.min() < 0:
        raise InputError(
            f"refill {int(np.argwhere(refill < 0)[0][0])} is negative but only adds; give units of 0 or more"
        )
    if len(before) and (np.diff(before).min(initial=0) < 0 or before.min() < 0):
        raise InputError(
            "`refill_before` falls or is negative but needs the numbers of orders in rising order; sort it"
        )
    if len(before) and before[-1] >= len(given["product"]):
        raise InputError(
            f"`refill_before` names order {before[-1]} but the last of {len(given['product'])} orders is number "
            f"{len(given['product']) - 1}; leave later refills out"
        )
    if given["capacity"].astype(np.int64).sum() + refill.astype(np.int64).sum() >= LARGEST:
        raise InputError(f"capacity and refills add up to more than {LARGEST}; count in larger units")
    if reward.dtype.kind not in "iuf" or not np.isfinite(reward).all() or np.abs(reward).max(initial=0) > 1024:
        raise InputError("`reward` has a value that is no number within -1,024 and 1,024; rescale it")
