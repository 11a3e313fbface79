"""Own the Readers: whose histories a map reads, slot by slot in tiles of one demand bucket.

CONTRACT: training and views lay cohorts out alike; the number of slots follows from that of the agents alone.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.maps.crowd import EMPTY, lay_out
from walras.maps.delegates import Delegates
from walras.population.cohort import Cohort
from walras.population.from_panel import bucket_of


class Readers(eqx.Module):
    """Hold the cohort whose histories a map reads, slot by slot in tiles of one bucket.

    Attributes:
        index: which agent of the stretch is in each slot; an empty slot repeats some agent with weight 0.
        weight: agents of the stretch that it stands for.
        bucket: of each tile.
        n_buckets: number of buckets.
        delegates: whose policies are asked in every query; None where nobody's are.
    """

    index: Int[Array, " slot"]
    weight: Float[Array, " slot"]
    bucket: Int[Array, " tile"]
    n_buckets: int = eqx.field(static=True)
    delegates: Delegates | None = None


def readers_of(
    size: Float[np.ndarray, " agent"],
    cohort: Cohort,
    edges: Float[np.ndarray, " edge"],
    tile: int,
    delegates: Delegates | None = None,
) -> Readers:
    """Lay a cohort out in tiles of one demand bucket each.

    Args:
        size: demand scale of everybody [units/week].
        cohort: who is read.
        edges: inner edges of the buckets.
        tile: slots of a tile.
        delegates: whose policies are asked.
    """
    slot, bucket = lay_out(bucket_of(size[cohort.chosen], edges), len(edges) + 1, tile)
    there = slot != EMPTY
    index, weight = cohort.chosen[slot], np.where(there, cohort.weight[slot], 0.0)
    slots = jnp.asarray(index, jnp.int32), jnp.asarray(weight, jnp.float32), jnp.asarray(bucket)
    return Readers(*slots, len(edges) + 1, delegates)
