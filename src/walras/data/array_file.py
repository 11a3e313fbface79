"""Named arrays and a JSON header in one safetensors file under one checksum: checkpoints, trained weights, pools.

CONTRACT: users keep such files. A change of the layout is a new `SCHEMA`. No code runs on loading, and the same content
written by the same versions gives the same bytes.

The file's metadata has one entry, `walras`, a JSON object whose `digest` is the SHA-256 of the whole file with the
digest itself replaced by zeros, so that every byte is covered.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from walras import __version__
from walras.data.write import write_atomic
from walras.errors import InputError, join, quote

SCHEMA = 2
"""Version of the layout; a file of another version is refused."""

FORMER_MAGIC = b"walras\r\n"
"""First bytes of files of layout 1, which was a container of our own."""

ENTRY = "walras"
NO_DIGEST = "0" * 64
NUMBER_TYPES = {"BOOL": "bool", "BF16": "bfloat16"} | {
    f"{letter}{bits}": f"{name}{bits}"
    for letter, name, sizes in (
        ("I", "int", (8, 16, 32, 64)),
        ("U", "uint", (8, 16, 32, 64)),
        ("F", "float", (16, 32, 64)),
    )
    for bits in sizes
}
"""Number types of safetensors that are stored, and what numpy calls them."""

Tree = TypeVar("Tree")


class DamagedFileError(InputError):
    """Refuse a file that is cut short or altered: only another copy, or the file before it, helps."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Hold the content of a file.

    Attributes:
        kind: what the arrays are, such as "buyer".
        arrays: by name; shapes and units are the writer's.
        header: the writer's settings and notes.
        versions: of the packages that wrote the file, by name.
        source: name of the file, for sentences.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    header: dict[str, Any]
    versions: dict[str, str]
    source: str


def write_arrays(path: str | Path, kind: str, arrays: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Write named arrays to one file, atomically, and safely on disk when this returns.

    Args:
        path: the file; its folder must exist.
        kind: a word for what the arrays are, checked on reading.
        arrays: numbers by name, of any shapes (`flatten` of a module).
        header: settings and notes, as JSON can hold.

    Raises:
        InputError: an array of no number type, a header that JSON cannot hold, a folder that cannot be written to.
    """
    content = pack(kind, arrays, header)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    write_atomic(path, write)
    _sync_folder(Path(path).parent)


def read_arrays(path: str | Path | Traversable, kind: str) -> Stored:
    """Read a whole file and verify its checksum.

    Args:
        path: a file, also one inside an installed package (`importlib.resources.files(...) / name`).
        kind: what the arrays must be.

    Raises:
        DamagedFileError: any byte is missing, added or altered.
        InputError: no such file, another kind, or a file written by an older version.
    """
    source = quote(path, 200)
    try:
        content = (Path(path) if isinstance(path, str) else path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{source} cannot be read ({error.strerror}); give a file of a {quote(kind)} written by walras"
        ) from error
    return unpack(content, kind, source)


def pack(kind: str, arrays: Mapping[str, Any], header: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file.

    Raises:
        InputError: an array of no number type, or a header that JSON cannot hold.
    """
    entry = {
        "digest": NO_DIGEST,
        "schema": SCHEMA,
        "kind": kind,
        "versions": {"walras": __version__, "jax": jax.__version__, "numpy": np.__version__},
        "header": dict(header),
    }
    try:
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the header of a {quote(kind)} holds what JSON cannot ({quote(error, 80)}); give words and finite numbers"
        ) from error
    content = save({name: _little_endian(name, arrays[name]) for name in sorted(arrays)}, {ENTRY: text})
    return content.replace(NO_DIGEST.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def unpack(content: bytes, kind: str, source: str) -> Stored:
    """Read the bytes of a file, as `read_arrays` does.

    Args:
        content: the whole file.
        kind: what the arrays must be.
        source: what to call the file in a sentence.
    """
    if content.startswith(FORMER_MAGIC):
        raise InputError(f"{source} was written by an older version of walras; train or make it again with this one")
    if content[8:9] not in (b"{", b""):
        raise DamagedFileError(f"{source} is no file of arrays written by walras; give one that is")
    try:
        (length,) = struct.unpack_from("<Q", content)
        entry = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][ENTRY])
        digest = entry["digest"].encode()
        whole = hashlib.sha256(content.replace(digest, NO_DIGEST.encode(), 1)).hexdigest().encode() == digest
        stored = Stored(entry["kind"], _tensors(content), dict(entry["header"]), dict(entry["versions"]), source)
        schema = entry["schema"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error, SafetensorError):
        whole = False
    if not whole:
        raise DamagedFileError(
            f"{source} is damaged (cut short or altered, its checksum does not match); take another copy, or write it "
            "again"
        )
    if schema != SCHEMA:
        raise InputError(
            f"{source} has layout {quote(schema)} but this walras reads layout {SCHEMA}; read it with the version that "
            "wrote it, or write it again"
        )
    if stored.kind != kind:
        raise InputError(f"{source} holds a {quote(stored.kind)} but a {quote(kind)} is needed; give another file")
    return stored


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Name the numbers of a pytree by their places in it, such as `.layers[0].weight`.

    Args:
        tree: a module, the state of an optimizer, or any pytree of them; leaves that are no numbers (functions) are
            left out.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        keystr(path): np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for path, leaf in leaves
        if _is_numeric(leaf)
    }


