"""Own the layers that maps are built of: linear maps, normalisation, small networks, dilated causal convolutions.

FREE: internals; weights are drawn with numpy, so that a seed gives the same ones everywhere.
"""

from itertools import pairwise
from math import gcd

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPSILON = 1e-5
"""Added to variances before their root is taken."""


class Linear(eqx.Module):
    """Multiply the last axis by a matrix and add a vector.

    Attributes:
        weight: matrix.
        bias: what is added.
    """

    weight: Float[Array, "given made"]
    bias: Float[Array, " made"]

    @staticmethod
    def draw(random: np.random.Generator, given: int, made: int, gain: float = 1.0) -> "Linear":
        """Draw weights of variance `gain^2 / given`, and no bias."""
        weight = random.standard_normal((given, made)) * gain / given**0.5
        return Linear(jnp.asarray(weight, jnp.float32), jnp.zeros(made, jnp.float32))

    def __call__(self, x: Float[Array, "*axes given"]) -> Float[Array, "*axes made"]:
        """Return x W + b."""
        return with_bias(x @ self.weight, self.bias)


class Perceptron(eqx.Module):
    """Apply linear layers with ELU between them.

    Attributes:
        layers: one after the other.
    """

    layers: tuple[Linear, ...]

    @staticmethod
    def draw(random: np.random.Generator, widths: tuple[int, ...], last_gain: float = 1.0) -> "Perceptron":
        """Draw one layer between every two widths."""
        gains = [1.0] * (len(widths) - 2) + [last_gain]
        return Perceptron(
            tuple(Linear.draw(random, *pair, gain) for pair, gain in zip(pairwise(widths), gains, strict=True))
        )

    def __call__(self, x: Float[Array, "*axes given"]) -> Float[Array, "*axes made"]:
        """Return the last layer's output."""
        for layer in self.layers[:-1]:
            x = jax.nn.elu(layer(x))
        return self.layers[-1](x)


def with_bias(x: Float[Array, "*axes made"], bias: Float[Array, " made"]) -> Float[Array, "*axes made"]:
    """Add a vector along the last axis."""
    return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def normalised(x: Float[Array, "*axes channel"]) -> Float[Array, "*axes channel"]:
    """Return x with mean 0 and variance 1 along the last axis (layer normalisation without gain or shift).

    Without a gain, the product of two such vectors is at most their length, so that attention needs no maximum.
    """
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPSILON)


