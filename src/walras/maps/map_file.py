"""Own the file of a trained map: its weights, sizes, scaling, buckets and resources, and how it was made.

CONTRACT: files are shipped and kept by users; `VERSION` and `inputs.FEATURES` say whether a file can be read.
"""

from dataclasses import asdict
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from walras.data.findings import listed, shown
from walras.data.store import Stored, fill, named_arrays, read_arrays, write_arrays
from walras.errors import InputError
from walras.maps.inputs import AGENT_FEATURES, AHEAD, ATTRIBUTES, FEATURES, TOTALS, Scaling
from walras.maps.learned_map import LearnedMap
from walras.maps.network import MapNetwork, MapShape
from walras.maps.representations.named import REPRESENTATIONS

VERSION = 1
"""Of what a file holds and how its weights are wired."""

PRIMAL, DUAL = "primal map", "dual map"
KINDS = (PRIMAL, DUAL)
"""What a map may be: prices to utilization, or capacity to prices."""


def save_map(path: str | Path, learned: LearnedMap) -> None:
    """Write a map to one file, aside and then renamed.

    Args:
        path: where; the folder must exist.
        learned: the map.

    Raises:
        InputError: facts that JSON cannot hold, a folder that cannot be written to.
    """
    arrays = {
        **{f"network{name}": values for name, values in named_arrays(learned.network).items()},
        **{f"scaling{name}": values for name, values in named_arrays(learned.scaling).items()},
        "edges": np.asarray(learned.edges, float),
    }
    header = {
        "version": VERSION,
        "features": FEATURES,
        "shape": {name: list(value) if isinstance(value, tuple) else value for name, value in _sizes(learned.shape)},
        "resources": list(learned.resources),
        "facts": dict(learned.facts),
    }
    write_arrays(path, learned.kind, arrays, header)


def load_map(path: str | Path | Traversable, kind: str) -> LearnedMap:
    """Read a map; no code is run, and every byte is checked.

    Args:
        path: a file written by `save_map`, also one inside an installed package.
        kind: one of `KINDS`.

    Raises:
        DamagedFileError, InputError: a damaged file, one of another kind or version, or one that contradicts itself.
    """
    stored = read_arrays(path, kind)
    _refuse_version(stored)
    shape = _shape_of(stored)
    network = fill(jax.eval_shape(lambda: MapNetwork.draw(shape, 0)), stored, "network")
    scaling = fill(_blank_scaling(shape), stored, "scaling")
    resources, edges = tuple(stored.header["resources"]), stored.arrays.get("edges")
    if len(resources) != shape.resources or edges is None or edges.shape != (shape.buckets - 1,):
        raise _contradiction(stored)
    return LearnedMap(kind, network, scaling, shape, edges, resources, stored.header["facts"])


def _sizes(shape: MapShape) -> list[tuple[str, Any]]:
    return list(asdict(shape).items())


def _refuse_version(stored: Stored) -> None:
    found = stored.header.get("version"), stored.header.get("features")
    if found != (VERSION, FEATURES):
        raise InputError(
            f"{stored.source} holds a {stored.kind} of version {shown(found[0])} with features {shown(found[1])} but "
            f"this walras reads version {VERSION} with features {FEATURES}; train it again"
        )


def _shape_of(stored: Stored) -> MapShape:
    """Read the sizes off the header, or say that they are none."""
    try:
        named: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in dict(stored.header["shape"]).items()
        }
        shape = MapShape(**named)
        sized = shape.delegates >= 0 and all(isinstance(v, int) and v > 0 for v in _numbers(shape))
        usable = sized and isinstance(shape.sees_prices, bool) and stored.header["facts"] is not None
    except (KeyError, TypeError, ValueError):
        raise _contradiction(stored) from None
    if not usable:
        raise _contradiction(stored)
    if shape.representation not in REPRESENTATIONS:
        raise InputError(
            f"{stored.source} knows its population by {shown(shape.representation)} but this walras knows "
            f"{listed(sorted(REPRESENTATIONS), 20)}; read it with the walras that wrote it, or train it again"
        )
    return shape


def _numbers(shape: MapShape) -> list[Any]:
    every = [value for name, value in _sizes(shape) if name not in ("representation", "delegates", "sees_prices")]
    return [one for value in every for one in (value if isinstance(value, tuple) else (value,))]


def _blank_scaling(shape: MapShape) -> Scaling:
    """Give the form of a scaling; a map that reads no agents has none of their moments."""
    reads, m = shape.kind.reads_agents, shape.resources
    widths = (AGENT_FEATURES if reads else 0, ATTRIBUTES, TOTALS * m, AHEAD * m + 2)
    return jax.eval_shape(lambda: Scaling(*(jnp.zeros((2, width)) for width in widths)))


def _contradiction(stored: Stored) -> InputError:
    return InputError(f"{stored.source} does not say what shape its {stored.kind} has; train it again")
