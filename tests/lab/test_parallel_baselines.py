"""Ask whether the methods that the engine is compared with give the same actions."""

import numpy as np
import pytest
from deciders import fulfilment, tank

from lab.parallel_baselines import PublishedJacobi, SafeWindow, safe_orders
from walras.errors import InputError
from walras.parallel.picard import Picard
from walras.parallel.process import Sequential
from walras.parallel.strategies import ByKey, RandomAssignment


def engine(instance):
    return SafeWindow(
        lambda process, state, first: safe_orders(
            process, state, int(instance.quantity.max()), instance.refill_before, first
        )
    )


def test_safe_windows_give_the_same_at_one_call_per_order():
    process, state, events, instance = fulfilment(
        "greedy", 600, products=40, capacity_share=0.6, refills=1, most_units=2
    )
    expected, ours = Picard().run(process, state, events)
    trajectory, info = engine(instance).run(process, state, events)
    np.testing.assert_array_equal(trajectory.records, expected.records)
    np.testing.assert_array_equal(trajectory.final.table, expected.final.table)
    # Some windows hold many orders, and close to a limit orders are taken one by one.
    assert int(info.policy_calls) == 600 and 2 * int(ours.rounds) < int(info.rounds) < 600


def test_a_price_of_every_unit_leaves_nothing_safe():
    process, state, events, instance = fulfilment("capacity")
    with pytest.raises(InputError, match="no window is safe"):
        engine(instance).run(process, state, events)


def test_the_published_iteration_gives_the_same_with_a_call_per_event_and_iteration():
    process, state, events, _ = fulfilment("greedy", capacity_share=0.4)
    expected, ours = Picard().run(process, state, events)
    trajectory, info = PublishedJacobi(ByKey()).run(process, state, events)
    np.testing.assert_array_equal(trajectory.records, expected.records)
    np.testing.assert_array_equal(trajectory.final.table, expected.final.table)
    assert int(info.policy_calls) > int(ours.policy_calls)


def test_the_published_iteration_replays_states_that_do_not_add_up():
    process, state, events = tank()
    expected, _ = Sequential().run(process, state, events)
    trajectory, info = PublishedJacobi(RandomAssignment(3), window=11).run(process, state, events)
    np.testing.assert_array_equal(trajectory.records, expected.records)
    assert bool(info.converged)
