"""Own the proof that a buyer comes back from its file as it was, and that any other file is refused in one sentence."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from buyers import FORGETFUL, FULL, loud

from walras.data.array_file import DamagedFileError, flatten, read_arrays, write_arrays
from walras.errors import InputError
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer
from walras.train.buyer_file import KIND, VERSION, load_buyer, save_buyer

FACTS = {"steps": 3, "trained_on": "a table"}


@pytest.fixture
def place(tmp_path):
    """Write a small buyer."""
    path = tmp_path / "one.walras"
    save_buyer(path, loud(FULL), FACTS)
    return path


@pytest.mark.parametrize("shape", [FULL, FORGETFUL], ids=["full", "forgetful"])
def test_a_buyer_comes_back_bit_for_bit(tmp_path, shape):
    buyer = loud(shape)
    buyer = Buyer(buyer.network, shape, PricedNewsvendor(discount=0.98))
    save_buyer(tmp_path / "one.walras", buyer, FACTS)
    found = load_buyer(tmp_path / "one.walras")
    assert found.buyer.shape == shape and found.buyer.base.discount == 0.98 and found.buyer.profile is None
    assert found.facts == FACTS and found.source.endswith("one.walras")
    ours, theirs = (jax.tree.leaves(each.network) for each in (buyer, found.buyer))
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert jax.tree.structure(found.buyer) == jax.tree.structure(buyer)


def test_what_an_agent_is_like_is_not_in_the_file(place, tmp_path):
    save_buyer(tmp_path / "two.walras", loud(FULL).knowing(jnp.ones((10, 3))), FACTS)
    assert (tmp_path / "two.walras").read_bytes() == place.read_bytes()


def refused(path, words: str, kind: type = InputError) -> None:
    with pytest.raises(kind, match=words) as caught:
        load_buyer(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_a_damaged_file_is_one_sentence(place):
    content = place.read_bytes()
    for broken in (content[:-1], content[:60], content[:200] + b"?" + content[201:], b""):
        place.write_bytes(broken)
        refused(place, "is damaged|is no file of arrays", DamagedFileError)


def test_a_missing_file_is_one_sentence(tmp_path):
    refused(tmp_path / "none.walras", "cannot be read")


def rewritten(place, kind: str = KIND, **changes) -> None:
    stored = read_arrays(place, KIND)
    header = {name: value for name, value in {**stored.header, **changes}.items() if value is not None}
    write_arrays(place, kind, stored.arrays, header)


def test_another_kind_of_file_is_one_sentence(place):
    rewritten(place, kind="line")
    refused(place, "holds a .?line.? but a .?buyer.? is needed")


@pytest.mark.parametrize("version", [VERSION + 1, None, "new"])
def test_another_version_is_one_sentence(place, version):
    rewritten(place, version=version)
    refused(place, f"holds a buyer of version .* but this walras reads version {VERSION}; train it again")


@pytest.mark.parametrize(
    "changes",
    [{"shape": None}, {"discount": None}, {"shape": {"width": 3}}, {"shape": [1, 2]}, {"discount": "much"}],
    ids=["no shape", "no discount", "another field", "a list", "a word"],
)
def test_a_file_without_its_shape_is_one_sentence(place, changes):
    rewritten(place, **changes)
    refused(place, "does not say what shape its buyer has")


def test_weights_of_another_shape_are_one_sentence(place):
    stored = read_arrays(place, KIND)
    write_arrays(place, KIND, flatten(loud(replace(FULL, after=3)).network.value), stored.header)
    refused(place, "is needed; build the same structure")
