"""Cost of a training step when every window of history is encoded on its own, against one pass over all weeks.

The window-by-window step computes the same loss and exists only to be compared with; training never uses it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from walras.maps.features import LOOK_BACK, FeatureScaling
from walras.maps.network import MapNetwork
from walras.train.loop import TrainState
from walras.train.primal_task import SMALL_USE, PrimalExample, example_loss

Loss = tuple[Float[Array, ""], MapNetwork]


def window(example: PrimalExample, origin: Array, weeks: int) -> PrimalExample:
    """Cut one origin, with the history that its embedding reads, out of an example with an origin in every week."""
    inputs = example.inputs
    first = weeks - example.use.shape[0] + origin + 1 - LOOK_BACK

    def history(part: Array | None) -> Array | None:
        return None if part is None else jax.lax.dynamic_slice_in_dim(part, first, LOOK_BACK)

    def at_origin(part: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(part, origin, 1)

    known = lambda i: (i.agents, i.totals, i.valid)  # noqa: E731
    cut = eqx.tree_at(known, inputs, tuple(history(part) for part in known(inputs)), is_leaf=lambda x: x is None)
    ahead = jax.tree.map(at_origin, (inputs.future, inputs.baseline))
    cut = eqx.tree_at(lambda i: (i.future, i.baseline), cut, ahead)
    return PrimalExample(cut, at_origin(example.prices), at_origin(example.use), None, None)


def windows_loss(network: MapNetwork, scaling: FeatureScaling, example: PrimalExample) -> Loss:
    """Return the loss of `example_loss` with spacing 1 and its gradient, from windows encoded one by one.

    Gradients are accumulated window by window, so that only one is held in memory.
    """
    count, weeks = example.use.shape[0], example.inputs.totals.shape[0]
    least = SMALL_USE * example.use.mean()
    weights, fixed = eqx.partition(network, eqx.is_inexact_array)

    def error(weights: MapNetwork, part: PrimalExample) -> Float[Array, ""]:
        whole = eqx.combine(weights, fixed)
        guess = whole.utilization(whole.encode(scaling(part.inputs)), part.prices)
        return (((guess - part.use) / (jax.lax.stop_gradient(guess) + least)) ** 2).mean() / count

    def add(total: tuple, origin: Array) -> tuple[tuple, None]:
        loss, slope = jax.value_and_grad(error)(weights, window(example, origin, weeks))
        return (total[0] + loss, jax.tree.map(jnp.add, total[1], slope)), None

    start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, weights))
    return jax.lax.scan(add, start, jnp.arange(count))[0]


@eqx.filter_jit
def one_pass_step(
    carry: TrainState, scaling: FeatureScaling, example: PrimalExample, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    """Take one training step with history encoded in one pass, an origin in every week; return the loss."""
    return _step(eqx.filter_value_and_grad(example_loss)(carry.network, scaling, example, 1), carry, optimizer)


@eqx.filter_jit
def windows_step(
    carry: TrainState, scaling: FeatureScaling, example: PrimalExample, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    """Take one training step with every window encoded on its own; return the loss."""
    return _step(windows_loss(carry.network, scaling, example), carry, optimizer)


def _step(
    loss_and_slope: Loss, carry: TrainState, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    loss, slope = loss_and_slope
    updates, state = optimizer.update(slope, carry.optimizer)
    return TrainState(eqx.apply_updates(carry.network, updates), carry.average, state), loss
