"""Own the folder on disk that holds a population and its paths where they do not fit in memory, read by agent ranges.

EDGE: disk. The layout is that of `stored_layout`; a folder appears under its name only when it is complete.
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

ARRIVALS, SUPPLY = (IntegerLeadTimes, ConstantLeadTime, ArrivalShares), (SupplyLimit, FillRate, Chained)
KNOWN = {known.__name__: known for known in (*ARRIVALS, *SUPPLY)} | {"InTurn": Chained}
"""The classes that a folder may name; whatever else a manifest names is refused, so that loading runs no code."""

PARTS: dict[str, type] = {"population": Population, "exogenous": ExogenousPaths}
"""What a folder holds; a field's file is called after it, as in `exogenous.demand.npy`."""

STORED_TYPES = ("|i1", "|u1", "<i2", "<u2", "<i4", "<f2", "<f4", "|b1")
"""Little-endian number types that a file may have."""

LEAD_TIMES, LEAD_TIME_TYPE = "exogenous.arrivals.weeks", "|i1"
"""One lead time per order is the only integer as large as demand itself; it is stored as a byte."""

DEMAND = "exogenous.demand"


@dataclass(frozen=True)
class Layout:
    """Say how one array lies in its file: the type in the file, the type it is read back as, and the shape."""

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
        """Count the runs of neighbouring numbers that a range of agents consists of."""
        return 1 if self.agents_first or not self.shape else math.prod(self.shape[:-1])

    @property
    def per_agent(self) -> int:
        """Count the neighbouring numbers of one agent."""
        return math.prod(self.shape[1:]) if self.agents_first else 1

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

    @property
    def header(self) -> dict[str, Any]:
        """Give what the file's own header says."""
        return {"descr": self.stored.str, "fortran_order": False, "shape": self.shape}

    def cut(self, n_agents: int) -> tuple[int, ...]:
        """Give the shape of a range of agents."""
        if not self.shape:
            return ()
        return (n_agents, *self.shape[1:]) if self.agents_first else (*self.shape[:-1], n_agents)

    def place(self, row: int, start: int) -> int:
        """Count the bytes before agent `start` in a row."""
        return (row * (self.n_agents or 1) + start) * self.per_agent * self.stored.itemsize


@dataclass
class Parts:
    """Hold a population and paths taken apart: arrays, class names and plain values, each by its dotted name."""

    arrays: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)

    def gather(self, name: str, module: Any) -> "Parts":
        """Take one module apart, and the modules in it."""
        for each in dataclasses.fields(module):
            value, place = getattr(module, each.name), f"{name}.{each.name}"
            if isinstance(value, jax.Array | np.ndarray):
                self.arrays[place] = value
            elif isinstance(value, eqx.Module) and not each.metadata.get("static", False):
                self.classes[place] = _class_name(place, value)
                self.gather(place, value)
            elif isinstance(value, bool | int | float | str) or _is_words(value):
                self.plain[place] = value
        return self

    def assemble(self, name: str, kind: type) -> Any:
        """Put one module together again; what was not stored keeps its default."""
        given: dict[str, Any] = {}
        for each in dataclasses.fields(kind):
            place = f"{name}.{each.name}"
            if place in self.arrays:
                given[each.name] = self.arrays[place]
            elif place in self.classes:
                given[each.name] = self.assemble(place, KNOWN[self.classes[place]])
            elif place in self.plain:
                value = self.plain[place]
                given[each.name] = tuple(value) if isinstance(value, list) else value
        return kind(**given)


def _is_words(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) for each in value)


def _class_name(place: str, value: object) -> str:
    name = type(value).__name__
    if KNOWN.get(name) is not type(value):
        raise InputError(f"`{place}` is a {name} but only {join(KNOWN)} can be stored; use one of these")
    return name


def number_type(name: str, given: str) -> np.dtype:
    """Read the type that a user asked a field to be stored in."""
    try:
        kind = np.dtype(given).newbyteorder("<")
    except TypeError:
        kind = np.dtype(object)
    if kind.str not in STORED_TYPES:
        kinds = ", ".join(np.dtype(each).name for each in STORED_TYPES)
        raise InputError(f"`stored_as` gives {quote(given)} for {quote(name)}; the types of files are {kinds}")
    return kind


def first_layout(name: str, values: Any, n_agents: int, asked: np.dtype | None) -> Layout:
    """Choose the types of a file from the field's first range: float32, bytes for lead times, otherwise as given."""
    usual = np.dtype("<f4") if values.dtype.kind == "f" else np.dtype(values.dtype).newbyteorder("<")
    usual = np.dtype("<i4") if usual.str == "<i8" else usual
    byte = np.dtype(LEAD_TIME_TYPE) if name == LEAD_TIMES and usual.kind == "i" else usual
    stored = byte if asked is None else asked
    if stored.str not in STORED_TYPES:
        raise InputError(f"`{name}` holds {values.dtype} numbers, which are not stored; use float32 or int32")
    layout = Layout(name, stored, usual if usual.kind == "f" else stored, tuple(values.shape))
    if not values.shape:
        return layout
    shape = (n_agents, *values.shape[1:]) if layout.agents_first else (*values.shape[:-1], n_agents)
    return dataclasses.replace(layout, shape=shape)


