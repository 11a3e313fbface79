"""Ask what vendors accept, by hand and for whatever is placed, and how that changes with what is placed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.exogenous.arrivals import Chained, FillRate, SupplyLimit

LIMIT = SupplyLimit(jnp.asarray([0.0, 5.0, 5.0, 5.0]))
SHARE = FillRate(jnp.asarray([0.5, 0.0, 0.75, 1.0]))
PLACED = jnp.asarray([4.0, 4.0, 8.0, 5.0])
MODELS = {
    "limit": (LIMIT, [0, 4, 5, 5]),
    "share": (SHARE, [2, 0, 6, 5]),
    "share, then limit": (Chained(SHARE, LIMIT), [0, 0, 5, 5]),
    "limit, then share": (Chained(LIMIT, SHARE), [0, 0, 3.75, 5]),
    "share twice, then limit": (Chained(SHARE, Chained(SHARE, LIMIT)), [0, 0, 4.5, 5]),
}
every_model = pytest.mark.parametrize("name", MODELS)
units = st.lists(st.integers(0, 2**18).map(lambda x: x / 16), min_size=4, max_size=4)


@every_model
def test_vendors_accept_what_their_rule_says(name):
    model, expected = MODELS[name]
    np.testing.assert_array_equal(model.accept(PLACED), expected)
    np.testing.assert_array_equal(eqx.filter_jit(model.accept)(PLACED), expected)


@every_model
@given(placed=units, more=units)
@settings(max_examples=25)
def test_what_is_accepted_is_never_more_than_placed_and_never_falls_when_more_is(name, placed, more):
    model = MODELS[name][0]
    some = jnp.asarray(placed, jnp.float32)
    accepted = np.asarray(model.accept(some))
    assert (accepted >= 0).all() and (accepted <= np.asarray(some)).all()
    assert (np.asarray(model.accept(some + jnp.asarray(more, jnp.float32))) >= accepted).all()


def test_at_the_limit_the_derivative_is_that_of_an_order_about_to_fall():
    accepted = lambda limit, placed: SupplyLimit(limit).accept(placed).sum()  # noqa: E731
    limit, placed = jax.grad(accepted, argnums=(0, 1))(jnp.full(3, 5.0), jnp.asarray([4.0, 5.0, 6.0]))
    np.testing.assert_array_equal(placed, [1, 1, 0])
    np.testing.assert_array_equal(limit, [0, 0, 1])


def test_a_share_is_the_derivative():
    np.testing.assert_array_equal(jax.grad(lambda x: SHARE.accept(x).sum())(PLACED), SHARE.share)


def test_a_placed_order_that_is_no_number_stays_visible():
    for model, _ in MODELS.values():
        assert np.isnan(model.accept(jnp.full(4, jnp.nan))).all()
