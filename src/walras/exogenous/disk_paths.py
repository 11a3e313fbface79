"""A population and its paths in a folder on disk, where they do not fit in memory, written and read by agent ranges.

CONTRACT: schema 1 is read by other machines and versions; another layout gets another number. Each field is one `.npy`
file called after it (`exogenous.demand.npy`), and `manifest.json` names classes, plain values, types, shapes and
digests. Loading runs no code. A folder appears under its name only when it is complete.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib import format as npy

from walras.data.write import write_text
from walras.errors import InputError, join, quote, shape_mismatch
from walras.exogenous.arrivals import ArrivalShares, Chained, ConstantLeadTime, FillRate, IntegerLeadTimes, SupplyLimit
from walras.exogenous.paths import ExogenousPaths
from walras.population.population import Population

SCHEMA = 1
KIND = "walras stored paths"
MANIFEST = "manifest.json"
DEMAND = "exogenous.demand"
AGAIN = "copy or write the folder again"

KNOWN_CLASSES = {
    kind.__name__: kind for kind in (IntegerLeadTimes, ConstantLeadTime, ArrivalShares, SupplyLimit, FillRate, Chained)
} | {"InTurn": Chained}
"""Classes that a manifest may name, by name; `InTurn` is what `Chained` was called before."""

PARTS: dict[str, type] = {"population": Population, "exogenous": ExogenousPaths}

STORED_TYPES = ("|i1", "|u1", "<i2", "<u2", "<i4", "<f2", "<f4", "|b1")
"""Little-endian number types that a file may have."""

LEAD_TIMES = "exogenous.arrivals.weeks"
"""One lead time per order is the only integer array as large as demand itself; it is stored as bytes."""


@dataclass(frozen=True)
class Layout:
    """Describe one array's file: the type in the file, the type it is read back as, and the shape of the whole."""

    name: str
    stored: np.dtype
    read: np.dtype
    shape: tuple[int, ...]

    @property
    def agents_first(self) -> bool:
        """Tell whether the agent axis is the first (population) or the last (paths)."""
        return self.name.startswith("population.")

    @property
    def rows(self) -> int:
        """Count the contiguous runs of numbers that a range of agents consists of."""
        return 1 if self.agents_first or not self.shape else math.prod(self.shape[:-1])

    @property
    def n_agents(self) -> int | None:
        """Count the agents; None for a single number that all agents share."""
        if not self.shape:
            return None
        return self.shape[0] if self.agents_first else self.shape[-1]

    @property
    def n_bytes(self) -> int:
        """Count the bytes of all numbers."""
        return math.prod(self.shape) * self.stored.itemsize

    def shape_of(self, n_agents: int) -> tuple[int, ...]:
        """Return the shape of a range of agents."""
        if not self.shape:
            return ()
        return (n_agents, *self.shape[1:]) if self.agents_first else (*self.shape[:-1], n_agents)

    def position(self, row: int, start: int) -> int:
        """Count the bytes before agent `start` in a row."""
        if not self.shape:
            return 0
        per_agent = math.prod(self.shape[1:]) if self.agents_first else 1
        return (row * (self.n_agents or 1) + start) * per_agent * self.stored.itemsize

    @staticmethod
    def choose(name: str, values: Any, n_agents: int, stored: np.dtype | None) -> "Layout":
        """Choose types from the first range of a field: float32, bytes for lead times, otherwise as given."""
        usual = np.dtype("<f4") if values.dtype.kind == "f" else np.dtype(values.dtype).newbyteorder("<")
        usual = np.dtype("<i4") if usual.str == "<i8" else usual
        if stored is None:
            stored = np.dtype("|i1") if name == LEAD_TIMES and usual.kind == "i" else usual
        if stored.str not in STORED_TYPES:
            raise InputError(f"`{name}` holds {values.dtype} numbers, which are not stored; use float32 or int32")
        layout = Layout(name, stored, usual if usual.kind == "f" else stored, tuple(values.shape))
        return dataclasses.replace(layout, shape=layout.shape_of(n_agents))

    @staticmethod
    def parse(name: str, entry: Mapping[str, Any]) -> "Layout":
        """Read one array's entry of a manifest.

        Raises:
            ValueError: an entry that no writer makes; also KeyError and TypeError.
        """
        shape = tuple(int(length) for length in entry["shape"])
        if not {entry["stored"], entry["read"]} <= set(STORED_TYPES) or min(shape, default=1) < 1:
            raise ValueError(f"the type or shape of {quote(name)} is none that is stored")
        if "/" in name or "\\" in name or not name.startswith(tuple(f"{part}." for part in PARTS)):
            raise ValueError(f"{quote(name)} is no field of a population or its paths")
        return Layout(name, np.dtype(entry["stored"]), np.dtype(entry["read"]), shape)

    def narrow(self, values: np.ndarray) -> np.ndarray:
        """Bring values to the type of the file; refuse to lose anything that float32 would keep."""
        wide = values.astype(self.read) if self.read.kind == "f" else values
        with np.errstate(all="ignore"):
            narrow = wide.astype(self.stored)
            back = narrow.astype(wide.dtype)
        if not np.array_equal(back, wide, equal_nan=wide.dtype.kind == "f"):
            wider = "float32" if self.read.kind == "f" else "int32"
            raise InputError(
                f"`{self.name}` has numbers that {self.stored.name} cannot hold; give the writer a wider type in "
                f'`stored_as`, like {{"{self.name}": "{wider}"}}'
            )
        return narrow

    def data_offset(self, folder: Path) -> int:
        """Return where the numbers begin in the file, after checking its header and size against the manifest."""
        path = folder / f"{self.name}.npy"
        try:
            with open(path, "rb") as file:
                npy.read_magic(file)
                header = npy.read_array_header_1_0(file)
                offset, size = file.tell(), os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise InputError(f"{quote(path, 200)} is missing; {AGAIN}") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{quote(path, 200)} is not a readable array; {AGAIN}") from error
        if header != (self.shape, False, self.stored):
            raise InputError(f"{quote(path, 200)} is not the array of its manifest; {AGAIN}")
        if size != offset + self.n_bytes:
            raise _wrong_size(path, size, offset + self.n_bytes)
        return offset


