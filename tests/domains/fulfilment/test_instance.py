"""Generated instances follow the published law, and impossible ones are refused."""

import numpy as np
import pytest

from walras.domains.fulfilment.instance import generate_instance, make_instance
from walras.errors import InputError, SettingsError


def small(**changed):
    """Two products, two centres, four orders, a refill before the last one."""
    given = {
        "product": np.array([0, 0, 1, 0]),
        "destination": np.array([0, 1, 1, 0]),
        "reward": np.array([[1.0, 0.5], [0.25, 0.75]]),
        "stock": np.array([[2, 1], [0, 1]]),
        "capacity": np.array([1, 1]),
        "refill_before": np.array([3]),
        "refill": np.array([[1, 0]]),
    }
    return make_instance(**{**given, **changed})


def test_the_law_is_the_published_one():
    instance = generate_instance(40_000, 2_000, 30, beta=-0.8)
    asked = np.bincount(instance.product, minlength=2_000)
    slope = np.polyfit(np.log(np.arange(1, 101)), np.log(asked[:100]), 1)[0]
    assert slope == pytest.approx(-0.8, abs=0.05)
    assert instance.stock.sum() == pytest.approx(0.8 * 40_000, rel=0.02)
    assert instance.capacity.sum() == pytest.approx(0.8 * 40_000, rel=0.001)
    assert instance.stock.sum(0)[0] / instance.stock.sum() == pytest.approx(
        instance.capacity[0] / instance.capacity.sum(), abs=0.01
    )
    assert instance.names[0] == "New York" and instance.reward.min() >= 0
    flat = generate_instance(40_000, 2_000, 40, beta=0.0, most_units=3, refills=3)
    assert np.bincount(flat.product).max() < 50 and flat.names[-1] == "place 40"
    assert set(flat.quantity) == {1, 2, 3} and flat.cumulative_capacity()[-1].sum() == pytest.approx(
        0.8 * flat.quantity.sum(), rel=1e-3
    )


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"stock": np.array([[2, 1], [-1, 1]])}, "product 1 has stock -1 in centre 0"),
        ({"product": np.array([0, 0, 7, 0])}, "order 2 is for product 7 but there are 2 products"),
        ({"destination": np.array([0, 0, 0, 5])}, "order 3 goes to destination 5"),
        ({"quantity": np.array([1, 0, 1, 1])}, "order 1 is for 0 units"),
        ({"capacity": np.array([1, -1])}, "centre 1 has capacity -1"),
        ({"product": np.zeros(0, int), "destination": np.zeros(0, int)}, "0 orders"),
        ({"refill": np.array([[1, -1]])}, "refill 0 adds -1 in centre 1"),
        ({"refill_before": np.array([-3])}, "refill 0 comes before order -3"),
        ({"refill_before": np.array([3, 1]), "refill": np.zeros((2, 2), int)}, "rising order"),
        ({"refill_before": np.array([99])}, "before order 99 but there are 4 orders"),
        ({"names": ("a",)}, r"`names` has shape \(1,\) but needs \(2,\)"),
        ({"reward": np.array([[1.0, np.nan], [0.25, 0.75]])}, "no number"),
        ({"stock": np.array([[2.0, 1], [0, 1]])}, "needs whole numbers"),
        ({"capacity": np.array([1 << 29, 1 << 29])}, "larger units"),
        ({"stock": np.array([[2, 1, 3]])}, r"`stock` has shape \(1, 3\)"),
        ({"destination": np.array([0])}, "`destination` has shape"),
        ({"capacity": 5}, r"`capacity` has shape \(\) but needs \(any\) \[centre\]"),
        ({"product": np.zeros((2, 2), int)}, "`product` has shape"),
        ({"capacity": np.zeros(0, int)}, "0 centres"),
        ({"reward": np.array([["a", "b"]] * 2)}, "no number"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changed, said):
    with pytest.raises(InputError, match=said) as refused:
        small(**changed)
    assert "\n" not in str(refused.value) and not str(refused.value).endswith(".")


def test_numbers_out_of_range_are_refused():
    nonsenses = [{"orders": 0}, {"centres": 0}, {"stock_share": -0.1}, {"most_units": 0}, {"seed": -1}, {"refills": -1}]
    nonsenses += [{"beta": np.nan}, {"beta": np.inf}, {"capacity_share": np.nan}, {"capacity_share": np.inf}]
    for nonsense in nonsenses:
        with pytest.raises(SettingsError, match=next(iter(nonsense))):
            generate_instance(**{"orders": 10, "products": 2, **nonsense})
    with pytest.raises(SettingsError, match="do not fit in memory"):
        generate_instance(10**8, 10, 100)


def test_instances_are_cut_and_sampled():
    instance = generate_instance(101, 9, 3, most_units=2, refills=3)
    early, late = instance.halves()
    assert (early.n_orders, late.n_orders) == (50, 51)
    np.testing.assert_array_equal(np.r_[early.product, late.product], instance.product)
    np.testing.assert_array_equal(np.r_[early.refill_before, late.refill_before + 50], instance.refill_before)
    np.testing.assert_array_equal(early.stock, instance.stock // 2)
    sample = instance.resampled(1)
    lines = {tuple(line) for line in np.stack([instance.product, instance.destination, instance.quantity], 1)}
    assert {tuple(line) for line in np.stack([sample.product, sample.destination, sample.quantity], 1)} < lines
    assert np.mean(sample.product != instance.product) > 0.3
    np.testing.assert_array_equal(instance.resampled(1).product, sample.product)
    with pytest.raises(InputError, match="1 order but two halves"):
        instance.first_orders(1).halves()
