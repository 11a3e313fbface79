"""Demand forecasts and scenarios, fitted on the weekly history of a product table.

A product's demand in a week is `mean * common * ratio`: `mean` is the product's level times the week effect (a Gaussian
process in logs that all products share), `common` draws that process's uncertainty once per scenario, and `ratio` is
demand over fitted mean in a past week. Past weeks are block-bootstrapped, the same weeks for all products, so that
zeros, spikes, runs and shocks that hit many products at once are preserved.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.special import ndtri

from walras.data.panel import Panel
from walras.errors import InputError, SettingsError
from walras.exogenous.calendar import ClosedWeeks, find_closed_weeks, year_lag
from walras.exogenous.demand.effects import (
    AGENTS_AT_ONCE,
    TwoWayEffects,
    WeekEffect,
    age_bins,
    fit_two_way_effects,
    fit_week_effect,
)

SEASONS = ("auto", "yearly", "none")

SEASON_FROM = 53
"""Weeks from which "auto" fits a yearly season: every week of the coming half year was seen a year before."""

FEW_WEEKS = 8
"""A product with fewer weeks on sale borrows its ratios from a product of like level."""


@dataclass(frozen=True)
class DemandSettings:
    """Constants of the fit; the defaults were chosen on training weeks.

    Attributes:
        half_life: weeks after which an observation counts half in a product's level.
        level_weeks: weeks' worth of weight of the product's long-run level.
        class_weeks: weeks' worth of weight of the category's level.
        season_weeks: weeks' worth of weight against the product's own season.
        season_width: weeks on either side of the same week a year before that count in the own season.
        residual_half_life: half-life of the two-sided level that ratios are relative to [weeks].
        residual_weeks: how far back ratios are taken.
        block: weeks drawn together.
        spike: cap on a week's demand, in means of the product's other weeks with demand; the excess is spread over
            all products.
    """

    half_life: float = 10.0
    level_weeks: float = 4.0
    class_weeks: float = 8.0
    season_weeks: float = 6.0
    season_width: int = 3
    residual_half_life: float = 26.0
    residual_weeks: int = 78
    block: int = 4
    spike: float = 20.0


@dataclass(frozen=True, eq=False)
class DemandModel:
    """Predict and draw weekly demand for the weeks after the history; build it with `DemandModel.fit`.

    Attributes:
        agents: product identifiers [agent].
        level: level of each product [units per week at week effect 1].
        effect: the week effect of all products.
        closings: weeks of the history in which everything was closed or short.
        ratio: demand over fitted mean in past weeks, mean 1 per product [past week, agent].
        forecast: the user's own forecast, which replaces the mean in its weeks [units per week].
        integer: demand comes in whole units.
        limits: sentences on what the history is too short or too sparse for.
        settings: the constants of the fit.
    """

    agents: np.ndarray
    level: Float32[np.ndarray, " agent"]
    effect: WeekEffect
    closings: ClosedWeeks
    ratio: Float32[np.ndarray, "past agent"]
    forecast: Float[np.ndarray, "ahead agent"] | None
    integer: bool
    limits: tuple[str, ...]
    settings: DemandSettings
    _yearly: bool
    _age: Float32[np.ndarray, " bin"] = field(repr=False)
    _on_sale: Bool[np.ndarray, "week agent"] = field(repr=False)
    _served: Float32[np.ndarray, "week agent"] = field(repr=False)
    _exposure: Float32[np.ndarray, "week agent"] = field(repr=False)
    _base: Float32[np.ndarray, " agent"] = field(repr=False)
    _cap_factor: float

    @staticmethod
    def fit(panel: Panel, *, season: str = "auto", settings: DemandSettings | None = None) -> "DemandModel":
        """Fit level, season, closings and ratios on a panel's history.

        Args:
            panel: the history; its `forecast`, where present, becomes the mean of the weeks it covers.
            season: "yearly" always fits a season, "none" never, "auto" from 53 weeks of history on.
            settings: constants of the fit.

        Raises:
            InputError: the panel has no weeks or products, or its demand is negative or not finite.
            SettingsError: an unknown `season`.
        """
        _check(panel, season)
        chosen = settings or DemandSettings()
        units = panel.units.astype(np.float32)
        cut = _cap_spikes(units, chosen.spike)
        closings = find_closed_weeks(cut.sum(axis=1, dtype=np.float64), (units > 0).sum(axis=1).astype(float))
        known = _after_launch(panel.on_sale) & closings.usual[:, None] & ~panel.out_of_stock
        yearly = season == "yearly" or (season == "auto" and panel.n_weeks >= SEASON_FROM)
        past = np.arange(panel.n_weeks)
        bins = age_bins(panel.on_sale, past)
        parts = fit_two_way_effects(cut, known, bins)
        effect = _smooth(parts, known, yearly)
        exposure = np.zeros(units.shape, np.float32)
        for row, shared in enumerate(_shared(effect, past)):
            np.copyto(exposure[row], shared * parts.age[bins[row]], where=known[row], casting="same_kind")
        served = np.where(known, cut, np.float32(0.0))
        base = _class_level(served, exposure, panel.category)
        level = _levels(served, exposure, base, chosen)
        return DemandModel(
            agents=panel.agents,
            level=level,
            effect=effect,
            closings=closings,
            ratio=_ratios(panel, served, exposure, level, chosen),
            forecast=panel.forecast,
            integer=bool(np.all(units == np.rint(units))),
            limits=_limits(panel, known, closings, yearly),
            settings=chosen,
            _yearly=yearly,
            _age=parts.age.astype(np.float32),
            _on_sale=panel.on_sale,
            _served=served,
            _exposure=exposure,
            _base=base,
            _cap_factor=_cap_correction(units, served, known),
        )

    @property
    def n_weeks(self) -> int:
        """Count the weeks of history."""
        return int(self._served.shape[0])

    def _shape(self, weeks: np.ndarray) -> np.ndarray:
        """Return week effect x age effect, closings left out [week, agent]."""
        shape = np.empty((len(weeks), len(self.agents)), np.float32)
        for row, shared, bins in zip(shape, _shared(self.effect, weeks), age_bins(self._on_sale, weeks), strict=True):
            row[:] = shared * self._age[bins]
        return shape

    def mean(self, weeks: int) -> Float32[np.ndarray, "week agent"]:
        """Return the expected demand of the coming `weeks` [units per week]."""
        ahead = _ahead(self.n_weeks, weeks)
        out = self._own_season(ahead) * self._shape(ahead)
        out *= (self.closings.expected(ahead) * self._cap_factor).astype(np.float32)[:, None]
        return self._with_forecast(out)

    def sd(self, weeks: int) -> Float32[np.ndarray, "week agent"]:
        """Return the predictive standard deviation per product and week, common part included [units per week]."""
        mean = self.mean(weeks)
        out = np.empty_like(mean)
        variance = np.diag(self._common_covariance(weeks))
        for first in range(0, len(self.agents), AGENTS_AT_ONCE):
            block = slice(first, first + AGENTS_AT_ONCE)
            ratio = self.ratio[:, block]
            second = np.square(ratio, dtype=np.float64).mean(axis=0)
            for week in range(weeks):
                usual = mean[week, block]
                out[week, block] = usual**2 * np.maximum(second * np.exp(variance[week]) - 1.0, 0.0)
                if self.integer:
                    part = usual * ratio
                    part -= np.floor(part)
                    out[week, block] += (part * (1.0 - part)).mean(axis=0)
        return np.sqrt(out, out=out)

    def sample(self, scenarios: int, weeks: int, *, seed: int) -> Float32[np.ndarray, "scenario week agent"]:
        """Draw demand paths of the coming `weeks`; their mean over scenarios is `mean(weeks)` up to chance.

        Args:
            scenarios: number of paths.
            weeks: weeks ahead.
            seed: the same seed draws the same paths, another seed independent ones.
        """
        out = aligned_empty((max(scenarios, 0), weeks, len(self.agents)))
        for scenario, path in enumerate(self._paths(scenarios, weeks, seed)):
            out[scenario] = path
        return out

    def sample_total(self, scenarios: int, weeks: int, *, seed: int) -> Float[np.ndarray, "scenario week"]:
        """Sum the paths of `sample` over products, without holding them all."""
        return np.stack([path.sum(axis=1, dtype=np.float64) for path in self._paths(scenarios, weeks, seed)])

    def _paths(self, scenarios: int, weeks: int, seed: int) -> Iterator[Float32[np.ndarray, "week agent"]]:
        """Draw one path after the other, in one buffer."""
        if scenarios < 1:
            raise SettingsError(f"`scenarios` is {scenarios} but at least 1 is needed; pass a positive number")
        random = np.random.default_rng(seed)
        mean = self.mean(weeks)
        source = _draw_blocks(random, scenarios, weeks, self.ratio.shape[0], self.settings.block)
        common = _draw_common(random, scenarios, self._common_covariance(weeks)).astype(np.float32)
        dither = random.random((scenarios, weeks), dtype=np.float32)
        offset = _offsets(self.agents) if self.integer else None
        path, rounding, whole = np.empty_like(mean), np.empty_like(mean), np.empty_like(mean)
        for scenario in range(scenarios):
            np.take(self.ratio, source[scenario], axis=0, out=path)
            path *= mean
            path *= common[scenario][:, None]
            if offset is not None:
                np.add(offset[None, :], dither[scenario][:, None], out=rounding)
                rounding -= np.floor(rounding, out=whole)
                path += rounding
                np.floor(path, out=path)
            yield path

    def history_mean(self) -> Float32[np.ndarray, "past agent"]:
        """Return the mean that would have been expected in each past week, levels taken from earlier weeks only."""
        decay = 0.5 ** (1.0 / self.settings.half_life)
        shape = self._shape(np.arange(self.n_weeks)) * self.closings.factor[:, None].astype(np.float32)
        # Starts from the level of the class, worth a few weeks.
        weight = np.full(len(self.agents), self.settings.level_weeks)
        total = self._base.astype(np.float64) * weight
        out = np.empty_like(self._served)
        for week in range(self.n_weeks):
            out[week] = total / weight * shape[week]
            total = decay * total + self._served[week]
            weight = decay * weight + self._exposure[week]
        return out

    def _common_covariance(self, weeks: int) -> np.ndarray:
        return self.effect.predict(_ahead(self.n_weeks, weeks))[1]

    def _own_season(self, ahead: np.ndarray) -> np.ndarray:
        """Blend each product's level with its own level around the same weeks a year before [ahead, agent]."""
        out = np.repeat(self.level[None, :], len(ahead), axis=0)
        if not self._yearly:
            return out
        kernel = _same_season(ahead, self.n_weeks, self.settings.season_width)
        own = np.float32(self.settings.season_weeks)
        return (kernel @ self._served + own * out) / (kernel @ self._exposure + own)

    def _with_forecast(self, mean: np.ndarray) -> np.ndarray:
        if self.forecast is None:
            return mean
        rows = min(len(self.forecast), len(mean))
        given = self.forecast[:rows]
        mean[:rows] = np.where(np.isfinite(given), np.maximum(given, 0.0), mean[:rows])
        return mean


