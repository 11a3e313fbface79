"""Decide a thousand rides of one's own in parallel: cabs by district, one pool of licences; then compare one by one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from walras.parallel.picard import Picard
from walras.parallel.process import AdditiveProcess, AdditiveState


class Policy(eqx.Module):
    weights: jax.Array

    def value(self, cabs):  # the expensive part, which knows the district's own cabs only
        return jnp.rint(8 * jnp.tanh(jnp.sin(cabs @ self.weights).sum())).astype(jnp.int32)

    def take(self, value, cabs, licences, fare):  # the cheap part, which knows what all share
        return ((cabs[0] > 0) & (licences[0] > 0) & (fare + value > 10)).astype(jnp.int32)


class Rides(AdditiveProcess):
    policy: Policy

    def key(self, event):  # the row of the table that the event reads and changes
        return event["district"]

    def encode(self, inputs, event):
        return self.policy.value(inputs)

    def decide(self, code, reads, event):
        return self.policy.take(code, *reads, event["fare"])

    def change(self, event, action):  # the transition: what is added to the row, and to what all share
        return -action[None], -action[None]

    def idle(self, event):
        return jnp.asarray(0, jnp.int32)


random = np.random.default_rng(0)
rides = {"district": jnp.asarray(random.integers(0, 50, 1000)), "fare": jnp.asarray(random.integers(0, 30, 1000))}
process = Rides(Policy(jnp.asarray(random.normal(size=(1, 64)), jnp.float32)))
start = AdditiveState(table=jnp.full((50, 1), 12), shared=jnp.asarray([450]))
trajectory, info = Picard(verify=True).run(process, start, rides)
print(info)
print(f"{int(trajectory.records.sum())} rides taken, {int(trajectory.final.shared[0])} licences left")
