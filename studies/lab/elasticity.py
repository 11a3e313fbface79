"""Control by price elasticities: use as a function of prices, fitted once by demand bucket (`elasticity.json`)."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lab.capacity_benchmark import BenchmarkCase, BenchmarkPopulation, CapacityBenchmark, ComputeCost, ControlOutcome
from lab.controllers import ControlMethod, TimedJit, seconds_of_weeks
from walras.data.write import write_text
from walras.errors import InputError
from walras.exogenous.arrivals import ORDER_LOG_SD
from walras.exogenous.capacity import HaarPrices, PulsePrices
from walras.maps.closed_loop import CapacityTarget, price_window, step_week
from walras.maps.features import HORIZON, units_of
from walras.maps.rollout import PopulationWindow
from walras.policies.base import Policy
from walras.population.population import bucket_edges, bucket_of
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import State

SWEEPS, BISECTIONS = 30, 24
"""Sweeps over the coming weeks; each finds every week's price by bisection given its neighbours' prices."""

LEAST_RATIO = 0.02
"""Use under prices counts as at least this share of use without, so that its logarithm exists."""

FIRST_FITTED = 12
"""Coordinated weeks that a fit leaves out, while orders placed before the first price still arrive."""

AheadResource = Float[Array, "ahead resource"]


@dataclass(frozen=True, eq=False)
class Elasticities:
    """Response of demand buckets to prices: `u = expected exp(-own lambda_h - shift gap_h)`.

    Lambda is in price scales, and `gap_h` is the week's price above the mean of its two neighbours: a price that stays
    stops the agents whose margin it exceeds, an isolated one moves orders to the neighbouring weeks, whose use rises by
    the same term.

    Attributes:
        edges: inner edges of the buckets [units/week].
        own: fall of log use per price scale.
        shift: fall of log use per price scale above the neighbouring weeks.
    """

    edges: Float[np.ndarray, " edge"]
    own: Float[np.ndarray, " bucket"]
    shift: Float[np.ndarray, " bucket"]

    def write(self, path: str | Path) -> None:
        """Write JSON; the file is replaced as a whole."""
        rows = {name: np.round(values, 5).tolist() for name, values in asdict(self).items()}
        write_text(path, json.dumps(rows, indent=1) + "\n")

    @staticmethod
    def read(path: str | Path) -> "Elasticities":
        """Read what `write` wrote.

        Raises:
            InputError: there is no such file, or it holds something else.
        """
        try:
            rows = json.loads(Path(path).read_text(encoding="utf-8"))
            edges, own, shift = (np.asarray(rows[name], float) for name in ("edges", "own", "shift"))
            if not len(edges) + 1 == len(own) == len(shift):
                raise ValueError("lengths")
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"{path} is not a file of elasticities; give one that `benchmarks/elasticity.py --out` wrote"
            raise InputError(message) from error
        return Elasticities(edges, own, shift)

    @staticmethod
    def shipped() -> "Elasticities":
        """Read those that `python benchmarks/elasticity.py` fitted on generated agents that evaluate nothing."""
        return Elasticities.read(Path(__file__).parent / "elasticity.json")


@dataclass(frozen=True)
class ElasticityControl(ControlMethod):
    """Set every week the prices at which expected use, under fitted elasticities, is the capacity.

    Use by open orders is known and responds to no price. The rest is the forecast of total use, in the part of the
    agents of each bucket whose orders can still arrive by then (usual lead times, spread as lead times are), times the
    bucket's response to the prices of the week and its two neighbours. Each week's price is the root of a decreasing
    function, given its neighbours'; a few sweeps settle them.

    Not modelled: stock on hand (an order only replaces what was sold, so the weeks after a high price see more than
    expected demand), moves over more than one week, prices of other resources, and differences within a bucket, above
    all of margins.

    Attributes:
        elasticities: fitted ones.
        name: in tables.
        ceiling: highest price, in price scales.
    """

    elasticities: Elasticities = field(default_factory=Elasticities.shipped)
    name: str = "elasticity"
    ceiling: float = 2.0

    def run(self, case: BenchmarkCase) -> ControlOutcome:
        """Simulate week by week."""
        episode = case.episode
        response = _Response.of(self.elasticities, episode.pop_window, self.ceiling)
        (use, reward, charged), seconds = _controlled(
            episode.pop_window, episode.policy, case.target, episode.state, response
        )
        work = ComputeCost(seconds=max(seconds - seconds_of_weeks(episode), 0.0))
        return ControlOutcome(np.asarray(use, float), float(reward), np.asarray(charged, float), work)


class _Response(eqx.Module):
    """Expected use of the coming weeks by bucket, and its response to prices.

    Attributes:
        part: of a bucket's orders still to be placed, in expected use.
        own, shift: as in `Elasticities`.
        scale: of prices [money per unit of resource].
        ceiling: highest price, in scales.
    """

    part: Float[Array, "ahead bucket resource"]
    own: Float[Array, " bucket"]
    shift: Float[Array, " bucket"]
    scale: Float[Array, " resource"]
    ceiling: float

    @staticmethod
    def of(fitted: Elasticities, pop_window: PopulationWindow, ceiling: float) -> "_Response":
        """Sum agents by bucket."""
        people = pop_window.population
        size = np.asarray(people.demand_scale, float)
        bucket = bucket_of(size, fitted.edges)[:, None] == np.arange(len(fitted.own))
        use = (np.asarray(people.weight) * size)[:, None] * np.asarray(people.use, float)
        arrived = _chance_to_arrive(np.asarray(people.lead_time, float))
        part = np.einsum("ha,ab,ar->hbr", arrived, bucket.astype(float), use / use.sum(0))
        part, own, shift = (jnp.asarray(each, jnp.float32) for each in (part, fitted.own, fitted.shift))
        return _Response(part, own, shift, units_of(people).price, ceiling)

    def use(self, prices: AheadResource, beside: AheadResource, expected: AheadResource) -> AheadResource:
        """Return use by orders still to be placed [units of resource].

        Args:
            prices: of the coming weeks, in scales.
            beside: mean price of each week's neighbours.
            expected: use without prices [units of resource].
        """
        own, shift = self.own[None, :, None], self.shift[None, :, None]
        answer = jnp.exp(-own * prices[:, None] - shift * (prices - beside)[:, None])
        return expected * (self.part * answer).sum(1)

    def prices(
        self, room: AheadResource, expected: AheadResource, charged: Float[Array, " resource"], start: AheadResource
    ) -> AheadResource:
        """Return the prices, in scales, at which use by orders still to be placed fits the remaining capacity.

        Args:
            room: capacity less open orders [units of resource].
            expected: as for `use`.
            charged: this week, in scales: the first week's neighbour.
            start: first guess.
        """

        def sweep(_: Array, prices: Array) -> Array:
            before = jnp.concatenate([charged[None], prices[:-1]])
            beside = 0.5 * (before + jnp.concatenate([prices[1:], prices[-1:]]))
            return 0.5 * (prices + self._roots(room, beside, expected))

        return jax.lax.fori_loop(0, SWEEPS, sweep, start)

    def _roots(self, room: Array, beside: Array, expected: Array) -> AheadResource:
        """Bisect each week's price; use decreases in it."""

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            over = self.use(middle, beside, expected) > room
            return jnp.where(over, middle, low), jnp.where(over, high, middle)

        none = jnp.zeros_like(room)
        low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (none, none + self.ceiling))
        return jnp.where(self.use(none, beside, expected) > room, low, 0.0)


