"""Own the sources of prices that primal maps are trained under beside random ones: what maps and planners ask about.

OPEN: add a source as a class beside these.
"""

import abc
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from walras.data.resume_log import digest
from walras.maps.closed_loop import CapacityTarget, DualMap, run_closed_loop
from walras.maps.features import HORIZON, MapInputs, Scaling
from walras.maps.file import LearnedMap
from walras.maps.network import MapNetwork
from walras.maps.rollout import MapRollout, inputs_of, roll_out
from walras.policies.base import Policy
from walras.train.map_task import SampledEpisode, drawn_capacity

FIRST_PRICED = 26
"""First week in which a dual map issues prices: later origins then have a history with prices in it."""

QUERY_SPACING = 32
"""Weeks between the origins of plans that are strung together."""

SEARCH_STEPS, SEARCH_RATE = 40, 0.15
"""Steps of the price search, and its step size."""

PRICE_WEIGHT = 0.01
"""Weight of prices in the search, so that weeks with room keep none."""


class PriceProposal(abc.ABC):
    """Propose prices for a drawn population."""

    @abc.abstractmethod
    def propose(
        self, drawn: SampledEpisode, policy: Policy, network: MapNetwork, scaling: Scaling
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


@dataclass(frozen=True, eq=False)
class DualProposals(PriceProposal):
    """Propose what a trained dual map charges when it keeps a population to a drawn capacity.

    Attributes:
        dual: the map.
    """

    dual: LearnedMap

    def propose(
        self, drawn: SampledEpisode, policy: Policy, network: MapNetwork, scaling: Scaling
    ) -> Float[np.ndarray, "week resource"]:
        """Run the closed loop, and return the prices charged in it."""
        stretch = drawn.stretch
        _, capacity = _free_and_capacity(drawn, policy)
        plan = CapacityTarget(jnp.asarray(capacity, jnp.float32), FIRST_PRICED)
        mine = DualMap(self.dual.network, self.dual.scaling)
        charged = np.asarray(_charged(stretch, drawn.readers, policy, plan, mine), float)
        return np.concatenate([np.zeros((FIRST_PRICED, charged.shape[1])), charged])

    def identity(self) -> Any:
        """Return a digest of the map."""
        return digest((self.dual.network, self.dual.scaling))


@eqx.filter_jit
def _charged(*given: Any) -> Float[Array, "week resource"]:
    return run_closed_loop(*given).charged


def _free_and_capacity(drawn: SampledEpisode, policy: Policy) -> tuple[MapRollout, Float[np.ndarray, "week resource"]]:
    """Return what comes about without prices, and a capacity path at its scale."""
    quiet = jnp.zeros((drawn.stretch.n_weeks, len(drawn.stretch.population.resources)))
    free = roll_out(drawn.stretch, policy, quiet)
    return free, drawn_capacity(drawn.random, np.asarray(free.utilization, float), FIRST_PRICED)


class PlannerQueries(PriceProposal):
    """Propose what a planner asks about: prices at which the map itself says that use fits a drawn capacity."""

    def propose(
        self, drawn: SampledEpisode, policy: Policy, network: MapNetwork, scaling: Scaling
    ) -> Float[np.ndarray, "week resource"]:
        """Search prices at origins half a year apart, some steps only, and string them together."""
        stretch, (free, capacity) = drawn.stretch, _free_and_capacity(drawn, policy)
        last = stretch.n_weeks - HORIZON
        origins = (last - 1) // QUERY_SPACING + 1
        reads = network.agents is not None
        inputs = inputs_of(free, stretch, drawn.readers, last, origins, QUERY_SPACING, reads_agents=reads)
        firsts = last - 1 - QUERY_SPACING * np.arange(origins)[::-1]
        wanted = np.stack([capacity[first + 1 : first + 1 + HORIZON] for first in firsts])
        steps = int(drawn.random.integers(5, SEARCH_STEPS + 1))
        found = _searched(
            network, scaling, inputs, jnp.asarray(wanted, jnp.float32) / free.units.use[None, None, :], np.int32(steps)
        )
        prices = np.zeros(capacity.shape)
        for first, block in zip(firsts, np.asarray(found * free.units.price[None, None, :], float), strict=True):
            prices[first + 1 : first + 1 + HORIZON] = block
        return prices

    def identity(self) -> Any:
        """Return the name; proposals follow from the map that is being trained."""
        return "planner queries"


class AnyOf(PriceProposal):
    """Ask one of several sources, each with the same chance."""

    def __init__(self, *sources: PriceProposal) -> None:
        """Keep the sources."""
        self.sources = sources

    def propose(
        self, drawn: SampledEpisode, policy: Policy, network: MapNetwork, scaling: Scaling
    ) -> Float[np.ndarray, "week resource"]:
        """Ask one of them."""
        source = self.sources[drawn.random.integers(len(self.sources))]
        return source.propose(drawn, policy, network, scaling)

    def identity(self) -> Any:
        """Return what those of all sources follow from."""
        return [source.identity() for source in self.sources]


@eqx.filter_jit
def _searched(
    network: MapNetwork,
    scaling: Scaling,
    inputs: MapInputs,
    capacity: Float[Array, "origin ahead resource"],
    steps: Any,
) -> Float[Array, "origin ahead resource"]:
    """Return prices, in median margins, after some steps of `search_prices`."""
    encoded = network.encode(scaling(inputs), QUERY_SPACING)
    return search_prices(lambda prices: network.utilization(encoded, prices), capacity, steps)


def search_prices(
    utilization: Any, capacity: Float[Array, "*axes ahead resource"], steps: Array | int
) -> Float[Array, "*axes ahead resource"]:
    """Search prices `softplus(nu)` at which use fits capacity, by Adam on squared violation plus a small price term.

    Args:
        utilization: use at given prices, both relative; differentiable.
        capacity: relative to S(P).
        steps: number of steps.
    """
    rule = optax.adam(SEARCH_RATE)

    def loss(nu: Array) -> Array:
        prices = jax.nn.softplus(nu)
        over = jnp.maximum(utilization(prices) - capacity, 0.0)
        return (over**2).sum() + PRICE_WEIGHT * (prices * capacity).sum()

    def go(_: Array, now: tuple) -> tuple:
        nu, state = now
        change, state = rule.update(jax.grad(loss)(nu), state)
        return nu + change, state

    start = jnp.full(capacity.shape, -3.0)
    return jax.nn.softplus(jax.lax.fori_loop(0, steps, go, (start, rule.init(start)))[0])
