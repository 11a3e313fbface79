"""Small neural buyers for tests: drawn, then made to act, since a fresh one hardly corrects the newsvendor.

Sizes stay the same where they can, since every new size is a compilation.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from shops import AGENTS, MAX_LEAD

from walras.policies.buyer import Buyer, BuyerNetwork, BuyerShape, demand_profile
from walras.population.agent_axis import Broadcast
from walras.population.population import Population

# As many channels and widths as there are agents: what is shared must not pass for what is theirs.
FULL = BuyerShape(history=AGENTS, dilations=(1, 2), hidden=(AGENTS, AGENTS), open_orders=MAX_LEAD, before=1, after=2)
FORGETFUL = BuyerShape(history=0, hidden=(8,), open_orders=0, before=0, after=1, profile=False)


def untrained(shape: BuyerShape) -> Buyer:
    """Draw a buyer that orders nearly what the newsvendor does."""
    return Buyer(Broadcast(BuyerNetwork.draw(shape, 0)), shape)


def loud(shape: BuyerShape, seed: int = 0, gain: float = 400.0) -> Buyer:
    """Draw a buyer whose network adds about a week of demand to the target."""
    network = BuyerNetwork.draw(shape, seed)
    return Buyer(Broadcast(eqx.tree_at(lambda n: n.last.weight, network, gain * network.last.weight)), shape)


def past_of(population: Population, weeks: int = 30, seed: int = 0) -> np.ndarray:
    """Draw whole demand of past weeks around each agent's scale [week, agent]."""
    scale = np.asarray(population.demand_scale, float)
    return np.random.default_rng([seed, 7]).poisson(scale, (weeks, len(scale))).astype(np.float32)


def profile_of(population: Population, seed: int = 0):
    """Sum up a made-up past."""
    return jnp.asarray(demand_profile(past_of(population, seed=seed), np.asarray(population.lead_time)))
