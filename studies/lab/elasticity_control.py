"""Own the analytic controller: how use falls with its price, fitted once by demand bucket, and prices that follow.

OPEN: another form of the response is another class beside `Elasticities`; the fitted numbers are `elasticity.json`.
"""

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
from lab.controllers import AbstractController, seconds_of_weeks
from lab.timing import TimedJit
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
from walras.simulation.state import State

SWEEPS, HALVINGS = 30, 24
"""Sweeps over the coming weeks, each finding every week's price by so many halvings given its neighbours'."""

LEAST_RATIO = 0.02
"""Use under prices counts as at least this share of use without: the logarithm of nothing says nothing."""

FIRST_FITTED = 12
"""Coordinated weeks that a fit leaves out, while orders placed before the first price still arrive."""


@dataclass(frozen=True, eq=False)
class Elasticities:
    """Say how a demand bucket's use answers to prices: `u = expected exp(-own lambda_h - shift gap_h)`.

    Lambda is in price scales, and `gap_h` is what the week's price is above the mean of its two neighbours: a price
    that stays costs the agents whose margin it eats, one that stands out moves orders to the weeks beside it, and their
    use rises by the same term.

    Attributes:
        edges: inner edges of the buckets [units/week].
        own: fall of log use per price scale.
        shift: fall of log use per price scale above the neighbouring weeks.
    """

    edges: Float[np.ndarray, " edge"]
    own: Float[np.ndarray, " bucket"]
    shift: Float[np.ndarray, " bucket"]

    def write(self, path: str | Path) -> None:
        """Write the numbers as JSON, aside and then renamed."""
        rows = {name: np.round(values, 5).tolist() for name, values in asdict(self).items()}
        write_text(path, json.dumps(rows, indent=1) + "\n")

    @staticmethod
    def read(path: str | Path) -> "Elasticities":
        """Read what `write` wrote.

        Raises:
            InputError: no such file, or one with other numbers in it.
        """
        try:
            return _of_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is no file of fitted elasticities; give one that `benchmarks/elasticity.py --out` wrote"
            ) from error

    @staticmethod
    def shipped() -> "Elasticities":
        """Read those that `python benchmarks/elasticity.py` fitted on a made-up world that judges nothing."""
        return _of_json((Path(__file__).parent / "elasticity.json").read_text(encoding="utf-8"))


def _of_json(text: str) -> Elasticities:
    rows = json.loads(text)
    found = Elasticities(**{name: np.asarray(rows[name], float) for name in ("edges", "own", "shift")})
    if not len(found.edges) + 1 == len(found.own) == len(found.shift):
        raise ValueError("lengths")
    return found


@dataclass(frozen=True)
class ElasticityControl(AbstractController):
    """Set every week the prices at which expected use, under fitted elasticities, is the capacity.

    What of the coming weeks is on order already is known and answers to no price. The rest is the forecast of
    everybody's use, in the part that falls to agents of each bucket whose orders can still arrive by then (their usual
    lead time, spread as lead times are), times the bucket's answer to the prices of the week and its two neighbours.
    Each week's price is the one root of a falling function, given its neighbours'; a few sweeps settle them.

    Left out: how much stock agents have (an order only makes up for what was sold, so the weeks after a dear one ask
    for more than expected demand), moves over more than one week, prices of other resources, and how elasticities
    differ within a bucket, by margin above all.

    Attributes:
        fitted: the elasticities.
        name: in tables.
        ceiling: highest price, in price scales.
    """

    fitted: Elasticities = field(default_factory=Elasticities.shipped)
    name: str = "elasticity"
    ceiling: float = 2.0

    def keep(self, case: BenchmarkCase) -> ControlOutcome:
        """Go week by week."""
        scene = case.scene
        response = _Response.of(self.fitted, scene.stretch, self.ceiling)
        (use, reward, charged), seconds = _controlled(scene.stretch, scene.policy, case.plan, scene.state, response)
        work = ComputeCost(seconds=max(seconds - seconds_of_weeks(scene), 0.0))
        return ControlOutcome(np.asarray(use, float), float(reward), np.asarray(charged, float), work)


