"""Histories are read causally, over exactly 64 weeks, and the same however the weeks come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from walras.maps.layers import DilatedCNN, FutureCNN, Linear, Perceptron, normalise

ALL = (1, 2, 4, 8, 16, 32)
WEEKS, AGENTS, GIVEN, WIDTH = 80, 3, 2, 4
RANDOM = np.random.default_rng(1)
CNN = DilatedCNN.draw(RANDOM, GIVEN, WIDTH, ALL)
SERIES = np.asarray(RANDOM.standard_normal((WEEKS, AGENTS, GIVEN)), np.float32)
VALID = np.ones((WEEKS, AGENTS), np.float32)
VALID[:30, 1] = 0.0
VALID[50:53, 2] = 0.0
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@jax.jit
def read(series, valid):
    return CNN(series, valid)


@jax.jit
def read_on(kept, column, valid):
    return CNN.read(kept, column, valid)


def kept_after(first: int):
    return CNN.cache(jnp.asarray(SERIES[:first]), jnp.asarray(VALID[:first]))


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return np.asarray(read(SERIES, VALID))


def perturbed(week: int, by: float = 1.0) -> np.ndarray:
    series = SERIES.copy()
    series[week] += by
    return series


def test_a_week_knows_64_weeks_and_no_more(whole):
    """The week itself and the 63 before it."""
    for back, known in ((0, True), (63, True), (64, False), (65, False)):
        changed = np.asarray(read(perturbed(WEEKS - 1 - back), np.ones_like(VALID)))[-1]
        assert (changed != np.asarray(read(SERIES, np.ones_like(VALID)))[-1]).any() == known, back


def test_the_future_is_never_used(whole):
    moved = np.asarray(read(perturbed(40), VALID))
    np.testing.assert_array_equal(moved[:40], whole[:40])
    assert (moved[40:] != whole[40:]).any(axis=(1, 2)).all()


def test_weeks_that_are_no_history_count_for_nothing(whole):
    """Whatever is written there, and they come out as zeros."""
    wild = np.where(VALID[..., None] > 0, SERIES, 99.0).astype(np.float32)
    np.testing.assert_array_equal(read(wild, VALID), whole)
    assert not whole[VALID == 0].any() and whole[VALID > 0].any(-1).all()
    assert (np.asarray(read(wild, np.ones_like(VALID)))[-1, 1] != whole[-1, 1]).any()


@pytest.mark.parametrize("weeks", [WEEKS, WEEKS - 3])
def test_every_eighth_week_is_that_of_the_full_pass(whole, weeks):
    """Counted back from the last."""
    found = jax.jit(lambda x, v: CNN(x, v, 8))(SERIES[:weeks], VALID[:weeks])
    np.testing.assert_allclose(found, whole[:weeks][(weeks - 1) % 8 :: 8], **CLOSE)


def test_of_the_last_week_alone_it_is_the_last(whole):
    found = jax.jit(lambda x, v: CNN(x, v, 64))(SERIES[-64:], VALID[-64:])
    assert found.shape[0] == 1
    np.testing.assert_allclose(found[0], whole[-1], **CLOSE)


@pytest.mark.parametrize("first", [1, 70])
def test_reading_on_week_by_week_equals_one_pass(whole, first):
    kept = kept_after(first)
    assert [ring.shape[0] for ring in kept] == list(ALL)
    for week in range(first, first + 10):
        kept, found = read_on(kept, SERIES[week], VALID[week])
        np.testing.assert_allclose(found, whole[week], **CLOSE)


def test_a_step_is_a_reading_without_the_moving(whole):
    kept, column, valid = kept_after(70), jnp.asarray(SERIES[70]), jnp.asarray(VALID[70])
    moved, made = CNN.read(kept, column, valid)
    given, stepped = CNN.step(tuple(ring[0] for ring in kept), column, valid)
    np.testing.assert_array_equal(made, stepped)
    for ring, each in zip(moved, given, strict=True):
        np.testing.assert_array_equal(ring[-1], each)


def test_coming_weeks_know_all_others():
    future = FutureCNN.draw(np.random.default_rng(2), GIVEN, WIDTH, (1, 2, 4))
    ahead = SERIES[:8].swapaxes(0, 1)  # [agent, ahead, given]
    answer = jax.jit(lambda x: future(x))
    before = np.asarray(answer(ahead))
    assert before.shape == (AGENTS, 8, 2 * WIDTH)
    later, earlier = ahead.copy(), ahead.copy()
    later[:, 7] += 1.0
    earlier[:, 0] += 1.0
    back, onward = slice(0, WIDTH), slice(WIDTH, 2 * WIDTH)
    moved = np.asarray(answer(later)) != before
    assert moved[:, :, back].any(-1).all() and not moved[:, :7, onward].any()
    moved = np.asarray(answer(earlier)) != before
    assert moved[:, :, onward].any(-1).all() and not moved[:, 1:, back].any()


def test_small_networks_and_normalisation_are_what_they_say():
    net = Perceptron.draw(RANDOM, (2, 3, 1), last_gain=0.5)
    x = jnp.asarray(SERIES[0])
    hidden = np.asarray(x) @ np.asarray(net.layers[0].weight) + np.asarray(net.layers[0].bias)
    hidden = np.where(hidden > 0, hidden, np.expm1(hidden))
    np.testing.assert_allclose(net(x), hidden @ np.asarray(net.layers[1].weight), **CLOSE)
    made = np.asarray(normalise(jnp.asarray([[1.0, 2.0, 3.0, 6.0]])))
    assert made.mean() == pytest.approx(0.0, abs=1e-6) and made.var() == pytest.approx(1.0, abs=1e-4)
    wide = Linear.draw(np.random.default_rng(0), 400, 50, gain=2.0)
    assert np.asarray(wide.weight).var() == pytest.approx(4 / 400, rel=0.05) and not np.asarray(wide.bias).any()
