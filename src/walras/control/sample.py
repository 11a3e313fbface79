"""Own the drawing of a few agents that stand for all: enough for a Jacobian, which only steers a search.

FREE: systematic sampling in proportion to demand, large agents surely; weights make totals unbiased.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from walras.population.along import is_shared
from walras.population.population import Population

FLOOR_SHARE = 0.1
"""Every agent counts at least as much as this share of the mean agent, so that nobody is never drawn."""

MIDDLE = 0.5
"""Where the systematic draw starts when nothing is left to chance."""

Tree = TypeVar("Tree")


@dataclass(frozen=True, eq=False)
class AgentSample:
    """Hold which agents were drawn and how many each stands for; `chosen` is None where all were.

    Attributes:
        chosen: their index, ascending.
        weight: 1 / inclusion probability.
    """

    chosen: Int[np.ndarray, " drawn"] | None
    weight: Float[np.ndarray, " drawn"] | None

    def people(self, population: Population) -> Population:
        """Cut the drawn agents, with their names, and let each weigh for those it stands for."""
        if self.chosen is None:
            return population
        drawn = population.take(self.chosen)
        return eqx.tree_at(lambda p: p.weight, drawn, drawn.weight * jnp.asarray(self.weight))

    def along(self, tree: Tree) -> Tree:
        """Cut the drawn agents out of every array of paths, policy or state (agent axis last); other values pass."""
        if self.chosen is None:
            return tree

        def cut(node: Any) -> Any:
            return node[..., self.chosen] if eqx.is_array(node) and node.ndim > 0 else node

        return jax.tree.map(cut, tree, is_leaf=is_shared)


def draw_agents(population: Population, count: int, offset: float = MIDDLE) -> AgentSample:
    """Draw about `count` agents in proportion to their weighted demand.

    Args:
        population: whom to draw from; a population of no more than `count` is taken whole.
        count: expected number of agents.
        offset: 0..1, where the systematic draw starts.
    """
    if population.n_agents <= count:
        return AgentSample(None, None)
    size = np.asarray(population.demand_scale * population.weight, float)
    chance = inclusion_probabilities(size + FLOOR_SHARE * size.mean(), count)
    ticks = np.floor(np.cumsum(chance) + offset)
    chosen = np.flatnonzero(np.diff(ticks, prepend=0.0) > 0)
    return AgentSample(chosen, (1.0 / chance[chosen]).astype(np.float32))


def inclusion_probabilities(size: Float[np.ndarray, " agent"], count: int) -> Float[np.ndarray, " agent"]:
    """Return probabilities proportional to size, at most 1, that add up to `count`."""
    chance = np.minimum(1.0, count * size / size.sum())
    for _ in range(50):
        free = chance < 1.0
        missing = count - (~free).sum()
        chance = np.where(free, np.minimum(1.0, missing * size / size[free].sum()), 1.0)
        if abs(chance.sum() - count) < 0.5:
            break
    return chance
