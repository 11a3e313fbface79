"""Learned prices earn more, and the last trajectory is the start where that is less work."""

import jax.numpy as jnp
import numpy as np
import pytest

from walras.domains.fulfilment import optimise
from walras.domains.fulfilment.instance import NONE, generate_instance, make_instance
from walras.domains.fulfilment.optimise import clairvoyant_bound, learn_prices
from walras.domains.fulfilment.policies import Greedy, make_policy, scarcity_prices
from walras.domains.fulfilment.process import FulfilmentResult, fulfil
from walras.errors import InputError, SettingsError
from walras.parallel.picard import Picard
from walras.parallel.process import EngineInfo, Sequential


def test_prices_earn_more_in_a_tight_world_whatever_the_engine():
    instance = generate_instance(600, 40, 5, beta=-0.5, capacity_share=0.5)
    learned = learn_prices(instance, steps=8)
    assert learned.reward == learned.rewards.max() > 1.01 * learned.rewards[0]
    assert learned.rewards[0] == fulfil(instance, Greedy()).reward
    assert fulfil(instance, learned.rule).reward == learned.reward <= clairvoyant_bound(instance)
    one_by_one = learn_prices(instance, Sequential(), steps=2)
    np.testing.assert_array_equal(one_by_one.rewards, learned.rewards[:2])
    assert "best reward" in str(learned) and one_by_one.rounds[0] == 600
    assert (learned.step_seconds >= learned.seconds).all()


def test_prices_earn_more_on_orders_that_they_never_saw():
    law = {"orders": 600, "products": 40, "centres": 5, "beta": -0.5, "capacity_share": 0.5}
    instance = generate_instance(**law)
    learned = learn_prices([instance.resampled(1), instance.resampled(2)], steps=12)
    gains = []
    for draw in (1, 2, 3):
        unseen = generate_instance(**law, draw=draw)
        np.testing.assert_array_equal(unseen.stock, instance.stock)
        assert np.mean(unseen.product != instance.product) > 0.5
        earned = fulfil(unseen, learned.rule).reward
        gains.append(earned / fulfil(unseen, Greedy()).reward)
        assert earned <= clairvoyant_bound(unseen)
    assert np.mean(gains) > 1.01


def test_what_cannot_be_learned_is_refused():
    instance, other = generate_instance(20, 4, 2), generate_instance(20, 5, 2)
    for nonsense in ({"steps": 0}, {"rate": 0.0}, {"rate": float("nan")}):
        with pytest.raises(SettingsError, match="must be positive"):
            learn_prices(instance, **nonsense)
    with pytest.raises(InputError, match="instances of 2 sizes"):
        learn_prices([instance, other])
    with pytest.raises(InputError, match="instances of 0 sizes"):
        learn_prices([])


def test_the_last_trajectory_is_the_start_where_that_is_less_work(monkeypatch):
    instance, starts = generate_instance(60, 7, 3, capacity_share=0.5), []
    sample, rule = optimise._Sample(instance), scarcity_prices(instance)

    def counted(instance, rule, engine):
        starts.append(type(engine.start).__name__)
        calls = {"NoOp": 70, "WarmStart": 60 if len(starts) >= 12 else 90}[starts[-1]]
        info = EngineInfo(jnp.asarray(3), jnp.asarray(calls))
        return FulfilmentResult(instance, np.full(60, NONE), 0.0, info)

    monkeypatch.setattr(optimise, "fulfil", counted)
    for _ in range(14):
        sample.simulate(rule, Picard())
    assert starts == ["NoOp", "WarmStart", *["NoOp"] * 9, *["WarmStart"] * 3]


def test_a_case_that_is_solved_by_hand():
    # Greedy sends the first order near and leaves the second with 0.1; knowing both earns 0.9 + 1.0.
    instance = make_instance([0, 0], [0, 1], [[1.0, 0.9], [1.0, 0.1]], [[1, 1]], [1, 1])
    assert fulfil(instance, Greedy()).reward == pytest.approx(1.1, abs=1e-4)
    assert clairvoyant_bound(instance) == pytest.approx(1.9, abs=1e-4)


def test_nothing_earns_more_and_plenty_earns_all(monkeypatch):
    law = {"orders": 200, "products": 20, "centres": 4, "most_units": 2, "refills": 1}
    tight = generate_instance(**law, capacity_share=0.5)
    limit = clairvoyant_bound(tight)
    for name in ("greedy", "dual"):
        assert fulfil(tight, make_policy(tight, name)).reward <= limit + 1e-6
    plenty = generate_instance(**law, stock_share=50, capacity_share=50)
    best = (plenty.reward.max(1)[plenty.destination] * plenty.quantity).sum() / 65536
    assert clairvoyant_bound(plenty) == pytest.approx(best) and limit < 0.8 * best
    monkeypatch.setattr(optimise, "MOST_VARIABLES", 10)
    with pytest.raises(InputError, match="variables but at most 10"):
        clairvoyant_bound(tight)
    assert np.isfinite(limit)
