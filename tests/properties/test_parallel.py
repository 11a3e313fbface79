"""The parallel engine gives what one by one gives: any instance, policy, assignment, window and start (hypothesis)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deciders import fulfilment
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.domains.fulfilment.instance import NONE
from walras.domains.fulfilment.policies import ScoreRule
from walras.domains.fulfilment.process import check_actions, process_of
from walras.parallel.picard import Picard
from walras.parallel.process import Sequential
from walras.parallel.strategies import (
    ByKey,
    ChainSegments,
    CustomAssignment,
    FixedWindows,
    PerEvent,
    RandomAssignment,
    SlidingWindow,
    WarmStart,
)

ORDERS, PRODUCTS, CENTRES = 24, 5, 3
# One tile and few rows: a program is compiled for every policy and size, and that is what takes time here.
TILE = (4, 4)
ASSIGNMENTS = st.one_of(
    st.just(ByKey()),
    st.just(PerEvent()),
    st.integers(1, 9).map(ChainSegments),
    st.integers(1, 9).map(RandomAssignment),
    st.lists(st.integers(-3, 3), min_size=ORDERS, max_size=ORDERS).map(
        lambda owners: CustomAssignment(lambda keys, first: np.array(owners)[first : first + len(keys)])
    ),
)
# Windows of one size only, since every size is compiled anew.
WINDOWS = st.one_of(st.floats(0, 1).map(lambda refill: SlidingWindow(10, refill)), st.just(FixedWindows(10)))
LAWS = st.fixed_dictionaries(
    {
        "beta": st.sampled_from([0.0, -1.0]),
        "capacity_share": st.floats(0, 1.2),
        "stock_share": st.floats(0, 1.5),
        "most_units": st.integers(1, 3),
        "seed": st.integers(0, 1000),
    }
)
RUN = jax.jit(lambda process, state, events: Sequential().run(process, state, events)[0])
AFTER = jax.jit(
    lambda process, state, events, count: jax.lax.fori_loop(
        0, count, lambda t, state: process(state, jax.tree.map(lambda leaf: leaf[t], events))[0], state
    )
)


def look_up(row, reward, table):
    """Score by any table of numbers, found by the stock row: nothing about it is smooth or monotone."""
    return table[(row @ jnp.array([1, 5, 11])) % len(table)]


def question(policy, law, table):
    """Return process, state and events of a small instance, and the instance; `table` is the policy of that name."""
    process, state, events, instance = fulfilment(
        "greedy" if policy == "table" else policy, ORDERS, PRODUCTS, CENTRES, refills=2, **law
    )
    if policy == "table":
        scores = np.random.default_rng(table).integers(-9, 10, (16, CENTRES + 1))
        process = process_of(instance, ScoreRule(look_up, jnp.asarray(scores, jnp.int32)))
    return process, state, events, instance


@pytest.mark.parametrize("policy", ["greedy", "mlp", "dual", "capacity", "table"])
@given(
    law=LAWS,
    table=st.integers(0, 1000),
    assignment=ASSIGNMENTS,
    window=WINDOWS,
    guess=st.lists(st.integers(NONE, CENTRES - 1), min_size=ORDERS, max_size=ORDERS),
    most=st.one_of(st.none(), st.integers(0, 6)),
)
@settings(max_examples=10)
def test_parallel_is_one_by_one_as_far_as_it_got(policy, law, table, assignment, window, guess, most):
    process, state, events, instance = question(policy, law, table)
    engine = Picard(window, assignment, WarmStart(np.array(guess)), rows=TILE, max_rounds=most)
    trajectory, info = engine.run(process, state, events)
    actions, expected, final = np.asarray(trajectory.records), RUN(process, state, events), int(info.committed)
    np.testing.assert_array_equal(actions[:final], expected.records[:final])
    check_actions(instance, np.where(np.arange(ORDERS) < final, actions, NONE))
    assert bool(info.converged) == (final == ORDERS)
    assert min(int(info.rounds), ORDERS) <= final  # every round settles one event at least, so never more than events
    if most is None:
        assert final == ORDERS and int(info.policy_calls) >= ORDERS
        np.testing.assert_array_equal(trajectory.final.shared, expected.final.shared)
    else:
        assert int(info.rounds) <= most
    np.testing.assert_array_equal(trajectory.final.table, AFTER(process, state, events, final).table)
