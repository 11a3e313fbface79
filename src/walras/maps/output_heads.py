"""Own how a map's last numbers become utilization or shadow prices, both never negative.

LAW: utilization is relative to expected demand, prices to the population's median unit margin; stored maps rely on it.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

UNIT = math.log(math.e - 1.0)
"""softplus(UNIT) = 1: an answer of 0 means that use equals expected demand."""

LOW_PRICE = -3.0
"""An answer of 0 means a price of a twentieth of the median margin."""

LEAST_USE = 1e-4
"""Relative use below this has no logarithm that matters."""


def relative_use(answer: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Return use over expected demand."""
    return jax.nn.softplus(answer + UNIT)


def inverse_head(use: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Return the answer whose relative use this is."""
    return jnp.log(jnp.expm1(jnp.maximum(use, LEAST_USE))) - UNIT


def scaled_price(answer: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Return the shadow price in median unit margins."""
    return jax.nn.softplus(answer + LOW_PRICE)
