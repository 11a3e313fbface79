"""The parallel engine returns what a plain loop returns, counts its work, and refuses invalid arguments."""

import jax
import numpy as np
import pytest
from deciders import Flip, fulfilment, tank

from walras import parallel
from walras.errors import InputError, SettingsError, ShapeError
from walras.parallel.picard import Picard
from walras.parallel.process import Sequential
from walras.parallel.strategies import (
    ByKey,
    ChainSegments,
    CustomAssignment,
    FixedWindows,
    FromPolicy,
    PerEvent,
    RandomAssignment,
    SlidingWindow,
    WarmStart,
)

WINDOW = SlidingWindow(30)
ENGINES = {
    "whole horizon": Picard(),
    "frontier": Picard(window=WINDOW),
    "moves every round": Picard(window=SlidingWindow(30, refill=0.0)),
    "all or nothing": Picard(window=FixedWindows(30)),
    "one each": Picard(assignment=PerEvent(), window=WINDOW),
    "segments": Picard(assignment=ChainSegments(3), window=WINDOW),
    "scattered": Picard(assignment=RandomAssignment(5), window=WINDOW),
    "own": Picard(assignment=CustomAssignment(lambda keys, first: (keys + first) % 3), window=WINDOW),
    "random start": Picard(start=WarmStart(np.random.default_rng(1).integers(-1, 4, 60)), window=WINDOW),
    "published in this engine": Picard(certified=False, window=SlidingWindow(30, refill=0.0)),
}


@pytest.fixture(scope="module", params=["greedy", "capacity"])
def question(request):
    process, state, events, _ = fulfilment(request.param, capacity_share=0.5, most_units=2, refills=1, beta=-0.5)
    expected, _ = jax.jit(lambda s, e: Sequential().run(process, s, e))(state, events)
    return process, state, events, expected


@pytest.mark.parametrize("name", ENGINES)
def test_actions_and_final_state_are_those_of_a_plain_loop(question, name):
    process, state, events, expected = question
    trajectory, info = ENGINES[name].run(process, state, events)
    np.testing.assert_array_equal(trajectory.records, expected.records)
    np.testing.assert_array_equal(trajectory.final.table, expected.final.table)
    np.testing.assert_array_equal(trajectory.final.shared, expected.final.shared)
    assert bool(info.converged) and int(info.committed) == 60
    assert 1 <= int(info.rounds) <= 60 and int(info.policy_calls) >= 60


def test_states_that_do_not_add_up_are_replayed():
    process, state, events = tank()
    expected, _ = Sequential().run(process, state, events)
    for engine in (Picard(), Picard(window=SlidingWindow(7))):
        trajectory, info = engine.run(process, state, events)
        np.testing.assert_array_equal(trajectory.records, expected.records)
        np.testing.assert_array_equal(trajectory.final, expected.final)
        assert bool(info.converged)
    assert len(np.unique(expected.records)) == 3


def test_not_converged_is_a_result_code():
    process, state, events, _ = fulfilment("mlp", capacity_share=0.4, beta=-0.5)
    engine = Picard(assignment=PerEvent(), max_rounds=2, verify=True)
    trajectory, info = engine.run(process, state, events)
    assert not bool(info.converged) and info.verified is None
    committed = int(info.committed)
    assert 2 <= committed < 60
    expected, _ = Sequential().run(process, state, jax.tree.map(lambda leaf: leaf[:committed], events))
    np.testing.assert_array_equal(trajectory.records[:committed], expected.records)
    np.testing.assert_array_equal(trajectory.final.table, expected.final.table)
    assert "False" in str(info)


def test_run_returns_the_actions_and_prints_whether_they_are_exact():
    process, state, events, _ = fulfilment("mlp")
    result = parallel.run(process, state, events, verify=True)
    np.testing.assert_array_equal(result.actions, Sequential().run(process, state, events)[0].records)
    assert result.converged and result.exact
    assert "exact             True" in str(result) and "calls per event   1" in str(result)
    again = parallel.run(process, state, events, start=result.actions, engine=Picard(WINDOW))
    assert again.exact is None and int(again.info.rounds) == 2 and "not verified" in str(again)
    assert parallel.run(process, state, events, engine=Sequential()).converged
    with pytest.raises(SettingsError, match="Sequential"):
        parallel.run(process, state, events, engine=Sequential(), verify=True)
    with pytest.raises(InputError, match="0 events"):
        parallel.run(process, state, {})


