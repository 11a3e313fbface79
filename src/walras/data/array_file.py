"""Own the one file in which arrays are kept: named arrays and a JSON header, under one checksum, never pickled.

CONTRACT: checkpoints and the weights that come with the package are such files. A change of the layout is a new
`SCHEMA`. A file is a magic word, the SHA-256 digest of all that follows, the length of the header (8 bytes), the
header (JSON), and the arrays one after the other, little-endian. Neither zip nor npz: their checksums leave out names,
sizes and times, and a zip carries the moment of its making. Here every byte counts, and the same content gives the same
bytes.
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

from walras import __version__
from walras.data.write import write_atomic
from walras.errors import InputError, join, quote

SCHEMA = 1
"""Version of the layout; a file of another version is refused."""

MAGIC = b"walras\r\n"
"""First bytes of every file; the line end shows a copy that changed line ends."""

KINDS_OF_NUMBERS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("bfloat16", "float16", "float32", "float64"),
)
"""Types that an array in a file may have; none of them can hold code."""

LENGTH = struct.Struct("<Q")
DIGEST_BYTES = hashlib.sha256().digest_size
HEADER_AT = len(MAGIC) + DIGEST_BYTES + LENGTH.size

Tree = TypeVar("Tree")


class DamagedFileError(InputError):
    """Refuse a file that is cut short or altered: only another copy, or the file before it, helps."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Hold what a file says.

    Attributes:
        kind: what the arrays are, such as "buyer".
        arrays: by name; shapes and units are those of whoever wrote them.
        header: what the writer said of them.
        versions: of the packages that wrote the file, by name.
        source: name of the file, for sentences.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    header: dict[str, Any]
    versions: dict[str, str]
    source: str


def write_arrays(path: str | Path, kind: str, arrays: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Write named arrays to one file, aside and then renamed, and safely on disk when this returns.

    Args:
        path: where the file shall be; its folder must exist.
        kind: a word for what the arrays are; whoever reads must ask for the same.
        arrays: numbers by name, of any shapes (`flatten` of a module).
        header: words and numbers about them, as JSON can hold.

    Raises:
        InputError: an array of no number type, a header that JSON cannot hold, a folder that cannot be written to.
    """
    content = pack(kind, arrays, header)

    def write(aside: Path) -> None:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    write_atomic(path, write)
    _sync_folder(Path(path).parent)


def read_arrays(path: str | Path | Traversable, kind: str) -> Stored:
    """Read a file whole, and check every byte of it; nothing in it is run.

    Args:
        path: a file, also one inside an installed package (`importlib.resources.files(...) / name`).
        kind: what the arrays must be.

    Raises:
        DamagedFileError: any byte is missing, added or altered.
        InputError: no such file, no file of this package, another kind or another version of the layout.
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
    """Give the bytes of a file: the same for the same content, written by the same versions.

    Raises:
        InputError: an array of no number type, or a header that JSON cannot hold.
    """
    named = {name: _plain(name, arrays[name]) for name in sorted(arrays)}
    words = {
        "schema": SCHEMA,
        "kind": kind,
        "versions": {"walras": __version__, "jax": jax.__version__, "numpy": np.__version__},
        "header": dict(header),
        "arrays": [[name, array.dtype.name, list(array.shape)] for name, array in named.items()],
    }
    try:
        text = json.dumps(words, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the header of a {quote(kind)} holds what JSON cannot ({quote(error, 80)}); give words and finite numbers"
        ) from error
    rest = b"".join([LENGTH.pack(len(text)), text, *(array.tobytes() for array in named.values())])
    return MAGIC + hashlib.sha256(rest).digest() + rest


def unpack(content: bytes, kind: str, source: str) -> Stored:
    """Read the bytes of a file, as `read_arrays` does.

    Args:
        content: the whole file.
        kind: what the arrays must be.
        source: what to call the file in a sentence.
    """
    if not content.startswith(MAGIC):
        raise DamagedFileError(f"{source} is no file of arrays written by walras; give one that is")
    # The digest before anything else: what is read after it, is as it was written.
    if hashlib.sha256(content[len(MAGIC) + DIGEST_BYTES :]).digest() != content[len(MAGIC) :][:DIGEST_BYTES]:
        raise _damaged(source)
    try:
        words, start = _header(content)
        schema = words["schema"]
        if schema == SCHEMA:
            arrays = _arrays(content, start, words["arrays"])
            found = Stored(words["kind"], arrays, dict(words["header"]), dict(words["versions"]), source)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, struct.error):
        raise _damaged(source) from None
    if schema != SCHEMA:
        raise InputError(
            f"{source} has layout {quote(schema)} but this walras reads layout {SCHEMA}; "
            "read it with the walras that wrote it, or write it again"
        )
    if found.kind != kind:
        raise InputError(f"{source} holds a {quote(found.kind)} but a {quote(kind)} is needed; give another file")
    return found


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Name the numbers of a pytree by their places in it, such as `.layers[0].weight`.

    Args:
        tree: a module, the state of an optimizer, or any pytree of them. What is no number (a function) is left out:
            it comes from the program that reads the file.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {keystr(path): _numbers(leaf) for path, leaf in leaves if _counts(leaf)}