@dataclass
class Parts:
    """Hold a population and paths taken apart: arrays, class names and plain values, each by its dotted name."""

    arrays: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)

    def take_apart(self, name: str, module: Any) -> "Parts":
        """Add one module, and the modules in it."""
        for item in dataclasses.fields(module):
            value, place = getattr(module, item.name), f"{name}.{item.name}"
            if isinstance(value, jax.Array | np.ndarray):
                self.arrays[place] = value
            elif isinstance(value, eqx.Module) and not item.metadata.get("static", False):
                kind = type(value).__name__
                if KNOWN_CLASSES.get(kind) is not type(value):
                    raise InputError(
                        f"`{place}` is a {kind} but only {join(KNOWN_CLASSES)} can be stored; use one of these"
                    )
                self.classes[place] = kind
                self.take_apart(place, value)
            elif isinstance(value, bool | int | float | str) or (
                isinstance(value, tuple) and all(isinstance(word, str) for word in value)
            ):
                self.plain[place] = value
        return self

    def assemble(self, name: str, kind: type) -> Any:
        """Build one module; what was not stored keeps its default."""
        fields: dict[str, Any] = {}
        for item in dataclasses.fields(kind):
            place = f"{name}.{item.name}"
            if place in self.arrays:
                fields[item.name] = self.arrays[place]
            elif place in self.classes:
                fields[item.name] = self.assemble(place, KNOWN_CLASSES[self.classes[place]])
            elif place in self.plain:
                value = self.plain[place]
                fields[item.name] = tuple(value) if isinstance(value, list) else value
        return kind(**fields)


