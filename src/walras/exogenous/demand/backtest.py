"""Rolling backtest of the demand model: fit before held-out weeks, compare with demand and with a naive forecast."""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from walras.data.panel import Panel
from walras.errors import SettingsError
from walras.exogenous.calendar import year_lag
from walras.exogenous.demand.model import DemandModel, DemandSettings

ACTIVE_WEEKS = 26
"""A product is scored when it sold in this many weeks before the origin."""

NAIVE_WEEKS = 8
"""Weeks in the naive level, for weeks whose year before lies outside the history."""

FEWEST_WEEKS = 8
"""Least number of weeks before an origin to fit on, and after it to score."""

HOLDOUT = 26
"""Weeks held out where nothing else is said."""

MOST_SCORED = 5_000
"""Products that the forecast of a plan is scored on; of more, it is a sample."""

ORIGINS = 5
"""Origins of the rolling score, spread over the held-out weeks."""


@dataclass(frozen=True)
class ForecastScore:
    """Errors on held-out weeks, as fractions of the mean demand of the scored weeks.

    Attributes:
        reason: why nothing could be scored; empty where it could.
        holdout: weeks held out at the first origin.
        agents: products scored at the first origin (sold in the 26 weeks before it).
        naive: what the naive forecast is, in words.
        aggregate_error: mean absolute error of the weekly total, first origin.
        naive_error: the same of the naive forecast.
        ratio_to_naive: `aggregate_error / naive_error`; below 1 the model is better.
        bias: mean error of the total, positive where the forecast was too high.
        crps: continuous ranked probability score of the weekly total.
        product_error: sum of |error| over products and weeks.
        naive_product_error: the same of the naive forecast.
        product_total_error: sum over products of |error of the total over the held-out weeks|.
        naive_product_total_error: the same of the naive forecast.
        origins: number of origins of the rolling score.
        rolling_error, rolling_naive_error: the aggregate errors, mean over origins.
        coverage_80, coverage_90: share of weeks, over all origins, whose total lies in the interval.
        scored_weeks: number of origin-weeks behind the coverage.
    """

    reason: str
    holdout: int
    agents: int = 0
    naive: str = ""
    aggregate_error: float | None = None
    naive_error: float | None = None
    ratio_to_naive: float | None = None
    bias: float | None = None
    crps: float | None = None
    product_error: float | None = None
    naive_product_error: float | None = None
    product_total_error: float | None = None
    naive_product_total_error: float | None = None
    origins: int = 0
    rolling_error: float | None = None
    rolling_naive_error: float | None = None
    coverage_80: float | None = None
    coverage_90: float | None = None
    scored_weeks: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Origin:
    """Demand, forecast, naive forecast and drawn totals after one origin."""

    truth: Float[np.ndarray, "ahead agent"]
    mean: Float[np.ndarray, "ahead agent"]
    naive: Float[np.ndarray, "ahead agent"]
    yearly: bool
    totals: Float[np.ndarray, "scenario ahead"]

    @property
    def scale(self) -> float:
        return float(self.truth.sum(axis=1).mean())

    def error(self, forecast: np.ndarray) -> float:
        return float(np.abs((forecast - self.truth).sum(axis=1)).mean()) / self.scale

    def inside(self, share: float) -> np.ndarray:
        low, high = np.quantile(self.totals, [(1.0 - share) / 2.0, (1.0 + share) / 2.0], axis=0)
        truth = self.truth.sum(axis=1)
        return (truth >= low) & (truth <= high)

    def crps(self) -> float:
        """Return the CRPS of the drawn totals, E|X - y| - E|X - X'| / 2, the pairs by the sorted form."""
        drawn = np.sort(self.totals, axis=0)
        count = len(drawn)
        near = np.abs(drawn - self.truth.sum(axis=1)).mean(axis=0)
        rank = (2.0 * np.arange(1, count + 1) - count - 1.0)[:, None]
        spread = (rank * drawn).sum(axis=0) / max(count * (count - 1), 1)
        return float((near - spread).mean()) / self.scale


