"""Own how strongly agents answer prices, one by one: pulses and lasting prices, by demand bucket, and what explains it.

FREE: who answers is a scene of `control.fixed_plan`; prices are in median unit margins, announced in full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lab.capacity_benchmark import BenchmarkPopulation
from lab.encode_case import encode_case
from walras.exogenous.paths import ExogenousPaths
from walras.maps.file import LearnedMap
from walras.policies.base import Policy
from walras.population.population import N_BUCKETS, Population, bucket_edges, bucket_of
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of
from walras.simulation.state import State

FIRST, ROOM = 10, 5
"""First week of a pulse, by which nearly everybody's orders can have arrived; weeks kept after its beginning."""

LASTING = 0
"""Length that stands for a price that lasts from `FIRST` on."""

AROUND = 4
"""Weeks before and after a pulse in which it is looked for what it moved."""

DECILES = 10
CUT = (1.0, 99.0)
"""Percentiles at which responses are cut before they are regressed: one sold once a year moves by any share."""


@dataclass(frozen=True, eq=False)
class Answering:
    """Hold who answers prices, from what state, in which coming weeks.

    Attributes:
        population, policy, state: who, how, from what.
        future: coming weeks, one path.
        scale: median unit margin [money per unit of resource].
        past: demand of the history [units; week, agent].
    """

    population: Population
    policy: Policy
    state: State
    future: ExogenousPaths
    scale: float
    past: Float[np.ndarray, "week agent"]

    @staticmethod
    def of(scene: BenchmarkPopulation, policy: Policy | None = None) -> "Answering":
        """Let a scene's agents follow a policy through its history, its own by default."""
        stretch, state = scene.stretch, scene.state
        if policy is not None:
            before = week_of(stretch.exogenous, jnp.asarray(0), scene.first)
            state = simulate(stretch.population, before, policy, initial=stretch.initial).final
        future = week_of(stretch.exogenous, jnp.asarray(scene.first), stretch.n_weeks - scene.first)
        past = np.asarray(stretch.exogenous.demand[: scene.first], float)
        return Answering(stretch.population, policy or scene.policy, state, future, scene.price_scale, past)

    @property
    def weeks(self) -> int:
        """Count the coming weeks."""
        return self.future.n_weeks

    def use(self, prices: Float[np.ndarray, " week"]) -> Float[np.ndarray, "week agent"]:
        """Return everybody's use of the first resource under prices in median unit margins."""
        charged = jnp.zeros((self.weeks, len(self.population.resources))).at[:, 0].set(self.scale * prices)
        return np.asarray(_use(self.population, self.future, self.policy, self.state, charged), float)


@eqx.filter_jit
def _use(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    state: State,
    shadow_prices: Float[Array, "week resource"],
) -> Float[Array, "week agent"]:
    parts: dict[str, Any] = {
        "initial": state,
        "shadow_prices": shadow_prices,
        "record": Record.traces(),
        "throw": False,
    }
    happened = simulate(population, exogenous, policy, **parts).agents
    assert happened is not None  # traces were asked for
    return happened.receipts * (population.use[:, 0] * population.weight)[None, :]