def aligned_empty(shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """Return an array that JAX takes over without a copy, which needs an address that is a multiple of 64."""
    size = math.prod(shape)
    room = np.empty(size + 16, np.float32)
    first = -room.ctypes.data // room.itemsize % 16
    return room[first : first + size].reshape(shape)


def _check(panel: Panel, season: str) -> None:
    if season not in SEASONS:
        raise SettingsError(f"`season` is {season!r} but needs 'auto', 'yearly' or 'none'; choose one of them")
    if panel.n_weeks == 0 or panel.n_agents == 0:
        raise InputError(
            f"the panel has {panel.n_weeks} weeks and {panel.n_agents} products but needs at least one of each; "
            "read a table with demand"
        )
    bad = ~(panel.units >= 0) | ~np.isfinite(panel.units)
    if bad.any():
        week, agent = np.argwhere(bad)[0]
        raise InputError(
            f"`units` is {panel.units[week, agent]} for product {panel.agents[agent]} in the week of "
            f"{panel.weeks[week]} but needs finite numbers of at least 0; correct or drop that row"
        )


def _ahead(n_weeks: int, weeks: int) -> np.ndarray:
    if weeks < 1:
        raise SettingsError(f"`weeks` is {weeks} but at least 1 is needed; pass the number of weeks to look ahead")
    return np.arange(n_weeks, n_weeks + weeks)


def _after_launch(on_sale: np.ndarray) -> np.ndarray:
    """Mark on-sale weeks without the launch week, which has a sale by definition and so would bias the level."""
    launched = np.zeros_like(on_sale)
    launched[1:] = on_sale[:-1]
    launched[0] = on_sale[0]
    return on_sale & launched


def _cap_spikes(units: np.ndarray, spike: float) -> np.ndarray:
    """Cap each product's weeks at `spike` times the mean of its other weeks with demand."""
    largest = units.max(axis=0)
    others = (units > 0).sum(axis=0) - 1
    usual = (units.sum(axis=0) - largest) / np.maximum(others, 1)
    return np.minimum(units, np.where(others > 0, spike * usual, np.inf).astype(np.float32))


def _smooth(parts: TwoWayEffects, known: np.ndarray, yearly: bool) -> WeekEffect:
    """Smooth the log week effect."""
    seen = np.flatnonzero(known.any(axis=1))
    # A week without any demand has no log: sparse tables get a small offset in proportion to their empty weeks.
    offset = min(0.5, parts.empty) + 1e-6
    return fit_week_effect(seen, np.log((parts.week[seen] + offset) / (1.0 + offset)), season=yearly)


def _cap_correction(units: np.ndarray, served: np.ndarray, known: np.ndarray) -> float:
    """Return total demand over capped demand."""
    capped = float(served.sum(dtype=np.float64))
    return float(units[known].sum(dtype=np.float64)) / capped if capped > 0 else 1.0


def _shared(effect: WeekEffect, weeks: np.ndarray) -> np.ndarray:
    return np.exp(effect.predict(weeks)[0])


def _class_level(
    served: np.ndarray, exposure: np.ndarray, category: np.ndarray | None
) -> Float32[np.ndarray, " agent"]:
    """Return the mean level of each product's category, the prior of a product without history."""
    label = np.zeros(served.shape[1], int) if category is None else np.unique(category, return_inverse=True)[1]
    total = np.bincount(label, served.sum(axis=0, dtype=np.float64))
    level = total / np.maximum(np.bincount(label, exposure.sum(axis=0, dtype=np.float64)), 1e-9)
    return level[label].astype(np.float32)


def _levels(
    served: np.ndarray, exposure: np.ndarray, base: np.ndarray, chosen: DemandSettings
) -> Float32[np.ndarray, " agent"]:
    """Shrink the recent level to the long-run level, and that to the category's."""
    recent = 0.5 ** (np.arange(len(served))[::-1] / chosen.half_life)
    total, weight = served.sum(axis=0, dtype=np.float64), exposure.sum(axis=0, dtype=np.float64)
    long_run = (total + chosen.class_weeks * base) / (weight + chosen.class_weeks)
    level = (recent @ served + chosen.level_weeks * long_run) / (recent @ exposure + chosen.level_weeks)
    return level.astype(np.float32)


def _ratios(
    panel: Panel, served: np.ndarray, exposure: np.ndarray, level: np.ndarray, chosen: DemandSettings
) -> Float32[np.ndarray, "past agent"]:
    """Divide demand by its smooth fitted mean in recent usual weeks, and scale to mean 1 per product."""
    rows = np.flatnonzero(exposure.any(axis=1))[-chosen.residual_weeks :]
    if len(rows) == 0:
        return np.ones((1, served.shape[1]), np.float32)
    gap = np.abs(np.arange(len(served))[:, None] - np.arange(len(served))[None, :])
    near = (0.5 ** (gap / chosen.residual_half_life))[rows].astype(np.float32)
    mask = exposure[rows] > 0
    fitted = near @ served / np.maximum(near @ exposure, 1e-6) * exposure[rows]
    ratio = np.divide(served[rows], fitted, out=np.zeros_like(fitted), where=mask & (fitted > 0))
    own = (mask.sum(axis=0) >= min(FEW_WEEKS, len(rows))) & (ratio.sum(axis=0) > 0)
    _borrow(ratio, mask, own, level, panel)
    return ratio / ratio.mean(axis=0, dtype=np.float64).astype(np.float32)


def _borrow(ratio: np.ndarray, mask: np.ndarray, own: np.ndarray, level: np.ndarray, panel: Panel) -> None:
    """Fill weeks before a product's launch with the ratios of the product of like level seen in all weeks."""
    full = own & mask.all(axis=0)
    lacking = ~full
    if not full.any():
        ratio[~mask & own[None, :]] = 1.0
        ratio[:, ~own] = 1.0
        return
    donors = np.flatnonzero(full)
    donors = donors[np.lexsort((panel.agents[donors], level[donors]))]
    spot = np.clip(np.searchsorted(level[donors], level[lacking]), 0, len(donors) - 1)
    lent = ratio[:, donors[spot]]
    take = ~mask[:, lacking] | ~own[None, lacking]
    ratio[:, lacking] = np.where(take, lent, ratio[:, lacking])


def _same_season(ahead: np.ndarray, n_weeks: int, width: int) -> Float32[np.ndarray, "ahead week"]:
    """Weigh the past weeks around the same week of earlier years (triangular)."""
    kernel = np.zeros((len(ahead), n_weeks), np.float32)
    past = np.arange(n_weeks)
    years = 1
    while year_lag(years) - width <= ahead[-1]:
        distance = np.abs(past[None, :] - (ahead - year_lag(years))[:, None])
        kernel = np.maximum(kernel, np.maximum(1.0 - distance / (width + 1.0), 0.0).astype(np.float32))
        years += 1
    return kernel


def _draw_blocks(random: np.random.Generator, scenarios: int, weeks: int, past: int, block: int) -> np.ndarray:
    """Draw past weeks in circular blocks, each past week equally often (starts stratified over scenarios)."""
    count = -(-weeks // block)
    strata = np.stack([random.permutation(scenarios) for _ in range(count)], axis=1)
    start = np.floor((strata + random.random(strata.shape)) / scenarios * past).astype(int)
    index = (start[:, :, None] + np.arange(block)) % past
    return index.reshape(scenarios, -1)[:, :weeks]


def _draw_common(random: np.random.Generator, scenarios: int, covariance: np.ndarray) -> np.ndarray:
    """Draw common factors of mean 1 with this log covariance (normal scores stratified over scenarios)."""
    weeks = len(covariance)
    values, vectors = np.linalg.eigh(covariance)
    strata = np.stack([random.permutation(scenarios) for _ in range(weeks)], axis=1)
    score = ndtri((strata + random.random(strata.shape)) / scenarios)
    logs = score * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    return np.exp(logs - 0.5 * np.diag(covariance))


def _offsets(agents: np.ndarray) -> np.ndarray:
    """Return a fixed rounding offset in [0, 1) per product name, so that rounding does not depend on the order."""
    return np.array([crc32(str(name).encode()) / 2**32 for name in agents], np.float32)


def _limits(panel: Panel, known: np.ndarray, closings: ClosedWeeks, yearly: bool) -> tuple[str, ...]:
    sentences = []
    if not yearly:
        sentences.append(
            f"No season was estimated from a history of {panel.n_weeks} weeks: yearly peaks ahead are not seen, "
            "and the interval is too narrow if there are any."
        )
    elif panel.n_weeks < year_lag(2):
        sentences.append(
            f"The season rests on {panel.n_weeks} weeks, less than two years: a one-off and a yearly peak look alike."
        )
    if panel.n_weeks < year_lag(1):
        sentences.append("Closed weeks (holidays) of a year ago were not seen, so none are expected.")
    short = int((known.sum(axis=0) < FEW_WEEKS).sum())
    if short:
        sentences.append(
            f"{short} products have fewer than {FEW_WEEKS} weeks on sale: their level leans on their category."
        )
    repeated = panel.weeks[~closings.usual]
    if len(repeated):
        dates = ", ".join(str(week) for week in repeated)
        sentences.append(f"The weeks of {dates} were closed or short and are expected to be so again a year later.")
    return tuple(sentences)
