"""Own the books of a trajectory: what every centre sent and has left, when it ran out, why orders were not filled.

CONTRACT: kept from the actions alone, by other means than those that decided them; programs read the names.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from walras.domains.fulfilment.instance import NONE, Instance
from walras.errors import InputError

REASONS = ("no stock", "no capacity", "turned away")
"""Why an order was not filled: no centre had the units; none of those had the capacity; the policy preferred not to."""

PIECE = 1 << 16
"""Orders whose stock rows are looked at together."""


@dataclass(frozen=True)
class Audit:
    """Hold what came of a trajectory.

    Attributes:
        orders, units: sent by every centre [centre].
        granted: capacity of every centre with all refills [units, centre].
        lowest_capacity: least that was ever left, [units, centre].
        capacity_left: at the end [units, centre].
        stock_start, stock_left: of all products together [units, centre].
        lowest_stock: least that was left of any product in any centre [units].
        out_after: the order with which a centre first sent its last unit of capacity, -1 for never [centre].
        missed: orders not filled, by reason.
        filled, filled_units, asked_units: of all orders.
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
    missed: dict[str, int]
    filled: int
    filled_units: int
    asked_units: int

    def check(self) -> None:
        """Hold the trajectory to its invariants: nothing is ever below zero.

        Raises:
            InputError: stock or capacity was; which, and by how much.
        """
        if self.lowest_stock < 0:
            raise InputError(
                f"a product's stock falls to {self.lowest_stock} in a centre but cannot be negative; mend what decided"
            )
        wrong = np.flatnonzero(self.lowest_capacity < 0)
        if len(wrong):
            raise InputError(
                f"the capacity of centre {wrong[0]} falls to {self.lowest_capacity[wrong[0]]} but cannot be negative; "
                "mend what decided it"
            )


def audit(world: Instance, actions: Int[ndarray, " order"]) -> Audit:
    """Count what a trajectory did; every order has one action, so it is sent at most once."""
    actions = np.asarray(actions)
    sent = np.flatnonzero(actions >= 0)
    units = np.bincount(actions[sent], world.quantity[sent], world.n_centres).astype(np.int64)
    took = np.zeros(world.stock.shape, np.int64)
    np.add.at(took, (world.product[sent], actions[sent]), world.quantity[sent])
    left = world.stock - took
    granted = world.granted()[-1].astype(np.int64)
    lowest, out = zip(*(_course(world, actions, centre) for centre in range(world.n_centres)), strict=True)
    return Audit(
        orders=np.bincount(actions[sent], minlength=world.n_centres),
        units=units,
        granted=granted,
        lowest_capacity=np.asarray(lowest),
        capacity_left=granted - units,
        stock_start=world.stock.sum(0, dtype=np.int64),
        stock_left=left.sum(0),
        lowest_stock=int(left.min(initial=0)),
        out_after=np.asarray(out),
        missed=dict(zip(REASONS, _reasons(world, actions), strict=True)),
        filled=len(sent),
        filled_units=int(units.sum()),
        asked_units=int(world.quantity.sum(dtype=np.int64)),
    )


def _course(world: Instance, actions: Int[ndarray, " order"], centre: int) -> tuple[int, int]:
    """Return the least capacity a centre ever had, and the order that first took its last unit."""
    own = np.flatnonzero(actions == centre)
    left = world.granted()[world.refills()[own], centre] - np.cumsum(world.quantity[own], dtype=np.int64)
    out = np.flatnonzero(left == 0)
    return int(left.min(initial=int(world.capacity[centre]))), int(own[out[0]]) if len(out) else NONE


def _reasons(world: Instance, actions: Int[ndarray, " order"]) -> tuple[int, int, int]:
    """Count orders not filled, by reason."""
    missed = np.flatnonzero(actions == NONE)
    stocked, possible = np.zeros(len(missed), bool), np.zeros(len(missed), bool)
    for first in range(0, len(missed), PIECE):
        part = slice(first, first + PIECE)
        there, room = _seen(world, actions, missed[part])
        stocked[part], possible[part] = there.any(1), (there & room).any(1)
    return int((~stocked).sum()), int((stocked & ~possible).sum()), int(possible.sum())


def _seen(
    world: Instance, actions: Int[ndarray, " order"], orders: Int[ndarray, " some"]
) -> tuple[Bool[ndarray, "some centre"], Bool[ndarray, "some centre"]]:
    """Say which centres had the units in stock for some orders, and which had the capacity."""
    units, refills = world.quantity[orders][:, None], world.refills()[orders]
    there, room = (np.zeros((len(orders), world.n_centres), bool) for _ in range(2))
    key = world.product.astype(np.int64) * world.n_orders
    for centre in range(world.n_centres):
        own = np.flatnonzero(actions == centre)
        used = np.r_[0, np.cumsum(world.quantity[own], dtype=np.int64)][np.searchsorted(own, orders)]
        room[:, centre] = world.granted()[refills, centre] - used >= units[:, 0]
        by_product = own[np.argsort(key[own] + own)]
        total = np.r_[0, np.cumsum(world.quantity[by_product], dtype=np.int64)]
        begun, now = (np.searchsorted(key[by_product] + by_product, key[orders] + until) for until in (0, orders))
        there[:, centre] = world.stock[world.product[orders], centre] - (total[now] - total[begun]) >= units[:, 0]
    return there, room
