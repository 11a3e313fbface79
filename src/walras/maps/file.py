"""File of a trained map: weights, sizes, scaling, buckets, resources, and how it was made.

CONTRACT: files are shipped and kept by users; `VERSION` and `features.FEATURES` say whether a file can be read.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
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
from walras.maps.features import AGENT_FEATURES, AHEAD, ATTRIBUTES, FEATURES, HORIZON, TOTALS, FeatureScaling
from walras.maps.network import MapNetwork
from walras.maps.probes import ProbeAgents, draw_probes
from walras.maps.representations import REPRESENTATIONS, MapShape
from walras.population.cohort import Cohort
from walras.population.population import Population

VERSION = 1  # of what a file holds and how its weights are wired

PRIMAL, DUAL = "primal map", "dual map"
KINDS = (PRIMAL, DUAL)  # kinds of maps: prices to utilization, and capacity to prices

# Names of sizes and weights that files call by an earlier name.
STORED_NAMES = {"n_probes": "delegates", "network.agent_head": "network.each"}


@dataclass(frozen=True, eq=False)
class LearnedMap:
    """A trained primal or dual map.

    Attributes:
        kind: "primal map" (prices to utilization) or "dual map" (capacity to prices).
        network: its weights.
        scaling: of its features, frozen with it.
        shape: sizes of the network, and its representation.
        edges: inner edges of the demand buckets, frozen from the baseline population [units/week].
        resources: names along the resource axis.
        facts: how it was made: settings, steps, data, held-out error, the local policy it was trained with.
    """

    kind: str
    network: MapNetwork
    scaling: FeatureScaling
    shape: MapShape
    edges: Float[np.ndarray, " edge"]
    resources: tuple[str, ...] = ("inbound_units",)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return kind, representation and resources in a line."""
        weights = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(self.network, eqx.is_array)))
        return f"{self.kind}: {self.shape.name}, {weights:,} weights, resources {join(self.resources)}"

    __repr__ = __str__


def probes_for(learned: LearnedMap, population: Population, cohort: Cohort, seed: int = 0) -> ProbeAgents | None:
    """Draw a map's probes out of the cohort that it reads (other agents' states are not known); None without any."""
    if not learned.shape.n_probes:
        return None
    drawn = draw_probes(cohort.subset(population), learned.shape.n_probes, HORIZON + 1, seed)
    chosen, weight = jnp.asarray(cohort.index, jnp.int32), jnp.asarray(cohort.weight, jnp.float32)
    in_population = chosen[drawn.index], drawn.weight * weight[drawn.index]
    return eqx.tree_at(lambda d: (d.index, d.weight), drawn, in_population)


def save_map(path: str | Path, learned: LearnedMap) -> None:
    """Write a map to one file, aside and then renamed; InputError if JSON cannot hold its facts or no file is made."""
    arrays = {
        **{f"network{name}": values for name, values in flatten(learned.network).items()},
        **{f"scaling{name}": values for name, values in flatten(learned.scaling).items()},
        "edges": np.asarray(learned.edges, float),
    }
    sizes = asdict(learned.shape).items()
    header = {
        "version": VERSION,
        "features": FEATURES,
        "shape": {STORED_NAMES.get(name, name): list(v) if isinstance(v, tuple) else v for name, v in sizes},
        "resources": list(learned.resources),
        "facts": dict(learned.facts),
    }
    write_arrays(path, learned.kind, _renamed(arrays, STORED_NAMES), header)


def load_map(path: str | Path | Traversable, kind: str) -> LearnedMap:
    """Read a map of one of `KINDS`; no code is run, and every byte is checked.

    Raises:
        DamagedFileError, InputError: a damaged file, one of another kind or version, or one that contradicts itself.
    """
    stored = read_arrays(path, kind)
    version = stored.header.get("version"), stored.header.get("features")
    if version != (VERSION, FEATURES):
        raise InputError(
            f"{stored.source} holds a {stored.kind} of version {quote(version[0])} with features {quote(version[1])} "
            f"but this walras reads version {VERSION} with features {FEATURES}; train it again"
        )
    shape = _shape_of(stored)
    stored = replace(stored, arrays=_renamed(stored.arrays, {old: new for new, old in STORED_NAMES.items()}))
    network = restore(jax.eval_shape(lambda: MapNetwork.draw(shape, 0)), stored, "network")
    m = shape.resources  # a map that reads no agents has no moments of them
    widths = (AGENT_FEATURES if shape.kind.reads_agents else 0, ATTRIBUTES, TOTALS * m, AHEAD * m + 2)
    blank = jax.eval_shape(lambda: FeatureScaling(*(jnp.zeros((2, width)) for width in widths)))
    scaling = restore(blank, stored, "scaling")
    resources, edges = tuple(stored.header["resources"]), stored.arrays.get("edges")
    if len(resources) != shape.resources or edges is None or edges.shape != (shape.buckets - 1,):
        raise _contradiction(stored)
    return LearnedMap(kind, network, scaling, shape, edges, resources, stored.header["facts"])


def _renamed(arrays: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename arrays whose name begins with one of these."""

    def rename(name: str) -> str:
        return next((new + name[len(old) :] for old, new in names.items() if name.startswith(f"{old}.")), name)

    return {rename(name): values for name, values in arrays.items()}


def _shape_of(stored: Stored) -> MapShape:
    """Read the sizes off the header."""
    names: dict[str, str] = {old: new for new, old in STORED_NAMES.items()}
    try:
        sizes: Any = dict(stored.header["shape"]).items()
        given: dict[str, Any] = {names.get(name, name): tuple(v) if isinstance(v, list) else v for name, v in sizes}
        shape = MapShape(**given)
        others = [v for name, v in asdict(shape).items() if name not in ("representation", "n_probes", "sees_prices")]
        positive = [size for value in others for size in (value if isinstance(value, tuple) else (value,))]
        sized = shape.n_probes >= 0 and all(isinstance(size, int) and size > 0 for size in positive)
        usable = sized and isinstance(shape.sees_prices, bool) and stored.header["facts"] is not None
    except (KeyError, TypeError, ValueError):
        raise _contradiction(stored) from None
    if not usable:
        raise _contradiction(stored)
    if shape.representation not in REPRESENTATIONS:
        raise InputError(
            f"{stored.source} has the representation {quote(shape.representation)} but this walras knows "
            f"{join(sorted(REPRESENTATIONS), 20)}; read it with the walras that wrote it, or train it again"
        )
    return shape


def _contradiction(stored: Stored) -> InputError:
    return InputError(f"{stored.source} does not say what shape its {stored.kind} has; train it again")
