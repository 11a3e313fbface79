"""A map is read from its file bit for bit, and no other file passes for one."""

import jax
import numpy as np
import pytest
from small_maps import TWO, untrained

from walras.data.array_file import DamagedFileError, read_arrays, write_arrays
from walras.errors import InputError
from walras.maps import file
from walras.maps.file import DUAL, PRIMAL, load_map, save_map
from walras.maps.representations import REPRESENTATIONS


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_map_comes_back_bit_for_bit(tmp_path, representation):
    learned = untrained(DUAL, representation, TWO, steps=3, relative_error=[0.1, 0.2])
    save_map(tmp_path / "map.walras", learned)
    found = load_map(tmp_path / "map.walras", DUAL)
    pairs = (learned.network, found.network), (learned.scaling, found.scaling), (learned.edges, found.edges)
    for old, new in pairs:
        assert jax.tree.structure(old) == jax.tree.structure(new)
        jax.tree.map(np.testing.assert_array_equal, old, new)
    same = ("kind", "shape", "resources", "facts")
    assert [getattr(found, name) for name in same] == [getattr(learned, name) for name in same]


@pytest.fixture
def place(tmp_path):
    save_map(tmp_path / "map.walras", untrained())
    return tmp_path / "map.walras"


def test_another_kind_is_refused(place):
    with pytest.raises(InputError, match="holds a primal map but a dual map is needed"):
        load_map(place, DUAL)


def test_a_damaged_file_is_refused(place):
    content = bytearray(place.read_bytes())
    content[-100] ^= 1
    place.write_bytes(content)
    with pytest.raises(DamagedFileError, match="damaged"):
        load_map(place, PRIMAL)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"version": 99}, "of version 99 with features 1 but this walras reads version 1 with features 1; train it"),
        ({"features": 99}, "features 99"),
        ({"shape": {"representation": "bucketized", "buckets": "many"}}, "does not say what shape"),
        ({"shape": {"nonsense": 1}}, "does not say what shape"),
        ({"resources": ["inbound_units", "storage"]}, "does not say what shape"),
    ],
)
def test_what_this_version_cannot_read_is_refused(place, change, sentence):
    stored = read_arrays(place, PRIMAL)
    write_arrays(place, PRIMAL, stored.arrays, {**stored.header, **change})
    with pytest.raises(InputError, match=sentence) as caught:
        load_map(place, PRIMAL)
    assert "\n" not in str(caught.value)


def test_an_unknown_representation_is_named(place):
    stored = read_arrays(place, PRIMAL)
    shape = {**stored.header["shape"], "representation": "crystal"}
    write_arrays(place, PRIMAL, stored.arrays, {**stored.header, "shape": shape})
    with pytest.raises(InputError, match="crystal but this walras knows"):
        load_map(place, PRIMAL)


def test_a_missing_weight_is_named(place):
    stored = read_arrays(place, PRIMAL)
    arrays = {name: values for name, values in stored.arrays.items() if name != "network.context.bias"}
    write_arrays(place, PRIMAL, arrays, stored.header)
    with pytest.raises(InputError, match="lacks array network.context.bias"):
        load_map(place, PRIMAL)


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "asdict", lambda shape: {"sizes": object()})
    with pytest.raises(InputError, match="JSON"):
        save_map(tmp_path / "map.walras", untrained())
    assert list(tmp_path.iterdir()) == []
