"""Small instances that take decisions: one whose states add up, and one whose states only replay."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from walras.domains.fulfilment.instance import generate_instance
from walras.domains.fulfilment.policies import make_policy
from walras.domains.fulfilment.process import orders_of, process_of
from walras.parallel.process import DecisionProcess


def fulfilment(policy="greedy", orders=60, products=7, centres=4, seed=0, **law):
    """Return process, initial state and events of a small instance of orders, and the instance."""
    instance = generate_instance(orders, products, centres, seed=seed, **law)
    return (
        process_of(instance, make_policy(instance, policy, width=8, seed=seed)),
        instance.initial_state(),
        orders_of(instance),
        instance,
    )


class Tank(DecisionProcess):
    """Open one of three valves by the level; levels are clipped, so that nothing adds up."""

    gains: Array

    def observe(self, state, event):
        return state, jnp.zeros(0, jnp.int32)

    def encode(self, inputs, event):
        return (inputs * self.gains).sum(0) % 7 + event

    def decide(self, code, reads, event):
        return (code % 3).astype(jnp.int32)

    def advance(self, state, event, action):
        return jnp.clip(state.at[action].add(event - 2 * action), 0, 9)

    def noop(self, event):
        return jnp.asarray(0, jnp.int32)


def tank(events=30, seed=0):
    """Return process, initial state and events."""
    random = np.random.default_rng(seed)
    return Tank(jnp.asarray([3, 1, 2])), jnp.asarray([4, 5, 6]), jnp.asarray(random.integers(0, 6, events))


class Flip(eqx.Module):
    """Not a transition that takes decisions."""

    def __call__(self, state, event):
        return state, event
