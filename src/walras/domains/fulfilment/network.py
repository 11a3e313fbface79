"""Own the network whose results do not depend on the batch: whole numbers, each small enough to be summed exactly.

LAW: weights and activations are whole numbers held as 32-bit floats; every sum stays below 2^24, so that it is exact in
any order, in any batch shape, with or without fused or reduced-precision products, on any machine.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy import ndarray

from walras.domains.fulfilment.world import UNIT

EXACT = 1 << 24
"""Whole numbers up to here are 32-bit floats without rounding."""

MOST_ACTIVE = 63
"""Activations of hidden layers are 0 ... 63."""

MOST_INPUT = 255
"""Inputs are 0 ... 255."""


class Network(eqx.Module):
    """Run layers of whole numbers: `h <- clip(floor((h W + b) shrink), 0, 63)`, the last one without clip.

    `shrink` of a hidden layer is a power of two. What comes out is in the unit of scores, 1/65,536.
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    shrinks: tuple[Float[Array, ""], ...]

    def __call__(self, levels: Int[Array, " centre"]) -> Int[Array, " option"]:
        """Score the options of one stock row."""
        active = jnp.minimum(levels, MOST_INPUT).astype(jnp.float32)
        *hidden, last = zip(self.weights, self.biases, self.shrinks, strict=True)
        for weight, bias, shrink in hidden:
            active = jnp.clip(jnp.floor((active @ weight + bias) * shrink), 0, MOST_ACTIVE)
        return jnp.floor((active @ last[0] + last[1]) * last[2]).astype(jnp.int32)


def random_network(
    samples: Int[ndarray, "row centre"], options: int, width: int, seed: int, strength: float
) -> Network:
    """Draw a network with two hidden layers whose scores spread by `strength` over the samples.

    Args:
        samples: levels of stock rows, on which the powers of two are chosen.
        options: what comes out.
        width: units of a hidden layer.
        strength: standard deviation of the scores [rewards of 1].
    """
    random = np.random.default_rng((seed, width))
    largest = min(63, EXACT // (2 * MOST_ACTIVE * max(width, samples.shape[1])))
    sizes = (samples.shape[1], width, width, options)
    weights = [
        random.integers(-largest, largest + 1, size=(n_in, n_out)).astype(np.float32)
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    active, biases, shrinks = np.minimum(samples, MOST_INPUT).astype(np.float32), [], []
    for number, weight in enumerate(weights):
        raw = active @ weight
        spread = max(float(raw.std()), 1.0)
        biases.append(np.rint(random.normal(0, 0.5 * spread, size=weight.shape[1])).astype(np.float32))
        last = number == len(weights) - 1
        shrinks.append(2.0 ** np.floor(np.log2(strength * UNIT / spread if last else 24 / spread)))
        active = np.clip(np.floor((raw + biases[-1]) * shrinks[-1]), 0, MOST_ACTIVE)
    parts = [tuple(jnp.asarray(part, jnp.float32) for part in each) for each in (weights, biases, shrinks)]
    return Network(*parts)
