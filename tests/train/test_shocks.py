"""Prices in training are of every kind, known when they say, and in units of what agents can pay."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from shops import shop

from walras.exogenous.capacity import LONGEST_NOTICE
from walras.train.shocks import (
    ALWAYS,
    HALF_LIFE,
    LEAST_USE,
    LONGEST_BLOCK,
    draw_common,
    lagged_forecast,
    mixed_prices,
    typical_prices,
)

WEEKS, SEEDS = 30, 60
SCALE = np.array([2.0, 0.5])


def kind_of(prices: np.ndarray, notice: np.ndarray) -> str:
    """Tell a resource's prices by their traces: pulses have a notice, a Haar path is constant on blocks of four."""
    if (notice == ALWAYS).all():
        return "haar" if prices.any() else "none"
    return "pulse"


def test_every_kind_appears_about_as_often_for_every_resource():
    found = [mixed_prices(seed, WEEKS, SCALE) for seed in range(SEEDS)]
    for resource in range(len(SCALE)):
        kinds = [kind_of(each.prices[:, resource], each.notice[:, resource]) for each in found]
        counts = [kinds.count(kind) for kind in ("none", "haar", "pulse")]
        assert min(counts) > SEEDS / 6 and sum(counts) == SEEDS


def test_resources_draw_their_own():
    found = [mixed_prices(seed, WEEKS, SCALE) for seed in range(SEEDS)]
    kinds = [[kind_of(each.prices[:, r], each.notice[:, r]) for r in range(2)] for each in found]
    assert len({tuple(pair) for pair in kinds}) == 9


def test_prices_are_finite_known_when_they_say_and_scale_with_what_agents_can_pay():
    for seed in range(SEEDS):
        one, twice = mixed_prices(seed, WEEKS, SCALE), mixed_prices(seed, WEEKS, 2 * SCALE)
        assert one.prices.shape == one.notice.shape == (WEEKS, 2)
        assert np.isfinite(one.prices).all() and (one.prices >= 0).all()
        assert ((one.notice == ALWAYS) | ((0 <= one.notice) & (one.notice <= LONGEST_NOTICE + WEEKS))).all()
        np.testing.assert_allclose(twice.prices, 2 * one.prices)
        np.testing.assert_array_equal(twice.notice, one.notice)


def test_a_pulse_is_announced_as_a_whole():
    for seed in range(SEEDS):
        drawn = mixed_prices(seed, WEEKS, SCALE[:1])
        if kind_of(drawn.prices[:, 0], drawn.notice[:, 0]) != "pulse":
            continue
        weeks = np.arange(WEEKS)
        told = (weeks - drawn.notice[:, 0])[drawn.prices[:, 0] > 0]
        heights = drawn.prices[:, 0][drawn.prices[:, 0] > 0]
        for height in np.unique(heights):
            assert len(np.unique(told[heights == height])) == 1


def test_the_same_seed_gives_the_same_prices_and_another_others():
    first, again, other = (mixed_prices(seed, WEEKS, SCALE) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.prices, again.prices)
    np.testing.assert_array_equal(first.notice, again.notice)
    assert (first.prices != other.prices).any() or (first.notice != other.notice).any()


@pytest.mark.parametrize("weeks", [1, WEEKS])
def test_nothing_to_pay_with_is_no_price(weeks):
    for seed in range(12):
        assert not mixed_prices(seed, weeks, np.zeros(2)).prices.any()


def test_a_typical_price_takes_the_margin_of_a_unit_or_doubles_its_holding():
    people = shop()
    people = replace(
        people,
        unit_margin=jnp.full_like(people.unit_margin, 6.0),
        holding_cost=jnp.full_like(people.holding_cost, 0.5),
        use=jnp.full_like(people.use, 2.0).at[:, 1].set(0.0),
    )
    expected = {"inbound_units": 3.0, "inbound_volume": 6.0 / LEAST_USE, "storage": 0.25}
    np.testing.assert_allclose(typical_prices(people), [expected[name] for name in people.resources])
    losing = replace(people, unit_margin=-people.unit_margin)
    assert typical_prices(losing)[0] == 0.0


def test_half_of_a_change_is_followed_after_the_half_life():
    level = lagged_forecast(np.full(2 * int(HALF_LIFE) + 1, 3.0))
    np.testing.assert_allclose(level[[0, int(HALF_LIFE), 2 * int(HALF_LIFE)]], [1.0, 2.0, 2.5])


def test_a_week_changes_only_later_levels():
    one, other = np.ones(12), np.ones(12)
    other[4] = 5.0
    np.testing.assert_array_equal(lagged_forecast(one)[:5], lagged_forecast(other)[:5])
    assert (lagged_forecast(other)[5:] > 1).all()


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_drawn_factors_have_the_mean_and_the_spread_asked_for(spread):
    for seed in range(20):
        drawn = draw_common(np.random.default_rng(seed), 64, spread)
        np.testing.assert_allclose([drawn.mean(), np.log(drawn).std()], [1.0, spread], atol=1e-6)
        assert (drawn > 0).all()
    again = draw_common(np.random.default_rng(19), 64, spread)
    np.testing.assert_array_equal(again, drawn)


def test_blocks_are_of_one_to_the_most_weeks():
    def longest(seed: int) -> int:
        drawn = draw_common(np.random.default_rng(seed), 200, 0.3)
        edges = np.flatnonzero(np.diff(drawn) != 0)
        return int(np.diff(edges).min())

    found = {longest(seed) for seed in range(60)}
    assert found == set(range(1, LONGEST_BLOCK + 1))
