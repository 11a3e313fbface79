"""Own which arrays hold a number for every agent: those whose last axis is as long as there are agents.

CONTRACT: everything that cuts, pads or spreads agents asks here; what is marked `Shared` is nobody's own.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


class Shared(eqx.Module):
    """Mark what all agents share, such as the weights of a network, however long its arrays happen to be.

    Attributes:
        value: any pytree; read it as `.value`.
    """

    value: Any


def is_shared(node: Any) -> bool:
    """Tell whether a node of a tree is marked as shared."""
    return isinstance(node, Shared)


def own(tree: Tree, n_agents: int) -> Tree:
    """Mark with True every array that has one number (or column) for every agent, with False all other leaves."""

    def mark(node: Any) -> Any:
        if is_shared(node):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_array_like(node) and jnp.shape(node)[-1:] == (n_agents,)

    return jax.tree.map(mark, tree, is_leaf=is_shared)


def map_own(change: Callable[[Any], Any], tree: Tree, n_agents: int) -> Tree:
    """Change every array that has one number (or column) for every agent; all else passes."""
    mine, others = eqx.partition(tree, own(tree, n_agents))
    return eqx.combine(jax.tree.map(change, mine), others)