def narrowed(layout: Layout, values: np.ndarray) -> np.ndarray:
    """Bring values to the type of the file; refuse to lose anything that float32 would keep."""
    wide = values.astype(layout.read) if layout.read.kind == "f" else values
    with np.errstate(all="ignore"):
        narrow = wide.astype(layout.stored)
        back = narrow.astype(wide.dtype)
    if not np.array_equal(back, wide, equal_nan=wide.dtype.kind == "f"):
        raise InputError(
            f"`{layout.name}` has numbers that {layout.stored.name} cannot hold; "
            f'give the writer a wider type in `stored_as`, like {{"{layout.name}": "{_wider(layout)}"}}'
        )
    return narrow


def _wider(layout: Layout) -> str:
    return "float32" if layout.read.kind == "f" else "int32"


def layout_of(name: str, given: Mapping[str, Any]) -> Layout:
    """Read one array's entry of a manifest.

    Raises:
        ValueError: an entry that no writer makes; also KeyError and TypeError.
    """
    shape = tuple(int(length) for length in given["shape"])
    if not set(given[kind] for kind in ("stored", "read")) <= set(STORED_TYPES) or min(shape, default=1) < 1:
        raise ValueError(f"the type or shape of {quote(name)} is none that is stored")
    if "/" in name or "\\" in name or not name.startswith(tuple(f"{part}." for part in PARTS)):
        raise ValueError(f"{quote(name)} is no field of a population or its paths")
    return Layout(name, np.dtype(given["stored"]), np.dtype(given["read"]), shape)


def data_offset(folder: Path, layout: Layout) -> int:
    """Return where the numbers of a file begin, after checking that its header and size are those of the manifest."""
    path = folder / f"{layout.name}.npy"
    try:
        with open(path, "rb") as file:
            npy.read_magic(file)
            header = npy.read_array_header_1_0(file)
            offset, size = file.tell(), os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise InputError(f"{named(path)} is missing; copy or write the folder again") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{named(path)} is not a readable array; copy or write the folder again") from error
    if header != (layout.shape, False, layout.stored):
        raise InputError(f"{named(path)} is not the array of its manifest; copy or write the folder again")
    if size != offset + layout.n_bytes:
        raise cut_short(path, size, offset + layout.n_bytes)
    return offset


def named(path: Path) -> str:
    """Write a path so that it stays readable in a sentence."""
    return quote(path, 200)


def bad_manifest(folder: Path, reason: str) -> InputError:
    """Build the sentence for a manifest that no writer made."""
    return InputError(
        f"{named(folder / MANIFEST)} is no manifest of stored paths ({quote(reason, 160)}); write the folder again"
    )


def cut_short(path: Path, size: int, needed: int) -> InputError:
    """Build the sentence for a file that has not the size of its manifest [bytes]."""
    return InputError(f"{named(path)} has {size} bytes but needs {needed}; copy or write the folder again")