class _Response(eqx.Module):
    """Hold what of the coming weeks' expected use falls to whom, and how they answer.

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
    def of(fitted: Elasticities, stretch: PopulationWindow, ceiling: float) -> "_Response":
        """Add agents up."""
        people = stretch.population
        size = np.asarray(people.demand_scale, float)
        bucket = bucket_of(size, fitted.edges)[:, None] == np.arange(len(fitted.own))
        worth = (np.asarray(people.weight) * size)[:, None] * np.asarray(people.use, float)
        by_then = _arrived(np.asarray(people.lead_time, float))
        part = np.einsum("ha,ab,ar->hbr", by_then, bucket.astype(float), worth / worth.sum(0))
        part, own, shift = (jnp.asarray(each, jnp.float32) for each in (part, fitted.own, fitted.shift))
        return _Response(part, own, shift, units_of(people).price, ceiling)

    def use(
        self,
        prices: Float[Array, "ahead resource"],
        beside: Float[Array, "ahead resource"],
        expected: Float[Array, "ahead resource"],
    ) -> Float[Array, "ahead resource"]:
        """Return use by orders still to be placed [units of resource].

        Args:
            prices: of the coming weeks, in scales.
            beside: mean price of each week's neighbours.
            expected: use if everybody received what is asked for [units of resource].
        """
        own, shift = self.own[None, :, None], self.shift[None, :, None]
        answer = jnp.exp(-own * prices[:, None] - shift * (prices - beside)[:, None])
        return expected * (self.part * answer).sum(1)

    def prices(
        self,
        room: Float[Array, "ahead resource"],
        expected: Float[Array, "ahead resource"],
        charged: Float[Array, " resource"],
        start: Float[Array, "ahead resource"],
    ) -> Float[Array, "ahead resource"]:
        """Return the prices, in scales, at which use by orders still to be placed fits what is left for them.

        Args:
            room: capacity less what is on order [units of resource].
            expected: as for `use`.
            charged: this week, in scales: the first week's neighbour.
            start: first guess.
        """

        def sweep(_: Array, prices: Array) -> Array:
            before = jnp.concatenate([charged[None], prices[:-1]])
            beside = 0.5 * (before + jnp.concatenate([prices[1:], prices[-1:]]))
            return 0.5 * (prices + self._roots(room, beside, expected))

        return jax.lax.fori_loop(0, SWEEPS, sweep, start)

    def _roots(self, room: Array, beside: Array, expected: Array) -> Float[Array, "ahead resource"]:
        """Halve the range in which each week's price lies: use falls in it."""

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            over = self.use(middle, beside, expected) > room
            return jnp.where(over, middle, low), jnp.where(over, high, middle)

        none = jnp.zeros_like(room)
        low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (none, none + self.ceiling))
        return jnp.where(self.use(none, beside, expected) > room, low, 0.0)


def _arrived(lead: Float[np.ndarray, " agent"]) -> Float[np.ndarray, "ahead agent"]:
    """Return the chance that an order placed now or later can arrive within 1, 2, ... weeks of now."""
    z = (np.log(np.arange(1, HORIZON + 1) + 0.5)[:, None] - np.log(np.maximum(lead, 1.0))[None, :]) / ORDER_LOG_SD
    return np.asarray(jax.scipy.stats.norm.cdf(z), float)


def _control(
    stretch: PopulationWindow, policy: Policy, plan: CapacityTarget, state: State, response: _Response
) -> tuple[Float[Array, "week resource"], Float[Array, ""], Float[Array, "week resource"]]:
    """Return use, reward, and what was charged."""
    per_unit = stretch.population.weight[:, None] * stretch.population.use
    scale = response.scale[None, :]

    def step(running: tuple, week: Array) -> tuple[tuple, Any]:
        state, charged, guess = running
        due = state.pipeline[1 : HORIZON + 1] @ per_unit
        room = plan.coming(week) - jnp.pad(due, ((0, HORIZON - due.shape[0]), (0, 0)))
        found = response.prices(room, stretch.expected_use[week, 1:], charged / response.scale, guess)
        window = price_window(policy, state, charged, found * scale)
        total, _, after, end = step_week(stretch, policy, state, week, window)
        shifted = jnp.concatenate([found[1:], found[-1:]])
        return (after, found[0] * response.scale, shifted), (total[:-1], total[-1], end, charged)

    resources = response.scale.shape[0]
    start = (state, jnp.zeros(resources), jnp.zeros((HORIZON, resources)))
    weeks = jnp.arange(plan.first, stretch.n_weeks)
    _, (use, reward, ends, charged) = jax.lax.scan(step, start, weeks)
    return use, reward.sum() + ends[-1], charged


