"""A primal map learns what it is shown: totals, agents one by one, and only what was known.

Made-up stretches and a policy that is quick to compile; maps of four channels.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_episodes import FIRST, WEEKS, FewEpisodes, tiny
from small_stretches import Shy

from walras.maps.features import HORIZON
from walras.maps.rollout import roll_out
from walras.train import primal_task as primal
from walras.train.loop import TrainState, apply_gradients, train
from walras.train.primal_task import PrimalTask, example_loss, forecast_error, search_proposals

POLICY = Shy()


@pytest.fixture(scope="module")
def few():
    return FewEpisodes()


def task_of(few, representation: str, **changes) -> PrimalTask:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(primal, "EXAMPLES", 2)
        patch.setattr(primal, "VALIDATION", 1)
        return PrimalTask(tiny(representation=representation, **changes), few, POLICY)


@pytest.fixture(scope="module")
def pooled(few):
    return task_of(few, "deep-sets", rollouts_per_step=1, warm_rounds=1, steps=8)


def test_a_lesson_is_what_came(few, pooled):
    """Use, prices and each agent's receipts in the weeks after every eighth week."""
    drawn = few.draw(3)
    prices = pooled.prices(few.draw(3), None)
    lesson, rolled = pooled.example(drawn, None), roll_out(drawn.window, POLICY, prices)
    assert lesson.use.shape == (pooled.origins, HORIZON, 1) and pooled.origins == (WEEKS - HORIZON - 1 - FIRST) // 8 + 1
    last = WEEKS - HORIZON - 1
    use = np.asarray(rolled.utilization) / np.asarray(rolled.units.use)
    np.testing.assert_allclose(lesson.use[-1], use[last + 1 : last + 1 + HORIZON], rtol=1e-5)
    unit = float(rolled.units.price[0])
    np.testing.assert_allclose(lesson.prices[-1], prices[last + 1 : last + 1 + HORIZON] / unit, rtol=1e-5)
    slot = int(lesson.watched[0])
    agent = int(drawn.cohort.index[slot])
    mine = rolled.received[last + 1 : last + 1 + HORIZON, agent] / drawn.window.population.demand_scale[agent]
    np.testing.assert_allclose(
        lesson.agent_use[-1, :, 0, 0], mine / lesson.inputs.baseline.level[-1, 0], rtol=1e-4, atol=1e-5
    )


def test_without_agents_it_is_what_the_totals_say(few, pooled):
    lesson = pooled.example(few.draw(0), None)
    plain = lesson.without_agents()
    assert (plain.inputs.agents, plain.inputs.valid, plain.watched, plain.agent_use) == (None,) * 4
    assert jax.tree.structure(plain.without_agents()) == jax.tree.structure(plain)
    np.testing.assert_array_equal(plain.use, lesson.use)
    network = pooled.begin(0).network
    slope = eqx.filter_jit(eqx.filter_grad(example_loss))(network, pooled.scaling, plain, 8)
    for part in (slope.agents, slope.representation, slope.agent_head):
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(part))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves((slope.basis, slope.totals, slope.future)))


def test_a_step_leaves_the_average_behind(pooled):
    carry = pooled.begin(0)
    slope = jax.tree.map(jnp.ones_like, eqx.filter(carry.network, eqx.is_inexact_array))
    after = eqx.filter_jit(apply_gradients)(carry, slope, 0.75, pooled.optimizer)
    assert isinstance(after, TrainState)
    old, new, average = (jax.tree.leaves(each) for each in (carry.network, after.network, after.average))
    assert all((np.asarray(a) != np.asarray(b)).all() for a, b in zip(old, new, strict=True))
    for a, b, c in zip(old, new, average, strict=True):
        np.testing.assert_allclose(c, 0.75 * a + 0.25 * b, rtol=1e-5, atol=1e-7)


def test_steps_lower_the_loss_and_go_on_with_the_same_bits(few, pooled, tmp_path):
    whole = train(pooled, pooled.settings, tmp_path / "whole")
    held_out = pooled.validation[0]
    before, after = (
        float(forecast_error(each, pooled.scaling, held_out, 8)) for each in (pooled.begin(0).network, whole.parameters)
    )
    assert after < 0.95 * before and whole.best_value == pytest.approx(after)
    error = np.array(pooled.diagnostics(whole.parameters)["relative_error"])
    assert error.shape == (HORIZON, 1) and (error > 0).all()
    train(pooled, pooled.settings.model_copy(update={"steps": 3}), tmp_path / "parts")
    parts = train(pooled, pooled.settings, tmp_path / "parts")
    leaves = [jax.tree.leaves(eqx.filter(each.state, eqx.is_array)) for each in (whole, parts)]
    assert all(np.array_equal(one, other) for one, other in zip(*leaves, strict=True))


def test_bottom_up_learns_agent_by_agent(few):
    """Totals teach it nothing, agents that are nobody neither."""
    task = task_of(few, "bottom-up", rollouts_per_step=1, steps=30, learning_rate=0.03)
    carry, lesson = task.begin(0), task.example(few.draw(0), None)
    loss = eqx.filter_jit(lambda network, given: example_loss(network, task.scaling, given, 8))
    first = float(loss(carry.network, lesson))
    other = eqx.tree_at(lambda given: given.use, lesson, 3 * lesson.use)
    assert float(loss(carry.network, other)) == first
    nobody = np.asarray(lesson.inputs.pooled.weight)[np.asarray(lesson.watched)] == 0
    assert nobody.any() and not nobody.all()
    wild = eqx.tree_at(
        lambda given: given.agent_use, lesson, jnp.where(nobody[None, None, :, None], 1e3, lesson.agent_use)
    )
    assert float(loss(carry.network, wild)) == first
    moved = eqx.tree_at(lambda given: given.agent_use, lesson, lesson.agent_use + 1.0)
    assert float(loss(carry.network, moved)) != first
    losses = []
    for _ in range(20):
        carry, seen = task.step(carry, 1)  # the same rollout again
        losses.append(float(seen["loss"]))
    assert losses[0] == pytest.approx(first, rel=1e-4) and losses[-1] < 0.95 * first


def test_a_map_of_totals_has_no_agents_in_its_lessons(few):
    task = task_of(few, "global")
    lesson = task.example(few.draw(0), None)
    assert lesson.inputs.agents is None and lesson.watched is None
    assert task.begin(0).network.agents is None


def test_a_map_that_asks_delegates_learns_what_they_are_off_by():
    """Steps on one lesson lower its loss, which answers of delegates alone leave."""
    few = FewEpisodes(delegates=8)
    task = task_of(few, "global", delegates=8)
    carry, lesson = task.begin(0), task.example(few.draw(0), None)
    assert lesson.inputs.probes is not None and task.shape.signals == 3
    losses = []
    for _ in range(20):
        carry, seen = primal._update(carry, lesson, task.scaling, 8, jnp.float32(0.5), task.optimizer)
        losses.append(float(seen["loss"]))
    assert losses[-1] < 0.9 * losses[0]


def test_searched_prices_fit_a_line():
    """Use 2 - lambda fits a capacity of 1 at a price of 1, and one of 3 at hardly any."""
    capacity = jnp.array([[1.0], [3.0]])
    found = np.asarray(search_proposals(lambda prices: 2.0 - prices, capacity, 200))
    assert found[0, 0] == pytest.approx(1.0, abs=0.05) and found[1, 0] < 0.05
