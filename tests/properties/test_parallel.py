"""Hold the parallel engine to one by one: any small world, policy, assignment, window and start."""

import jax
import jax.numpy as jnp
import numpy as np
from deciders import fulfilment
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.domains.fulfilment.world import NONE, check_actions
from walras.engine.assignment import ByKey, OneEach, OwnAssignment, Scattered, Segments
from walras.engine.picard import Picard
from walras.engine.sequential import Sequential
from walras.engine.starts import Given
from walras.engine.windows import AllOrNothing, Frontier

ORDERS, PRODUCTS, CENTRES = 40, 5, 3
ASSIGNMENTS = st.one_of(
    st.just(ByKey()),
    st.just(OneEach()),
    st.integers(1, 9).map(Segments),
    st.integers(1, 9).map(Scattered),
    st.integers(1, 9).map(lambda size: OwnAssignment(lambda keys, first: (np.arange(len(keys)) + first) // size)),
)
# Windows of two sizes only, since every size is compiled anew.
WINDOWS = st.one_of(
    st.just(Frontier()),
    st.floats(0, 1).map(lambda refill: Frontier(16, refill)),
    st.just(AllOrNothing(16)),
)
RUN = jax.jit(lambda process, state, events: Sequential().run(process, state, events)[0].records)


@given(
    policy=st.sampled_from(["greedy", "mlp", "capacity"]),
    law=st.fixed_dictionaries(
        {
            "beta": st.sampled_from([0.0, -1.0]),
            "capacity_share": st.floats(0, 1.2),
            "stock_share": st.floats(0, 1.5),
            "most_units": st.integers(1, 3),
            "seed": st.integers(0, 1000),
        }
    ),
    assignment=ASSIGNMENTS,
    window=WINDOWS,
    guess=st.integers(0, 1000),
)
@settings(max_examples=25)
def test_parallel_is_one_by_one(policy, law, assignment, window, guess):
    process, state, events, world = fulfilment(policy, ORDERS, PRODUCTS, CENTRES, refills=2, **law)
    start = Given(jnp.asarray(np.random.default_rng(guess).integers(NONE, CENTRES, ORDERS)))
    trajectory, info = Picard(window, assignment, start).run(process, state, events)
    np.testing.assert_array_equal(trajectory.records, RUN(process, state, events))
    check_actions(world, np.asarray(trajectory.records))
    assert bool(info.converged) and 1 <= int(info.rounds) <= ORDERS
    assert int(info.policy_calls) >= ORDERS and int(info.tile_rows) >= int(info.policy_calls)
