"""Policies decide by whole numbers; the network and the prices of stock and capacity change decisions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from walras.domains.fulfilment.instance import NONE, UNIT, generate_instance, make_instance
from walras.domains.fulfilment.policies import (
    EXACT,
    MOST_ACTIVE,
    MOST_INPUT,
    Greedy,
    dual_policy,
    from_choice,
    from_score,
    integer_share,
    make_policy,
    neural,
    priced,
    stock_levels,
)
from walras.domains.fulfilment.process import fulfil, orders_of
from walras.errors import InputError, SettingsError, ShapeError
from walras.parallel.picard import Picard
from walras.parallel.strategies import SlidingWindow


@pytest.fixture(scope="module")
def instance():
    return generate_instance(400, 60, 6, beta=-0.5)


def by_hand(instance):
    """Send every order to the nearest centre that has it, in plain Python."""
    stock, used, granted, refills = (
        instance.stock.copy(),
        np.zeros(instance.n_centres, int),
        instance.cumulative_capacity(),
        instance.refill_count(),
    )
    actions = []
    for t in range(instance.n_orders):
        units, row = instance.quantity[t], stock[instance.product[t]]
        there = (row >= units) & (granted[refills[t]] - used >= units)
        reward = np.where(there, instance.reward[instance.destination[t]], -1)
        action = int(reward.argmax()) if there.any() else NONE
        if action != NONE:
            row[action] -= units
            used[action] += units
        actions.append(action)
    return actions


def test_greedy_is_a_plain_loop():
    instance = generate_instance(300, 40, 5, beta=-0.8, capacity_share=0.5, most_units=3, refills=2)
    found = fulfil(instance, Greedy(), Picard(verify=True))
    np.testing.assert_array_equal(found.actions, by_hand(instance))
    assert found.converged and bool(found.info.verified) and len(found.exhausted) > 0
    assert 2 <= int(found.info.rounds) <= 60  # refills and several units take more than centres run out
    assert "fulfilled" in str(found)


def test_greedy_takes_no_more_rounds_than_centres_run_out_plus_one():
    for seed in range(4):
        instance = generate_instance(400, 60, 6, beta=-0.8, capacity_share=0.5, seed=seed)
        for rule in (Greedy(), make_policy(instance, "dual")):
            found = fulfil(instance, rule)
            assert 2 <= int(found.info.rounds) <= len(found.exhausted) + 1


def test_the_network_really_decides(instance):
    greedy = fulfil(instance, Greedy()).actions
    for seed in range(3):
        rule = neural(instance, 8, seed)
        found = fulfil(instance, rule).actions
        assert np.mean(found != greedy) >= 0.2
        # Every layer counts: other weights in it, the same elsewhere, send other orders elsewhere.
        for layer in range(3):
            changed = tuple(w[::-1] if number == layer else w for number, w in enumerate(rule.weights))
            other = eqx.tree_at(lambda rule: rule.weights, rule, changed)
            assert np.mean(fulfil(instance, other).actions != found) >= 0.05
    silent = eqx.tree_at(lambda rule: (rule.weights[-1], rule.biases[-1]), rule, replace_fn=jnp.zeros_like)
    np.testing.assert_array_equal(fulfil(instance, silent).actions, greedy)


def test_every_sum_of_the_network_is_exact(instance):
    for width in (8, 64, 2048):
        network = neural(instance, width)
        most = MOST_INPUT
        for weight, bias in zip(network.weights, network.biases, strict=True):
            assert most * np.abs(weight).sum(0).max() + np.abs(bias).max() < EXACT
            np.testing.assert_array_equal(weight, np.rint(weight))
            most = MOST_ACTIVE
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 200, (37, 6)))
    network, order = neural(instance, 64), jax.tree.map(lambda leaf: leaf[0], orders_of(instance))
    together = jax.jit(jax.vmap(lambda row: network.scores(row, jnp.zeros(6, int), order)))(rows)
    alone = jax.jit(lambda row: network.scores(row, jnp.zeros(6, int), order))
    one_by_one = [alone(row) for row in rows]
    np.testing.assert_array_equal(together, np.stack(one_by_one))
    assert len(np.unique(together)) > 100


def test_levels_are_single_units_then_eighths():
    stock = np.arange(2000)
    found = np.asarray(stock_levels(jnp.asarray(stock)))
    np.testing.assert_array_equal(found[:16], stock[:16])
    assert set(np.diff(found)) == {0, 1} and found[16] == found[17] == 16 and found[1024] == (10 - 2) * 8
    assert int(stock_levels(jnp.asarray(-3))) == 0


def test_prices_turn_orders_away():
    instance = make_instance(
        np.zeros(2, int), np.zeros(2, int), np.array([[1.0, 0.9]]), np.array([[9, 9]]), np.array([9, 9])
    )
    for stock_price, capacity_price, action in (
        ([[0, 0]], [0, 0], 0),
        ([[0.2, 0]], [0, 0], 1),
        ([[0.5, 1]], [0.6, 0], NONE),
    ):
        rule = dual_policy(instance, np.asarray(stock_price, float), np.asarray(capacity_price, float))
        assert fulfil(instance, rule).actions[0] == action
    with pytest.raises(ShapeError, match="capacity_price"):
        dual_policy(instance, np.zeros((1, 2)), np.zeros(3))
    with pytest.raises(ShapeError, match="stock_price"):
        dual_policy(instance, np.zeros((2, 2)), np.zeros(2))


def test_a_price_of_capacity_costs_one_encoding_per_order(instance):
    rule = priced(neural(instance, 8), 1.0)
    found = fulfil(instance, rule, Picard(window=SlidingWindow(40)))
    assert int(found.info.encode_calls) <= 1.05 * instance.n_orders
    free = fulfil(instance, neural(instance, 8)).actions
    assert np.mean(free != found.actions) > 0.05


def test_functions_of_ones_own_decide_and_are_checked(instance):
    scored = from_score(
        instance, lambda row, reward, bonus: jnp.append(reward + bonus * jnp.minimum(row, 3), 0), jnp.asarray(UNIT // 4)
    )
    assert np.mean(fulfil(instance, scored).actions != fulfil(instance, Greedy()).actions) > 0.05
    polite = from_choice(instance, lambda row, left, reward: jnp.where((row[0] > 0) & (left[0] > 0), 0, NONE))
    assert set(fulfil(instance, polite).actions) == {0, NONE}
    for rude in (lambda row, left, reward: jnp.asarray(1), lambda row, left, reward: jnp.asarray(17)):
        with pytest.raises(InputError, match="the policy sent order"):
            fulfil(instance, from_choice(instance, rude))


def test_functions_of_ones_own_return_what_is_needed(instance):
    for rude in (lambda row, left, reward: jnp.asarray(0.5), lambda row, left, reward: row, lambda *_: 1):
        with pytest.raises(InputError, match="but needs one whole number"):
            from_choice(instance, rude)
    for rude in (lambda row, reward, _: reward, lambda row, reward, _: jnp.append(reward / 2, 0)):
        with pytest.raises(InputError, match="but needs 7 whole numbers"):
            from_score(instance, rude)


def test_prices_are_numbers(instance):
    for wrong in (np.nan, np.inf, 1e9):
        with pytest.raises(InputError, match="`capacity_price` has a value"):
            dual_policy(instance, np.zeros((1, 6)), np.full(6, wrong))
    for wrong in (np.nan, -0.1, 17):
        with pytest.raises(SettingsError, match="strength"):
            priced(Greedy(), wrong)


def test_names_and_widths_are_checked(instance):
    with pytest.raises(SettingsError, match="greedy, mlp"):
        make_policy(instance, "gredy")
    with pytest.raises(SettingsError, match="width"):
        neural(instance, 0)


def test_shares_are_whole_divisions():
    random = np.random.default_rng(0)
    whole = random.integers(1, 1 << 23, 500)
    part = (whole * random.uniform(0, 1, 500)).astype(int)
    found = integer_share(jnp.asarray(part, jnp.int32), jnp.asarray(whole, jnp.int32))
    np.testing.assert_array_equal(found, part * 65536 // whole)
    large = integer_share(jnp.asarray([1 << 28, 0, 1 << 29]), jnp.asarray([1 << 29, 0, 1 << 29]))
    np.testing.assert_array_equal(large, [32768, 0, 65536])
