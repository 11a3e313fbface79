"""Own what issues prices in the closed loop, given a population as a map knows it: a search on a primal map.

OPEN: add what issues prices as a class with `issue` beside these; a dual map is `maps.closed_loop.DualMap`.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from walras.maps.features import HORIZON, Scaling
from walras.maps.network import Encoded, MapNetwork

SMALLEST_ROOM = 1e-6
"""Capacities, relative to S(P), below this count as this when ratios are formed."""


MEMORY = (0.5, 0.8)
"""Memory of Adam for slopes and their squares, short: a week that violation has left would keep its price for long."""


class AbstractPriceController(eqx.Module):
    """Issue prices for the coming weeks, week after week, from what a map's network has read.

    Attributes:
        network: reads histories and coming weeks.
        scaling: of its features.
    """

    network: eqx.AbstractVar[MapNetwork]
    scaling: eqx.AbstractVar[Scaling]

    def begin(self, resources: int) -> Any:
        """Return what goes from week to week, before the first; None where nothing does."""
        return None

    @abc.abstractmethod
    def issue(
        self, encoded: Encoded, capacity: Float[Array, "ahead resource"], before: Any
    ) -> tuple[Float[Array, "ahead resource"], Any, Int[Array, ""]]:
        """Return prices in median unit margins, what goes on to the next week, and how often the map was asked.

        Args:
            encoded: the population this week.
            capacity: of the coming weeks, relative to S(P).
            before: what the week before handed on.
        """


class PrimalSearch(AbstractPriceController):
    """Search prices `softplus(nu)` at which a frozen primal map says that use fits (spec section 8), by Adam.

    The loss is the mean squared violation, relative to capacity, plus a small price term, without which weeks with
    room would keep a price. The first search starts from nu = 0, later ones from last week's answer shifted by a week.
    A search ends when the mean of |min(lambda, (K - U) / K)| is below `tolerance`, or after `most` steps; a week that
    is over in spite of the highest price does not count, since what is on order already answers to no price.

    Attributes:
        network, scaling: of the primal map.
        rate: step of Adam in nu; it falls as 1 / sqrt(1 + step / 10), or the last steps would only swing.
        most: steps at most.
        tolerance: residual at which the search ends.
        price_weight: of the mean price beside violation.
        ceiling: highest price [median unit margins].
    """

    network: MapNetwork
    scaling: Scaling
    rate: float = 0.4
    most: int = 60
    tolerance: float = 5e-3
    price_weight: float = 1e-2
    ceiling: float = 4.0

    def begin(self, resources: int) -> Float[Array, "ahead resource"]:
        """Start from nu = 0."""
        return jnp.zeros((HORIZON, resources))

    def issue(
        self, encoded: Encoded, capacity: Float[Array, "ahead resource"], before: Float[Array, "ahead resource"]
    ) -> tuple[Float[Array, "ahead resource"], Float[Array, "ahead resource"], Int[Array, ""]]:
        """Search on; a query is one answer of the map with its slope in the prices."""
        nu, asked = self.search(lambda prices: self.network.utilization(encoded, prices), capacity, before)
        shifted = jnp.concatenate([nu[1:], nu[-1:]])
        return self.prices(nu), shifted, asked

    def prices(self, nu: Float[Array, "ahead resource"]) -> Float[Array, "ahead resource"]:
        """Return softplus(nu), cut at the ceiling."""
        return jnp.minimum(jax.nn.softplus(nu), self.ceiling)

    def search(
        self, utilization: Any, capacity: Float[Array, "ahead resource"], start: Float[Array, "ahead resource"]
    ) -> tuple[Float[Array, "ahead resource"], Int[Array, ""]]:
        """Return the nu that was found, and how often `utilization` was asked.

        Args:
            utilization: use at prices, both relative; differentiable.
            capacity: K, in the same units as use.
            start: first nu.
        """
        limit, rule = jnp.maximum(capacity, SMALLEST_ROOM), optax.scale_by_adam(*MEMORY)

        def loss(nu: Array) -> tuple[Array, Array]:
            prices = self.prices(nu)
            over = (utilization(prices) - limit) / limit
            return (jnp.maximum(over, 0.0) ** 2).mean() + self.price_weight * prices.mean(), self.residual(prices, over)

        def asked(nu: Array) -> tuple[Array, Array]:
            (_, residual), slope = jax.value_and_grad(loss, has_aux=True)(nu)
            return slope, residual

        def unfinished(now: tuple) -> Array:
            return (now[3] > self.tolerance) & (now[4] < self.most)

        def go(now: tuple) -> tuple:
            nu, memory, slope, _, steps = now
            move, memory = rule.update(slope, memory)
            nu = jnp.minimum(nu - self.rate / jnp.sqrt(1 + steps / 10) * move, self._highest)
            return nu, memory, *asked(nu), steps + 1

        first = jnp.minimum(start, self._highest)
        begun = (first, rule.init(first), *asked(first), jnp.zeros((), jnp.int32))
        found = jax.lax.while_loop(unfinished, go, begun)
        return found[0], found[4] + 1

    def residual(
        self, prices: Float[Array, "ahead resource"], over: Float[Array, "ahead resource"]
    ) -> Float[Array, ""]:
        """Return the mean of |min(lambda, (K - U) / K)|; 0 in weeks that are over at the highest price.

        Args:
            prices: lambda [median unit margins].
            over: (U - K) / K.
        """
        helpless = (prices >= 0.999 * self.ceiling) & (over > 0)
        return jnp.where(helpless, 0.0, jnp.abs(jnp.minimum(prices, -over))).mean()

    @property
    def _highest(self) -> float:
        """Give the nu of the ceiling: beyond it nothing would call a price back."""
        return math.log(math.expm1(self.ceiling))
