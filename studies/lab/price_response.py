"""How strongly single agents respond to prices: pulses and lasting prices, by demand bucket, and what explains it.

Prices are in median unit margins and announced in full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lab.capacity_benchmark import BenchmarkPopulation
from lab.encoding import encode_case
from walras.exogenous.paths import ExogenousPaths
from walras.maps.file import LearnedMap
from walras.policies.base import Policy
from walras.population.population import N_BUCKETS, Population, bucket_edges, bucket_of
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of
from walras.simulation.week import State

FIRST, AFTER = 10, 5
"""First week of a pulse, by which nearly all orders can have arrived; weeks kept after its start."""

LASTING = 0
"""Length that stands for a price that lasts from `FIRST` on."""

AROUND = 4
"""Weeks before and after a pulse in which shifted orders are counted."""

DECILES = 10
CLIPPED = (1.0, 99.0)
"""Percentiles at which responses are clipped before a regression; a product sold once a year moves by any share."""

LARGE = 0.05
"""Entries of a slope below this share of its largest do not count where signs are compared."""

Values = Float[np.ndarray, " agent"]
PricePath = Float[np.ndarray, " week"]


@dataclass(frozen=True, eq=False)
class RespondingPopulation:
    """Agents, their state, and the weeks to come.

    Attributes:
        population, policy, state: agents, what they follow, and from what state.
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
    def of(episode: BenchmarkPopulation, policy: Policy | None = None) -> "RespondingPopulation":
        """Simulate the history of a benchmark population under a policy, by default its own."""
        pop_window, state = episode.pop_window, episode.state
        if policy is not None:
            before = week_of(pop_window.exogenous, jnp.asarray(0), episode.first)
            state = simulate(pop_window.population, before, policy, initial=pop_window.initial).final
        future = week_of(pop_window.exogenous, jnp.asarray(episode.first), pop_window.n_weeks - episode.first)
        past = np.asarray(pop_window.exogenous.demand[: episode.first], float)
        return RespondingPopulation(
            pop_window.population, policy or episode.policy, state, future, episode.price_scale, past
        )

    @property
    def weeks(self) -> int:
        """Number of coming weeks."""
        return self.future.n_weeks

    @property
    def size(self) -> Values:
        """Historical demand, above 0 [units/week]."""
        return np.maximum(np.asarray(self.population.demand_scale, float), 1e-9)

    def use(self, prices: PricePath) -> Float[np.ndarray, "week agent"]:
        """Return each agent's use of the first resource under prices in median unit margins."""
        charged = jnp.zeros((self.weeks, len(self.population.resources))).at[:, 0].set(self.scale * prices)
        return np.asarray(_use_by_agent(self.population, self.future, self.policy, self.state, charged), float)


@eqx.filter_jit
def _use_by_agent(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    state: State,
    shadow_prices: Float[Array, "week resource"],
) -> Float[Array, "week agent"]:
    more: dict[str, Any] = {"shadow_prices": shadow_prices, "record": Record.traces(), "throw": False}
    traces = simulate(population, exogenous, policy, initial=state, **more).agents
    assert traces is not None  # requested by the record
    return traces.receipts * (population.use[:, 0] * population.weight)[None, :]


