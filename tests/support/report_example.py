"""Plans as the planner returns them, so that reports can be written without planning."""

import numpy as np

from walras.planning.capacity_response import PriceRange
from walras.planning.result import PlanRecord, PlanResult
from walras.planning.service import GaveWay, GroupUse, Service

START = np.datetime64("2011-07-04")


def plan(resources=("inbound units",), weeks=26, past=83, seed=7, **change) -> PlanResult:
    """Draw a plan of realistic size: season, tight weeks, one week that is already committed."""
    rng = np.random.default_rng(seed)
    ahead, behind = np.arange(weeks), np.arange(-past, 0)
    season = lambda week: 100_000 * (1 + 0.8 * np.exp(-((((week + 40) % 52 - 6) / 7.0) ** 2)))  # noqa: E731
    shape = (weeks, len(resources))
    size = np.asarray([1.0, 0.012, 4.0])[: len(resources)]
    base = season(ahead)[:, None] * size * rng.normal(1, 0.04, shape)
    regular = np.broadcast_to(0.9 * base.mean(0), shape).copy()
    capacity = regular * np.where(base > 1.2 * regular, 1.15, 1.0)
    used = np.minimum(base, capacity * 0.995)
    committed = base * (0.95 * 0.25**ahead)[:, None]
    committed[2] = 1.07 * capacity[2]
    used[2] = committed[2] * 1.02
    used[-8] = capacity[-8] * 1.06
    prices = np.maximum(base / capacity - 1, 0) * np.asarray([3.0, 90.0, 0.4])[: len(resources)]
    fan = lambda middle, spread: np.stack([middle * (1 - spread), middle, middle * (1 + spread)])  # noqa: E731
    verified = fan(used * rng.normal(1, 0.008, shape), 0.04)
    demand = season(ahead) * rng.normal(1, 0.05, weeks)
    verdicts = ["fits"] * weeks
    verdicts[2], verdicts[-8] = "already committed", "over at the highest price"
    trace = tuple(
        {"iteration": float(step), "price_gap": 0.4 * 0.6**step, "feasibility": 0.2 * 0.5**step, "cost": 1e6}
        for step in range(14)
    )
    verified_measures = {
        "mean_violation": 0.0061,
        "near_limit_mean_violation": 0.0118,
        "near_limit_share": 0.577,
        "irreducible_violation": 0.0027,
        "avoidable_violation": 0.0034,
        "reward_kept": 0.993,
        "regret_ratio": 1.21,
        "idle_capacity": 0.012,
        "slackness": 1843.2,
        "share_weeks_over_10_percent": 0.011,
        "near_limit_share_over_10_percent": 0.02,
    }
    fields = dict(
        record=PlanRecord(
            capacity,
            prices,
            used,
            feasible=False,
            converged=True,
            iterations=14,
            queries=112,
            trace=trace,
            stop_reason="the price residual fell below 1e-3 and utilization fits wherever it can",
        ),
        weeks=START + 7 * ahead,
        resources=tuple(resources),
        regular_capacity=regular,
        unconstrained=fan(base, 0.09),
        verified_utilization=verified,
        fixed_utilization=fan(used * 1.01, 0.07),
        committed=committed,
        reissued_prices=np.maximum(prices * rng.normal(1.05, 0.15, shape), 0),
        history_weeks=START + 7 * behind,
        history_demand=season(behind) * rng.normal(1, 0.11, past),
        demand=fan(demand, 0.18 + 0.004 * ahead),
        receipts=fan(used[:, 0], 0.05),
        service=Service(
            demand, 0.02 * demand, 0.03 * demand, 0.8 * demand, 0.016 * demand, 0.02 * demand * (1 + (ahead == 5))
        ),
        products=products(),
        gave_way=(GaveWay("2011-10-03", resources[0], -900.0, (("P <1>", -500.0),), (("Toys", -900.0),)),),
        price_ranges=(
            PriceRange("2011-07-18", resources[0], "committed", capacity[2, 0], committed[2, 0]),
            PriceRange(
                "2011-10-03",
                resources[0],
                "binding",
                capacity[9, 0],
                committed[9, 0],
                float(prices[9, 0]),
                {"+5 %": 900.0, "+10 %": 1500.0, "+20 %": 1900.0},
                {"+5 %": 400.0, "+10 %": 1600.0, "+20 %": None},
                4200.0,
                "2011-10-10",
            ),
        ),
        groups=(
            group(
                "demand bucket",
                (
                    f"{place} of 10{end}"
                    for place, end in zip(range(1, 11), [" (slowest)", *[""] * 8, " (fastest)"], strict=True)
                ),
                base[:, 0].sum() * np.linspace(0.01, 0.3, 10),
                base[:, 0].sum() * np.linspace(0.0085, 0.27, 10),
            ),
            group(
                "category",
                (
                    "Home & <b>Garden</b>",
                    "Toys",
                    "Cards and wrapping for every season",
                    "$ Deals $",
                    *(f"Range {index}" for index in range(20)),
                ),
                np.append(np.asarray([4e5, 9e5, 2e5, 0.0]), np.full(20, 1e4)),
                np.append(np.asarray([3.1e5, 9.2e5, 1.9e5, 0.0]), np.full(20, 9.5e3)),
            ),
        ),
        money={
            "reward_unconstrained": 2.31e6,
            "reward_plan": 2.17e6,
            "acquisition_cost": 4.12e5,
            "total_cost": 4.12e5 - 2.17e6,
            "price_payments": 3.3e5,
            "margin_lost": 1.5e4,
            "plan_cost": 4.27e5,
            "price_scale": 0.84,
        },
        verified=verified_measures,
        verified_fixed={name: value * 1.9 for name, value in verified_measures.items()} | {"reward_kept": 0.981},
        intervals={"near_limit_mean_violation": (0.0097, 0.0141), "reward_kept": (0.991, 0.995)},
        forecast_score={
            "reason": "",
            "holdout": 26,
            "agents": 2911,
            "naive": "the same week of last year",
            "aggregate_error": 0.112,
            "naive_error": 0.171,
            "ratio_to_naive": 0.655,
            "bias": -0.013,
            "crps": 0.08,
            "product_error": 0.91,
            "naive_product_error": 1.2,
            "product_total_error": 0.44,
            "naive_product_total_error": 0.63,
            "origins": 5,
            "rolling_error": 0.118,
            "rolling_naive_error": 0.18,
            "coverage_80": 0.79,
            "coverage_90": 0.885,
            "scored_weeks": 85,
        },
        week_verdicts=tuple(verdicts),
        verdict=(
            "The plan fits capacity in 24 of 26 weeks.",
            "In the week of 18 July 2011 the orders already placed exceed capacity; no price can change that.",
        ),
        provenance={
            "units": "given",
            "price": "given",
            "unit_cost": "assumed: price less a margin drawn from 7/29/46 % at p5/50/95, seed 0",
            "lead_time": "assumed: Gamma(2.49) with median 3 weeks, seed 0",
            "volume": "given; 12 of 3,280 products assumed: Gamma, seed 0",
            "on_hand": "computed: four weeks of mean demand",
            "category": "given in the static table",
        },
        notes=(
            "1,098 products had no sale in the last 26 weeks and were left out.",
            "12 rows with negative units were set to 0 (first: row 4,711, product <A&B>).",
        ),
        counts={"agents": 3280, "active": 3280, "inactive": 1098, "history_weeks": past, "scenarios": 16, "paths": 32},
        settings={
            "weeks": weeks,
            "seed": 0,
            "costs": {"regular_rate": 0.5, "overtime_until": 1.15, "ramp": 0.05},
            "resources": list(resources),
            "table": "<sales & returns>.csv",
        },
        seconds={"total": 93.4, "reading": 2.1, "scenarios": 8.7, "planning": 51.0, "verification": 31.6},
    )
    return PlanResult(**{**fields, **change})


def group(title, labels, without, planned) -> GroupUse:
    """Make up demand and lost sales of groups."""
    return GroupUse(
        title, tuple(labels), without, planned, without, 0.02 * without, 0.03 * without, 0.01 * without, 0.02 * without
    )


def products() -> dict[str, np.ndarray]:
    """Make up the table of products."""
    numbers = (
        "demand", "use_without", "use_planned", "change", "moved", "lost_without", "lost_planned",
        "margin_lost_without", "margin_lost_planned", "price_met", "margin_per_unit",
    )  # fmt: skip
    rng = np.random.default_rng(3)
    columns = {name: np.round(rng.uniform(0, 1000, 40), 2) for name in numbers}
    names = np.asarray(["P <1>", "=SUM(A1:A9)", *(f"P{index}" for index in range(38))])
    return {"product": names, **columns, "why": np.full(40, "hardly affected")}


def empty_measures() -> dict[str, None]:
    """Name every measure without a value, as in a plan whose capacity never binds."""
    return dict.fromkeys(plan().verified)
