"""Ask when orders arrive, by hand and for whatever is accepted: nothing appears, nothing vanishes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.errors import InputError, ShapeError
from walras.exogenous.arrivals import ArrivalShares, ConstantLeadTime, IntegerLeadTimes, postponed

ACCEPTED = jnp.asarray([8.0, 4.0, 0.0])
SHARES = jnp.asarray([[0.0, 1.0, 0.25], [0.5, 0.0, 0.25], [0.5, 0.0, 0.5]])
MODELS = {
    "integer": (IntegerLeadTimes(jnp.asarray([2, 0, 1], jnp.int8)), [[0, 4, 0], [0, 0, 0], [8, 0, 0]]),
    "all in the week itself": (ConstantLeadTime(0), [[8, 4, 0], [0, 0, 0], [0, 0, 0]]),
    "all after a week": (ConstantLeadTime(1), [[0, 0, 0], [8, 4, 0], [0, 0, 0]]),
    "shares": (ArrivalShares(SHARES), [[0, 4, 0], [4, 0, 0], [4, 0, 0]]),
}
every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_orders_arrive_when_they_are_due(name):
    model, expected = MODELS[name]
    np.testing.assert_array_equal(model.spread(ACCEPTED, 2), expected)
    np.testing.assert_array_equal(eqx.filter_jit(model.spread)(ACCEPTED, 2), expected)


@every_model
def test_a_longer_pipeline_has_empty_rows(name):
    model, expected = MODELS[name]
    rows = np.asarray(model.spread(ACCEPTED, 5))
    np.testing.assert_array_equal(rows[:3], expected)
    assert rows.shape == (6, 3) and not rows[3:].any()


@every_model
@given(accepted=st.lists(st.integers(0, 2**18).map(lambda x: x / 16), min_size=3, max_size=3))
@settings(max_examples=25)
def test_all_that_is_accepted_arrives_once(name, accepted):
    given_units = jnp.asarray(accepted, jnp.float32)
    rows = np.asarray(MODELS[name][0].spread(given_units, 4))
    assert (rows >= 0).all()
    np.testing.assert_array_equal(rows.sum(0), given_units)  # the shares are quarters: no rounding


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32])
@pytest.mark.parametrize("max_lead", [5, 127, 128, 255, 256, 300])
def test_narrow_types_count_pipelines_of_any_length(kind, max_lead):
    rows = np.asarray(IntegerLeadTimes(jnp.asarray([0, 3, 5], kind)).spread(ACCEPTED, max_lead))
    np.testing.assert_array_equal(rows.sum(0), ACCEPTED)
    assert rows[0, 0] == 8 and rows[3, 1] == 4


@every_model
def test_units_have_derivative_one_wherever_they_arrive(name):
    slope = jax.grad(lambda units: MODELS[name][0].spread(units, 4).sum())(ACCEPTED)
    np.testing.assert_array_equal(slope, [1, 1, 1])


def test_the_longest_lead_time_is_known():
    assert IntegerLeadTimes(jnp.asarray([[2, 0], [1, 4]], jnp.int8)).longest() == 4
    assert IntegerLeadTimes(jnp.zeros((2, 2), jnp.int8)).longest() == 0
    assert ConstantLeadTime(3).longest() == 3 and ConstantLeadTime(0).longest() == 0
    assert ArrivalShares(jnp.zeros((4, 3, 2))).longest() == ArrivalShares(jnp.zeros((3, 2))).longest() == 2


@every_model
def test_inside_a_transform_it_is_known_or_none(name):
    seen = []

    @jax.jit
    def ask(model):
        seen.append(model.longest())
        return jnp.zeros(())

    model = MODELS[name][0]
    ask(model)
    assert seen == [None if name == "integer" else model.longest()]


def test_one_lead_time_for_all_holds_no_arrays():
    assert jax.tree.leaves(ConstantLeadTime(2)) == []


@pytest.mark.parametrize("name", ["all after a week", "shares"])
def test_a_pipeline_without_the_row_is_refused(name):
    with pytest.raises(ShapeError, match=r"`pipeline` has shape \(0 weeks, ...\) but needs \[at least [12] weeks"):
        MODELS[name][0].spread(ACCEPTED, 0)


@pytest.mark.parametrize("weeks", [-1, -3])
def test_a_lead_time_before_the_order_is_refused(weeks):
    with pytest.raises(InputError, match=f"the lead time is {weeks} but must be a whole number of weeks, 0 or more"):
        ConstantLeadTime(weeks)


def test_orders_due_in_closed_weeks_wait_for_the_next_open_one():
    closed = np.asarray([False, True, True, False])
    lead = np.asarray([[[0, 1, 2, 3]] * 4], np.int8)
    expected = [[0, 3, 3, 3], [2, 2, 2, 3], [1, 1, 2, 3], [0, 1, 2, 3]]
    np.testing.assert_array_equal(postponed(lead, closed)[0], expected)
    assert postponed(np.full((1, 2, 1), 120, np.int8), np.ones(200, bool)).max() == 200