def _chance_to_arrive(lead: Float[np.ndarray, " agent"]) -> Float[np.ndarray, "ahead agent"]:
    """Return the probability that an order placed now or later can arrive within 1, 2, ... weeks of now."""
    z = (np.log(np.arange(1, HORIZON + 1) + 0.5)[:, None] - np.log(np.maximum(lead, 1.0))[None, :]) / ORDER_LOG_SD
    return np.asarray(jax.scipy.stats.norm.cdf(z), float)


def _control(
    pop_window: PopulationWindow, policy: Policy, target: CapacityTarget, state: State, response: _Response
) -> tuple[Float[Array, "week resource"], Float[Array, ""], Float[Array, "week resource"]]:
    """Return use, reward, and charged prices."""
    per_unit = pop_window.population.weight[:, None] * pop_window.population.use
    scale = response.scale[None, :]

    def step(running: tuple, week: Array) -> tuple[tuple, Any]:
        state, charged, guess = running
        due = state.pipeline[1 : HORIZON + 1] @ per_unit
        room = target.coming(week) - jnp.pad(due, ((0, HORIZON - due.shape[0]), (0, 0)))
        prices = response.prices(room, pop_window.expected_use[week, 1:], charged / response.scale, guess)
        window = price_window(policy, state, charged, prices * scale)
        total, _, after, end = step_week(pop_window, policy, state, week, window)
        shifted = jnp.concatenate([prices[1:], prices[-1:]])
        return (after, prices[0] * response.scale, shifted), (total[:-1], total[-1], end, charged)

    resources = response.scale.shape[0]
    start = (state, jnp.zeros(resources), jnp.zeros((HORIZON, resources)))
    _, (use, reward, ends, charged) = jax.lax.scan(step, start, jnp.arange(target.first, pop_window.n_weeks))
    return use, reward.sum() + ends[-1], charged


