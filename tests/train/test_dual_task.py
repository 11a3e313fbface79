"""The terms of the dual loss are what they say, and a step lowers their sum.

Made-up stretches; the terms are held to a loop that is written down by hand.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_episodes import FewEpisodes, tiny
from small_stretches import FIRST, WEEKS, Shy, cohort_index, dual_map, target_of, window

from walras.errors import NoDerivativeError
from walras.maps.closed_loop import ClosedLoopResult
from walras.maps.features import HORIZON, units_of
from walras.policies.user_policies import CallbackPolicy
from walras.train import dual_task as dual
from walras.train.dual_task import DualExample, DualTask, Weights, dual_loss, episode_terms
from walras.train.loop import train

POLICY = Shy()
STRETCH = window()
COORDINATED = WEEKS - FIRST


def lesson(*origins: int) -> DualExample:
    return DualExample(STRETCH, cohort_index(STRETCH), target_of(STRETCH), jnp.asarray(origins, jnp.int32))


def by_hand(use, charged) -> ClosedLoopResult:
    unit = units_of(STRETCH.population).price
    rows = [jnp.broadcast_to(jnp.asarray(each, jnp.float32), (COORDINATED, 1)) for each in (use, charged)]
    nothing = jnp.zeros(COORDINATED)
    issued = jnp.zeros((COORDINATED, HORIZON, 1))
    return ClosedLoopResult(issued, rows[1] * unit[None, :], rows[0], nothing, jnp.zeros(()), STRETCH.initial)


def test_the_terms_of_a_loop_written_down(monkeypatch):
    """Two units of capacity; use of 3 and price of 1 in every other week, use of 1 and price of 4 in the others."""
    odd = (np.arange(COORDINATED) % 2)[:, None]
    mine = eqx.tree_at(lambda given: given.plan.capacity, lesson(), jnp.full((WEEKS, 1), 2.0))
    done = by_hand(np.where(odd, 1.0, 3.0), np.where(odd, 4.0, 1.0))
    monkeypatch.setattr(dual, "run_closed_loop", lambda *given: done)
    terms, _ = episode_terms(mine, POLICY, dual_map(), 6)
    assert float(terms["violation"]) == pytest.approx(0.5 / 2)
    assert float(terms["price"]) == pytest.approx(2.5)
    assert float(terms["slackness"]) == pytest.approx(4 * 0.5 / 2)
    assert float(terms["consistency"]) == 0.0
    # What is before the burn-in does not count.
    wild = by_hand(np.where(np.arange(COORDINATED)[:, None] < 6, 99.0, 2.0), 0.0)
    monkeypatch.setattr(dual, "run_closed_loop", lambda *given: wild)
    assert not any(float(each) for each in episode_terms(mine, POLICY, dual_map(), 6)[0].values())


def test_terms_are_weighed():
    learned = dual_map("global")
    weights = Weights(violation=0.0, price=0.0, consistency=0.0, slackness=0.0, burn_in=3)
    parts = (learned.network, learned.scaling, lesson(2, 5), POLICY)

    @eqx.filter_jit
    def each():
        loss, terms = dual_loss(*parts, replace(weights, violation=2.0, price=3.0, consistency=5.0, slackness=7.0))
        return loss, dual_loss(*parts, weights)[0], terms

    loss, nothing, terms = each()
    by_name = {"violation": 2.0, "price": 3.0, "consistency": 5.0, "slackness": 7.0}
    assert float(loss) == pytest.approx(sum(weight * float(terms[name]) for name, weight in by_name.items()), rel=1e-5)
    assert float(nothing) == 0.0 and all(float(term) > 0 for term in terms.values())


def test_a_plan_that_is_issued_again_as_it_was_is_kept():
    learned = dual_map("global")
    last = lambda network: network.basis.layers[-1].weight  # noqa: E731
    steady = eqx.tree_at(last, learned.network, jnp.zeros_like(last(learned.network)))

    @eqx.filter_jit
    def gap(network):
        return episode_terms(lesson(0, 4), POLICY, replace(learned, network=network), 0)[0]["consistency"]

    moving, kept = float(gap(learned.network)), float(gap(steady))
    # The price of the first coordinated week was issued by nobody, so that a plan from week 0 on is kept as well.
    assert moving > 1e-6 and kept < 1e-3 * moving


@pytest.fixture(scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("EXAMPLES", 2), ("VALIDATION", 1), ("ORIGINS", 1)):
            patch.setattr(dual, name, count)
        yield FewEpisodes()


@pytest.fixture(scope="module")
def task(few):
    return DualTask(tiny(representation="global", steps=3, burn_in=2, learning_rate=0.05), few, POLICY)


def test_training_lowers_the_loss_and_goes_on_with_the_same_bits(task, tmp_path):
    settings = task.settings
    assert not set(np.asarray(task.validation[0].origins)) - set(
        range(settings.weeks - settings.first_origin - HORIZON)
    )
    carry, losses = task.begin(settings.seed), []
    for _ in range(8):
        carry, seen = task.step(carry, 1)  # the same episode again
        losses.append(float(seen["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    whole = train(task, settings, tmp_path / "whole")
    assert set(task.diagnostics(whole.parameters)["terms"]) == {"violation", "price", "slackness", "consistency"}
    train(task, settings.model_copy(update={"steps": 1}), tmp_path / "parts")
    parts = train(task, settings, tmp_path / "parts")
    leaves = [jax.tree.leaves(eqx.filter(each.state, eqx.is_array)) for each in (whole, parts)]
    assert all(np.array_equal(one, other) for one, other in zip(*leaves, strict=True))


def test_lessons_are_at_the_scale_of_use(few, task):
    for number in range(4):
        mine = task.example(few.draw(number))
        assert (np.asarray(mine.plan.capacity) > 0).all() and mine.plan.first == task.settings.first_origin


def test_a_black_box_ends_in_a_sentence(few):
    """It says why it cannot be used, and what can."""
    box = CallbackPolicy(lambda seen: np.maximum(5 * seen.demand_scale - seen.position, 0))
    with pytest.raises(
        NoDerivativeError, match="a black box whose orders have no derivative, .* as `surrogate`"
    ) as caught:
        task = DualTask(tiny(representation="global"), few, box)
        task.step(task.begin(0), 1)
    assert "\n" not in str(caught.value)
