"""Own the sources of prices that primal maps are trained under beside random ones.

OPEN: add a source as a class beside these.
"""

import abc
from typing import Any

import numpy as np
from jaxtyping import Float

from walras.maps.inputs import Scaling
from walras.maps.network import MapNetwork
from walras.policies.base import AbstractPolicy
from walras.train.map_episodes import Drawn


class PriceSource(abc.ABC):
    """Propose prices for a drawn population."""

    @abc.abstractmethod
    def propose(
        self, drawn: Drawn, policy: AbstractPolicy, network: MapNetwork, scaling: Scaling
    ) -> Float[np.ndarray, "week resource"]:
        """Return prices for all weeks of the stretch [money per unit of resource].

        Args:
            drawn: population and weeks.
            policy: what agents follow.
            network, scaling: the primal map as trained so far.
        """

    @abc.abstractmethod
    def identity(self) -> Any:
        """Say what proposals follow from, in words and numbers."""