def restore(tree: Tree, stored: Stored, prefix: str = "") -> Tree:
    """Return a pytree of the same structure with its numbers replaced by the stored ones.

    Args:
        tree: gives the structure, shapes and types (`jax.ShapeDtypeStruct` will do); its numbers are not used.
        stored: what was read.
        prefix: what the names of the tree's arrays begin with in the file.

    Raises:
        InputError: an array is missing, left over, or of another shape or type.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    needed = {prefix + keystr(path) for path, leaf in leaves if _is_numeric(leaf)}
    given = {name for name in stored.arrays if name.startswith(prefix)}
    remedy = "build the same structure as the one that was stored"
    if needed - given:
        raise InputError(f"{stored.source} lacks {_name_first(needed - given)}; {remedy}")
    if given - needed:
        raise InputError(
            f"{stored.source} also holds {_name_first(given - needed)}, for which there is no place; {remedy}"
        )
    values = [_restored(leaf, prefix + keystr(path), stored) if _is_numeric(leaf) else leaf for path, leaf in leaves]
    return jax.tree_util.tree_unflatten(structure, values)


def _tensors(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays by sorted name, each a writable copy of its own."""
    tensors = {
        name: np.frombuffer(view["data"], jnp.dtype(NUMBER_TYPES[view["dtype"]])).reshape(view["shape"]).copy()
        for name, view in deserialize(content)
    }
    return dict(sorted(tensors.items()))


def _little_endian(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.name not in NUMBER_TYPES.values():
        raise InputError(
            f"array {quote(name, 80)} has type {quote(array.dtype)}, which cannot be stored; give one of "
            f"{join(NUMBER_TYPES.values(), 20)}"
        )
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_numeric(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, bool | int | float | np.generic | np.ndarray | jax.ShapeDtypeStruct)


def _name_first(names: set[str]) -> str:
    return f"array {quote(min(names), 80)}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _restored(leaf: Any, name: str, stored: Stored) -> Any:
    """Bring one stored array into the form of the leaf that it replaces."""
    values = stored.arrays[name]
    like = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    like = like if hasattr(like, "dtype") else np.asarray(like)
    if (values.shape, values.dtype) != (tuple(like.shape), np.dtype(like.dtype)):
        raise InputError(
            f"array {quote(name, 80)} of {stored.source} is {values.dtype.name}{list(values.shape)} but "
            f"{np.dtype(like.dtype).name}{list(like.shape)} is needed; build the same structure as the one that was "
            "stored"
        )
    if isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic):
        return type(leaf)(values.item())
    if isinstance(leaf, np.ndarray | np.generic):
        return values if isinstance(leaf, np.ndarray) else values[()]
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(values), impl=jax.random.key_impl(leaf))
    return jnp.asarray(values)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable; not every system lets a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