def pulse_starts(weeks: int, count: int) -> list[int]:
    """Return the weeks in which pulses start, evenly spread."""
    return sorted({int(week) for week in np.linspace(min(FIRST, weeks // 2), max(weeks - AFTER, weeks // 2), count)})


def price_pulse(weeks: int, start: int, length: int, height: float) -> tuple[PricePath, slice]:
    """Return a price path in median unit margins, and the weeks that it charges."""
    charged = slice(start, weeks) if length == LASTING else slice(start, min(start + length, weeks))
    prices = np.zeros(weeks)
    prices[charged] = height
    return prices, charged


def pulse_responses(
    agents: RespondingPopulation, lengths: Sequence[int], heights: Sequence[float], count: int
) -> tuple[dict[str, Any], dict[tuple[int, float], Float[np.ndarray, "begin agent"]]]:
    """Charge pulses of several lengths and heights, and compare use with that without prices.

    Args:
        agents: the population.
        lengths: of pulses [weeks]; `LASTING` for a price that lasts.
        heights: in median unit margins.
        count: weeks in which pulses start; a lasting price starts once.

    Returns:
        Relative change of use in the charged weeks, in all (`total`), by demand bucket (`bucket`), and the gain of the
        weeks before and after a pulse as a share of its loss (`before`, `after`), all by length and height; and what
        every agent gives up in each pulse [weeks of its demand].
    """
    free = agents.use(np.zeros(agents.weeks))
    bucket, responses, own = bucket_of(agents.size, bucket_edges(agents.size)), {}, {}
    for length in lengths:
        starts = pulse_starts(agents.weeks, count if length != LASTING else 1)
        for height in heights:
            pulses = [price_pulse(agents.weeks, start, length, height) for start in starts]
            changes = [(agents.use(prices) - free, charged) for prices, charged in pulses]
            responses[f"{length}:{height:g}"] = _summarise(changes, free, bucket)
            own[length, height] = np.stack(
                [-change[at].sum(0) / agents.size / max(at.stop - at.start, 1) for change, at in changes]
            )
    return responses, own


def _summarise(
    changes: Sequence[tuple[np.ndarray, slice]],
    free: Float[np.ndarray, "week agent"],
    bucket: Int[np.ndarray, " agent"],
) -> dict[str, Any]:
    """Sum over pulses before dividing, so that weeks with little use count little."""
    lost = sum(change[at].sum(0) for change, at in changes)
    usual = sum(free[at].sum(0) for _, at in changes)
    before = sum(change[max(at.start - AROUND, 0) : at.start].sum() for change, at in changes)
    after = sum(change[at.stop : at.stop + AROUND].sum() for change, at in changes)
    total = float(np.sum(lost))
    by_bucket = [np.bincount(bucket, part, N_BUCKETS) for part in (lost, usual)]
    return {
        "total": total / max(float(np.sum(usual)), 1e-9),
        "bucket": [float(x / y) if y > 0 else None for x, y in zip(*by_bucket, strict=True)],
        "before": before / -total if total < 0 else None,
        "after": after / -total if total < 0 else None,
    }


def agent_attributes(agents: RespondingPopulation) -> dict[str, Values]:
    """Return attributes that may explain responses, known beforehand."""
    population, size = agents.population, agents.size
    margin = np.maximum(np.asarray(population.unit_margin, float), 1e-3 * agents.scale)
    cost = agents.future.unit_cost
    cost = np.asarray(cost, float)[0] if cost.ndim > 1 else cost
    spread = agents.past.std(0) / np.maximum(agents.past.mean(0), 1e-9)
    position = np.asarray(agents.state.stock_end + agents.state.pipeline.sum(0), float)
    return {
        "margin": np.log(margin / agents.scale),
        "relative margin": margin / np.maximum(margin + np.asarray(cost, float), 1e-9),
        "lead time": np.log(np.maximum(np.asarray(population.lead_time, float), 1.0)),
        "lumpiness": np.log1p(spread),
        "demand": np.log(size),
        "weeks of cover": np.log1p(position / size),
    }


def explain_variance(responses: Float[np.ndarray, "begin agent"], known: Mapping[str, Values]) -> dict[str, Any]:
    """Regress responses on attributes.

    Returns:
        `linear`, `tenths`: explained variance by a linear regression, and by a level for each decile of each attribute.
        `reliability`: upper bound of any explanation, from halves of the pulses (Spearman-Brown); None for a single
        pulse. `alone`, `only`: explained by the attribute's deciles alone, and lost without it. `coefficient`: of the
        standardised attribute on the standardised response.
    """
    mean = _clip(responses.mean(0))
    deciles = {name: _deciles(values) for name, values in known.items()}
    linear = np.stack([_standardise(values) for values in known.values()], 1)
    whole = _explained(np.concatenate(list(deciles.values()), 1), mean)
    coefficients = np.linalg.lstsq(_with_constant(linear), _standardise(mean), rcond=None)[0][1:]
    without = {
        name: _explained(np.concatenate([part for other, part in deciles.items() if other != name], 1), mean)
        for name in known
    }
    return {
        "linear": _explained(linear, mean),
        "tenths": whole,
        "reliability": _reliability(responses),
        "alone": {name: _explained(part, mean) for name, part in deciles.items()},
        "only": {name: whole - rest for name, rest in without.items()},
        "coefficient": {name: float(value) for name, value in zip(known, coefficients, strict=True)},
    }


def _clip(values: Values) -> Values:
    return np.clip(values, *np.percentile(values, CLIPPED))


def _standardise(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / (spread if spread > 0 else 1.0)


def _deciles(values: Values) -> Float[np.ndarray, "agent decile"]:
    decile = bucket_of(values, np.unique(bucket_edges(values, DECILES)))
    return np.eye(int(decile.max()) + 1)[decile][:, 1:]


def _with_constant(columns: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(columns), 1)), columns], 1)


def _explained(columns: Float[np.ndarray, "agent column"], response: Values) -> float:
    """Return the share of variance explained, adjusted for the number of columns."""
    if response.std() <= 0:
        return 0.0
    design = _with_constant(columns)
    left = response - design @ np.linalg.lstsq(design, response, rcond=None)[0]
    free = max(len(response) - design.shape[1], 1)
    return float(1 - (left @ left / free) / (response.var() * len(response) / max(len(response) - 1, 1)))


def _reliability(responses: Float[np.ndarray, "begin agent"]) -> float | None:
    if len(responses) < 2:
        return None
    halves = [_clip(responses[start::2].mean(0)) for start in (0, 1)]
    if min(half.std() for half in halves) <= 0:
        return None
    together = float(np.corrcoef(np.stack(halves))[0, 1])
    return 2 * together / (1 + together) if together > 0 else 0.0


def compare_slopes(
    episode: BenchmarkPopulation,
    agents: RespondingPopulation,
    maps: Mapping[str, LearnedMap],
    heights: Sequence[float],
    count: int,
    base: float,
) -> dict[str, Any]:
    """Compare one-week pulses, and slopes at a lasting price, as forecast by maps with the simulator."""
    every = pulse_starts(agents.weeks, count)
    pulses = [price_pulse(agents.weeks, start, 1, height)[0] for height in heights for start in every]
    exact = episode.view().jacobian(np.full((agents.weeks, 1), base * agents.scale))
    pulsed, free = np.stack([agents.use(prices).sum(1) for prices in pulses]), agents.use(np.zeros(agents.weeks)).sum(1)
    table = {}
    for name, learned in maps.items():
        view = encode_case(episode, learned)
        weeks = view.n_weeks
        queried = np.stack([prices[:weeks, None] * agents.scale for prices in pulses])
        forecast, quiet = view.utilization(queried)[..., 0], view.utilization(np.zeros((weeks, 1)))[:, 0]
        slope = view.jacobian(np.full((weeks, 1), base * agents.scale))
        starts = [start for start in every if start < weeks]
        reaction: dict[str, list[float]] = {}
        for place, height in enumerate(heights):
            rows = [place * len(every) + number for number in range(len(starts))]
            ours = sum(forecast[row, start] - quiet[start] for row, start in zip(rows, starts, strict=True))
            theirs = sum(pulsed[row, start] - free[start] for row, start in zip(rows, starts, strict=True))
            usual = [sum(level[start] for start in starts) for level in (quiet, free)]
            reaction[f"{height:g}"] = [float(ours / usual[0]), float(theirs / max(usual[1], 1e-9))]
        table[name] = {**_slope_error(slope[1:, 1:], exact[1:weeks, 1:weeks]), "reaction": reaction}
    return table


def _slope_error(slope: Float[np.ndarray, "use price"], exact: Float[np.ndarray, "use price"]) -> dict[str, float]:
    large = np.abs(exact) > LARGE * np.abs(exact).max()
    return {
        "relative_error": float(np.linalg.norm(slope - exact) / np.linalg.norm(exact)),
        "sign_right": float((np.sign(slope) == np.sign(exact))[large].mean()),
        "diagonal_ratio": float(np.trace(slope) / np.trace(exact)),
        "total_ratio": float(slope.sum() / exact.sum()),
    }
