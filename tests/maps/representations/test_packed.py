"""Own the proof that what is laid out for queries answers as what training asks.

FREE: random embeddings; one tile is partly empty.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from walras.maps.pooling import PooledAgents
from walras.maps.representations.base import Widths
from walras.maps.representations.registry import REPRESENTATIONS

RANDOM = np.random.default_rng(0)
TILES, TILE = 5, 4


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(RANDOM.standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_packed_answers_as_plain(name):
    weight = jnp.asarray(np.where(np.arange(20) % 7 < 5, RANDOM.uniform(1, 3, 20), 0.0), jnp.float32)
    crowd = PooledAgents(weight, weight * jnp.exp(drawn(20)), jnp.array([0, 0, 2, 2, 2]), drawn(20, 7), 4)
    representation = REPRESENTATIONS[name].draw(RANDOM, Widths(6, 5, 4, 8, 2, 7, 4))
    embeddings, query = drawn(20, 6), drawn(3, 26, 5)

    @jax.jit
    def both():
        prepared = representation.prepare(embeddings, crowd)
        packed = representation.packed(prepared, crowd)
        return [representation.respond(each, crowd, query) for each in (packed, prepared)]

    found, wanted = both()
    assert found.shape == (3, 26, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert name in ("global", "moments", "deep-sets") or np.ptp(wanted[0], 0).all()