def test_the_public_names_of_the_room_are_there():
    assert all(getattr(parallel, name) is not None for name in parallel.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        parallel.nothing  # noqa: B018


def test_verifying_can_fail(monkeypatch):
    process, state, events, _ = fulfilment("mlp")
    trajectory, info = Picard(verify=True).run(process, state, events)
    assert bool(info.verified)
    wrong = trajectory.records.at[31].set((trajectory.records[31] + 1) % 4)
    planted = type(trajectory)(final=trajectory.final, records=wrong)
    monkeypatch.setattr("walras.parallel.picard.run_sequentially", lambda *question: planted)
    assert not bool(Picard(verify=True).run(process, state, events)[1].verified)


def test_a_given_trajectory_that_is_right_costs_one_call_per_event():
    process, state, events, _ = fulfilment("capacity", beta=-0.5)
    first, _ = Picard().run(process, state, events)
    _, again = Picard(start=WarmStart(first.records)).run(process, state, events)
    _, drafted = Picard(start=FromPolicy(process, Picard())).run(process, state, events)
    for info in (again, drafted):
        assert (int(info.rounds), int(info.policy_calls)) == (1, 60)


def test_certificates_save_calls_and_change_nothing():
    process, state, events, _ = fulfilment("greedy", orders=200, products=30, capacity_share=0.4)
    trajectory, info = Picard().run(process, state, events)
    other, everything = Picard(certified=False).run(process, state, events)
    np.testing.assert_array_equal(trajectory.records, other.records)
    assert int(info.policy_calls) < 0.7 * int(everything.policy_calls)
    assert int(info.encode_calls) == 200


def test_new_values_of_the_same_shape_are_not_traced_again():
    traces = []

    class Counted(type(fulfilment()[0])):
        def encode(self, inputs, event):
            traces.append(1)
            return super().encode(inputs, event)

    for seed in (0, 1):
        process, state, events, _ = fulfilment(seed=seed)
        before = len(traces)
        Picard(window=SlidingWindow(60)).run(Counted(process.rule, process.reward, process.granted), state, events)
    assert len(traces) == before > 0


def test_two_interleaved_processes_may_take_as_many_rounds_as_events():
    from walras.domains.fulfilment.instance import make_instance
    from walras.domains.fulfilment.policies import Greedy, priced
    from walras.domains.fulfilment.process import orders_of, process_of

    n = 12
    two = np.array([[n, n]])
    instance = make_instance(np.zeros(n, int), np.zeros(n, int), np.ones((1, 2)), two, two[0])
    process = process_of(instance, priced(Greedy(), 1.0))
    run = {}
    for name, assignment in {"interleaved": RandomAssignment(2), "one": ByKey()}.items():
        if name == "interleaved":
            assignment = CustomAssignment(lambda keys, first: (np.arange(len(keys)) + first) % 2)
        trajectory, run[name] = Picard(assignment=assignment).run(
            process, instance.initial_state(), orders_of(instance)
        )
        np.testing.assert_array_equal(trajectory.records, np.arange(n) % 2)
    assert int(run["one"].rounds) == 1 and n // 2 <= int(run["interleaved"].rounds) <= n


def test_what_cannot_be_run_is_refused_in_one_sentence():
    process, state, events, _ = fulfilment()
    with pytest.raises(InputError, match="takes a decision"):
        Picard().run(Flip(), state, events)
    with pytest.raises(InputError, match="inside a JAX transform"):
        jax.jit(lambda s: Picard().run(process, s, events)[0].records)(state)
    with pytest.raises(InputError, match="0 events"):
        Picard().run(process, state, jax.tree.map(lambda leaf: leaf[:0], events))
    with pytest.raises(SettingsError, match="only 60"):
        Picard(window=SlidingWindow(61)).run(process, state, events)
    with pytest.raises(SettingsError, match="positive whole numbers"):
        Picard(rows=(12, 8)).run(process, state, events)
    with pytest.raises(ShapeError, match="actions"):
        Picard(start=WarmStart(np.zeros(3, int))).run(process, state, events)
    with pytest.raises(SettingsError, match="AdditiveProcess"):
        Picard(assignment=ByKey()).run(*tank())
    with pytest.raises(InputError, match="one integer"):
        Picard(assignment=CustomAssignment(lambda keys, first: keys * 0.5)).run(process, state, events)
    for nonsense in (
        lambda: ChainSegments(0),
        lambda: RandomAssignment(-1),
        lambda: SlidingWindow(0),
        lambda: SlidingWindow(4, 2.0),
    ):
        with pytest.raises(SettingsError):
            nonsense()
