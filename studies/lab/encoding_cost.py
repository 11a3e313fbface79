"""Own what a training step costs when every window of history is encoded on its own, against one pass over all weeks.

FREE: the straightforward step is here to be measured against and computes the same loss; training never uses it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from walras.maps.features import LOOK_BACK, Scaling
from walras.maps.network import MapNetwork
from walras.train.primal_task import SMALL_USE, PrimalExample, TrainState, example_loss


def window(lesson: PrimalExample, origin: Array, weeks: int) -> PrimalExample:
    """Cut one origin with the history that its embedding knows out of a lesson with an origin in every week.

    Args:
        lesson: its last origin is the last of its weeks.
        origin: number of the origin.
        weeks: of the lesson.
    """
    inputs = lesson.inputs
    first = weeks - lesson.use.shape[0] + origin + 1 - LOOK_BACK

    def history(part: Array | None) -> Array | None:
        return None if part is None else jax.lax.dynamic_slice_in_dim(part, first, LOOK_BACK)

    def of_origin(part: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(part, origin, 1)

    known = lambda i: (i.agents, i.totals, i.valid)  # noqa: E731
    cut = eqx.tree_at(known, inputs, tuple(history(part) for part in known(inputs)), is_leaf=lambda x: x is None)
    ahead = jax.tree.map(of_origin, (inputs.future, inputs.baseline))
    cut = eqx.tree_at(lambda i: (i.future, i.base), cut, ahead)
    return PrimalExample(cut, of_origin(lesson.prices), of_origin(lesson.use), None, None)


def windows_loss(network: MapNetwork, scaling: Scaling, lesson: PrimalExample) -> tuple[Float[Array, ""], MapNetwork]:
    """Return the loss of `example_loss` with spacing 1, and its gradient, from windows encoded one by one.

    Gradients are added up window by window, so that no more than one is held; nothing is computed twice.

    Args:
        network, scaling: as there.
        lesson: an origin in every week, of a map that is not learned agent by agent.
    """
    count, weeks = lesson.use.shape[0], lesson.inputs.totals.shape[0]
    least = SMALL_USE * lesson.use.mean()
    weights, fixed = eqx.partition(network, eqx.is_inexact_array)

    def error(weights: MapNetwork, part: PrimalExample) -> Float[Array, ""]:
        whole = eqx.combine(weights, fixed)
        encoded = whole.encode(scaling(part.inputs))
        guess = whole.utilization(encoded, part.prices)
        return (((guess - part.use) / (jax.lax.stop_gradient(guess) + least)) ** 2).mean() / count

    def add(total: tuple, origin: Array) -> tuple[tuple, None]:
        loss, slope = jax.value_and_grad(error)(weights, window(lesson, origin, weeks))
        return (total[0] + loss, jax.tree.map(jnp.add, total[1], slope)), None

    start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, weights))
    return jax.lax.scan(add, start, jnp.arange(count))[0]


def one_pass_loss(network: MapNetwork, scaling: Scaling, lesson: PrimalExample) -> tuple[Float[Array, ""], MapNetwork]:
    """Return the loss and its gradient as in training, an origin in every week."""
    return eqx.filter_value_and_grad(example_loss)(network, scaling, lesson, 1)


@eqx.filter_jit
def one_pass_step(
    carry: TrainState, scaling: Scaling, lesson: PrimalExample, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    """Go one step down, history encoded in one pass; return the loss."""
    return _stepped(one_pass_loss(carry.network, scaling, lesson), carry, optimizer)


@eqx.filter_jit
def windows_step(
    carry: TrainState, scaling: Scaling, lesson: PrimalExample, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    """Go one step down, every window encoded on its own; return the loss."""
    return _stepped(windows_loss(carry.network, scaling, lesson), carry, optimizer)


def _stepped(
    found: tuple[Float[Array, ""], MapNetwork], carry: TrainState, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    loss, slope = found
    updates, state = optimizer.update(slope, carry.optimizer)
    return TrainState(eqx.apply_updates(carry.network, updates), carry.average, state), loss