_controlled = TimedJit(_control)


def fit_elasticities(plans: CapacityBenchmark, buckets: int = 5) -> Elasticities:
    """Fit elasticities on the scenes of a world that trains: use by bucket under drawn prices and without any.

    Each path is simulated without prices, and under Haar prices and pulses of its first resource; log ratios are fitted
    by least squares, weighted by use without prices. Numbers below 0 count as 0.

    Args:
        plans: scenes, one per path; their policy is fitted.
        buckets: of demand, cut at quantiles of the whole world.
    """
    edges = bucket_edges(np.asarray(plans.world.population.demand_scale), buckets)
    rows = [row for path in range(plans.sizes.paths) for row in _examples(plans.scene(path), edges)]
    prices, free, priced = (np.concatenate(each) for each in zip(*rows, strict=True))
    return fitted_to(edges, prices, free, priced)


def fitted_to(
    edges: Float[np.ndarray, " edge"],
    prices: Float[np.ndarray, "example term"],
    free: Float[np.ndarray, "example bucket"],
    priced: Float[np.ndarray, "example bucket"],
) -> Elasticities:
    """Fit each bucket's two numbers to use with and without prices.

    Args:
        edges: of the buckets.
        prices: a week's price, and what it is above its neighbours', in scales.
        free, priced: use of each bucket in the week [any unit].
    """
    found = []
    for mine, other in zip(free.T, priced.T, strict=True):
        weight = np.sqrt(np.maximum(mine, 0.0))
        ratio = np.log(np.maximum(other, LEAST_RATIO * mine) / np.maximum(mine, np.finfo(float).tiny))
        told = np.where(mine > 0, ratio, 0.0)
        found.append(np.linalg.lstsq(-prices * weight[:, None], told * weight, rcond=None)[0])
    own, shift = np.maximum(np.stack(found, axis=1), 0.0)
    return Elasticities(edges, own, shift)


def _examples(
    scene: BenchmarkPopulation, edges: Float[np.ndarray, " edge"]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Simulate a scene's coordinated weeks; yield prices, use without and use with them, week by week."""
    unit = np.asarray(units_of(scene.stretch.population).price, float)
    group = jnp.asarray(bucket_of(np.asarray(scene.stretch.population.demand_scale), edges))
    weeks = len(scene.free.utilization)
    quiet = np.zeros((weeks, len(unit)))
    free = _by_bucket(scene, group, quiet, len(edges) + 1)
    for family in (HaarPrices(), PulsePrices()):
        drawn = quiet.copy()
        drawn[:, [0]] = family.sample(scene.path, weeks, unit[:1]).prices
        used = _by_bucket(scene, group, drawn, len(edges) + 1)
        scaled = drawn[:, 0] / unit[0]
        around = np.pad(scaled, 1, mode="edge")
        terms = np.stack([scaled, scaled - 0.5 * (around[:-2] + around[2:])], axis=1)
        yield terms[FIRST_FITTED:], free[FIRST_FITTED:], used[FIRST_FITTED:]


def _by_bucket(
    scene: BenchmarkPopulation, group: Array, shadow_prices: Float[np.ndarray, "week resource"], buckets: int
) -> Float[np.ndarray, "week bucket"]:
    """Return use of the first resource by bucket."""
    record = Record(group=group, n_groups=buckets, flows=())
    people, prices = scene.stretch.population, jnp.asarray(shadow_prices, jnp.float32)
    parts = (people, scene.future(1), scene.policy)
    rollout = simulate(*parts, initial=scene.state, shadow_prices=prices, record=record)
    assert rollout.groups is not None  # groups were asked for
    return np.asarray(rollout.groups, float)[0, :, :, 0]
