"""Simulate more capacity in the weeks that bind: what it is worth, how far prices hold, and what binds next.

Policies are fixed responders, so that a shadow price is not what one more unit is worth (study 12): the worth of more
capacity in a week is the reward that the products gain when prices are searched again for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from walras.distribute.threads import cores, run_parallel
from walras.planning.capacity_response import (
    ALWAYS,
    JOINT,
    SIZES,
    CapacityResponse,
    PriceRange,
    cross_errors,
)
from walras.planning.costs import ChangePenalty, PiecewiseLinearCost
from walras.planning.prices.dual_ascent import adapt_step
from walras.planning.prices.simulated_view import PricedSimulation, SimulatedView, cohort_parts
from walras.planning.protocols import Grid
from walras.planning.result import PlanRecord
from walras.population.cohort import StratifiedSample, demand_size

MOST_WEEKS = 8  # weeks (times resources) with all sizes: those with the highest price x capacity
MOST_AGENTS, MOST_CELLS = 1000, 32_000  # agents of the cohort, and agents x scenarios, that are simulated per query
READERS, READER_CELLS = 500, 4_000  # the same of a policy that reads history, which takes ten times as long
LEAST_PRICE = 0.05  # of the highest price: weeks with less do not bind
CEILING = 0.98  # of the highest price tried: from here on a price only says that use does not fit
MOST_FACTOR = 3.0  # largest correction of a cohort's use
STEP, ITERATIONS, MORE_ITERATIONS = (
    0.03,
    60,
    25,
)  # of the projected search [price scales per relative violation], from the plan's prices
FIRST_STEP, FIRST, LOWERED = 0.3, 100, 0.25  # the same of the plan itself, and its second start as a share of prices
LONGEST, TOLERANCE = 8.0, 1e-4  # longest step in first steps; mean residual at which a row fits
SETTLED = 0.02  # mean residual of the plan's own prices above which nothing is said about other capacities

Rows = Float[np.ndarray, "row entry"]


def capacity_response(
    view: SimulatedView, record: PlanRecord, cost: PiecewiseLinearCost, weeks: np.ndarray, seed: int = 0
) -> CapacityResponse:
    """Search prices again for other capacities of every week that binds, and keep what the products gain.

    Args:
        view: of all products; a cohort (drawn by `seed`) and fewer scenarios stand for large populations.
        record, cost: the plan, and what capacity costs.
        weeks: first days of the planned weeks.
    """
    planned, prices = record.capacity.ravel(), record.shadow_prices.ravel()
    controllable = view.controllable.ravel()
    priced = controllable & (prices > LEAST_PRICE * prices.max(initial=0.0)) & (planned > 0)
    search = _Search.of(view, record, controllable, seed) if priced.any() else None
    weight = np.where(priced & (search is not None and search.settled), prices * planned, 0.0)
    binds = np.argsort(-weight, kind="stable")[: int((weight > 0).sum())]
    rows = [planned, *(_scaled(planned, [entry], SIZES[ALWAYS]) for entry in binds)]
    rows += [_scaled(planned, binds, size) for size in JOINT]
    found, gained = np.tile(prices, (len(rows), 1)), np.zeros(len(rows))
    if search is not None and len(binds):
        found, gained, _ = search.prices_for(np.stack(rows))
        gained = gained - gained[0]
    worth, repriced = np.full((len(binds), len(SIZES)), np.nan), np.full((len(binds), len(SIZES), len(planned)), np.nan)
    worth[:, ALWAYS], repriced[:, ALWAYS] = gained[1 : len(binds) + 1], found[1 : len(binds) + 1]
    # Other changes of the weeks that matter most start in proportion to what +10 % does.
    cases = [(row, size) for row in range(min(len(binds), MOST_WEEKS)) for size in range(len(SIZES)) if size != ALWAYS]
    if search is not None and cases:
        row, size = np.asarray(cases).T
        share = np.asarray(SIZES)[size, None]
        start = found[0] + share / SIZES[ALWAYS] * (repriced[row, ALWAYS] - found[0])
        start = np.concatenate([found[:1], np.clip(start, 0.0, view.max_price)])
        wanted = np.stack([planned, *(_scaled(planned, [binds[row]], SIZES[size]) for row, size in cases)])
        prices, reward, _ = search.prices_for(wanted, start, iterations=MORE_ITERATIONS)
        worth[row, size], repriced[row, size] = reward[1:] - reward[0], prices[1:]
    plain = cost.plain if isinstance(cost, ChangePenalty) else cost
    response = CapacityResponse(
        weeks.astype("datetime64[D]"),
        np.asarray(view.resources),
        planned,
        record.utilization.ravel(),
        found[0],
        binds,
        worth,
        repriced,
        gained[len(binds) + 1 :],
        plain.edges.reshape(len(planned), -1),
        plain.rates.reshape(len(planned), -1),
        np.stack([plain.ramp_up.ravel(), plain.ramp_down.ravel()]),
        plain.lower.ravel(),
        np.zeros(0),
    )
    return replace(response, errors=cross_errors(worth))


def _scaled(capacity: np.ndarray, entries: Any, size: float) -> np.ndarray:
    changed = capacity.copy()
    changed[entries] *= 1.0 + size
    return changed


@dataclass(frozen=True, eq=False)
class _Search:
    """Simulations of the population, or of a sample that stands for it, and the search for prices that fit.

    Attributes:
        simulate: use [row, entry] and reward [money; row] at rows of prices.
        factor: use of the sample as a share of that of the population, by which capacities are cut.
        start: prices that fit the plan; `settled` if they do.
    """

    simulate: Callable[[Rows], tuple[Rows, np.ndarray]]
    factor: Float[np.ndarray, " entry"]
    controllable: Bool[np.ndarray, " entry"]
    price_scale: float
    max_price: float
    start: Float[np.ndarray, " entry"]
    settled: bool = False

    @staticmethod
    def of(view: SimulatedView, record: PlanRecord, controllable: Bool[np.ndarray, " entry"], seed: int) -> "_Search":
        """Sample a large population, and search the prices of the plan itself, from high and from low ones."""
        parts, shape = view.parts, record.capacity.shape
        most, cells = (READERS, READER_CELLS) if view.policy.reads_history else (MOST_AGENTS, MOST_CELLS)
        if view.population.n_agents > most:
            random = np.random.default_rng([seed, 0xC1])
            parts = cohort_parts(StratifiedSample().draw(demand_size(view.population), most, random), *parts)
        count = int(np.clip(cells // parts[0].n_agents, 1, view.exogenous.n_scenarios or 1))
        simulation = PricedSimulation(parts[0], parts[1].map_scenarios(lambda leaf: leaf[:count]), *parts[2:])

        def simulate(prices: Rows) -> tuple[Rows, np.ndarray]:
            charged = [view.charged(row.reshape(shape)).astype(np.float32) for row in prices]
            found = run_parallel([partial(simulation, row) for row in charged], cores())
            rewards = np.asarray([np.asarray(reward, float).mean() for _, reward in found])
            return np.stack([np.asarray(use, float).mean(0).ravel() for use, _ in found]), rewards

        start, capacity = record.shadow_prices.reshape(1, -1), record.capacity.reshape(1, -1)
        whole, part = view.utilization(record.shadow_prices).ravel(), simulate(start)[0][0]
        factor = np.clip(part / np.maximum(whole, 1e-12), 1 / MOST_FACTOR, MOST_FACTOR)
        search = _Search(simulate, factor, controllable, view.price_scale, view.max_price, start[0])
        first = np.concatenate([start, LOWERED * start])
        prices, _, off = search.prices_for(np.repeat(capacity, 2, axis=0), first, FIRST_STEP, FIRST)
        return replace(search, start=prices[np.argmin(off)], settled=bool(off.min() <= SETTLED))

    def prices_for(
        self, capacity: Rows, start: Rows | None = None, first: float = STEP, iterations: int = ITERATIONS
    ) -> tuple[Rows, np.ndarray, np.ndarray]:
        """Step the prices of every row until use fits; return the best ones, reward [money] and mean residual."""
        limit = np.where(self.controllable, np.maximum(capacity * self.factor, 1e-9), np.inf)
        prices = np.repeat(self.start[None], len(limit), axis=0) if start is None else start.copy()
        best, reward, least = prices.copy(), np.zeros(len(prices)), np.full(len(prices), np.inf)
        step, last, rows = np.full(prices.shape, first), np.zeros_like(prices), np.arange(len(prices))
        for _ in range(iterations):
            use, earned = self.simulate(prices[rows])
            excess = use / limit[rows] - 1.0
            capped = (prices[rows] >= self.max_price) & (excess > 0)
            off = np.abs(np.where(capped, 0.0, np.minimum(prices[rows] / self.price_scale, -excess))).mean(1)
            better = off < least[rows]
            improved = rows[better]
            best[improved], reward[improved], least[improved] = prices[improved], earned[better], off[better]
            step[rows] = adapt_step(step[rows], excess, last[rows], 1e-3 * first, LONGEST * first)
            last[rows] = excess
            prices[rows] = np.clip(prices[rows] + step[rows] * self.price_scale * excess, 0.0, self.max_price)
            rows = rows[least[rows] > TOLERANCE]
            if not len(rows):
                break
        return best, reward, least


def price_ranges(
    response: CapacityResponse, record: PlanRecord, cost: PiecewiseLinearCost, committed: Grid, max_price: float
) -> tuple[PriceRange, ...]:
    """Say for every week that binds, or that earlier orders fill, what its price is good for, in the order of weeks.

    Args:
        response: simulated changes of capacity.
        record: the plan; `cost` is that of its capacity.
        committed: mean use without further orders [units of resource].
        max_price: the highest price that was tried [money/unit].
    """
    fixed = committed.ravel()
    over = fixed > 1.01 * record.capacity.ravel()
    rows = {int(entry): row for row, entry in enumerate(response.simulated) if not over[entry]}
    found = []
    for entry in sorted({*rows, *np.flatnonzero(over).tolist()}):
        week, resource = divmod(entry, len(response.resources))
        known: dict[str, Any] = {"capacity": float(response.capacity[entry]), "committed": float(fixed[entry])}
        kind = "committed"
        if entry in rows:
            price = float(record.shadow_prices[week, resource])
            kind = "ceiling" if price >= CEILING * max_price else "binding"
            known |= {"price": price, **_range(response, rows[entry], entry, record.capacity, cost)}
        found.append(PriceRange(str(response.weeks[week]), str(response.resources[resource]), kind, **known))
    return tuple(found)


def _range(
    response: CapacityResponse, row: int, entry: int, capacity: Grid, cost: PiecewiseLinearCost
) -> dict[str, Any]:
    known = [size for size in range(len(SIZES)) if SIZES[size] > 0 and np.isfinite(response.worth[row, size])]
    paid: dict[str, float | None] = {}
    for size in known:
        more = _scaled(capacity.ravel(), [entry], SIZES[size]).reshape(capacity.shape)
        paid[_label(size)] = cost.bill(more) - cost.bill(capacity) if (more <= cost.upper * (1 + 1e-9)).all() else None
    own = [response.prices[entry], *(response.repriced[row, size, entry] for size in known)]
    units = response.capacity[entry] * np.asarray([0.0, *(SIZES[size] for size in known)])
    lower = np.flatnonzero(np.asarray(own) < 0.5 * own[0])
    holds = None
    if len(lower):
        at = int(lower[0])
        holds = float(np.interp(-0.5 * own[0], [-own[at - 1], -own[at]], units[at - 1 : at + 1]))
    after = np.zeros_like(response.prices)
    others = response.simulated[response.simulated != entry]
    after[others] = response.repriced[row, known[-1], others]
    following = int(np.argmax(after))
    week, resource = divmod(following, len(response.resources))
    name = f" ({response.resources[resource]})" if len(response.resources) > 1 else ""
    return {
        "worth": {_label(size): float(response.worth[row, size]) for size in known},
        "cost": paid,
        "holds_up_to": holds,
        "binds_next": f"{response.weeks[week]}{name}" if after[following] > 0 else "",
    }


def _label(size: int) -> str:
    return f"+{round(100 * SIZES[size])} %"