class StoredPaths:
    """Read ranges of agents from a folder that `PathsWriter` wrote; only the range asked for is in memory.

    Ranges are read at their places in the files, not mapped: on week-major files that is as fast, and pages that were
    read once do not count as memory of the process.

    Attributes:
        folder: where the files are.
        n_agents, n_weeks: size of the whole.
        max_lead: longest lead time of all agents [weeks], so that every range gets the same pipeline.
        identity: changes whenever what is stored changes.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], identity: str) -> None:
        """Check the manifest and the files; use `StoredPaths.open`."""
        self.folder, self.identity = folder, identity
        try:
            self._read_manifest(manifest)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise bad_manifest(folder, f"{type(error).__name__}: {error}") from error
        self._offsets = {layout.name: data_offset(folder, layout) for layout in self._layouts}

    @staticmethod
    def open(folder: str | Path) -> "StoredPaths":
        """Open a folder and check that every file is whole.

        Raises:
            InputError: no such folder, another kind of folder, a newer schema, a file that is missing or cut short.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{named(folder)} is not a folder; give the folder that `PathsWriter` wrote")
        try:
            raw = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise InputError(
                f"{named(folder)} holds no readable {MANIFEST}; give the folder that `PathsWriter` wrote"
            ) from error
        try:
            manifest = json.loads(raw)
        except ValueError as error:
            raise bad_manifest(folder, "not JSON") from error
        _check_kind(folder, manifest)
        return StoredPaths(folder, manifest, hashlib.sha256(raw).hexdigest())

    def _read_manifest(self, manifest: Mapping[str, Any]) -> None:
        self.n_agents, self.n_weeks, self.max_lead = (int(manifest[k]) for k in ("n_agents", "n_weeks", "max_lead"))
        self._classes = dict(manifest["classes"])
        unknown = [name for name in self._classes.values() if name not in KNOWN]
        if unknown:
            raise ValueError(f"it names {join(unknown)}, and known are {join(KNOWN)}")
        self._plain = dict(manifest["plain"])
        self._layouts = [layout_of(name, given) for name, given in manifest["arrays"].items()]
        sizes = {layout.n_agents for layout in self._layouts} - {None}
        weeks = {layout.shape[-2] for layout in self._layouts if layout.name == DEMAND}
        if sizes != {self.n_agents} or weeks != {self.n_weeks}:
            raise ValueError("its numbers of agents and weeks do not meet its shapes")

    def read(self, start: int, stop: int) -> ExogenousPaths:
        """Read the paths of agents start .. stop - 1.

        Raises:
            InputError: a range that is empty or leaves the folder's agents.
        """
        return self._read("exogenous", start, stop)

    def population(self, start: int, stop: int) -> Population:
        """Read what agents start .. stop - 1 are.

        Raises:
            InputError: a range that is empty or leaves the folder's agents.
        """
        return self._read("population", start, stop)

    def _read(self, part: str, start: int, stop: int) -> Any:
        if not 0 <= start < stop <= self.n_agents:
            raise InputError(
                f"agents {start} to {stop - 1} were asked for but {named(self.folder)} holds 0 to "
                f"{self.n_agents - 1}; ask for a range within these"
            )
        layouts = [layout for layout in self._layouts if layout.name.startswith(f"{part}.")]
        arrays = {layout.name: jnp.asarray(self._read_array(layout, start, stop)) for layout in layouts}
        try:
            return Parts(arrays, self._classes, self._plain).assemble(part, PARTS[part])
        except TypeError as error:  # a field without which the class cannot be built
            raise bad_manifest(self.folder, str(error)) from error

    def _read_array(self, layout: Layout, start: int, stop: int) -> np.ndarray:
        out = np.empty((layout.rows, (stop - start) * layout.per_agent if layout.shape else 1), layout.stored)
        path, offset = self.folder / f"{layout.name}.npy", self._offsets[layout.name]
        with open(path, "rb") as file:
            for row, numbers in enumerate(out):
                file.seek(offset + layout.place(row, start if layout.shape else 0))
                if file.readinto(numbers.view(np.uint8)) != numbers.nbytes:
                    raise cut_short(path, path.stat().st_size, offset + layout.n_bytes)
        return out.reshape(layout.cut(stop - start)).astype(layout.read, copy=False)


