"""Ask whether the books of a trajectory are those of a plain loop, and whether they find what is below zero."""

import numpy as np
import pytest

from walras.domains.fulfilment.audit import audit_actions
from walras.domains.fulfilment.generate import generate_instance
from walras.domains.fulfilment.audit import check_actions
from walras.domains.fulfilment.instance import NONE, make_instance
from walras.errors import InputError


def played(instance, random):
    """Send orders to random centres that can, in plain Python; count as it goes."""
    stock, used, refills = instance.stock.copy(), np.zeros(instance.n_centres, int), instance.refill_count()
    missed, actions = {"no stock": 0, "no capacity": 0, "turned away": 0}, []
    lowest, out = instance.capacity.copy(), np.full(instance.n_centres, NONE)
    for t in range(instance.n_orders):
        units, row = instance.quantity[t], stock[instance.product[t]]
        left = instance.cumulative_capacity()[refills[t]] - used
        able = np.flatnonzero((row >= units) & (left >= units))
        action = int(random.choice(able)) if len(able) and random.random() < 0.9 else NONE
        if action == NONE:
            reason = "turned away" if len(able) else "no capacity" if (row >= units).any() else "no stock"
            missed[reason] += 1
        else:
            row[action] -= units
            used[action] += units
            lowest[action] = min(lowest[action], left[action] - units)
            if left[action] == units and out[action] == NONE:
                out[action] = t
        actions.append(action)
    return np.array(actions), stock, used, missed, lowest, out


@pytest.mark.parametrize("seed", range(4))
def test_books_are_those_of_a_plain_loop(seed):
    instance = generate_instance(300, 20, 5, -0.5, capacity_share=0.5, most_units=3, refills=2, seed=seed)
    actions, stock, used, missed, lowest, out = played(instance, np.random.default_rng(seed))
    check_actions(instance, actions)
    books = audit_actions(instance, actions)
    books.check()
    assert books.missed == missed and min(missed.values()) > 0 and (out >= 0).any()
    np.testing.assert_array_equal(books.units, used)
    np.testing.assert_array_equal(books.lowest_capacity, lowest)
    np.testing.assert_array_equal(books.out_after, out)
    np.testing.assert_array_equal(books.stock_left, stock.sum(0))
    assert books.filled == (actions >= 0).sum() and books.lowest_stock == stock.min()
    assert books.filled_units == instance.stock.sum() - stock.sum() == used.sum()


def test_what_is_below_zero_is_found():
    instance = make_instance([0, 0], [0, 0], [[1.0, 0.5]], [[1, 2]], [2, 1])
    audit_actions(instance, np.array([0, 1])).check()
    with pytest.raises(InputError, match="stock falls to -1"):
        audit_actions(instance, np.array([0, 0])).check()
    with pytest.raises(InputError, match="capacity of centre 1 falls to -1"):
        audit_actions(instance, np.array([1, 1])).check()
