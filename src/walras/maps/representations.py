"""Population representations: how a map turns the embeddings of many agents into one answer per query.

A new one is listed in `REPRESENTATIONS`, whose names are stored with trained maps. Attention to agents has no maximum
(keys and queries are normalised, so that scores are at most sqrt(dim)), and agents' weights count as multiplicities.
"""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.maps.agent_layout import PooledAgents
from walras.maps.features import ATTRIBUTES
from walras.maps.layers import Linear, Perceptron, inverse_head, normalise, prepend_axes, relative_use

Query = Float[Array, "*axes ahead query"]
Answer = Float[Array, "*axes ahead resource"]

EMPTY_SUM = 1e-9  # sum of attention below which a bucket is empty


class AttentionCache(eqx.Module):
    """Keys and values laid out tile by tile for queries; values are multiplied by the weight of their slot."""

    keys: Float[Array, "tile slot dim"]
    values: Float[Array, "tile slot sums"]
    bucket: Int[Array, " tile"]


class Attention(eqx.Module):
    """Attend to items from queries: `z = sum_i softmax_i(q . k_i / sqrt(dim)) v_i` (spec eq. 8)."""

    query: Linear  # Wq
    key: Linear  # Wk
    value: Perceptron  # two layers (ours): what an agent will do is no linear function of its embedding

    @staticmethod
    def draw(random: np.random.Generator, query: int, item: int, dim: int) -> "Attention":
        """Draw weights for queries and items of these widths, and keys and values of dimension `dim`."""
        of_query, of_key = (Linear.draw(random, given, dim) for given in (query, item))
        return Attention(of_query, of_key, Perceptron.draw(random, (item, item, dim)))

    def items(
        self, embeddings: Float[Array, "*axes item channel"], pooled: PooledAgents | None = None
    ) -> tuple[Array, Array]:
        """Return keys and values; a value ends with a 1, so that one sum gives numerator and denominator.

        Values of agents (`pooled`) are doubled: once per agent, once in proportion to demand (ours), since use is a sum
        in which large agents count for more.
        """
        values = self.value(embeddings)
        values = jnp.concatenate([values, jnp.ones_like(values[..., :1])], -1)
        if pooled is not None:
            size = jnp.broadcast_to(pooled.relative_size()[:, None], (*values.shape[:-1], 1))
            values = jnp.concatenate([values, values * size], -1)
        return normalise(self.key(embeddings)), values

    def scores(self, keys: Array, query: Query) -> Float[Array, "*axes ahead item"]:
        """Return exp(q . k / sqrt(dim)), not yet divided by its sum."""
        scaled = normalise(self.query(query)) / self.key.bias.shape[0] ** 0.5
        return jnp.exp(scaled @ jnp.swapaxes(keys, -1, -2))


def attention_cache(items: tuple[Array, Array], pooled: PooledAgents) -> AttentionCache:
    """Lay the keys and values of one origin out for queries."""
    keys, values = (part.reshape(-1, pooled.tile, part.shape[-1]) for part in items)
    return AttentionCache(keys, values * pooled.weight.reshape(*values.shape[:2], 1), pooled.bucket)


def sums_by_bucket(
    attention: Attention,
    items: tuple[Array, Array] | AttentionCache,
    pooled: PooledAgents,
    query: Query,
) -> Float[Array, "*axes ahead bucket sums"]:
    """Return for every bucket the attended sum of its values and, last, the sum of attention itself.

    An `AttentionCache` gives the same sums one tile after the other in the processor's cache: five times faster for
    many plans, and no score of every agent for every plan in memory. Items of another form may have axes of origins.
    """
    if isinstance(items, AttentionCache):
        axes, flat = query.shape[:-1], query.reshape(-1, query.shape[-1])

        def add(sums: Array, tile: AttentionCache) -> tuple[Array, None]:
            return sums.at[tile.bucket].add(attention.scores(tile.keys, flat) @ tile.values), None

        empty = jnp.zeros((pooled.n_buckets, flat.shape[0], items.values.shape[-1]), flat.dtype)
        return jnp.moveaxis(jax.lax.scan(add, empty, items)[0], 0, 1).reshape(*axes, pooled.n_buckets, -1)
    keys, values = items
    weight = prepend_axes(pooled.weight, query.ndim)
    scores = attention.scores(keys, query) * weight
    tiles = scores.reshape(*scores.shape[:-1], -1, pooled.tile)
    by_tile = values.reshape(*values.shape[:-2], -1, pooled.tile, values.shape[-1])
    sums = jnp.einsum("...hts,...tsd->...thd", tiles, by_tile)
    return jnp.einsum("...thd,tb->...hbd", sums, pooled.of_bucket())


