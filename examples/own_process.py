"""Decide a thousand rides of one's own in parallel: cabs by district, one pool of licences; then compare one by one."""

import jax
import jax.numpy as jnp
import numpy as np

from walras.engine.decided import Summed, Sums
from walras.engine.picard import Picard


class Rides(Summed):
    weights: jax.Array  # the expensive part of a decision, which knows the district's cabs only

    def key(self, event):
        return event["district"]

    def encode(self, inputs, event):
        return jnp.rint(8 * jnp.tanh(jnp.sin(inputs @ self.weights).sum())).astype(jnp.int32)

    def decide(self, code, reads, event):
        (cabs,), licences = reads
        wanted = jnp.where(event["fare"] + code > 10, 1, 0)
        return jnp.where((cabs > 0) & (licences[0] > 0), wanted, 0)

    def change(self, event, action):
        return -action[None], -action[None]

    def idle(self, event):
        return jnp.asarray(0, jnp.int32)


random = np.random.default_rng(0)
rides = {"district": jnp.asarray(random.integers(0, 50, 1000)), "fare": jnp.asarray(random.integers(0, 30, 1000))}
process = Rides(jnp.asarray(random.normal(size=(1, 64)), jnp.float32))
start = Sums(table=jnp.full((50, 1), 12), shared=jnp.asarray([450]))
trajectory, info = Picard(verify=True).run(process, start, rides)
print(info)
print(f"{int(trajectory.records.sum())} rides taken, {int(trajectory.final.shared[0])} licences left")
