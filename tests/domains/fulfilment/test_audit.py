"""The account of a trajectory is that of a plain loop, and broken invariants are found."""

import numpy as np
import pytest

from walras.domains.fulfilment.instance import NONE, generate_instance, make_instance
from walras.domains.fulfilment.process import audit_actions, check_actions, total_reward
from walras.errors import InputError, ShapeError


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
def test_the_account_is_that_of_a_plain_loop(seed):
    instance = generate_instance(300, 20, 5, -0.5, capacity_share=0.5, most_units=3, refills=2, seed=seed)
    actions, stock, used, missed, lowest, out = played(instance, np.random.default_rng(seed))
    check_actions(instance, actions)
    account = audit_actions(instance, actions)
    assert account.unfilled == missed and min(missed.values()) > 0 and (out >= 0).any()
    np.testing.assert_array_equal(account.units, used)
    np.testing.assert_array_equal(account.lowest_capacity, lowest)
    np.testing.assert_array_equal(account.out_after, out)
    np.testing.assert_array_equal(account.stock_left, stock.sum(0))
    assert account.filled == (actions >= 0).sum() and account.lowest_stock == stock.min()
    assert account.filled_units == instance.stock.sum() - stock.sum() == used.sum()


def test_invariants_are_checked():
    instance = make_instance(
        product=[0, 0, 1, 0],
        destination=[0, 1, 1, 0],
        reward=[[1.0, 0.5], [0.25, 0.75]],
        stock=[[2, 1], [0, 1]],
        capacity=[1, 1],
        refill_before=[3],
        refill=[[1, 0]],
    )
    good = np.array([0, 1, NONE, 0])
    check_actions(instance, good)
    assert total_reward(instance, good) == pytest.approx(1.0 + 0.75 + 1.0)
    assert list(audit_actions(instance, good).out_after) == [0, 1]
    for wrong, order in (([0, 0, NONE, 0], 1), ([0, NONE, 0, 0], 2), ([2, NONE, NONE, NONE], 0), ([1, NONE, 1, 0], 2)):
        with pytest.raises(InputError, match=f"order {order} "):
            check_actions(instance, np.array(wrong))
    with pytest.raises(ShapeError):
        check_actions(instance, good[:3])