def begins(weeks: int, count: int) -> list[int]:
    """Return weeks in which pulses begin, as evenly spread as fits."""
    return sorted({int(week) for week in np.linspace(min(FIRST, weeks // 2), max(weeks - ROOM, weeks // 2), count)})


def pulse(weeks: int, begin: int, length: int, height: float) -> tuple[Float[np.ndarray, " week"], slice]:
    """Return a price path in median unit margins, and the weeks that it charges."""
    charged = slice(begin, weeks) if length == LASTING else slice(begin, min(begin + length, weeks))
    prices = np.zeros(weeks)
    prices[charged] = height
    return prices, charged


def reactions(
    who: Answering, lengths: Sequence[int], heights: Sequence[float], count: int
) -> tuple[dict[str, Any], dict[tuple[int, float], Float[np.ndarray, "begin agent"]]]:
    """Charge pulses of several lengths and heights, and compare everybody's use with that without prices.

    Args:
        who: answers.
        lengths: of pulses [weeks]; `LASTING` for a price that lasts.
        heights: in median unit margins.
        count: weeks in which pulses begin; what lasts begins once.

    Returns:
        Relative change of use in the charged weeks, in all (`total`), by demand bucket (`bucket`), and what the weeks
        before and after a pulse gain as a share of what it loses (`before`, `after`), all by length and height; and
        what every agent gives up in each pulse [weeks of its demand].
    """
    free = who.use(np.zeros(who.weeks))
    bucket, found, own = buckets(who), {}, {}
    for length in lengths:
        starts = begins(who.weeks, count if length != LASTING else 1)
        for height in heights:
            paths = [pulse(who.weeks, start, length, height) for start in starts]
            moved = [(who.use(prices) - free, charged) for prices, charged in paths]
            found[f"{length}:{height:g}"] = _reaction(moved, free, bucket)
            size = np.maximum(np.asarray(who.population.demand_scale, float), 1e-9)
            own[length, height] = np.stack(
                [-change[charged].sum(0) / size / max(charged.stop - charged.start, 1) for change, charged in moved]
            )
    return found, own


def _reaction(
    moved: Sequence[tuple[np.ndarray, slice]], free: Float[np.ndarray, "week agent"], bucket: Int[np.ndarray, " agent"]
) -> dict[str, Any]:
    """Add up over pulses before dividing, so that quiet weeks count as little as they use."""
    lost = sum(change[charged].sum(0) for change, charged in moved)
    usual = sum(free[charged].sum(0) for _, charged in moved)
    before = sum(change[max(weeks.start - AROUND, 0) : weeks.start].sum() for change, weeks in moved)
    after = sum(change[weeks.stop : weeks.stop + AROUND].sum() for change, weeks in moved)
    total = float(np.sum(lost))
    by_bucket = [np.bincount(bucket, part, N_BUCKETS) for part in (lost, usual)]
    return {
        "total": total / max(float(np.sum(usual)), 1e-9),
        "bucket": [float(x / y) if y > 0 else None for x, y in zip(*by_bucket, strict=True)],
        "before": before / -total if total < 0 else None,
        "after": after / -total if total < 0 else None,
    }


def buckets(who: Answering) -> Int[np.ndarray, " agent"]:
    """Return everybody's demand bucket, 0 for the smallest tenth."""
    size = np.asarray(who.population.demand_scale, float)
    return bucket_of(size, bucket_edges(size))


def attributes(who: Answering) -> dict[str, Float[np.ndarray, " agent"]]:
    """Return what may explain how an agent answers, known before it does."""
    population = who.population
    size = np.maximum(np.asarray(population.demand_scale, float), 1e-9)
    margin = np.maximum(np.asarray(population.unit_margin, float), 1e-3 * who.scale)
    cost = np.asarray(who.future.unit_cost, float)[0] if who.future.unit_cost.ndim > 1 else who.future.unit_cost
    spread = who.past.std(0) / np.maximum(who.past.mean(0), 1e-9)
    standing = np.asarray(who.state.stock_end + who.state.pipeline.sum(0), float)
    return {
        "margin": np.log(margin / who.scale),
        "relative margin": margin / np.maximum(margin + np.asarray(cost, float), 1e-9),
        "lead time": np.log(np.maximum(np.asarray(population.lead_time, float), 1.0)),
        "lumpiness": np.log1p(spread),
        "demand": np.log(size),
        "weeks of cover": np.log1p(standing / size),
    }


def explained(
    responses: Float[np.ndarray, "begin agent"], known: Mapping[str, Float[np.ndarray, " agent"]]
) -> dict[str, Any]:
    """Regress everybody's response on attributes.

    Args:
        responses: of every pulse; their mean over pulses is regressed, cut at `CUT`.
        known: attributes.

    Returns:
        `linear`, `tenths`: explained variance by straight lines, and by a level for each tenth of each attribute.
        `reliability`: what any explanation could reach at most, from halves of the pulses (Spearman and Brown); None
        for a single pulse. `alone`, `only`: explained by the attribute's tenths alone, and lost without it.
        `coefficient`: of the standardised attribute on the standardised response.
    """
    mean = _cut(responses.mean(0))
    tenths = {name: _tenths(values) for name, values in known.items()}
    straight = np.stack([_standard(values) for values in known.values()], 1)
    whole = _fit(np.concatenate(list(tenths.values()), 1), mean)
    coefficients = np.linalg.lstsq(_with_one(straight), _standard(mean), rcond=None)[0][1:]
    without = {
        name: _fit(np.concatenate([part for other, part in tenths.items() if other != name], 1), mean) for name in known
    }
    return {
        "linear": _fit(straight, mean),
        "tenths": whole,
        "reliability": _reliability(responses),
        "alone": {name: _fit(part, mean) for name, part in tenths.items()},
        "only": {name: whole - rest for name, rest in without.items()},
        "coefficient": {name: float(value) for name, value in zip(known, coefficients, strict=True)},
    }


def _cut(values: Float[np.ndarray, " agent"]) -> Float[np.ndarray, " agent"]:
    return np.clip(values, *np.percentile(values, CUT))


def _standard(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / (spread if spread > 0 else 1.0)


def _tenths(values: Float[np.ndarray, " agent"]) -> Float[np.ndarray, "agent tenth"]:
    place = bucket_of(values, np.unique(bucket_edges(values, DECILES)))
    return np.eye(int(place.max()) + 1)[place][:, 1:]


def _with_one(columns: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(columns), 1)), columns], 1)


def _fit(columns: Float[np.ndarray, "agent column"], response: Float[np.ndarray, " agent"]) -> float:
    """Return the share of variance explained, adjusted for the number of columns."""
    if response.std() <= 0:
        return 0.0
    design = _with_one(columns)
    left = response - design @ np.linalg.lstsq(design, response, rcond=None)[0]
    free = max(len(response) - design.shape[1], 1)
    return float(1 - (left @ left / free) / (response.var() * len(response) / max(len(response) - 1, 1)))


def _reliability(responses: Float[np.ndarray, "begin agent"]) -> float | None:
    if len(responses) < 2:
        return None
    halves = [_cut(responses[start::2].mean(0)) for start in (0, 1)]
    if min(half.std() for half in halves) <= 0:
        return None
    together = float(np.corrcoef(np.stack(halves))[0, 1])
    return 2 * together / (1 + together) if together > 0 else 0.0


def slopes(
    scene: BenchmarkPopulation,
    who: Answering,
    maps: Mapping[str, LearnedMap],
    heights: Sequence[float],
    count: int,
    base: float,
) -> dict[str, Any]:
    """Compare how maps see one-week pulses, and slopes at a lasting price, with the simulator.

    Args:
        scene, who: the population; its policy is that of the maps.
        maps: primal maps by name.
        heights: of the pulses, in median unit margins.
        count: weeks in which they begin.
        base: lasting price at which slopes are compared, in median unit margins.
    """
    true = [
        scene.view().jacobian(np.full((who.weeks, 1), base * who.scale)),
        np.stack([who.use(prices).sum(1) for prices in _pulses(who.weeks, heights, count)]),
        who.use(np.zeros(who.weeks)).sum(1),
    ]
    found = {}
    for name, learned in maps.items():
        view = encode_case(scene, learned)
        weeks = view.n_weeks
        asked = np.stack([prices[:weeks, None] * who.scale for prices in _pulses(who.weeks, heights, count)])
        said = view.utilization(asked)[..., 0], view.utilization(np.zeros((weeks, 1)))[:, 0]
        slope = view.jacobian(np.full((weeks, 1), base * who.scale))
        exact = true[0][:weeks, :weeks]
        reaction: dict[str, list[float]] = {}
        starts = [week for week in begins(who.weeks, count) if week < weeks]
        for place, height in enumerate(heights):
            rows = [place * len(begins(who.weeks, count)) + number for number in range(len(starts))]
            ours = sum(said[0][row, week] - said[1][week] for row, week in zip(rows, starts, strict=True))
            theirs = sum(true[1][row, week] - true[2][week] for row, week in zip(rows, starts, strict=True))
            usual = [sum(level[week] for week in starts) for level in (said[1], true[2])]
            reaction[f"{height:g}"] = [float(ours / usual[0]), float(theirs / max(usual[1], 1e-9))]
        found[name] = {**_slope_error(slope[1:, 1:], exact[1:, 1:]), "reaction": reaction}
    return found


def _pulses(weeks: int, heights: Sequence[float], count: int) -> list[Float[np.ndarray, " week"]]:
    return [pulse(weeks, begin, 1, height)[0] for height in heights for begin in begins(weeks, count)]


MATTERS = 0.05
"""Entries of a slope below this share of its largest do not count where signs are compared."""


def _slope_error(slope: Float[np.ndarray, "use price"], exact: Float[np.ndarray, "use price"]) -> dict[str, float]:
    large = np.abs(exact) > MATTERS * np.abs(exact).max()
    return {
        "relative_error": float(np.linalg.norm(slope - exact) / np.linalg.norm(exact)),
        "sign_right": float((np.sign(slope) == np.sign(exact))[large].mean()),
        "diagonal_ratio": float(np.trace(slope) / np.trace(exact)),
        "total_ratio": float(slope.sum() / exact.sum()),
    }
