"""Which arrays of a tree have a number for every agent: those whose last axis is as long as there are agents.

What all agents share, whatever its shape, is marked `Broadcast`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from walras.errors import InputError, SettingsError, shape_mismatch

Tree = TypeVar("Tree")


class Broadcast(eqx.Module):
    """Mark of what all agents share, such as the weights of a network: any tree, read as `.value`."""

    value: Any


def is_broadcast(node: Any) -> bool:
    """Tell whether a node of a tree is marked as shared."""
    return isinstance(node, Broadcast)


def agent_axis_of(tree: Tree, n_agents: int) -> Tree:
    """Return a tree of Booleans: True for every array that has one number (or column) for every agent."""

    def mark(node: Any) -> Any:
        if is_broadcast(node):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_array_like(node) and jnp.shape(node)[-1:] == (n_agents,)

    return jax.tree.map(mark, tree, is_leaf=is_broadcast)


def map_per_agent(change: Callable[[Any], Any], tree: Tree, n_agents: int) -> Tree:
    """Apply `change` to every array that has one number (or column) for every agent."""
    own, others = eqx.partition(tree, agent_axis_of(tree, n_agents))
    return eqx.combine(jax.tree.map(change, own), others)


def per_agent(
    name: str, values: Real[np.ndarray, "..."], n_agents: int | None = None, *, lowest: float = -np.inf
) -> Float[np.ndarray, " agent"]:
    """Return one finite float for every agent.

    Args:
        name: of the argument, for the sentence.
        values: the given values.
        n_agents: how many are needed; default any number from 1 on.
        lowest: no value may be below.

    Raises:
        ShapeError: not one axis, or not as many as needed.
        InputError: no agents, or a value that is not finite or too low.
    """
    array = np.asarray(values, float)
    if array.ndim != 1 or n_agents not in (None, len(array)):
        needed = "(agent,)" if n_agents is None else (n_agents,)
        raise shape_mismatch(name, array.shape, needed, "give one number for every agent")
    if not len(array):
        raise InputError(f"`{name}` is empty but needs at least one agent; give one number for every agent")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= lowest)))
    if len(bad):
        needed = "a finite number" if lowest == -np.inf else f"finite and at least {lowest:g}"
        raise InputError(
            f"`{name}` of agent {bad[0]} is {array[bad[0]]:g} but must be {needed}; correct or leave it out"
        )
    return array


def whole_count(name: str, value: int, lowest: int = 1) -> int:
    """Return a number of agents or buckets; raise `SettingsError` for fewer than `lowest`."""
    if value < lowest:
        raise SettingsError(f"`{name}` is {value} but must be at least {lowest}; give a larger number")
    return int(value)
