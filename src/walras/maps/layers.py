"""Layers of the map networks, drawn with numpy from a seed: linear, convolutions over weeks, and the heads of maps.

Why these are not those of `equinox.nn`: docs/decisions/0016-libraries.md.
"""

import math
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPSILON = 1e-5  # added to variances before their root is taken
ZERO_OUTPUT_USE = math.log(math.e - 1.0)  # softplus of this is 1: an output of 0 means that use equals expected demand
LOW_PRICE = -3.0  # an output of 0 means a price of a twentieth of the median margin
LEAST_USE = 1e-4  # relative use below this has no logarithm that matters


def prepend_axes(values: Float[Array, "..."], n_axes: int) -> Float[Array, "..."]:
    """Put axes of length 1 in front, up to `n_axes` in all."""
    return values.reshape((1,) * (n_axes - values.ndim) + values.shape)


class Linear(eqx.Module):
    """Affine map of the last axis: x W + b."""

    weight: Float[Array, "given made"]
    bias: Float[Array, " made"]

    @staticmethod
    def draw(random: np.random.Generator, given: int, made: int, gain: float = 1.0) -> "Linear":
        """Draw weights of variance `gain^2 / given`; the bias is 0."""
        weight = random.standard_normal((given, made)) * gain / given**0.5
        return Linear(jnp.asarray(weight, jnp.float32), jnp.zeros(made, jnp.float32))

    def __call__(self, x: Float[Array, "*axes given"]) -> Float[Array, "*axes made"]:
        """Return x W + b."""
        product = x @ self.weight
        return product + prepend_axes(self.bias, product.ndim)


class Perceptron(eqx.Module):
    """Linear layers with ELU between them."""

    layers: tuple[Linear, ...]

    @staticmethod
    def draw(random: np.random.Generator, widths: tuple[int, ...], last_gain: float = 1.0) -> "Perceptron":
        """Draw one layer between every two widths."""
        gains = [1.0] * (len(widths) - 2) + [last_gain]
        pairs = zip(pairwise(widths), gains, strict=True)
        return Perceptron(tuple(Linear.draw(random, *pair, gain) for pair, gain in pairs))

    def __call__(self, x: Float[Array, "*axes given"]) -> Float[Array, "*axes made"]:
        """Return the last layer's output."""
        for layer in self.layers[:-1]:
            x = jax.nn.elu(layer(x))
        return self.layers[-1](x)


def normalise(x: Float[Array, "*axes channel"]) -> Float[Array, "*axes channel"]:
    """Return x with mean 0 and variance 1 along the last axis (layer normalisation without gain or shift).

    Without a gain the product of two such vectors is at most their length, so that a softmax needs no maximum.
    """
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPSILON)


