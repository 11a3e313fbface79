"""Own the proof that stored arrays come back bit for bit, and that no altered byte ever passes.

EDGE: one small file is broken in every way: each byte in turn, each length, and by a forger who knows the checksum.
"""

import hashlib
import json
from collections import namedtuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from walras.data.array_file import (
    DIGEST_BYTES,
    HEADER_AT,
    KINDS_OF_NUMBERS,
    LENGTH,
    MAGIC,
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


def sealed(rest: bytes) -> bytes:
    """Give a file that fits its checksum, whatever it says."""
    return MAGIC + hashlib.sha256(rest).digest() + rest


def forged(change) -> bytes:
    """Alter the header of a good file and seal it again."""
    content = pack("thing", ARRAYS, HEADER)
    (length,) = LENGTH.unpack_from(content, HEADER_AT - LENGTH.size)
    words = json.loads(content[HEADER_AT : HEADER_AT + length])
    text = json.dumps(change(words) or words).encode()
    return sealed(LENGTH.pack(len(text)) + text + content[HEADER_AT + length :])


@pytest.fixture
def place(tmp_path):
    """Write a small file."""
    write_arrays(tmp_path / "thing.walras", "thing", ARRAYS, HEADER)
    return tmp_path / "thing.walras"


def test_what_is_written_comes_back_bit_for_bit(place):
    found = read_arrays(place, "thing")
    assert found.header == HEADER and found.kind == "thing" and found.versions["jax"] == jax.__version__
    assert list(found.arrays) == sorted(ARRAYS)
    for name, values in ARRAYS.items():
        assert found.arrays[name].dtype == values.dtype and found.arrays[name].shape == values.shape
        assert found.arrays[name].tobytes() == values.tobytes()
    found.arrays["a"][0] = 2  # one's own copy


def test_every_type_of_number_comes_back():
    arrays = {name: np.ones((2, 1), jnp.dtype(name)) for name in KINDS_OF_NUMBERS}
    arrays |= {"big end": np.array([1.5, 2], ">f4"), "scalar": np.float64(0.1), "turned": np.arange(6).reshape(2, 3).T}
    found = unpack(pack("thing", arrays, {}), "thing", "x").arrays
    for name, values in arrays.items():
        assert np.array_equal(found[name], values) and found[name].shape == values.shape, name
        assert found[name].dtype.name == values.dtype.name


def test_the_same_content_gives_the_same_bytes(place, tmp_path):
    turned = dict(reversed(ARRAYS.items()))
    write_arrays(tmp_path / "again", "thing", turned, dict(reversed(HEADER.items())))
    assert place.read_bytes() == (tmp_path / "again").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "thing.walras"]


def test_every_altered_byte_is_refused(place):
    content = bytearray(place.read_bytes())
    for at in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            content[at] ^= flip
            with pytest.raises(DamagedFileError):
                unpack(bytes(content), "thing", "x")
            content[at] ^= flip
    assert unpack(bytes(content), "thing", "x").header == HEADER


def test_every_length_but_the_right_one_is_refused(place):
    content = place.read_bytes()
    for length in range(len(content)):
        with pytest.raises(DamagedFileError):
            unpack(content[:length], "thing", "x")
    for more in (b"\0", content):
        with pytest.raises(DamagedFileError):
            unpack(content + more, "thing", "x")


def test_the_sentence_names_the_file(place):
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=r"thing\.walras is damaged .*; take another copy, or write it again$"):
        read_arrays(place, "thing")
    place.write_bytes(b"unique_id,ds,units\n" * 9)
    with pytest.raises(DamagedFileError, match="is no file of arrays written by walras"):
        read_arrays(place, "thing")
    with pytest.raises(InputError, match="missing.walras cannot be read"):
        read_arrays(place.parent / "missing.walras", "thing")


BROKEN = {
    "objects": lambda words: words["arrays"][0].__setitem__(1, "object"),
    "code": lambda words: words["arrays"][0].__setitem__(1, "__import__('os')"),
    "less than nothing": lambda words: words["arrays"][0].__setitem__(2, [-1]),
    "more than there is": lambda words: words["arrays"][0].__setitem__(2, [2**62, 2**62]),
    "less than there is": lambda words: words["arrays"][0].__setitem__(2, [1]),
    "a word for a size": lambda words: words["arrays"][0].__setitem__(2, ["3"]),
    "no arrays": lambda words: words.pop("arrays"),
    "no header": lambda words: words.pop("header") and None,
    "a list": lambda words: [1],
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_forger_who_knows_the_checksum_gets_no_further(change):
    def changed(words):
        got = change(words)
        return got if got == [1] else words

    with pytest.raises(DamagedFileError):
        unpack(forged(changed), "thing", "x")


@pytest.mark.parametrize("rest", [b"", b"\xff" * 8, LENGTH.pack(3) + b"{}", LENGTH.pack(20_000) + b"[" * 20_000])
def test_sealed_nonsense_is_refused(rest):
    with pytest.raises(DamagedFileError):
        unpack(sealed(rest), "thing", "x")


def test_another_layout_or_kind_is_refused():
    newer = forged(lambda words: words.update(schema=2))
    with pytest.raises(InputError, match="x has layout 2 but this walras reads layout 1; ") as caught:
        unpack(newer, "thing", "x")
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


def test_a_file_of_a_package_is_read(place, monkeypatch):
    from importlib import resources

    (place.parent / "shipped").mkdir()
    (place.parent / "shipped" / "__init__.py").touch()
    place.rename(place.parent / "shipped" / "thing.walras")
    monkeypatch.syspath_prepend(str(place.parent))
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
    assert after["network"](jnp.ones(2)) == before["network"](jnp.ones(2))


def test_shapes_alone_are_structure_enough():
    network = eqx.nn.Linear(2, 3, key=jax.random.key(1))
    shapes = eqx.filter_eval_shape(lambda: eqx.nn.Linear(2, 3, key=jax.random.key(0)))
    found = restore(shapes, unpack(pack("thing", flatten(network), {}), "thing", "x"))
    assert eqx.tree_equal(found, network)


def test_a_part_of_a_file_is_found_by_its_prefix():
    stored = unpack(pack("thing", flatten({"a": {"b": jnp.ones(2)}, "c": jnp.zeros(1)}), {}), "thing", "x")
    assert restore({"b": jnp.zeros(2)}, stored, "['a']")["b"].tolist() == [1, 1]


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


def test_the_digest_covers_all_but_itself_and_the_magic_word():
    content = pack("thing", ARRAYS, HEADER)
    rest = content[len(MAGIC) + DIGEST_BYTES :]
    assert sealed(rest) == content
