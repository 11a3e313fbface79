"""Own the file of a trained map: its weights, sizes, scaling, buckets and resources, and how it was made.

CONTRACT: files are shipped and kept by users; `VERSION` and `inputs.FEATURES` say whether a file can be read.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from walras.data.array_file import Stored, flatten, read_arrays, restore, write_arrays
from walras.errors import InputError, join, quote
from walras.maps.features import AGENT_FEATURES, AHEAD, ATTRIBUTES, FEATURES, HORIZON, TOTALS, Scaling
from walras.maps.network import MapNetwork, MapShape
from walras.maps.probes import ProbeAgents, draw_probes
from walras.maps.representations.registry import REPRESENTATIONS
from walras.population.cohort import Cohort
from walras.population.population import Population


@dataclass(frozen=True, eq=False)
class LearnedMap:
    """Hold a trained primal or dual map.

    Attributes:
        kind: "primal map" (prices to utilization) or "dual map" (capacity to prices).
        network: its weights.
        scaling: of its features, frozen with it.
        shape: sizes of the network, and its representation.
        edges: inner edges of the demand buckets, frozen from the baseline population [units/week].
        resources: names along the resource axis.
        facts: how it was made: settings, steps, data, error on what was held out, the local policy it was trained with.
    """

    kind: str
    network: MapNetwork
    scaling: Scaling
    shape: MapShape
    edges: Float[np.ndarray, " edge"]
    resources: tuple[str, ...] = ("inbound_units",)
    facts: Mapping[str, Any] = field(default_factory=dict)


def probes_for(learned: LearnedMap, population: Population, cohort: Cohort, seed: int = 0) -> ProbeAgents | None:
    """Draw the delegates that a map asks, out of the cohort that it reads; None where it asks nobody.

    Args:
        learned: the map.
        population: everybody, with weights.
        cohort: whose histories are read; nobody else is known well enough to be asked.
        seed: of the draw.
    """
    if not learned.shape.delegates:
        return None
    drawn = draw_probes(cohort.subset(population), learned.shape.delegates, HORIZON + 1, seed)
    chosen, weight = jnp.asarray(cohort.index, jnp.int32), jnp.asarray(cohort.weight, jnp.float32)
    found = chosen[drawn.index], drawn.weight * weight[drawn.index]
    return eqx.tree_at(lambda d: (d.index, d.weight), drawn, found)


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
        **{f"network{name}": values for name, values in flatten(learned.network).items()},
        **{f"scaling{name}": values for name, values in flatten(learned.scaling).items()},
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
    network = restore(jax.eval_shape(lambda: MapNetwork.draw(shape, 0)), stored, "network")
    scaling = restore(_blank_scaling(shape), stored, "scaling")
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
            f"{stored.source} holds a {stored.kind} of version {quote(found[0])} with features {quote(found[1])} but "
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
            f"{stored.source} knows its population by {quote(shape.representation)} but this walras knows "
            f"{join(sorted(REPRESENTATIONS), 20)}; read it with the walras that wrote it, or train it again"
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