def backtest(
    panel: Panel,
    *,
    holdout: int = HOLDOUT,
    scenarios: int = 100,
    seed: int = 0,
    season: str = "auto",
    settings: DemandSettings | None = None,
) -> ForecastScore:
    """Fit on the weeks before each of several origins in the held-out weeks and score on the weeks after it.

    Products are selected on the training weeks alone.

    Args:
        panel: the history, with all its products.
        holdout: weeks held out.
        scenarios: paths behind the intervals.
        seed: seed of the paths.
        season, settings: passed to `DemandModel.fit`.
    """
    if holdout < 1 or scenarios < 2:
        raise SettingsError(
            f"`holdout` is {holdout} and `scenarios` {scenarios} but at least 1 and 2 are needed; pass larger numbers"
        )
    if panel.n_weeks < holdout + FEWEST_WEEKS:
        return ForecastScore(
            f"The history has {panel.n_weeks} weeks, too few to hold out {holdout} and fit on {FEWEST_WEEKS}.", holdout
        )
    runs = [_run(panel, week, scenarios, seed, season, settings) for week in _origins(panel.n_weeks, holdout)]
    if runs[0] is None:
        return ForecastScore("Nothing was sold before or within the held-out weeks.", holdout)
    return _summary(runs[0], [run for run in runs if run is not None], holdout)


def scored_products(panel: Panel) -> Panel:
    """Return at most `MOST_SCORED` products, evenly spread in the order of demand before the held-out weeks."""
    if panel.n_agents <= MOST_SCORED:
        return panel
    order = np.argsort(panel.units[:-HOLDOUT].sum(axis=0, dtype=np.float64), kind="stable")
    spot = ((np.arange(MOST_SCORED) + 0.5) * panel.n_agents / MOST_SCORED).astype(int)
    return panel.take(np.sort(order[spot]))


def _origins(n_weeks: int, holdout: int) -> list[int]:
    """Spread the origins from the first held-out week to the last that leaves enough weeks to score."""
    room = max(holdout - FEWEST_WEEKS, 0)
    steps = np.unique(np.linspace(0, room, ORIGINS).round().astype(int))
    return [n_weeks - holdout + int(step) for step in steps]


def _run(
    panel: Panel, week: int, scenarios: int, seed: int, season: str, settings: DemandSettings | None
) -> _Origin | None:
    sold = np.flatnonzero((panel.units[max(week - ACTIVE_WEEKS, 0) : week] > 0).any(axis=0))
    truth = panel.units[week:][:, sold].astype(np.float64)
    if truth.sum() == 0.0:
        return None
    history = panel.before(week).take(sold)
    model = DemandModel.fit(history, season=season, settings=settings)
    naive, yearly = _naive(history, len(truth))
    totals = model.sample_total(scenarios, len(truth), seed=seed)
    return _Origin(truth, model.mean(len(truth)).astype(np.float64), naive, yearly, totals)


def _naive(known: Panel, weeks: int) -> tuple[np.ndarray, bool]:
    """Repeat the same week of last year, or the mean of the last 8 weeks where the history does not reach so far back.

    A product that was not on sale a year ago gets 0; its recent level makes the naive forecast much worse.

    Returns:
        The forecast [week, agent] and whether any of it comes from last year.
    """
    recent = known.units[-NAIVE_WEEKS:].mean(axis=0, dtype=np.float64)
    out = np.repeat(recent[None, :], weeks, axis=0)
    first = known.n_weeks - year_lag(1)
    rows = np.arange(first, first + weeks)
    usable = (rows >= 0) & (rows < known.n_weeks)
    rows = rows[usable]
    out[usable] = known.units[rows]
    return out, bool(usable.any())


def _summary(first: _Origin, runs: list[_Origin], holdout: int) -> ForecastScore:
    level = f"the mean of the last {NAIVE_WEEKS} weeks"
    words = f"the same week of last year; {level} in weeks without one" if first.yearly else level
    error, naive = first.error(first.mean), first.error(first.naive)
    weight = first.truth.sum()
    total = first.truth.sum(axis=0)
    return ForecastScore(
        reason="",
        holdout=holdout,
        agents=first.truth.shape[1],
        naive=words,
        aggregate_error=error,
        naive_error=naive,
        ratio_to_naive=error / naive if naive > 0 else None,
        bias=float(first.mean.sum() / weight - 1.0),
        crps=first.crps(),
        product_error=float(np.abs(first.mean - first.truth).sum() / weight),
        naive_product_error=float(np.abs(first.naive - first.truth).sum() / weight),
        product_total_error=float(np.abs(first.mean.sum(axis=0) - total).sum() / weight),
        naive_product_total_error=float(np.abs(first.naive.sum(axis=0) - total).sum() / weight),
        origins=len(runs),
        rolling_error=float(np.mean([run.error(run.mean) for run in runs])),
        rolling_naive_error=float(np.mean([run.error(run.naive) for run in runs])),
        coverage_80=float(np.concatenate([run.inside(0.8) for run in runs]).mean()),
        coverage_90=float(np.concatenate([run.inside(0.9) for run in runs]).mean()),
        scored_weeks=int(sum(len(run.truth) for run in runs)),
    )
