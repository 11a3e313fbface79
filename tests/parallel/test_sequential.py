"""The sequential engine returns what a plain loop over the steps returns, for transitions of any kind."""

import jax
import jax.numpy as jnp
import numpy as np

from walras.parallel.process import Sequential

STEPS = 9


def drain(state, inputs):
    """Fill and drain a tank; record what was spilled and the level."""
    level = jnp.maximum(state["level"] + inputs["in"] - inputs["out"], 0.0)
    spilled = jnp.where(level > state["size"], level - state["size"], 0.0)
    level = level - spilled
    return {"level": level, "size": state["size"]}, (spilled, level)


def question(seed: int = 0):
    random = np.random.default_rng(seed)
    inputs = {name: jnp.asarray(random.integers(0, 9, (STEPS, 4)), jnp.float32) for name in ("in", "out")}
    return {"level": jnp.zeros(4), "size": jnp.asarray([3.0, 6.0, 9.0, 12.0])}, inputs


def test_the_result_is_that_of_a_plain_loop():
    initial, inputs = question()
    state, records = initial, []
    for step in range(STEPS):
        state, record = drain(state, {name: value[step] for name, value in inputs.items()})
        records.append(record)
    trajectory, info = Sequential().run(drain, initial, inputs)
    for name in state:
        np.testing.assert_array_equal(trajectory.final[name], state[name])
    for place in range(2):
        np.testing.assert_array_equal(trajectory.records[place], np.stack([record[place] for record in records]))
    assert float(trajectory.records[0].sum()) > 0
    assert 1 <= int(info.rounds) <= STEPS and int(info.policy_calls) >= STEPS


def test_gradients_are_those_of_a_plain_loop():
    initial, inputs = question()

    def looped(filling):
        state, spilled = initial, 0.0
        for step in range(STEPS):
            state, record = drain(state, {"in": filling[step], "out": inputs["out"][step]})
            spilled = spilled + (record[0] ** 2).sum()
        return spilled

    def run(filling):
        trajectory, _ = Sequential().run(drain, initial, {**inputs, "in": filling})
        return (trajectory.records[0] ** 2).sum()

    expected = jax.grad(looped)(inputs["in"])
    assert float(jnp.abs(expected).max()) > 0
    np.testing.assert_allclose(jax.grad(run)(inputs["in"]), expected, rtol=1e-6)


def test_new_values_of_the_same_shape_are_not_traced_again():
    traces = []

    def counted(state, inputs):
        traces.append(1)
        return drain(state, inputs)

    run = jax.jit(lambda initial, inputs: Sequential().run(counted, initial, inputs))
    run(*question(0))
    before = len(traces)
    run(*question(1))
    assert len(traces) == before > 0


def test_the_sequential_engine_takes_as_many_rounds_as_steps():
    _, info = Sequential().run(drain, *question())
    assert (int(info.rounds), int(info.policy_calls)) == (STEPS, STEPS)
