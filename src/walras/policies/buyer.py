"""The neural buyer: one small network shared by all agents, which corrects the priced newsvendor.

CONTRACT: weights are stored and shipped; the inputs of the network and their order must not change.

A buyer orders `scale * softplus(target - position)` in units of each agent's demand scale. The target lies between that
of the priced newsvendor and the same quantile of the agent's own history, plus a learned correction. A dilated causal
CNN reads exogenous history, a first layer takes what is known in advance (costs, forecasts, announced prices around the
arrival week), and an MLP adds stock and open orders. Only the last part depends on stock, so the rest is computed for
all weeks of a run in one pass.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.clipping import clip, positive_part
from walras.policies.base import Observation, PerAgent, Policy, PolicyMemory, PublicObservation, ShadowPrices
from walras.policies.base_stock import PricedNewsvendor
from walras.population.agent_axis import Broadcast
from walras.population.population import Population

SMALLEST_SCALE = 1e-3  # demand scales below this are taken as this one [units/week]
SMALLEST_STAKE = 1e-6  # least cost of a lost sale [money/unit]
COLUMNS = 4  # inputs per past week
PROFILE_RATIOS = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # of the quantiles in a profile; the first quantile is 0
PROFILE = len(PROFILE_RATIOS) + 2  # length of a profile, see `demand_profile`
SLOPE = 0.1  # of the leaky ReLU below zero
MOST_VARIATION = 5.0  # coefficients of variation are capped here
MOST_WEEKS = 30.0  # stock and orders are capped at this many weeks of demand


@dataclass(frozen=True)
class BuyerShape:
    """Size of a buyer's network."""

    history: int = 8  # channels of the causal CNN; 0 for none
    dilations: tuple[int, ...] = (1, 2, 4, 8)  # of its layers, kernel 2; the receptive field is 1 + their sum [weeks]
    hidden: tuple[int, ...] = (32, 32)  # widths of the head's layers
    open_orders: int = 4  # ages at which open orders are separate inputs [weeks]
    before: int = 1  # weeks before the arrival of an order whose prices are inputs
    after: int = 6  # and after it
    profile: bool = True  # a profile of each agent's history is an input (`demand_profile`)
    sharpness: float = 8.0  # of the softplus, per week of demand; the larger, the nearer to the positive part


def _product(weight: Float[Array, "out in"], x: Float[Array, "in *week agent"]) -> Float[Array, "out *week agent"]:
    """Multiply with all weeks and agents as columns of one matrix, which is faster than many small products."""
    return jnp.matmul(weight, x.reshape(x.shape[0], -1), precision="highest").reshape(-1, *x.shape[1:])


def _leaky_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Cut by a product; an exponential would cost as much as all products of matrices together."""
    return jnp.where(x > 0, x, SLOPE * x)


class Layer(eqx.Module):
    """Linear map; features first, agents last."""

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]

    @staticmethod
    def draw(key: Array, inner: int, outer: int, gain: float = 1.0) -> "Layer":
        """Draw weights of variance gain^2 / inner."""
        weight = jax.random.normal(key, (outer, inner)) * (gain / math.sqrt(max(inner, 1)))
        return Layer(weight, jnp.zeros(outer))

    def __call__(self, x: Float[Array, "in *week agent"]) -> Float[Array, "out *week agent"]:
        """Map every agent's features."""
        return _product(self.weight, x) + self.bias.reshape(-1, *(1,) * (x.ndim - 1))


class CausalLayer(eqx.Module):
    """Dilated causal convolution of kernel 2: this week and the one `dilation` weeks before."""

    now: Layer
    before: Float[Array, "out in"]
    dilation: int = eqx.field(static=True)

    def __call__(
        self, memory: Float[Array, "in dilation agent"], x: Float[Array, "in week agent"]
    ) -> tuple[Float[Array, "out week agent"], Float[Array, "in dilation agent"]]:
        """Convolve all weeks at once, after those in memory; return the memory after them."""
        weeks = x.shape[1]
        line = jnp.concatenate([memory, x], axis=1)
        out = _leaky_relu(self.now(x) + _product(self.before, line[:, :weeks])) + x
        return out, line[:, weeks:]


class BuyerNetwork(eqx.Module):
    """All weights of a buyer."""

    columns: Layer
    convolutions: tuple[CausalLayer, ...]
    known: Layer
    seen: Float[Array, "out in"]
    inner: tuple[Layer, ...]
    last: Layer

    @staticmethod
    def draw(shape: BuyerShape, seed: int) -> "BuyerNetwork":
        """Draw a network whose last layer is near zero: it starts half way between forecast and history."""
        keys = iter(jax.random.split(jax.random.key(seed), 8 + 2 * len(shape.dilations) + len(shape.hidden)))
        width, hidden = shape.history, shape.hidden
        convolutions = []
        for dilation in shape.dilations if width else ():
            now, before = Layer.draw(next(keys), width, width, 0.7), Layer.draw(next(keys), width, width, 0.7)
            convolutions.append(CausalLayer(now, before.weight, dilation))
        inner = tuple(Layer.draw(next(keys), *pair) for pair in itertools.pairwise(hidden))
        known = 9 + 2 * (shape.before + 1 + shape.after) + width + shape.profile * (PROFILE + 1)
        return BuyerNetwork(
            columns=Layer.draw(next(keys), COLUMNS, width),
            convolutions=tuple(convolutions),
            known=Layer.draw(next(keys), known, hidden[0]),
            seen=Layer.draw(next(keys), 2 + shape.open_orders, hidden[0]).weight,
            inner=inner,
            last=Layer.draw(next(keys), hidden[-1], 2, 0.01),
        )