def attended_features(
    sums: Float[Array, "*axes sums"], weight: Float[Array, "*rest"], size: Float[Array, "*rest"]
) -> tuple[Float[Array, "*axes channel"], Float[Array, "*axes"]]:
    """Return what `sums_by_bucket` says of groups with shares `weight` of agents and `size` of demand, and `nonempty`.

    The features are the means per agent and per unit of demand, and the logarithms of the attention itself (ours): a
    mean alone does not tell whether a price suits all agents or hardly any.
    """
    by_number, by_demand = jnp.split(sums, 2, axis=-1)
    mean, nonempty = attended_mean(by_number)
    means = jnp.concatenate([mean, attended_mean(by_demand)[0]], -1)
    masses = [_log_mean(part[..., -1], total) for part, total in ((by_number, weight), (by_demand, size))]
    return jnp.concatenate([means, jnp.stack(masses, -1)], -1), nonempty


def attended_mean(sums: Float[Array, "*axes sums"]) -> tuple[Float[Array, "*axes channel"], Float[Array, "*axes"]]:
    """Return the attended mean, 0 for an empty group, and 1 where the group has members, else 0."""
    total = sums[..., -1]
    nonempty = total > EMPTY_SUM
    mean = sums[..., :-1] / jnp.where(nonempty, total, 1.0)[..., None]
    return jnp.where(nonempty[..., None], mean, 0.0), nonempty.astype(sums.dtype)


def _log_mean(mass: Array, total: Array) -> Array:
    total = jnp.broadcast_to(total, mass.shape)
    nonempty = (mass > EMPTY_SUM) & (total > EMPTY_SUM)
    return jnp.where(nonempty, jnp.log(jnp.where(nonempty, mass, 1.0) / jnp.where(nonempty, total, 1.0)), 0.0)


@dataclass(frozen=True)
class MapShape:
    """Sizes of a map's network; the defaults are the published ones."""

    representation: str = "bucketized"  # its name in `REPRESENTATIONS`
    resources: int = 1  # number of resources
    history_width: int = 32  # channels of the CNNs that read history, of agents and totals each
    future_width: int = 16  # channels of each direction of the CNN that reads coming weeks
    decoder_width: int = 32  # width of the decoder
    attention: int = 20  # dimension of keys, values and pooled vectors
    buckets: int = 10  # demand buckets
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # of the history's layers; the default sees exactly 64 weeks
    future_dilations: tuple[int, ...] = (1, 2, 4, 8, 16)  # of the future's layers
    n_probes: int = 0  # agents whose policies are simulated in every query; 0 for none, as in the published maps
    sees_prices: bool = True  # False for a primal map that ignores prices, to learn what they are worth to it

    @property
    def kind(self) -> "type[AbstractRepresentation]":
        """The representation's class."""
        return REPRESENTATIONS[self.representation]

    @property
    def query_width(self) -> int:
        """Channels of a query: both directions of the CNN that reads coming weeks."""
        return 2 * self.future_width

    @property
    def name(self) -> str:
        """Name of the representation, with the suffix that stored results use for maps with probes."""
        return self.representation + ("+delegates" if self.n_probes else "")

    @property
    def signals(self) -> int:
        """Numbers read per coming week and resource beside features: the query, and two of the probes."""
        return 3 if self.n_probes else 1

    def draw_decoder(self, random: np.random.Generator, pooled: int) -> Perceptron:
        """Draw a decoder of a query and `pooled` channels beside it, whose first answers are near 0."""
        width = self.decoder_width
        return Perceptron.draw(random, (pooled + self.query_width, width, width, self.resources), 0.1)


