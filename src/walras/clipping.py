"""Clipping with one rule for gradients at ties, so that every engine has the same gradient.

LAW: with integer demand stock often is exactly zero; JAX's `maximum` splits the gradient there, these functions do not.
NaN passes through (in `minimum`, that of the bound), so that an error shows instead of becoming a zero.
"""

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

SIDE = "side of a tie"  # checkpoint name of the residual of a clip: one byte instead of what it was decided from


def _side(decision: Bool[Array, "..."]) -> Bool[Array, "..."]:
    """Name the decision, so that a checkpointed scan saves it and recomputes the rest."""
    return checkpoint_name(decision, SIDE)


def positive_part(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return max(x, 0); the derivative at x = 0 is 0 (as if x were about to fall)."""
    return jnp.where(_side(x <= 0), jnp.zeros_like(x), x)


def minimum(value: Float[Array, "..."], bound: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return min(value, bound); at a tie the whole derivative goes to `bound` (as if the bound were about to fall)."""
    return jnp.where(_side(value < bound), value, bound)


def clip(x: Float[Array, "..."], low: float, high: float) -> Float[Array, "..."]:
    """Return x limited to [low, high]; the derivative is 0 on and outside the limits."""
    below, above = _side(x <= low), _side(x >= high)
    return jnp.where(below, jnp.full_like(x, low), jnp.where(above, jnp.full_like(x, high), x))
