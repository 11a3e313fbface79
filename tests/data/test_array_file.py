"""Prove that stored arrays come back bit for bit, and that no altered byte ever passes."""

import hashlib
import json
from collections import namedtuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save

from walras.data.array_file import (
    ENTRY,
    FORMER_MAGIC,
    NO_DIGEST,
    NUMBER_TYPES,
    SCHEMA,
    DamagedFileError,
    flatten,
    pack,
    read_arrays,
    restore,
    unpack,
    write_arrays,
)
from walras.errors import InputError

ARRAYS = {"a": np.array([1.5, -0.0, np.nan], np.float32), "b": np.arange(6).reshape(2, 3), "none": np.zeros((0, 2))}
HEADER = {"config": {"rate": 0.1}, "words": ["ü", None, 3]}


def sealed(entry: object, arrays=ARRAYS) -> bytes:
    """Return a file whose checksum fits, whatever its entry says."""
    content = save(arrays, {ENTRY: json.dumps(entry)})
    return content.replace(NO_DIGEST.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


@pytest.fixture
def path(tmp_path):
    """Write a small file."""
    write_arrays(tmp_path / "thing.walras", "thing", ARRAYS, HEADER)
    return tmp_path / "thing.walras"


def test_what_is_written_comes_back_bit_for_bit(path):
    stored = read_arrays(path, "thing")
    assert stored.header == HEADER and stored.kind == "thing" and stored.versions["jax"] == jax.__version__
    assert list(stored.arrays) == sorted(ARRAYS)
    for name, values in ARRAYS.items():
        assert stored.arrays[name].dtype == values.dtype and stored.arrays[name].shape == values.shape
        assert stored.arrays[name].tobytes() == values.tobytes()
    stored.arrays["a"][0] = 2  # a copy that may be written to


def test_every_type_of_number_comes_back():
    arrays = {name: np.ones((2, 1), jnp.dtype(name)) for name in NUMBER_TYPES.values()}
    arrays |= {"big end": np.array([1.5, 2], ">f4"), "scalar": np.float64(0.1), "turned": np.arange(6).reshape(2, 3).T}
    stored = unpack(pack("thing", arrays, {}), "thing", "x").arrays
    for name, values in arrays.items():
        assert np.array_equal(stored[name], values) and stored[name].shape == values.shape, name
        assert stored[name].dtype.name == values.dtype.name


def test_the_same_content_gives_the_same_bytes(path, tmp_path):
    write_arrays(tmp_path / "again", "thing", dict(reversed(ARRAYS.items())), dict(reversed(HEADER.items())))
    assert path.read_bytes() == (tmp_path / "again").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again", "thing.walras"]


def test_every_altered_byte_and_every_other_length_is_refused(path):
    content = bytearray(path.read_bytes())
    for at in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            content[at] ^= flip
            with pytest.raises(DamagedFileError):
                unpack(bytes(content), "thing", "x")
            content[at] ^= flip
        with pytest.raises(DamagedFileError):
            unpack(bytes(content[:at]), "thing", "x")
    for more in (b"\0", bytes(content)):
        with pytest.raises(DamagedFileError):
            unpack(bytes(content) + more, "thing", "x")
    assert unpack(bytes(content), "thing", "x").header == HEADER


def test_the_sentence_names_the_file_and_the_remedy(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=r"thing\.walras is damaged .*; take another copy, or write it again$"):
        read_arrays(path, "thing")
    path.write_bytes(b"unique_id,ds,units\n" * 9)
    with pytest.raises(DamagedFileError, match="is no file of arrays written by walras"):
        read_arrays(path, "thing")
    path.write_bytes(FORMER_MAGIC + b"anything")
    with pytest.raises(InputError, match="written by an older version of walras; train or make it again") as caught:
        read_arrays(path, "thing")
    assert not isinstance(caught.value, DamagedFileError)
    with pytest.raises(InputError, match=r"missing\.walras cannot be read"):
        read_arrays(path.parent / "missing.walras", "thing")


ENTRY_OF_A_FILE = {"digest": NO_DIGEST, "schema": SCHEMA, "kind": "thing", "versions": {}, "header": HEADER}


@pytest.mark.parametrize(
    "entry",
    [[1], {}, {**ENTRY_OF_A_FILE, "header": 3}, {**ENTRY_OF_A_FILE, "versions": None}, {"digest": NO_DIGEST}, "x"],
)
def test_a_forger_who_knows_the_checksum_gets_no_further(entry):
    assert unpack(sealed(ENTRY_OF_A_FILE), "thing", "x").header == HEADER
    with pytest.raises(DamagedFileError):
        unpack(sealed(entry), "thing", "x")
    with pytest.raises(DamagedFileError):  # a number type that is not stored
        unpack(sealed(ENTRY_OF_A_FILE, {"a": np.ones(1, np.complex64)}), "thing", "x")


@pytest.mark.parametrize(
    "rest", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{}", b"\x20\x4e" + b"\0" * 6 + b"[" * 20_000]
)
def test_nonsense_is_refused(rest):
    with pytest.raises(DamagedFileError):
        unpack(rest, "thing", "x")


def test_another_layout_or_kind_is_refused():
    with pytest.raises(InputError, match="x has layout 9 but this walras reads layout 2; ") as caught:
        unpack(sealed({**ENTRY_OF_A_FILE, "schema": 9}), "thing", "x")
    assert not isinstance(caught.value, DamagedFileError)
    with pytest.raises(InputError, match="x holds a thing but a buyer is needed"):
        unpack(pack("thing", ARRAYS, HEADER), "buyer", "x")


def test_what_cannot_be_stored_is_refused(tmp_path):
    with pytest.raises(InputError, match="array a has type object"):
        write_arrays(tmp_path / "x", "thing", {"a": np.array([print])}, {})
    with pytest.raises(InputError, match="header of a thing holds what JSON cannot"):
        write_arrays(tmp_path / "x", "thing", {}, {"rate": float("nan")})
    with pytest.raises(InputError, match="cannot be written"):
        write_arrays(tmp_path / "nowhere" / "x", "thing", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_a_package_is_read(path, monkeypatch):
    from importlib import resources

    (path.parent / "shipped").mkdir()
    (path.parent / "shipped" / "__init__.py").touch()
    path.rename(path.parent / "shipped" / "thing.walras")
    monkeypatch.syspath_prepend(str(path.parent))
    assert read_arrays(resources.files("shipped") / "thing.walras", "thing").header == HEADER


# --- modules ----------------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "first second")


def training(seed: int) -> dict:
    """Build what a training carries: a network, the state of its optimizer, a key and plain numbers."""
    network = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(seed))
    state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)).init(eqx.filter(network, eqx.is_array))
    pair = Pair(seed, np.float32(seed + 0.5))
    return {"network": network, "optimizer": state, "key": jax.random.key(seed), "pair": pair, "flag": seed > 0}