class AbstractRepresentation(eqx.Module):
    """A population's answer to a query, given its agents' embeddings.

    Axes before `slot` and `ahead` are free (origins, plans); a query may have more of them in front.
    """

    reads_agents: ClassVar[bool] = True
    """Whether agents' histories are read."""

    by_agent: ClassVar[bool] = False
    """Whether the answer is a sum over agents, which can be learned agent by agent."""

    @abc.abstractmethod
    def prepare(self, embeddings: Float[Array, "*axes slot channel"], pooled: PooledAgents) -> Any:
        """Return what does not depend on the query."""

    @abc.abstractmethod
    def forward(self, prepared: Any, pooled: PooledAgents, query: Query) -> Answer:
        """Return the answer to a query, before the map's head."""

    def cache(self, prepared: Any, pooled: PooledAgents) -> Any:
        """Lay out what was prepared at one origin so that queries are fast; answers stay the same."""
        return prepared

    def summary(self, embeddings: Any, pooled: PooledAgents) -> Float[Array, " summary"] | None:
        """Describe the population by a vector, to compare it with those of training; None for no description."""
        return None


class AbstractPooling(AbstractRepresentation):
    """A representation that pools the population into a vector per coming week and decodes it with the query."""

    decoder: eqx.AbstractVar[Perceptron]

    def pool(self, prepared: Any, pooled: PooledAgents, query: Query) -> Float[Array, "*axes ahead channel"]:
        """Return the population as seen from each coming week; by default the prepared vector."""
        return jnp.broadcast_to(prepared[..., None, :], (*query.shape[:-1], prepared.shape[-1]))

    def forward(self, prepared: Any, pooled: PooledAgents, query: Query) -> Answer:
        """Decode the pooled vector beside the query."""
        return self.decoder(jnp.concatenate([self.pool(prepared, pooled, query), query], -1))


class BucketizedEmbedding(AbstractPooling):
    """Attention within each demand bucket, joined with its shares of agents and demand, then over buckets (spec eq. 9).

    Bucket edges are frozen from a baseline population.
    """

    within: Attention
    over: Attention
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, shape: MapShape) -> "BucketizedEmbedding":
        """Draw both attentions and the decoder."""
        within = Attention.draw(random, shape.query_width, shape.history_width, shape.attention)
        over = Attention.draw(random, shape.query_width, 2 * shape.attention + 4, shape.attention)
        channels = 3 * shape.attention + 2 + 2 * shape.buckets
        return BucketizedEmbedding(within=within, over=over, decoder=shape.draw_decoder(random, channels))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], pooled: PooledAgents) -> tuple[Array, Array]:
        """Return the agents' keys and values."""
        return self.within.items(embeddings, pooled)

    def cache(self, prepared: Any, pooled: PooledAgents) -> AttentionCache:
        """Lay keys and values out tile by tile."""
        return attention_cache(prepared, pooled)

    def pool(self, prepared: Any, pooled: PooledAgents, query: Query) -> Float[Array, "*axes ahead channel"]:
        """Return the attended and the demand-weighted mean over buckets, beside all shares."""
        sums = sums_by_bucket(self.within, prepared, pooled, query)
        share = pooled.shares()
        # Relative sizes are relative to the mean agent, so that demand adds up to the number of agents.
        agents = pooled.weight.sum()
        buckets, nonempty = attended_features(sums, share[:, 0] * agents, share[:, 1] * agents)
        shares = jnp.broadcast_to(share, (*buckets.shape[:-1], 2))
        keys, values = self.over.items(jnp.concatenate([buckets, pooled.n_buckets * shares], -1))
        scores = self.over.scores(keys, query[..., None, :])[..., 0, :] * nonempty
        attended = attended_mean(jnp.einsum("...b,...bd->...d", scores, values))[0]
        summed = (shares[..., 1:] * buckets).sum(-2)
        flat = pooled.n_buckets * shares.reshape(*shares.shape[:-2], -1)
        return jnp.concatenate([attended, summed, flat], -1)

    def summary(self, embeddings: Float[Array, "slot channel"], pooled: PooledAgents) -> Float[Array, " summary"]:
        """Return the mean value over agents and the shares of the buckets."""
        mean = weighted_mean(self.within.items(embeddings)[1][..., :-1], pooled.weight)
        return jnp.concatenate([mean, pooled.n_buckets * pooled.shares().reshape(-1)])