class EncodedBuyer(eqx.Module):
    """What a buyer computes for a week before it knows its stock: two targets [weeks of demand] and a first layer."""

    target: Float[Array, "*steps agent"]
    usual: Float[Array, "*steps agent"]
    known: Float[Array, "*steps out agent"]


class Buyer(Policy):
    """Policy given by a trained network.

    Attributes:
        network: its weights, shared by all agents.
        shape: how large it is.
        base: the closed-form policy whose target the network corrects.
        profile: of each agent's history (`demand_profile`), where the shape asks for it.
    """

    network: Broadcast
    shape: BuyerShape = eqx.field(static=True)
    base: PricedNewsvendor = PricedNewsvendor()
    profile: Float[Array, "feature agent"] | None = None

    def with_profile(self, profile: Float[Array, "feature agent"] | None) -> "Buyer":
        """Return the same buyer for agents with this profile of their history."""
        return replace(self, profile=profile)

    def with_history(self, units: Float[np.ndarray, "week agent"], lead_time: np.ndarray) -> "Buyer":
        """Return the same buyer for agents with this history (see `demand_profile`), where the shape has a profile."""
        return self.with_profile(jnp.asarray(demand_profile(units, lead_time))) if self.shape.profile else self

    @property
    def ahead(self) -> int:
        """Count the weeks after an arrival whose prices are inputs."""
        return max(self.shape.after, 1)

    @property
    def reads_history(self) -> bool:
        """Tell whether it reads history."""
        return self.shape.history > 0

    scan_scenarios = reads_history

    def begin(self, population: Population) -> PolicyMemory:
        """Return a memory without orders and history."""
        agents, width = population.n_agents, self.shape.history
        orders = jnp.zeros((self.shape.open_orders, agents))
        if not self.reads_history:
            return PolicyMemory(None, orders)
        lines = tuple(jnp.zeros((width, dilation, agents)) for dilation in self.shape.dilations)
        return PolicyMemory((jnp.full((agents,), -1.0), lines), orders)

    def read(
        self, memory: Any, outlooks: PublicObservation, demand: Float[Array, "week agent"]
    ) -> tuple[Float[Array, "week channel agent"], Any]:
        """Run the causal CNN over all weeks of a run, with the demand of the week before each; -1 is a missing one."""
        last, lines = memory
        last_demand, scale = jnp.concatenate([last[None], demand[:-1]]), _scale(outlooks.population)
        expected = outlooks.lead_demand_mean / (1.0 + outlooks.population.lead_time)[None, :] / scale[None, :]
        there = last_demand >= 0
        seen = jnp.where(there, last_demand / scale[None, :], expected)
        log_seen, log_expected = jnp.log1p(positive_part(seen)), jnp.log1p(positive_part(expected))
        x = self.network.value.columns(jnp.stack([log_seen, log_seen - log_expected, log_expected, there * 1.0]))
        after = []
        for layer, line in zip(self.network.value.convolutions, lines, strict=True):
            x, line = layer(line, x)
            after.append(line)
        return jnp.moveaxis(x, 0, 1), (demand[-1], tuple(after))

    def encode(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> EncodedBuyer:
        """Return the newsvendor's target in weeks of demand, and the first layer's share of the known inputs."""
        population, scale = outlook.population, _scale(outlook.population)
        target = self.base.target(outlook, shadow_prices) / scale
        ratio = self.base.critical_ratio(outlook, shadow_prices)
        usual = target if self.profile is None else _quantile_of(self.profile, ratio) / scale
        stake = outlook.sale_price + population.lost_sale_penalty - outlook.unit_cost
        stake = jnp.where(stake > SMALLEST_STAKE, stake, SMALLEST_STAKE)
        mean = outlook.lead_demand_mean / scale
        spread = outlook.lead_demand_sd / jnp.where(outlook.lead_demand_mean > 0, outlook.lead_demand_mean, 1.0)
        rows = [
            jnp.log1p(positive_part(target)),
            jnp.log1p(positive_part(mean)),
            clip(spread, 0.0, 5.0),
            ratio,
            0.2 * jnp.log(population.holding_cost / stake + 1e-4),
            clip((outlook.next_unit_cost - outlook.unit_cost) / stake, -2.0, 2.0),
            clip(outlook.unit_cost / stake, 0.0, 10.0) * 0.2,
            0.25 * population.lead_time.astype(scale.dtype),
            0.2 * jnp.log(scale),
        ]
        parts = [jnp.stack(rows), clip(self._around_arrival(population, shadow_prices) / stake[None, :], 0.0, 3.0)]
        if self.reads_history:
            parts.append(outlook.read)
        if self.shape.profile:
            if self.profile is None:
                parts.append(jnp.zeros((PROFILE, scale.shape[0])))
            else:
                levels, rest = jnp.split(self.profile, [len(PROFILE_RATIOS)])
                parts += [jnp.log1p(levels / scale[None, :]), rest]
            parts.append(jnp.log1p(positive_part(usual))[None])
        return EncodedBuyer(target, usual, self.network.value.known(jnp.concatenate(parts)))

    def _around_arrival(self, population: Population, shadow_prices: ShadowPrices) -> Float[Array, "offset agent"]:
        """Return the shadow cost of a unit for flow, then storage, in the weeks around its arrival [money/unit]."""
        ahead = shadow_prices.shape[0]
        offsets = np.arange(-self.shape.before, self.shape.after + 1)
        due = jnp.clip(population.lead_time[None, :] + offsets[:, None], 0, ahead - 1)
        at = (due[:, None, :] == jnp.arange(ahead)[None, :, None]).astype(shadow_prices.dtype)
        totals = [jnp.zeros(due.shape, shadow_prices.dtype)] * 2
        for index, is_stock in enumerate(population.stock_resource):
            price = (shadow_prices[None, :, index, None] * at).sum(1) * population.use[None, :, index]
            totals[is_stock] = totals[is_stock] + price
        return jnp.concatenate(totals)

    def decide(self, encoded: EncodedBuyer, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return scale x softplus(target - position), the target corrected by the network."""
        network, scale = self.network.value, _scale(observation.population)
        position, seen = self._seen(observation, scale)
        x = _leaky_relu(encoded.known + _product(network.seen, seen))
        for layer in network.inner:
            x = _leaky_relu(layer(x))
        added, share = network.last(x)
        target = encoded.target + jax.nn.sigmoid(share) * (encoded.usual - encoded.target) + added
        sharp = self.shape.sharpness
        return scale * jax.nn.softplus(sharp * (target - position)) / sharp

    def _seen(
        self, observation: Observation, scale: Float[Array, " agent"]
    ) -> tuple[Float[Array, " agent"], Float[Array, "feature agent"]]:
        """Return the position, and with it stock and open orders by age, in weeks of demand.

        Weeks of arrival are unknown, so the youngest orders are assumed to be open; exact with a fixed lead time.
        """
        position, stock = observation.position / scale, observation.stock_start / scale
        left, rows = position - stock, [stock]
        for order in () if observation.memory is None else observation.memory.own_state:
            still = jnp.where(order / scale < left, order / scale, positive_part(left))
            left = left - still
            rows.append(still)
        return position, clip(jnp.stack([*rows, left]), -MOST_WEEKS, MOST_WEEKS)

    def remember(self, observation: Observation, orders: Float[Array, " agent"]) -> Float[Array, "age agent"]:
        """Keep the last orders, the youngest first."""
        count = self.shape.open_orders
        before = jnp.zeros((count, *orders.shape)) if observation.memory is None else observation.memory.own_state
        return jnp.concatenate([orders[None], before])[:count]


def demand_profile(units: Float[np.ndarray, "week agent"], lead_time: np.ndarray) -> Float[np.ndarray, "feature agent"]:
    """Summarise the history of each agent: quantiles of the demand of L + 1 successive weeks, and weekly variation.

    Args:
        units: demand of past weeks, at least one [units/week].
        lead_time: planned lead time L [weeks] [agent].

    Returns:
        Quantiles at `PROFILE_RATIOS` [units], then the coefficient of variation of a week and the share of weeks with
        demand.
    """
    sums = np.cumsum(np.concatenate([np.zeros((1, units.shape[1])), units]), axis=0)
    rows = np.zeros((PROFILE, units.shape[1]))
    for lead in np.unique(lead_time):
        mine, span = lead_time == lead, min(int(lead) + 1, len(units))
        total = (sums[span:] - sums[:-span])[:, mine]
        rows[1 : len(PROFILE_RATIOS), mine] = np.quantile(total, PROFILE_RATIOS[1:], axis=0)
    mean = units.mean(0)
    rows[-2] = np.minimum(units.std(0) / np.where(mean > 0, mean, 1.0), MOST_VARIATION) / MOST_VARIATION
    rows[-1] = (units > 0).mean(0)
    return rows.astype(np.float32)


def _quantile_of(profile: Float[Array, "feature agent"], ratio: Float[Array, " agent"]) -> PerAgent:
    """Interpolate an agent's past lead-time demand at a critical ratio [units]."""
    total = profile[0]
    for index, (low, high) in enumerate(itertools.pairwise(PROFILE_RATIOS)):
        slope = (profile[index + 1] - profile[index]) / (high - low)
        total = total + slope * (clip(ratio, low, high) - low)
    return total


def _scale(population: Population) -> PerAgent:
    scale = population.demand_scale
    return jnp.where(scale > SMALLEST_SCALE, scale, SMALLEST_SCALE)