def test_a_module_comes_back_into_a_fresh_structure():
    before = training(3)
    stored = unpack(pack("thing", flatten(before), {}), "thing", "x")
    assert "['network'].layers[0].weight" in stored.arrays and "['optimizer'][1][0].count" in stored.arrays
    after = restore(training(0), stored)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert after["pair"] == before["pair"] and type(after["pair"].first) is int and after["flag"] is True
    assert jax.random.bits(after["key"]) == jax.random.bits(before["key"])
    for old, new in zip(flatten(before).values(), flatten(after).values(), strict=True):
        assert old.dtype == new.dtype and old.tobytes() == new.tobytes()


def test_shapes_alone_are_structure_enough_and_a_prefix_selects_a_part():
    network = {"a": {"b": jnp.ones((2, 3))}, "c": jnp.zeros(1)}
    stored = unpack(pack("thing", flatten(network), {}), "thing", "x")
    assert eqx.tree_equal(restore(jax.eval_shape(lambda: network), stored), network)
    assert restore({"b": jnp.zeros((2, 3))}, stored, "['a']")["b"].tolist() == [[1] * 3] * 2


@pytest.mark.parametrize(
    "tree, words",
    [
        ({"a": jnp.ones(2)}, r"x also holds array \['b'\], for which there is no place"),
        ({"a": jnp.ones(2), "b": jnp.ones(1), "c": 1, "d": 2}, r"x lacks array \['c'\] and 1 more; build"),
        ({"a": jnp.ones(3), "b": jnp.ones(1)}, r"array \['a'\] of x is float32\[2\] but float32\[3\] is needed"),
        ({"a": jnp.ones(2, int), "b": jnp.ones(1)}, r"array \['a'\] of x is float32\[2\] but int32\[2\] is needed"),
    ],
)
def test_another_structure_is_refused(tree, words):
    stored = unpack(pack("thing", flatten({"a": jnp.ones(2), "b": jnp.ones(1)}), {}), "thing", "x")
    with pytest.raises(InputError, match=words):
        restore(tree, stored)