def restore(tree: Tree, stored: Stored, prefix: str = "") -> Tree:
    """Put stored numbers into a pytree of the same structure.

    Args:
        tree: built by the program as the stored one was; its own numbers (or `jax.ShapeDtypeStruct`) say what shapes
            and types are needed, and do not come out again.
        stored: what was read.
        prefix: what the names of the tree's arrays begin with in the file.

    Raises:
        InputError: an array is missing, left over, or of another shape or type.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    wanted = [prefix + keystr(path) for path, leaf in leaves if _counts(leaf)]
    _compare_names(wanted, [name for name in stored.arrays if name.startswith(prefix)], stored.source)
    filled = [_restored(leaf, prefix + keystr(path), stored) if _counts(leaf) else leaf for path, leaf in leaves]
    return jax.tree_util.tree_unflatten(structure, filled)


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """Read the header, and say where the arrays begin."""
    (length,) = LENGTH.unpack_from(content, HEADER_AT - LENGTH.size)
    return json.loads(content[HEADER_AT : HEADER_AT + length]), HEADER_AT + length


def _arrays(content: bytes, at: int, listing: list[Any]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, dtype, shape in listing:
        if dtype not in KINDS_OF_NUMBERS or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError("an array of no number type, or of no size")
        kind = jnp.dtype(dtype)
        stop = at + int(np.prod(shape, dtype=object)) * kind.itemsize
        # A copy: an array that others may write to, at a place in memory that suits its type.
        arrays[name] = np.frombuffer(content[at:stop], kind).reshape(shape).copy()
        at = stop
    if at != len(content):
        raise ValueError("not as many bytes as the header says")
    return arrays


def _plain(name: str, values: Any) -> np.ndarray:
    """Give numbers in the order in which they are written."""
    array = np.asarray(values)
    if array.dtype.name not in KINDS_OF_NUMBERS:
        raise InputError(
            f"array {quote(name, 80)} has type {quote(array.dtype)}, which cannot be stored; give one of "
            f"{join(KINDS_OF_NUMBERS, 20)}"
        )
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _counts(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, bool | int | float | np.generic | np.ndarray | jax.ShapeDtypeStruct)


def _numbers(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _compare_names(wanted: list[str], given: list[str], source: str) -> None:
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing:
        raise InputError(f"{source} lacks {_named(missing)}; build the same structure as the one that was stored")
    if extra:
        raise InputError(
            f"{source} also holds {_named(extra)}, for which there is no place; build the same structure as the one "
            "that was stored"
        )


def _named(names: list[str]) -> str:
    return f"array {quote(names[0], 80)}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _restored(leaf: Any, name: str, stored: Stored) -> Any:
    """Put one array into the form of the leaf that it replaces."""
    found = stored.arrays[name]
    needed = _shape_and_type(leaf)
    if (found.shape, found.dtype) != needed:
        raise InputError(
            f"array {quote(name, 80)} of {stored.source} is {found.dtype.name}{list(found.shape)} but "
            f"{needed[1].name}{list(needed[0])} is needed; build the same structure as the one that was stored"
        )
    if isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic):
        return type(leaf)(found.item())
    if isinstance(leaf, np.ndarray | np.generic):
        return found if isinstance(leaf, np.ndarray) else found[()]
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(found), impl=jax.random.key_impl(leaf))
    return jnp.asarray(found)


def _shape_and_type(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    elif not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself last; not every system lets a folder be opened."""
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


def _damaged(source: str) -> DamagedFileError:
    return DamagedFileError(
        f"{source} is damaged (cut short or altered, its checksum does not fit); take another copy, or write it again"
    )