class DilatedCNN(eqx.Module):
    """Causal convolutions of kernel 2 with growing dilation over a series.

    Layer l adds `ELU(x_t W1 + x_{t-d} W0 + b)` to its input (the first layer only changes the width). Dilations
    1, 2, 4, ..., 32 see exactly 64 weeks. Weeks that are not valid are zero in every layer.
    """

    now: tuple[Linear, ...]  # W1 and b of each layer
    before: tuple[Float[Array, "_ _"], ...]  # W0 of each layer
    dilations: tuple[int, ...] = eqx.field(static=True)  # d of each layer [weeks]

    @staticmethod
    def draw(random: np.random.Generator, given: int, width: int, dilations: tuple[int, ...]) -> "DilatedCNN":
        """Draw all layers."""
        widths = (given, *[width] * (len(dilations) - 1))
        now = tuple(Linear.draw(random, inputs, width, 0.7) for inputs in widths)
        before = tuple(Linear.draw(random, inputs, width, 0.7).weight for inputs in widths)
        return DilatedCNN(now, before, dilations)

    def __call__(
        self,
        series: Float[Array, "week *axes given"],
        valid: Float[Array, "week *axes"] | None = None,
        spacing: int = 1,
    ) -> Float[Array, "read *axes made"]:
        """Read a whole series in one pass; `valid` is 1 where there is history (None: everywhere).

        `spacing` are the weeks between outputs, counted back from the last. A layer is computed only where a later one
        needs it: five times less work with every eighth week.
        """
        (x, mask), step = _masked(series, valid), 1
        for index, dilation in enumerate(self.dilations):
            wider = math.gcd(spacing, *self.dilations[index + 1 :]) // step
            earlier = _shifted(x, dilation // step)
            step *= wider
            x, earlier = _every(x, wider), _every(earlier, wider)
            x = self._layer(index, x, earlier, None if mask is None else _every(mask, step))
        return x

    def _layer(self, index: int, x: Array, earlier: Array, mask: Array | None) -> Array:
        made = jax.nn.elu(self.now[index](x) + earlier @ self.before[index])
        made = made if index == 0 else made + x
        return made if mask is None else made * mask

    def cache(
        self, series: Float[Array, "week *axes given"], valid: Float[Array, "week *axes"] | None = None
    ) -> tuple[Array, ...]:
        """Return the cache after a whole series: the last `dilation` inputs of each layer."""
        (x, mask), cache = _masked(series, valid), []
        for index, dilation in enumerate(self.dilations):
            missing = max(dilation - x.shape[0], 0)
            cache.append(jnp.concatenate([jnp.zeros((missing, *x.shape[1:]), x.dtype), x[-dilation:]]))
            x = self._layer(index, x, _shifted(x, dilation), mask)
        return tuple(cache)

    def read(
        self, cache: tuple[Array, ...], column: Float[Array, "*axes given"], valid: Float[Array, "*axes"] | None = None
    ) -> tuple[tuple[Array, ...], Float[Array, "*axes made"]]:
        """Read the next week; return the cache after it and the same output as one pass over all weeks."""
        inputs, x = self.step(tuple(ring[0] for ring in cache), column, valid)
        moved = tuple(jnp.concatenate([ring[1:], new[None]]) for ring, new in zip(cache, inputs, strict=True))
        return moved, x

    def step(
        self,
        earlier: tuple[Array, ...],
        column: Float[Array, "*axes given"],
        valid: Float[Array, "*axes"] | None = None,
    ) -> tuple[tuple[Array, ...], Float[Array, "*axes made"]]:
        """Read the next week, given each layer's input `dilation` weeks ago; return the new inputs and the output."""
        (x, mask), inputs = _masked(column, valid), []
        for index, before in enumerate(earlier):
            inputs.append(x)
            x = self._layer(index, x, before, mask)
        return tuple(inputs), x


def _masked(x: Array, valid: Array | None) -> tuple[Array, Array | None]:
    return (x, None) if valid is None else (x * valid[..., None], valid[..., None])


def _every(x: Array, step: int) -> Array:
    """Keep every `step`-th row, counted back from the last."""
    return x[(x.shape[0] - 1) % step :: step]


def _shifted(x: Float[Array, "week *axes channel"], weeks: int) -> Float[Array, "week *axes channel"]:
    """Shift a series by some weeks; zeros come first."""
    missing = min(weeks, x.shape[0])
    return jnp.concatenate([jnp.zeros((missing, *x.shape[1:]), x.dtype), x[: x.shape[0] - missing]])


class FutureCNN(eqx.Module):
    """Two convolutions over the coming weeks: one from the last week back, as published, and one from the first on.

    The second is ours: a price pulse moves orders to the weeks after it as well.
    """

    reversed: DilatedCNN
    onward: DilatedCNN

    @staticmethod
    def draw(random: np.random.Generator, given: int, width: int, dilations: tuple[int, ...]) -> "FutureCNN":
        """Draw both."""
        return FutureCNN(*(DilatedCNN.draw(random, given, width, dilations) for _ in range(2)))

    def __call__(self, future: Float[Array, "*axes ahead given"]) -> Float[Array, "*axes ahead made"]:
        """Return both outputs side by side."""
        weeks_first = jnp.moveaxis(future, -2, 0)
        back = self.reversed(weeks_first[::-1])[::-1]
        return jnp.moveaxis(jnp.concatenate([back, self.onward(weeks_first)], -1), 0, -2)


def relative_use(output: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Head of the primal map: use over expected demand."""
    return jax.nn.softplus(output + ZERO_OUTPUT_USE)


def inverse_head(use: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Return the output whose `relative_use` this is."""
    return jnp.log(jnp.expm1(jnp.maximum(use, LEAST_USE))) - ZERO_OUTPUT_USE


def scaled_price(output: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Head of the dual map: shadow price in median unit margins."""
    return jax.nn.softplus(output + LOW_PRICE)
