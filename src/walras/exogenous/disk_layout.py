"""Own the layout of a folder of stored paths: which file holds which field, in which type, and what the manifest says.

CONTRACT: schema 1 is what other machines read; another layout gets another number. Reading it runs no code.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from numpy.lib import format as npy

from walras.errors import InputError, join, quote
from walras.exogenous.arrivals import ArrivalShares, ConstantLeadTime, IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.supply import Chained, FillRate, SupplyLimit
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
