"""A window is chosen by the two costs, with an artificial clock, and changes nothing but the work."""

from collections import Counter

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from deciders import fulfilment

from walras.errors import SettingsError
from walras.parallel.autotune import (
    LENGTHS,
    REPEATS,
    AutoWindow,
    RunTiming,
    WindowCosts,
    fit_costs,
)
from walras.parallel.picard import Picard, PicardInfo
from walras.parallel.process import Sequential, n_events
from walras.parallel.strategies import ByKey, ChainSegments


class Clock:
    """A clock that stands still until it is set forward."""

    def __init__(self, per_round, per_call, per_segment=0.0):
        self.now, self.costs, self.per_segment, self.runs = 0.0, WindowCosts(per_round, per_call), per_segment, 0

    def __call__(self):
        return self.now


class Pretending(Picard):
    """Run nothing: a round per window and a call per event, and the hand of the clock moves by what they cost."""

    clock: Clock = eqx.field(static=True, kw_only=True)

    def run(self, transition, initial, inputs):
        events = n_events(inputs)
        size = self.window.length(events)
        rounds = -(-events // size)
        segments = events // self.assignment.length if isinstance(self.assignment, ChainSegments) else 0
        clock = self.clock
        clock.now += rounds * clock.costs.per_round + events * clock.costs.per_call + segments * clock.per_segment
        clock.runs += 1
        return jnp.zeros(1), PicardInfo.of(Counter(rounds=rounds, policy_calls=events), events, size)


def chosen(clock, orders=8000, products=400, **engine):
    """Return the window that the clock makes one choose, and the engine it is for."""
    process, state, events, _ = fulfilment("greedy", orders=orders, products=products)
    window = AutoWindow(0.1, clock)
    pretending = Pretending(window, rows=(16, 4), clock=clock, **engine)
    return window, window.resolve(pretending, process, state, events)


def test_the_costs_are_those_that_made_the_seconds():
    true = WindowCosts(per_round=0.003, per_call=0.0002)
    small, large = ((rounds, 1000 + rounds) for rounds in (16, 2))
    found = fit_costs(*(RunTiming(r * true.per_round + c * true.per_call, r, c) for r, c in (small, large)))
    np.testing.assert_allclose((found.per_round, found.per_call), (true.per_round, true.per_call))


@pytest.mark.parametrize("seconds", [(1.0, 8.0), (8.0, 0.01), (1.0, 1.0)])
def test_noise_never_makes_a_cost_vanish(seconds):
    found = fit_costs(RunTiming(seconds[0], 16, 1000), RunTiming(seconds[1], 2, 1000))
    assert found.per_round > 0 and found.per_call > 0


@pytest.mark.parametrize(("per_round", "size"), [(1e-4, 32), (1e-2, 1024), (2e-2, 2048), (1.0, 8000)])
def test_the_dearer_a_round_the_larger_the_window(per_round, size):
    window, engine = chosen(Clock(per_round, per_call=1e-4))
    np.testing.assert_allclose((window.costs.per_round, window.costs.per_call), (per_round, 1e-4), rtol=1e-6)
    assert window.choice == (size, None) and (engine.window.size, engine.assignment) == (size, None)


def test_segments_are_taken_where_they_are_quicker():
    assert chosen(Clock(1e-2, 1e-4, per_segment=-1e-3), products=3)[0].choice == (1024, LENGTHS[1])
    assert chosen(Clock(1e-2, 1e-4, per_segment=-1e-4), products=3)[0].choice == (1024, None)  # not clearly
    assert chosen(Clock(1e-2, 1e-4, per_segment=1e-3), products=3)[0].choice == (1024, None)
    window, engine = chosen(Clock(1e-2, 1e-4, per_segment=-1e-3), products=3, assignment=ByKey())
    assert window.choice == (1024, None) and isinstance(engine.assignment, ByKey)


def test_the_same_shapes_are_measured_once():
    clock = Clock(1e-2, 1e-4)
    window, engine = chosen(clock)
    runs, first = clock.runs, window.choice
    assert runs == 2 * (1 + REPEATS)
    process, state, events, _ = fulfilment("greedy", orders=8000, products=400, seed=1)
    window.resolve(Pretending(window, rows=(16, 4), clock=clock), process, state, events)
    assert clock.runs == runs and window.choice == first


def test_what_is_chosen_changes_nothing():
    process, state, events, _ = fulfilment("mlp", orders=16, capacity_share=0.5)
    window = AutoWindow()
    trajectory, info = Picard(window, rows=(4, 4)).run(process, state, events)
    np.testing.assert_array_equal(trajectory.records, Sequential().run(process, state, events)[0].records)
    assert info.window == window.choice[0] == 8 and f"{info.window}" in str(info)


def test_short_horizons_and_other_states_need_no_measuring():
    def never():
        raise AssertionError("no clock is needed")

    window = AutoWindow(clock=never)
    process, state, events, _ = fulfilment()
    assert Picard(window).run(process, state, events)[1].window == 60 and window.choice == (60, None)


def test_a_share_has_to_be_positive():
    for share in (0, -1.0, float("nan")):
        with pytest.raises(SettingsError, match="positive"):
            AutoWindow(share)
