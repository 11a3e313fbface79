"""Own the one clip of the package and its tie rule, so that every engine has the same gradient.

LAW: with integer demand stock hits zero exactly all the time; JAX's `maximum` splits the gradient there, these do not.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def positive_part(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return max(x, 0); the derivative at x = 0 is 0 (as if x were about to fall)."""
    return jnp.where(x > 0, x, jnp.zeros_like(x))


def lesser(value: Float[Array, "..."], bound: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return min(value, bound); at a tie the whole derivative goes to `bound` (as if the bound were about to fall)."""
    return jnp.where(value < bound, value, bound)


def clip(x: Float[Array, "..."], low: float, high: float) -> Float[Array, "..."]:
    """Return x limited to [low, high]; the derivative is 0 on and outside the limits."""
    inside = (x > low) & (x < high)
    return jnp.where(inside, x, jnp.where(x <= low, jnp.full_like(x, low), jnp.full_like(x, high)))