class StoredPaths:
    """Read ranges of agents from a folder that `PathsWriter` wrote; only the requested range is in memory.

    Ranges are read at their positions, not mapped: on week-major files that is as fast, and pages read once do not
    count as memory of the process.

    Attributes:
        folder: where the files are.
        n_agents, n_weeks: size of the whole.
        max_lead: longest lead time of all agents [weeks], so that every range gets the same pipeline.
        identity: digest of the manifest; changes whenever what is stored changes.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], identity: str) -> None:
        """Check the manifest and the files; use `StoredPaths.open`."""
        self.folder, self.identity = folder, identity
        try:
            self._read_manifest(manifest)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise _bad_manifest(folder, f"{type(error).__name__}: {error}") from error
        self._offsets = {layout.name: layout.data_offset(folder) for layout in self._layouts}

    @staticmethod
    def open(folder: str | Path) -> "StoredPaths":
        """Open a folder and check that every file is whole.

        Raises:
            InputError: no such folder, another kind of folder, a newer schema, a file that is missing or cut short.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{quote(folder, 200)} is not a folder; give the folder that `PathsWriter` wrote")
        try:
            raw = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise InputError(
                f"{quote(folder, 200)} holds no readable {MANIFEST}; give the folder that `PathsWriter` wrote"
            ) from error
        try:
            manifest = json.loads(raw)
        except ValueError as error:
            raise _bad_manifest(folder, "not JSON") from error
        is_ours = isinstance(manifest, dict) and manifest.get("kind") == KIND
        if not is_ours or not isinstance(manifest.get("schema"), int):
            raise _bad_manifest(folder, "it does not say that it is one")
        if manifest["schema"] > SCHEMA:
            raise InputError(
                f"{quote(folder, 200)} has schema {manifest['schema']} but this version reads up to {SCHEMA}; upgrade "
                "walras"
            )
        return StoredPaths(folder, manifest, hashlib.sha256(raw).hexdigest())

    def _read_manifest(self, manifest: Mapping[str, Any]) -> None:
        self.n_agents, self.n_weeks, self.max_lead = (int(manifest[k]) for k in ("n_agents", "n_weeks", "max_lead"))
        self._classes, self._plain = dict(manifest["classes"]), dict(manifest["plain"])
        unknown = [name for name in self._classes.values() if name not in KNOWN_CLASSES]
        if unknown:
            raise ValueError(f"it names {join(unknown)}, and known are {join(KNOWN_CLASSES)}")
        self._layouts = [Layout.parse(name, entry) for name, entry in manifest["arrays"].items()]
        sizes = {layout.n_agents for layout in self._layouts} - {None}
        weeks = {layout.shape[-2] for layout in self._layouts if layout.name == DEMAND}
        if sizes != {self.n_agents} or weeks != {self.n_weeks}:
            raise ValueError("its numbers of agents and weeks do not match its shapes")

    def read(self, start: int, stop: int) -> ExogenousPaths:
        """Read the paths of agents start .. stop - 1.

        Raises:
            InputError: a range that is empty or leaves the folder's agents.
        """
        return self._read("exogenous", start, stop)

    def population(self, start: int, stop: int) -> Population:
        """Read the static attributes of agents start .. stop - 1.

        Raises:
            InputError: a range that is empty or leaves the folder's agents.
        """
        return self._read("population", start, stop)

    def _read(self, part: str, start: int, stop: int) -> Any:
        if not 0 <= start < stop <= self.n_agents:
            raise InputError(
                f"agents {start} to {stop - 1} were requested but {quote(self.folder, 200)} holds 0 to "
                f"{self.n_agents - 1}; give a range within these"
            )
        layouts = [layout for layout in self._layouts if layout.name.startswith(f"{part}.")]
        arrays = {layout.name: jnp.asarray(self._read_array(layout, start, stop)) for layout in layouts}
        try:
            return Parts(arrays, self._classes, self._plain).assemble(part, PARTS[part])
        except TypeError as error:  # a field without which the class cannot be built
            raise _bad_manifest(self.folder, str(error)) from error

    def _read_array(self, layout: Layout, start: int, stop: int) -> np.ndarray:
        shape = layout.shape_of(stop - start)
        out = np.empty((layout.rows, math.prod(shape) // layout.rows), layout.stored)
        path, offset = self.folder / f"{layout.name}.npy", self._offsets[layout.name]
        with open(path, "rb") as file:
            for row, numbers in enumerate(out):
                file.seek(offset + layout.position(row, start))
                if file.readinto(numbers.view(np.uint8)) != numbers.nbytes:
                    raise _wrong_size(path, path.stat().st_size, offset + layout.n_bytes)
        return out.reshape(shape).astype(layout.read, copy=False)


class PathsWriter:
    """Write a population and its paths, range after range, into a folder that appears once it is complete.

        with PathsWriter("paths", n_agents=5_000_000) as writer:
            for population, exogenous in ranges:
                writer.write(population, exogenous)

    Files are written in a hidden folder next to the final one; an error removes it. Fractions are stored and read back
    as float32, lead times as bytes; names of agents are not stored. The population takes 28 bytes and 4 per resource
    an agent, the paths hundreds.

    Attributes:
        folder: the final name.
        n_agents: agents in all.
        written: agents written so far.
    """

    def __init__(self, folder: str | Path, n_agents: int, *, stored_as: Mapping[str, str] | None = None) -> None:
        """Prepare a folder.

        Args:
            folder: must not exist yet; the folder above it must.
            n_agents: agents of all ranges together.
            stored_as: narrower number types by field, like {"exogenous.demand": "uint16"}; a range that would lose
                something by it is refused.
        """
        self.folder, self.n_agents, self.written = Path(folder), int(n_agents), 0
        self._stored_as = {name: _number_type(name, kind) for name, kind in (stored_as or {}).items()}
        self._temporary: Path | None = None
        self._first: Parts | None = None
        self._layouts: dict[str, Layout] = {}
        self._files: dict[str, BinaryIO] = {}
        self._offsets: dict[str, int] = {}
        self._digests: dict[str, Any] = {}
        self._max_lead = 0

    def __enter__(self) -> "PathsWriter":
        """Make the temporary folder."""
        if self.n_agents < 1:
            raise InputError(f"`n_agents` is {self.n_agents} but at least 1 agent is stored; count the agents to come")
        if self.folder.exists():
            raise InputError(f"{quote(self.folder, 200)} exists already; choose another name, or remove it first")
        try:
            self._temporary = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-unfinished-", dir=self.folder.parent))
        except OSError as error:
            raise self._not_writable(error) from error
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Put the folder in its place if all agents came, otherwise remove what was written."""
        try:
            if kind is None:
                self._finish()
        except OSError as error:
            raise self._not_writable(error) from error
        finally:
            for file in self._files.values():
                file.close()
            if self._temporary is not None and self._temporary.exists():
                shutil.rmtree(self._temporary, ignore_errors=True)

    def write(self, population: Population, exogenous: ExogenousPaths) -> None:
        """Append the next range of agents.

        Raises:
            ShapeError: a range that does not fit the ranges before it.
            InputError: more agents than announced, or numbers that the chosen type cannot hold.
        """
        if self._temporary is None:
            raise InputError("the writer is not open; use `with PathsWriter(...) as writer`")
        parts = Parts().take_apart("population", population).take_apart("exogenous", exogenous)
        count = exogenous.n_agents
        if self.written + count > self.n_agents or count < 1:
            raise InputError(
                f"{self.written + count} agents were written but {self.n_agents} announced; announce all that come"
            )
        if self._first is None:
            self._begin(parts, self._temporary)
        self._check_alike(parts, count)
        try:
            for name, layout in self._layouts.items():
                self._append(layout, np.asarray(parts.arrays[name]))
        except OSError as error:
            raise self._not_writable(error) from error
        self.written += count
        self._max_lead = max(self._max_lead, exogenous.arrivals.longest() or 0)

    def _begin(self, parts: Parts, folder: Path) -> None:
        """Fix every file's type and shape by the first range."""
        unknown = set(self._stored_as) - set(parts.arrays)
        if unknown:
            raise InputError(f"`stored_as` names {join(sorted(unknown))} but there are {join(parts.arrays, 20)}")
        self._first = Parts({}, parts.classes, parts.plain)
        for name, values in parts.arrays.items():
            layout = Layout.choose(name, values, self.n_agents, self._stored_as.get(name))
            file = open(folder / f"{name}.npy", "w+b")
            self._files[name], self._layouts[name], self._digests[name] = file, layout, hashlib.blake2b(digest_size=16)
            header = {"descr": layout.stored.str, "fortran_order": False, "shape": layout.shape}
            npy.write_array_header_1_0(file, header)
            self._offsets[name] = file.tell()
            file.truncate(self._offsets[name] + layout.n_bytes)

    def _check_alike(self, parts: Parts, count: int) -> None:
        assert self._first is not None  # set by the first range
        alike = (parts.classes, parts.plain, set(parts.arrays))
        if alike != (self._first.classes, self._first.plain, set(self._layouts)):
            raise InputError("this range has other fields, classes or resources than the first; write them alike")
        for name, layout in self._layouts.items():
            if parts.arrays[name].shape != layout.shape_of(count):
                raise shape_mismatch(name, parts.arrays[name].shape, layout.shape_of(count), "give every range alike")

    def _append(self, layout: Layout, values: np.ndarray) -> None:
        narrow = layout.narrow(values).reshape(layout.rows, -1)
        self._digests[layout.name].update(np.ascontiguousarray(narrow).view(np.uint8).data)
        file = self._files[layout.name]
        for row, numbers in enumerate(narrow):
            file.seek(self._offsets[layout.name] + layout.position(row, self.written))
            file.write(np.ascontiguousarray(numbers).view(np.uint8).data)

    def _finish(self) -> None:
        assert self._temporary is not None  # __enter__ made it
        if self.written != self.n_agents or self._first is None:
            raise InputError(
                f"{self.written} agents were written but {self.n_agents} announced; nothing was kept, write all ranges"
            )
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        arrays = {
            name: {
                "stored": layout.stored.str,
                "read": layout.read.str,
                "shape": layout.shape,
                "digest": self._digests[name].hexdigest(),
            }
            for name, layout in self._layouts.items()
        }
        manifest = {
            "kind": KIND,
            "schema": SCHEMA,
            "n_agents": self.n_agents,
            "n_weeks": self._layouts[DEMAND].shape[-2],
        }
        manifest |= {"max_lead": self._max_lead, "classes": self._first.classes, "plain": self._first.plain}
        write_text(self._temporary / MANIFEST, json.dumps({**manifest, "arrays": arrays}, indent=1))
        os.chmod(self._temporary, 0o755)
        os.rename(self._temporary, self.folder)

    def _not_writable(self, error: OSError) -> InputError:
        return InputError(
            f"{quote(self.folder, 200)} cannot be written ({quote(error.strerror or error)}); choose a place with room "
            "that you may write to"
        )


def _number_type(name: str, given: str) -> np.dtype:
    """Read the type that a user wants a field to be stored in."""
    try:
        kind = np.dtype(given).newbyteorder("<")
    except TypeError:
        kind = np.dtype(object)
    if kind.str not in STORED_TYPES:
        kinds = ", ".join(np.dtype(allowed).name for allowed in STORED_TYPES)
        raise InputError(f"`stored_as` gives {quote(given)} for {quote(name)}; the types of files are {kinds}")
    return kind


def _bad_manifest(folder: Path, reason: str) -> InputError:
    return InputError(
        f"{quote(folder / MANIFEST, 200)} is no manifest of stored paths ({quote(reason, 160)}); write the folder again"
    )


def _wrong_size(path: Path, size: int, needed: int) -> InputError:
    return InputError(f"{quote(path, 200)} has {size} bytes but needs {needed}; {AGAIN}")