_controlled = TimedJit(_control)


def fit_elasticities(benchmark: CapacityBenchmark, buckets: int = 5) -> Elasticities:
    """Fit elasticities on the populations of a benchmark: use by bucket under drawn prices and without any.

    Each path is simulated without prices, and under Haar prices and pulses of its first resource; log ratios are fitted
    by least squares, weighted by use without prices. Negative numbers are set to 0.
    """
    edges = bucket_edges(np.asarray(benchmark.agent_pool.population.demand_scale), buckets)
    paths = range(benchmark.sizes.paths)
    rows = [row for path in paths for row in _examples(benchmark.episode(path), edges)]
    prices, free, priced = (np.concatenate(each) for each in zip(*rows, strict=True))
    return fit_to_examples(edges, prices, free, priced)


def fit_to_examples(
    edges: Float[np.ndarray, " edge"],
    prices: Float[np.ndarray, "example term"],
    free: Float[np.ndarray, "example bucket"],
    priced: Float[np.ndarray, "example bucket"],
) -> Elasticities:
    """Fit each bucket's two numbers to use with and without prices.

    Args:
        edges: of the buckets.
        prices: a week's price, and its excess over its neighbours', in scales.
        free, priced: use of each bucket in the week without and with prices [any unit].
    """
    fitted = []
    for without, used in zip(free.T, priced.T, strict=True):
        weight = np.sqrt(np.maximum(without, 0.0))
        ratio = np.log(np.maximum(used, LEAST_RATIO * without) / np.maximum(without, np.finfo(float).tiny))
        target = np.where(without > 0, ratio, 0.0)
        fitted.append(np.linalg.lstsq(-prices * weight[:, None], target * weight, rcond=None)[0])
    own, shift = np.maximum(np.stack(fitted, axis=1), 0.0)
    return Elasticities(edges, own, shift)


def _examples(
    episode: BenchmarkPopulation, edges: Float[np.ndarray, " edge"]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Simulate the coordinated weeks; yield prices, use without and use with them by week."""
    unit = np.asarray(units_of(episode.pop_window.population).price, float)
    group = jnp.asarray(bucket_of(np.asarray(episode.pop_window.population.demand_scale), edges))
    weeks = len(episode.free.utilization)
    no_prices = np.zeros((weeks, len(unit)))
    free = _use_by_bucket(episode, group, no_prices, len(edges) + 1)
    for family in (HaarPrices(), PulsePrices()):
        drawn = no_prices.copy()
        drawn[:, [0]] = family.sample(episode.path, weeks, unit[:1]).prices
        used = _use_by_bucket(episode, group, drawn, len(edges) + 1)
        scaled = drawn[:, 0] / unit[0]
        around = np.pad(scaled, 1, mode="edge")
        terms = np.stack([scaled, scaled - 0.5 * (around[:-2] + around[2:])], axis=1)
        yield terms[FIRST_FITTED:], free[FIRST_FITTED:], used[FIRST_FITTED:]


def _use_by_bucket(
    episode: BenchmarkPopulation, group: Array, shadow_prices: Float[np.ndarray, "week resource"], buckets: int
) -> Float[np.ndarray, "week bucket"]:
    """Return use of the first resource by bucket."""
    record = Record(group=group, n_groups=buckets, flows=())
    prices = jnp.asarray(shadow_prices, jnp.float32)
    parts = (episode.pop_window.population, episode.future(1), episode.policy)
    rollout = simulate(*parts, initial=episode.state, shadow_prices=prices, record=record)
    assert rollout.groups is not None  # requested by the record
    return np.asarray(rollout.groups, float)[0, :, :, 0]
