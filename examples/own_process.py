"""Decide a thousand rides in parallel: cabs by district, one pool of licences; then compare with a plain loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from walras import parallel


class Policy(eqx.Module):
    weights: jax.Array

    def value(self, cabs):  # the expensive part, which sees the district's own cabs only
        return jnp.rint(8 * jnp.tanh(jnp.sin(cabs @ self.weights).sum())).astype(jnp.int32)

    def take(self, value, cabs, licences, fare):  # the cheap part, which sees what all districts share
        return ((cabs[0] > 0) & (licences[0] > 0) & (fare + value > 10)).astype(jnp.int32)


class Rides(parallel.AdditiveProcess):
    policy: Policy

    def key(self, event):  # the row of the table that the event reads and changes
        return event["district"]

    def encode(self, inputs, event):
        return self.policy.value(inputs)

    def decide(self, code, inputs, event):
        return self.policy.take(code, *inputs, event["fare"])

    def change(self, event, action):  # what the action adds to the row, and to what all districts share
        return -action[None], -action[None]

    def noop(self, event):
        return jnp.asarray(0, jnp.int32)


random = np.random.default_rng(0)
rides = {"district": jnp.asarray(random.integers(0, 50, 1000)), "fare": jnp.asarray(random.integers(0, 30, 1000))}
process = Rides(Policy(jnp.asarray(random.normal(size=(1, 64)), jnp.float32)))
state = parallel.AdditiveState(table=jnp.full((50, 1), 12), shared=jnp.asarray([450]))
result = parallel.run(process, state, rides, verify=True)
print(result)
print(f"{int(result.actions.sum())} rides taken, {int(result.state.shared[0])} licences left")
