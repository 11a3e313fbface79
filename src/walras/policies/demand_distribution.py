"""Own the laws of lead-time demand whose quantiles set order-up-to levels.

OPEN: add a law as a class with `quantile`; it must be differentiable in the critical ratio and finite on [.01, .99].
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.clipping import minimum, positive_part

SMALLEST_SHAPE = 0.05
"""Gamma shapes below this (a coefficient of variation above 4.5) are treated as this one."""


CENTRAL = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
"""Giles (2010), "Approximating the erfinv function", the central branch in single precision, highest power first."""


def standard_normal_quantile(ratio: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return z with Phi(z) = ratio, to single precision for ratios in [.002, .998].

    One branch of one polynomial, which is all that clipped critical ratios need; the library function computes three
    branches and chooses, at several times the cost.
    """
    x = 2.0 * ratio - 1.0
    w = -jnp.log(4.0 * ratio * (1.0 - ratio)) - 2.5
    total = jnp.full_like(w, CENTRAL[0])
    for coefficient in CENTRAL[1:]:
        total = total * w + coefficient
    return 2.0**0.5 * total * x


class AbstractDemandDistribution(eqx.Module):
    """Turn a critical ratio into a quantile of lead-time demand."""

    @abc.abstractmethod
    def quantile(
        self, ratio: Float[Array, " agent"], mean: Float[Array, " agent"], sd: Float[Array, " agent"]
    ) -> Float[Array, " agent"]:
        """Return F^{-1}(ratio) [units] for demand with this mean and standard deviation."""


class NormalDemand(AbstractDemandDistribution):
    """Normal lead-time demand: mean + z sd."""

    def quantile(
        self, ratio: Float[Array, " agent"], mean: Float[Array, " agent"], sd: Float[Array, " agent"]
    ) -> Float[Array, " agent"]:
        """Return the normal quantile; it can be negative for small ratios."""
        return mean + standard_normal_quantile(ratio) * sd


class GammaDemand(AbstractDemandDistribution):
    """Gamma lead-time demand, never negative and skewed as lumpy series are (Wilson and Hilferty's quantile)."""

    def quantile(
        self, ratio: Float[Array, " agent"], mean: Float[Array, " agent"], sd: Float[Array, " agent"]
    ) -> Float[Array, " agent"]:
        """Return mean (1 - 1/(9a) + z/(3 sqrt a))^3, a = (mean/sd)^2 the shape of the law."""
        safe_mean = jnp.where(mean > 0, mean, 1.0)
        # Not the root of a square: its derivative where nothing varies would not be a number.
        variation = minimum(sd / safe_mean, jnp.full_like(sd, SMALLEST_SHAPE**-0.5))
        root = positive_part(1.0 - variation**2 / 9.0 + standard_normal_quantile(ratio) * variation / 3.0)
        return jnp.where(mean > 0, safe_mean * root**3, 0.0)
