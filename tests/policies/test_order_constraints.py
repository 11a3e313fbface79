"""Ask how wishes become orders: by hand, against a list of all allowed orders, and in their continuous form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from walras.errors import InputError, ShapeError
from walras.policies.base_stock import ConstantOrder
from walras.policies.order_constraints import CasePacks, Constrained, Continuous

TERMS = CasePacks(minimum=10.0, case_pack=4.0, maximum=27.0)
"""Allowed: 0, 12, 16, 20, 24."""

BY_HAND = {0: 0, 1: 0, 6: 0, 6.5: 12, 11: 12, 12: 12, 14: 12, 14.5: 16, 18: 16, 18.5: 20, 22.5: 24, 27: 24, 1e6: 24}


def placed(terms, wishes):
    return np.asarray(terms.place(jnp.asarray(wishes, jnp.float32)))


def test_wishes_go_to_the_nearest_allowed_order():
    np.testing.assert_array_equal(placed(TERMS, list(BY_HAND)), list(BY_HAND.values()))
    assert (float(TERMS.least), float(TERMS.most)) == (12, 24)


def test_without_terms_orders_are_whole_units():
    np.testing.assert_array_equal(placed(CasePacks(), [0, 0.5, 0.75, 1.5, 2.5, 2.51, 7]), [0, 0, 1, 1, 2, 3, 7])


def test_agents_have_terms_of_their_own():
    terms = CasePacks([0.0, 10.0, 3.0, 0.0], [1.0, 4.0, 2.0, 5.0], [np.inf, 27.0, 4.0, 0.0])
    np.testing.assert_array_equal(placed(terms, [9.0] * 4), [9, 8 + 4, 4, 0])


def nearest_by_list(minimum: int, case: int, maximum: int, wish: float) -> float:
    """Search all allowed orders for the nearest; the first of two is the smaller."""
    allowed = [0] + [units for units in range(case, maximum + 1, case) if units >= minimum]
    return min(allowed, key=lambda units: abs(units - wish))


terms_and_wish = given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 60), st.integers(0, 400))


@terms_and_wish
@example(0, 1, 0, 12)
@example(12, 12, 12, 24)
@settings(max_examples=100)
def test_the_rule_is_a_search_through_all_allowed_orders(minimum, case, room, quarters):
    maximum = case * -(-max(minimum, 1) // case) + room
    terms, wish = CasePacks(minimum, case, maximum), quarters / 4
    order = float(placed(terms, [wish])[0])
    assert order == nearest_by_list(minimum, case, maximum, wish)
    assert order == 0 or (order % case == 0 and minimum <= order <= maximum)


@terms_and_wish
@settings(max_examples=50)
def test_the_continuous_form_passes_through_all_allowed_orders(minimum, case, room, quarters):
    maximum = case * -(-max(minimum, 1) // case) + room
    terms = CasePacks(minimum, case, maximum)
    order = placed(terms, [quarters / 4])
    np.testing.assert_array_equal(placed(terms, order), order)
    np.testing.assert_array_equal(placed(terms.continuous(), order), order)


@pytest.mark.parametrize("terms", [TERMS, TERMS.continuous(), CasePacks(), CasePacks().continuous()])
def test_a_larger_wish_never_places_less(terms):
    orders = placed(terms, np.linspace(-1, 40, 616))
    assert (np.diff(orders) >= 0).all() and orders[0] == 0 and orders[-1] >= 24


def test_the_continuous_form_has_no_steps():
    wishes = np.linspace(0, 40, 2001)
    orders = placed(TERMS.continuous(), wishes)
    np.testing.assert_allclose(orders, np.minimum(wishes, 24), rtol=1e-6)


def test_the_continuous_form_is_the_average_of_whole_cases():
    wishes = (np.arange(240) + 0.5) / 10
    for low, high in ((0, 12), (12, 16), (20, 24)):
        between = wishes[(wishes > low) & (wishes < high)]
        np.testing.assert_allclose(placed(TERMS, between).mean(), placed(TERMS.continuous(), between).mean(), rtol=1e-5)


def test_derivatives_are_those_of_a_wish_about_to_fall():
    wishes = jnp.asarray([-1.0, 0.0, 0.5, 7.0, 12.0, 23.0, 24.0, 25.0])
    slopes = [jax.grad(lambda w, t=terms: t.place(w).sum())(wishes) for terms in (TERMS.continuous(), TERMS)]
    np.testing.assert_array_equal(slopes[0], [0, 0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(slopes[1], np.zeros(8))


@pytest.mark.parametrize("terms", [CasePacks(), CasePacks().continuous(), TERMS, TERMS.continuous()])
def test_terms_without_a_maximum_have_finite_derivatives_in_everything(terms):
    slopes = jax.grad(lambda terms: terms.place(jnp.asarray([0.0, 2.0, 30.0])).sum())(terms)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("terms", [TERMS, TERMS.continuous()])
def test_wishes_that_are_no_numbers_stay_visible_and_huge_ones_meet_the_maximum(terms):
    orders = placed(terms, [np.nan, np.inf, -np.inf])
    assert np.isnan(orders[0]) and orders[1] == 24 and orders[2] == 0


def test_cases_that_no_binary_fraction_holds_are_still_counted_right():
    terms = CasePacks(minimum=0.3, case_pack=0.1, maximum=0.7)
    np.testing.assert_allclose([float(terms.least), float(terms.most)], [0.3, 0.7], rtol=1e-6)


def test_the_continuous_form_of_a_policy_keeps_the_policy():
    policy = Constrained(ConstantOrder(jnp.asarray([5.0, 13.0, 99.0])), TERMS)
    assert policy.continuous().policy is policy.policy
    assert isinstance(policy.continuous().terms, Continuous) and isinstance(
        policy.continuous().continuous().terms, Continuous
    )


@pytest.mark.parametrize(
    ("given_terms", "sentence"),
    [
        ({"minimum": [1.0, -2.0]}, "the minimum order of agent 1 is -2 but must be 0 or more units"),
        ({"minimum": np.nan}, "the minimum order of agent 0 is nan but must be 0 or more units"),
        ({"case_pack": [1.0, 6.0, 0.0]}, "the case pack of agent 2 is 0 but must be more than 0 units"),
        ({"case_pack": np.inf}, "the case pack of agent 0 is inf but must be"),
        ({"maximum": [-1.0, 5.0]}, "the maximum order of agent 0 is -1 but must be 0 or more units"),
        ({"minimum": 10, "case_pack": 4, "maximum": [12, 11]}, "the maximum order of agent 1 is 11 but must be 0, or"),
    ],
)
def test_numbers_that_cannot_be_terms_are_refused_with_their_agent(given_terms, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        CasePacks(**given_terms)
    assert "\n" not in str(caught.value)


def test_terms_for_different_numbers_of_agents_are_refused():
    with pytest.raises(ShapeError, match=r"`order terms` has shape \(2,\) and \(3,\) but needs one number, or one per"):
        CasePacks(minimum=[1.0, 2.0], maximum=[5.0, 6.0, 7.0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64])
def test_terms_of_any_type_of_numbers_are_single_precision(kind):
    terms = CasePacks(np.full(3, 2, kind), np.ones(3, kind), np.full(3, 9, kind))
    assert {x.dtype for x in jax.tree.leaves((terms, terms.continuous()))} == {jnp.dtype("float32")}


def test_terms_may_be_built_inside_a_transform():
    built = jax.jit(lambda case: CasePacks(case_pack=case).place(jnp.asarray([7.0])))
    np.testing.assert_array_equal(built(3.0), [6])
