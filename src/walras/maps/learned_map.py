"""Own the LearnedMap: a trained network with all that it needs to read a population.

CONTRACT: stored in one file of `maps.map_file`; training makes it, `maps.learned` asks it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from walras.maps.delegates import Delegates, draw_delegates
from walras.maps.inputs import HORIZON, Scaling
from walras.maps.network import MapNetwork, MapShape
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


def delegates_for(learned: LearnedMap, population: Population, cohort: Cohort, seed: int = 0) -> Delegates | None:
    """Draw the delegates that a map asks, out of the cohort that it reads; None where it asks nobody.

    Args:
        learned: the map.
        population: everybody, with weights.
        cohort: whose histories are read; nobody else is known well enough to be asked.
        seed: of the draw.
    """
    if not learned.shape.delegates:
        return None
    drawn = draw_delegates(cohort.people(population), learned.shape.delegates, HORIZON + 1, seed)
    chosen, weight = jnp.asarray(cohort.chosen, jnp.int32), jnp.asarray(cohort.weight, jnp.float32)
    found = chosen[drawn.index], drawn.weight * weight[drawn.index]
    return eqx.tree_at(lambda d: (d.index, d.weight), drawn, found)