class PerAgentEmbedding(AbstractPooling):
    """Attention from every coming week to all agents (spec eq. 8)."""

    attention: Attention
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, shape: MapShape) -> "PerAgentEmbedding":
        """Draw attention and decoder."""
        attention = Attention.draw(random, shape.query_width, shape.history_width, shape.attention)
        return PerAgentEmbedding(attention=attention, decoder=shape.draw_decoder(random, 2 * shape.attention + 2))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], pooled: PooledAgents) -> tuple[Array, Array]:
        """Return the agents' keys and values."""
        return self.attention.items(embeddings, pooled)

    def cache(self, prepared: Any, pooled: PooledAgents) -> AttentionCache:
        """Lay keys and values out tile by tile."""
        return attention_cache(prepared, pooled)

    def pool(self, prepared: Any, pooled: PooledAgents, query: Query) -> Float[Array, "*axes ahead channel"]:
        """Return the attended mean over all agents."""
        sums = sums_by_bucket(self.attention, prepared, pooled, query).sum(-2)
        return attended_features(sums, pooled.weight.sum(), pooled.weight.sum())[0]

    def summary(self, embeddings: Float[Array, "slot channel"], pooled: PooledAgents) -> Float[Array, " summary"]:
        """Return the mean value over agents."""
        return weighted_mean(self.attention.items(embeddings)[1][..., :-1], pooled.weight)


class DeepSets(AbstractPooling):
    """Mean of a network's output over agents, per agent and per unit of demand (Zaheer et al., "Deep Sets", 2017)."""

    inner: Perceptron
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, shape: MapShape) -> "DeepSets":
        """Draw both networks."""
        inner = Perceptron.draw(random, (shape.history_width, shape.decoder_width, shape.attention))
        return DeepSets(inner, shape.draw_decoder(random, 2 * shape.attention))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], pooled: PooledAgents) -> Float[Array, "..."]:
        """Return the pooled vector."""
        made = self.inner(embeddings)
        return jnp.concatenate([weighted_mean(made, pooled.weight), weighted_mean(made, pooled.size)], -1)

    def summary(self, embeddings: Float[Array, "slot channel"], pooled: PooledAgents) -> Float[Array, " summary"]:
        """Return the pooled vector."""
        return self.prepare(embeddings, pooled)


class GlobalAggregate(AbstractRepresentation):
    """Baseline that adds nothing to what the history of the totals says."""

    reads_agents: ClassVar[bool] = False
    resources: int = eqx.field(static=True)

    @staticmethod
    def draw(random: np.random.Generator, shape: MapShape) -> "GlobalAggregate":
        """Return it; it has no weights."""
        return GlobalAggregate(shape.resources)

    def prepare(self, embeddings: Float[Array, "*axes slot channel"] | None, pooled: PooledAgents) -> None:
        """Prepare nothing."""

    def forward(self, prepared: None, pooled: PooledAgents, query: Query) -> Answer:
        """Return zeros."""
        return jnp.zeros((*query.shape[:-1], self.resources))


DECILES = tuple(part / 10 for part in range(1, 10))


class MomentVector(AbstractPooling):
    """A network on the mean, variance, demand-weighted mean and deciles of every attribute."""

    reads_agents: ClassVar[bool] = False
    inner: Perceptron
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, shape: MapShape) -> "MomentVector":
        """Draw both networks."""
        given = ATTRIBUTES * (3 + len(DECILES))
        inner = Perceptron.draw(random, (given, shape.decoder_width, shape.attention))
        return MomentVector(inner, shape.draw_decoder(random, shape.attention))

    def prepare(self, embeddings: Float[Array, "..."] | None, pooled: PooledAgents) -> Float[Array, " channel"]:
        """Return the network's output for the moments."""
        return self.inner(moments(pooled))

    def summary(self, embeddings: Float[Array, "..."] | None, pooled: PooledAgents) -> Float[Array, " summary"]:
        """Return the moments."""
        return moments(pooled)