class DilatedCNN(eqx.Module):
    """Read a series with causal convolutions of kernel 2 and growing dilation: what comes out of a week knows no later.

    Layer l adds `ELU(x_t W1 + x_{t-d} W0 + b)` to what went in (the first layer only changes the width). With
    dilations 1, 2, 4, ..., 32 it knows exactly 64 weeks. Weeks that are not valid count for nothing: they are zero
    in every layer.

    Attributes:
        now: W1 and b of each layer.
        before: W0 of each layer.
        dilations: d of each layer [weeks].
    """

    now: tuple[Linear, ...]
    before: tuple[Float[Array, "_ _"], ...]
    dilations: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def draw(random: np.random.Generator, given: int, width: int, dilations: tuple[int, ...]) -> "DilatedCNN":
        """Draw all layers."""
        widths = (given, *[width] * (len(dilations) - 1))
        now = tuple(Linear.draw(random, each, width, 0.7) for each in widths)
        before = tuple(Linear.draw(random, each, width, 0.7).weight for each in widths)
        return DilatedCNN(now, before, dilations)

    @property
    def width(self) -> int:
        """Give the channels that come out."""
        return self.now[0].bias.shape[0]

    def __call__(
        self,
        series: Float[Array, "week *axes given"],
        valid: Float[Array, "week *axes"] | None = None,
        spacing: int = 1,
    ) -> Float[Array, "read *axes made"]:
        """Read a whole series in one pass.

        Args:
            series: week axis first.
            valid: 1 where there is history, else 0; None where all of it is.
            spacing: weeks between those that are wanted, counted back from the last; a layer is then computed only
                where a later one asks for it, five times less work where every eighth week is wanted.
        """
        mask = None if valid is None else valid[..., None]
        x, step = series if mask is None else series * mask, 1
        for index, dilation in enumerate(self.dilations):
            wider = gcd(spacing, *self.dilations[index + 1 :]) // step
            earlier = _earlier(x, dilation // step)
            step *= wider
            x, earlier = _every(x, wider), _every(earlier, wider)
            x = self._layer(index, x, earlier, None if mask is None else _every(mask, step))
        return x

    def _layer(self, index: int, x: Array, earlier: Array, mask: Array | None) -> Array:
        made = jax.nn.elu(self.now[index](x) + earlier @ self.before[index])
        made = made if index == 0 else made + x
        return made if mask is None else made * mask

    def start(self, axes: tuple[int, ...]) -> tuple[Array, ...]:
        """Return what reading one week after the other starts with: for each layer, its last `dilation` inputs."""
        return tuple(
            jnp.zeros((dilation, *axes, before.shape[0]), jnp.float32)
            for dilation, before in zip(self.dilations, self.before, strict=True)
        )

    def kept(
        self, series: Float[Array, "week *axes given"], valid: Float[Array, "week *axes"] | None = None
    ) -> tuple[Array, ...]:
        """Return what reading on starts with after a whole series: for each layer, its last `dilation` inputs."""
        mask = None if valid is None else valid[..., None]
        x, rings = series if mask is None else series * mask, []
        for index, dilation in enumerate(self.dilations):
            missing = max(dilation - x.shape[0], 0)
            rings.append(jnp.concatenate([jnp.zeros((missing, *x.shape[1:]), x.dtype), x[-dilation:]]))
            x = self._layer(index, x, _earlier(x, dilation), mask)
        return tuple(rings)

    def read(
        self, kept: tuple[Array, ...], column: Float[Array, "*axes given"], valid: Float[Array, "*axes"] | None = None
    ) -> tuple[tuple[Array, ...], Float[Array, "*axes made"]]:
        """Read the next week: what comes out equals that week's row of one pass over all.

        Args:
            kept: from `start`, or of the week before.
            column: the week.
            valid: as in `__call__`.
        """
        given, x = self.step(tuple(ring[0] for ring in kept), column, valid)
        return tuple(jnp.concatenate([ring[1:], each[None]]) for ring, each in zip(kept, given, strict=True)), x

    def step(
        self,
        earlier: tuple[Array, ...],
        column: Float[Array, "*axes given"],
        valid: Float[Array, "*axes"] | None = None,
    ) -> tuple[tuple[Array, ...], Float[Array, "*axes made"]]:
        """Read the next week, given each layer's input of `dilation` weeks ago; return this week's inputs as well."""
        mask = None if valid is None else valid[..., None]
        x, given = column if mask is None else column * mask, []
        for index, before in enumerate(earlier):
            given.append(x)
            x = self._layer(index, x, before, mask)
        return tuple(given), x


def _every(x: Array, step: int) -> Array:
    """Keep every so many rows, counted back from the last."""
    return x[(x.shape[0] - 1) % step :: step]


def _earlier(x: Float[Array, "week *axes channel"], weeks: int) -> Float[Array, "week *axes channel"]:
    """Shift a series, with zeros for what was before it."""
    missing = min(weeks, x.shape[0])
    return jnp.concatenate([jnp.zeros((missing, *x.shape[1:]), x.dtype), x[: x.shape[0] - missing]])


class FutureCNN(eqx.Module):
    """Read coming weeks from both ends: what is known of a week depends on all weeks after and before it.

    The reversed pass is that of the published maps (spec section 6); the other is ours: a price pulse moves orders to
    the weeks after it as well.

    Attributes:
        reversed: from the last week back.
        onward: from the first week on.
    """

    reversed: DilatedCNN
    onward: DilatedCNN

    @staticmethod
    def draw(random: np.random.Generator, given: int, width: int, dilations: tuple[int, ...]) -> "FutureCNN":
        """Draw both."""
        return FutureCNN(*(DilatedCNN.draw(random, given, width, dilations) for _ in range(2)))

    @property
    def width(self) -> int:
        """Give the channels that come out."""
        return 2 * self.reversed.width

    def __call__(self, future: Float[Array, "*axes ahead given"]) -> Float[Array, "*axes ahead made"]:
        """Return both readings side by side."""
        weeks_first = jnp.moveaxis(future, -2, 0)
        back = self.reversed(weeks_first[::-1])[::-1]
        return jnp.moveaxis(jnp.concatenate([back, self.onward(weeks_first)], -1), 0, -2)