class PathsWriter:
    """Write a population and its paths, range after range, into a folder that appears once it is complete.

        with PathsWriter("paths", n_agents=5_000_000) as writer:
            for population, exogenous in ranges:
                writer.write(population, exogenous)

    Files are written aside, in a hidden folder next to the final one; an error removes it. Numbers with a fraction are
    stored as float32 and read back as such; lead times as bytes. The population is stored with the paths (28 bytes and
    4 per resource an agent, hundreds the paths), so that whoever opens the folder has the whole question. What is no
    number, like agents' names, is not stored.

    Attributes:
        folder: the final name.
        n_agents: agents in all.
        written: agents written so far.
    """

    def __init__(self, folder: str | Path, n_agents: int, *, stored_as: Mapping[str, str] | None = None) -> None:
        """Say where, and how many agents will come.

        Args:
            folder: must not exist yet; the folder above it must.
            n_agents: agents of all ranges together.
            stored_as: narrower number types by field, like {"exogenous.demand": "uint16"}; a range that would lose
                something by it is refused.
        """
        self.folder, self.n_agents, self.written = Path(folder), int(n_agents), 0
        self._asked = {name: number_type(name, kind) for name, kind in (stored_as or {}).items()}
        self._aside: Path | None = None
        self._first: Parts | None = None
        self._layouts: dict[str, Layout] = {}
        self._files: dict[str, BinaryIO] = {}
        self._offsets: dict[str, int] = {}
        self._digests: dict[str, Any] = {}
        self._max_lead = 0

    def __enter__(self) -> "PathsWriter":
        """Make the folder aside."""
        if self.n_agents < 1:
            raise InputError(f"`n_agents` is {self.n_agents} but at least 1 agent is stored; count the agents to come")
        if self.folder.exists():
            raise InputError(f"{named(self.folder)} exists already; choose another name, or remove it first")
        try:
            self._aside = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-unfinished-", dir=self.folder.parent))
        except OSError as error:
            raise _not_writable(self.folder, error) from error
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Put the folder in its place if all agents came, otherwise remove what was written."""
        try:
            if kind is None:
                self._finish()
        except OSError as error:
            raise _not_writable(self.folder, error) from error
        finally:
            for file in self._files.values():
                file.close()
            if self._aside is not None and self._aside.exists():
                shutil.rmtree(self._aside, ignore_errors=True)

    def write(self, population: Population, exogenous: ExogenousPaths) -> None:
        """Append the next range of agents.

        Raises:
            ShapeError: a range that does not fit the ranges before it.
            InputError: more agents than announced, or numbers that the type asked for cannot hold.
        """
        if self._aside is None:
            raise InputError("the writer is not open; use `with PathsWriter(...) as writer`")
        parts = Parts().gather("population", population).gather("exogenous", exogenous)
        count = exogenous.n_agents
        if self.written + count > self.n_agents or count < 1:
            raise InputError(
                f"{self.written + count} agents were written but {self.n_agents} announced; announce all that come"
            )
        if self._first is None:
            self._begin(parts)
        self._check_alike(parts, count)
        try:
            for name, layout in self._layouts.items():
                self._append(layout, np.asarray(parts.arrays[name]), count)
        except OSError as error:
            raise _not_writable(self.folder, error) from error
        self.written += count
        self._max_lead = max(self._max_lead, exogenous.arrivals.longest() or 0)

    def _begin(self, parts: Parts) -> None:
        """Fix every file's type and shape by the first range."""
        assert self._aside is not None  # write has checked
        unknown = set(self._asked) - set(parts.arrays)
        if unknown:
            raise InputError(f"`stored_as` names {join(sorted(unknown))} but there are {join(parts.arrays, 20)}")
        self._first = Parts({}, parts.classes, parts.plain)
        for name, values in parts.arrays.items():
            layout = first_layout(name, values, self.n_agents, self._asked.get(name))
            file = open(self._aside / f"{name}.npy", "w+b")
            self._files[name], self._layouts[name], self._digests[name] = file, layout, hashlib.blake2b(digest_size=16)
            npy.write_array_header_1_0(file, layout.header)
            self._offsets[name] = file.tell()
            file.truncate(self._offsets[name] + layout.n_bytes)

    def _check_alike(self, parts: Parts, count: int) -> None:
        assert self._first is not None  # set by the first range
        alike = (parts.classes, parts.plain, set(parts.arrays))
        if alike != (self._first.classes, self._first.plain, set(self._layouts)):
            raise InputError("this range has other fields, classes or resources than the first; write them alike")
        for name, layout in self._layouts.items():
            if parts.arrays[name].shape != layout.cut(count):
                raise shape_mismatch(name, parts.arrays[name].shape, layout.cut(count), "give every range alike")

    def _append(self, layout: Layout, values: np.ndarray, count: int) -> None:
        narrow = narrowed(layout, values).reshape(layout.rows, -1)
        self._digests[layout.name].update(np.ascontiguousarray(narrow).view(np.uint8).data)
        file = self._files[layout.name]
        for row, numbers in enumerate(narrow):
            file.seek(self._offsets[layout.name] + layout.place(row, self.written if layout.shape else 0))
            file.write(np.ascontiguousarray(numbers).view(np.uint8).data)

    def _finish(self) -> None:
        assert self._aside is not None  # __enter__ made it
        if self.written != self.n_agents or self._first is None:
            raise InputError(
                f"{self.written} agents were written but {self.n_agents} announced; nothing was kept, write all ranges"
            )
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        write_text(self._aside / MANIFEST, json.dumps(self._manifest(), indent=1))
        os.chmod(self._aside, 0o755)
        os.rename(self._aside, self.folder)

    def _manifest(self) -> dict[str, Any]:
        assert self._first is not None  # _finish has checked
        arrays = {
            name: {
                "stored": layout.stored.str,
                "read": layout.read.str,
                "shape": layout.shape,
                "digest": self._digests[name].hexdigest(),
            }
            for name, layout in self._layouts.items()
        }
        return {
            "kind": KIND,
            "schema": SCHEMA,
            "n_agents": self.n_agents,
            "n_weeks": self._layouts[DEMAND].shape[-2],
            "max_lead": self._max_lead,
            "classes": self._first.classes,
            "plain": self._first.plain,
            "arrays": arrays,
        }


def _not_writable(folder: Path, error: OSError) -> InputError:
    reason = quote(error.strerror or error)
    return InputError(f"{named(folder)} cannot be written ({reason}); choose a place with room that you may write to")


def _check_kind(folder: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND or not isinstance(manifest.get("schema"), int):
        raise bad_manifest(folder, "it does not say that it is one")
    if manifest["schema"] > SCHEMA:
        raise InputError(
            f"{named(folder)} has schema {manifest['schema']} but this version reads up to {SCHEMA}; upgrade walras"
        )
