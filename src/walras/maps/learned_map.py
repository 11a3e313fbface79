"""Own the LearnedMap: a trained network with all that it needs to read a population.

CONTRACT: stored in one file of `maps.map_file`; training makes it, `maps.learned` asks it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from walras.maps.inputs import Scaling
from walras.maps.network import MapNetwork, MapShape


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
