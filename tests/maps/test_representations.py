"""Representations: the same population gives the same answer, in whatever order and weights it is given."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from walras.maps.agent_layout import EMPTY, PooledAgents, pack_by_bucket
from walras.maps.representations import REPRESENTATIONS, MapShape

AGENTS, TILE, BUCKETS, CHANNELS, TRAITS = 10, 4, 3, 6, 7
SLOTS_OF = 2 * AGENTS
RANDOM = np.random.default_rng(0)
EMBEDDINGS = RANDOM.standard_normal((AGENTS, CHANNELS))
ATTRIBUTES = RANDOM.standard_normal((AGENTS, TRAITS))
DEMAND = RANDOM.uniform(0.5, 5, AGENTS)
BUCKET = np.digitize(DEMAND, [1.5, 3.0])
WEIGHT = np.array([1, 2, 1, 3, 1, 1, 2, 1, 2, 1.0])
QUERY = jnp.asarray(RANDOM.standard_normal((2, 5, 4)), jnp.float32)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def laid_out(chosen, weight, rest: float = 0.0) -> tuple[jax.Array, PooledAgents]:
    """Lay agents out in as many slots for any of them up to 20; whoever is in an empty slot has numbers of `rest`."""
    chosen, weight = np.asarray(chosen), np.asarray(weight, float)
    spare = SLOTS_OF - len(chosen)
    bucket = np.concatenate([BUCKET[chosen], np.zeros(spare, int)])
    slot, of_tile = pack_by_bucket(bucket, BUCKETS, TILE)
    there = (slot != EMPTY) & (slot < len(chosen))
    agent, mine = chosen[np.where(there, slot, 0)], np.where(there, weight[np.where(there, slot, 0)], 0.0)

    def each(values) -> jax.Array:
        filled = np.where(there.reshape(-1, *(1,) * (values.ndim - 1)), values[agent], rest)
        return jnp.asarray(filled, jnp.float32)

    size = mine * DEMAND[agent]
    pooled = PooledAgents(
        *(jnp.asarray(x, jnp.float32) for x in (mine, size)), jnp.asarray(of_tile), each(ATTRIBUTES), BUCKETS
    )
    return each(EMBEDDINGS), pooled


@pytest.fixture(scope="module", params=REPRESENTATIONS)
def answer(request):
    """Ask a representation, compiled once."""
    shape = MapShape(request.param, 2, CHANNELS, future_width=2, decoder_width=8, attention=5, buckets=BUCKETS)
    representation = REPRESENTATIONS[request.param].draw(np.random.default_rng(1), shape)
    if request.param != "global":  # the last layer is drawn small, so that nothing would depend on much
        last = lambda r: r.decoder.layers[-1].weight  # noqa: E731
        representation = eqx.tree_at(last, representation, 10 * last(representation))

    def asked(embeddings, pooled):
        prepared = representation.prepare(embeddings if representation.reads_agents else None, pooled)
        found = representation.forward(prepared, pooled, QUERY)
        return found.sum(), found

    ask = jax.jit(jax.value_and_grad(asked, has_aux=True))

    def named(*population):
        (_, found), slope = ask(*population)
        assert np.isfinite(np.asarray(slope)).all()
        return np.asarray(found)

    named.representation = representation
    return named


@pytest.fixture(scope="module")
def plain(answer) -> np.ndarray:
    return answer(*laid_out(np.arange(AGENTS), WEIGHT))


def test_an_answer_has_a_row_for_every_coming_week(plain):
    assert plain.shape == (2, 5, 2) and np.isfinite(plain).all()


def test_the_order_of_agents_does_not_matter(answer, plain):
    order = np.random.default_rng(2).permutation(AGENTS)
    np.testing.assert_allclose(answer(*laid_out(order, WEIGHT[order])), plain, **CLOSE)


def test_a_weight_counts_as_a_multiplicity(answer, plain):
    each = np.repeat(np.arange(AGENTS), WEIGHT.astype(int))
    np.testing.assert_allclose(answer(*laid_out(each, np.ones(len(each)))), plain, **CLOSE)


def test_empty_slots_change_nothing(answer, plain):
    """Whatever is written in them, and whether they are empty or hold somebody of weight 0."""
    np.testing.assert_allclose(answer(*laid_out(np.arange(AGENTS), WEIGHT, rest=3.0)), plain, **CLOSE)
    more, none = np.arange(AGENTS).repeat(2), np.stack([WEIGHT, np.zeros(AGENTS)], 1).reshape(-1)
    np.testing.assert_allclose(answer(*laid_out(more, none)), plain, **CLOSE)


def test_a_population_twice_as_large_of_the_same_mix_answers_the_same(answer, plain):
    """Answers are relative to the population's own size."""
    np.testing.assert_allclose(answer(*laid_out(np.arange(AGENTS), 2 * WEIGHT)), plain, **CLOSE)


def test_another_mix_is_another_population(answer, plain):
    """But for the baseline that knows none."""
    other = answer(*laid_out(np.arange(AGENTS), WEIGHT[::-1]))
    moved = np.abs(other - plain).max() > 1e-3
    assert moved == (type(answer.representation).__name__ != "GlobalAggregate")


def test_an_empty_bucket_is_nothing_and_no_nan(answer, plain):
    """In derivatives neither."""
    there = np.flatnonzero(BUCKET != 1)
    found = answer(*laid_out(there, WEIGHT[there]))
    assert np.isfinite(found).all() and found.shape == plain.shape


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_cache_answers_as_what_training_computes(name):
    """One tile is partly empty."""
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    weight = jnp.asarray(np.where(np.arange(20) % 7 < 5, random.uniform(1, 3, 20), 0.0), jnp.float32)
    pooled = PooledAgents(weight, weight * jnp.exp(drawn(20)), jnp.array([0, 0, 2, 2, 2]), drawn(20, 7), 4)
    shape = MapShape(name, 2, history_width=6, future_width=2, decoder_width=8, attention=4, buckets=4)
    representation = REPRESENTATIONS[name].draw(random, shape)
    embeddings, query = drawn(20, 6), drawn(3, 26, 4)

    @jax.jit
    def both():
        prepared = representation.prepare(embeddings, pooled)
        cache = representation.cache(prepared, pooled)
        return [representation.forward(form, pooled, query) for form in (cache, prepared)]

    cached, plain = both()
    assert cached.shape == (3, 26, 2)
    np.testing.assert_allclose(cached, plain, rtol=1e-4, atol=1e-5)
    assert name in ("global", "moments", "deep-sets") or np.ptp(plain[0], 0).all()