def moments(pooled: PooledAgents) -> Float[Array, " moment"]:
    """Return mean, variance, demand-weighted mean and deciles of every attribute."""
    share = (pooled.weight / pooled.weight.sum())[:, None]
    mean = (share * pooled.attributes).sum(0)
    variance = (share * (pooled.attributes - mean[None, :]) ** 2).sum(0)
    by_demand = ((pooled.size / pooled.size.sum())[:, None] * pooled.attributes).sum(0)
    order = jnp.argsort(pooled.attributes, axis=0)
    values = jnp.take_along_axis(pooled.attributes, order, 0)
    below = jnp.cumsum(jnp.broadcast_to(share, values.shape)[order, jnp.arange(values.shape[1])[None, :]], 0)
    deciles = [jnp.take_along_axis(values, jnp.argmax(below >= part - 1e-6, 0)[None, :], 0)[0] for part in DECILES]
    return jnp.concatenate([mean, variance, by_demand, *deciles])


class AgentTiles(eqx.Module):
    """The agents' side of `BottomUp` tile by tile, so that many plans need no number of every agent at once."""

    first: Float[Array, "tile slot channel"]  # the agents' side of the first layer
    share: Float[Array, "tile slot"]  # of each agent in demand


class BottomUp(AbstractRepresentation):
    """Baseline that predicts each agent's use in units of its own demand scale and sums."""

    by_agent: ClassVar[bool] = True
    of_agent: Linear  # first layer, the sum of both sides
    of_query: Linear
    decoder: Perceptron  # the layers after it

    @staticmethod
    def draw(random: np.random.Generator, shape: MapShape) -> "BottomUp":
        """Draw all layers."""
        width = shape.decoder_width
        agent, query = (Linear.draw(random, given, width) for given in (shape.history_width, shape.query_width))
        return BottomUp(agent, query, Perceptron.draw(random, (width, width, shape.resources), 0.1))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], pooled: PooledAgents) -> Float[Array, "..."]:
        """Return the agents' side of the first layer."""
        return self.of_agent(embeddings)

    def agent_use(self, prepared: Any, query: Query) -> Float[Array, "*axes ahead slot resource"]:
        """Return each agent's use in units of its demand scale, relative to what is expected of all."""
        from_query = self.of_query(query)[..., :, None, :]
        first = prepared[..., None, :, :]
        both = prepend_axes(first, from_query.ndim) + from_query
        return relative_use(self.decoder(jax.nn.elu(both)))

    def forward(self, prepared: Any, pooled: PooledAgents, query: Query) -> Answer:
        """Return the output whose use is the demand-weighted mean of the agents' use."""
        if isinstance(prepared, AgentTiles):

            def add(total: Array, tile: AgentTiles) -> tuple[Array, None]:
                return total + jnp.einsum("...sr,s->...r", self.agent_use(tile.first, query), tile.share), None

            empty = jnp.zeros((*query.shape[:-1], self.decoder.layers[-1].bias.shape[0]), query.dtype)
            return inverse_head(jax.lax.scan(add, empty, prepared)[0])
        share = pooled.size / pooled.size.sum()
        return inverse_head(jnp.einsum("...hsr,s->...hr", self.agent_use(prepared, query), share))

    def cache(self, prepared: Any, pooled: PooledAgents) -> AgentTiles:
        """Lay the agents' side out tile by tile."""
        share = (pooled.size / pooled.size.sum()).reshape(-1, pooled.tile)
        return AgentTiles(prepared.reshape(*share.shape, -1), share)


def weighted_mean(values: Float[Array, "*axes slot channel"], weight: Float[Array, " slot"]) -> Float[Array, "..."]:
    """Return the mean over slots; empty slots count for nothing."""
    return jnp.einsum("...sc,s->...c", values, weight / weight.sum())


REPRESENTATIONS: dict[str, type[AbstractRepresentation]] = {
    "bucketized": BucketizedEmbedding,
    "per-agent": PerAgentEmbedding,
    "global": GlobalAggregate,
    "bottom-up": BottomUp,
    "deep-sets": DeepSets,
    "moments": MomentVector,
}
"""Representations by the names that settings and stored maps use."""
