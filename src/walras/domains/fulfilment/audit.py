"""What a trajectory did, computed from its actions alone: feasibility, reward, and an account by centre."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from walras.domains.fulfilment.instance import NONE, UNIT, Instance
from walras.errors import InputError, shape_mismatch

REASONS = ("no stock", "no capacity", "turned away")
"""Why an order was not filled: no centre had the units; none of those had the capacity; the policy rejected it.

CONTRACT: programs read these names.
"""

CHUNK = 1 << 16
"""Unfilled orders that are examined together, to bound memory."""


@dataclass(frozen=True)
class Audit:
    """Account of a trajectory.

    Attributes:
        orders, units: sent by every centre [centre].
        granted: capacity of every centre with all refills [units, centre].
        lowest_capacity: least that was ever left [units, centre].
        capacity_left: at the end [units, centre].
        stock_start, stock_left: of all products together [units, centre].
        lowest_stock: least that was left of any product in any centre [units].
        out_after: the order with which a centre first sent its last unit of capacity, -1 for never [centre].
        unfilled: orders not filled, by reason.
        filled, filled_units, ordered_units: of all orders.
    """

    orders: Int[ndarray, " centre"]
    units: Int[ndarray, " centre"]
    granted: Int[ndarray, " centre"]
    lowest_capacity: Int[ndarray, " centre"]
    capacity_left: Int[ndarray, " centre"]
    stock_start: Int[ndarray, " centre"]
    stock_left: Int[ndarray, " centre"]
    lowest_stock: int
    out_after: Int[ndarray, " centre"]
    unfilled: dict[str, int]
    filled: int
    filled_units: int
    ordered_units: int


def audit_actions(instance: Instance, actions: Int[ndarray, " order"]) -> Audit:
    """Account for a trajectory."""
    actions = np.asarray(actions)
    sent = np.flatnonzero(actions >= 0)
    units = np.bincount(actions[sent], instance.quantity[sent], instance.n_centres).astype(np.int64)
    stock_left = instance.stock.astype(np.int64)
    np.subtract.at(stock_left, (instance.product[sent], actions[sent]), instance.quantity[sent])
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
    """Raise an `InputError` for the first order that is sent from a centre without the stock or the capacity for it."""
    actions = np.asarray(actions)
    if actions.shape != instance.product.shape:
        raise shape_mismatch(
            "actions", actions.shape, f"{instance.product.shape} [order]", "give each order one action"
        )
    known = (actions >= NONE) & (actions < instance.n_centres)
    wrong = [np.flatnonzero(~known), _without_stock(instance, actions, np.flatnonzero(known & (actions >= 0)))]
    wrong += [orders[left < 0] for _, orders, left in _capacity_course(instance, actions)]
    first = min((int(orders.min()) for orders in wrong if len(orders)), default=None)
    if first is not None:
        raise InputError(
            f"the policy sent order {first} ({instance.quantity[first]} units of product {instance.product[first]}) to "
            f"centre {actions[first]}, which has not the stock and capacity for it; return a centre that has, or {NONE}"
        )


def exhausted(instance: Instance, actions: Int[ndarray, " order"]) -> Int[ndarray, " centre"]:
    """Return the centres that send their last unit of capacity at some time."""
    course = _capacity_course(instance, np.asarray(actions))
    return np.asarray([centre for centre, _, left in course if np.any(left == 0)], int)


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


def _without_stock(instance: Instance, actions: ndarray, sent: ndarray) -> Int[ndarray, " some"]:
    """Return the sent orders whose product had run out in their centre."""
    cell = instance.product[sent].astype(np.int64) * instance.n_centres + actions[sent]
    order = np.argsort(cell, kind="stable")
    cell, quantity = cell[order], instance.quantity[sent][order]
    total = np.cumsum(quantity, dtype=np.int64)
    first = np.flatnonzero(np.r_[True, np.diff(cell) > 0]) if len(order) else order
    before = np.repeat(total[first] - quantity[first], np.diff(np.r_[first, len(order)]))
    return sent[order][total - before > instance.stock.reshape(-1)[cell]]


def _unfilled(instance: Instance, actions: Int[ndarray, " order"]) -> dict[str, int]:
    """Count the orders that were not filled, by reason."""
    unfilled = np.flatnonzero(actions == NONE)
    counts = np.zeros(3, int)
    for first in range(0, len(unfilled), CHUNK):
        stocked, able = _options(instance, actions, unfilled[first : first + CHUNK])
        in_stock, possible = stocked.any(1), (stocked & able).any(1)
        counts += (~in_stock).sum(), (in_stock & ~possible).sum(), possible.sum()
    return dict(zip(REASONS, counts.tolist(), strict=True))


def _options(
    instance: Instance, actions: Int[ndarray, " order"], orders: Int[ndarray, " some"]
) -> tuple[Bool[ndarray, "some centre"], Bool[ndarray, "some centre"]]:
    """Say which centres had the units in stock when some orders came, and which had the capacity."""
    units, refills = instance.quantity[orders], instance.refill_count()[orders]
    stocked, able = (np.zeros((len(orders), instance.n_centres), bool) for _ in range(2))
    granted, product = instance.cumulative_capacity(), instance.product.astype(np.int64) * instance.n_orders
    for centre in range(instance.n_centres):
        own = np.flatnonzero(actions == centre)
        used = np.r_[0, np.cumsum(instance.quantity[own], dtype=np.int64)][np.searchsorted(own, orders)]
        able[:, centre] = granted[refills, centre] - used >= units
        # Sorted by product, then time: the units of a product sent before an order are a difference of running totals.
        key = np.sort(product[own] + own)
        total = np.r_[0, np.cumsum(instance.quantity[key % instance.n_orders], dtype=np.int64)]
        start, now = (total[np.searchsorted(key, product[orders] + until)] for until in (0, orders))
        stocked[:, centre] = instance.stock[instance.product[orders], centre] - (now - start) >= units
    return stocked, able
