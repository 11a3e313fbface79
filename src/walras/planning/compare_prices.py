"""Own what a simulation under given shadow prices found, beside the same futures without prices.

FREE: internals of `walras simulate`.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from walras.planning.problem import PlanningProblem
from walras.planning.result import QUANTILES, quantile_names
from walras.simulation.run import Rollout, simulate

FLOWS = ("demand", "sales", "lost_sales", "receipts", "orders", "stock_end")
"""Totals shown per week, as means over the futures [units]."""


@dataclass(frozen=True, eq=False)
class PriceComparison:
    """Compare the same futures with and without shadow prices.

    Attributes:
        weeks: first days of the simulated weeks [week].
        resources: names along the resource axis.
        shadow_prices: prices charged [money per unit of resource; week, resource].
        utilization, unconstrained: use with the prices and without [quantile, week, resource].
        flows: name -> mean over futures [units; week].
        reward, free_reward: mean reward over the horizon with the prices and without [money].
        payments: mean of prices times use [money].
        counts, provenance, notes: how the case was made.
    """

    weeks: np.ndarray
    resources: tuple[str, ...]
    shadow_prices: Float[np.ndarray, "week resource"]
    utilization: Float[np.ndarray, "quantile week resource"]
    unconstrained: Float[np.ndarray, "quantile week resource"]
    flows: dict[str, np.ndarray]
    reward: float
    free_reward: float
    payments: float
    counts: dict[str, int]
    provenance: dict[str, str]
    notes: tuple[str, ...]


def compare_prices(case: PlanningProblem, shadow_prices: Float[np.ndarray, "week resource"]) -> PriceComparison:
    """Simulate the case's agents on its unseen futures, once with the prices and once without.

    Args:
        case: who answers, from what state, on which futures.
        shadow_prices: announced in full at the start [money per unit of resource].
    """
    charged = jnp.asarray(shadow_prices, jnp.float32)
    parts = (case.population, case.unseen, case.policy)
    priced = simulate(*parts, initial=case.initial, shadow_prices=charged)
    free = simulate(*parts, initial=case.initial)
    use = np.asarray(priced.totals.utilization, float)
    return PriceComparison(
        weeks=case.panel.next_weeks(len(shadow_prices)),
        resources=case.population.resources,
        shadow_prices=shadow_prices,
        utilization=_fan(use),
        unconstrained=_fan(np.asarray(free.totals.utilization, float)),
        flows={name: _mean(priced, name) for name in FLOWS},
        reward=float(np.mean(priced.reward)),
        free_reward=float(np.mean(free.reward)),
        payments=float((use * shadow_prices).sum((1, 2)).mean()),
        counts=case.counts,
        provenance=dict(case.panel.provenance),
        notes=case.notes,
    )


def _fan(use: Float[np.ndarray, "scenario week resource"]) -> Float[np.ndarray, "quantile week resource"]:
    return np.quantile(use, QUANTILES, axis=0)


def _mean(rollout: Rollout, name: str) -> Float[np.ndarray, " week"]:
    return np.asarray(getattr(rollout.totals, name), float).mean(0)


def comparison_table(trial: PriceComparison) -> dict[str, np.ndarray]:
    """List the trial as columns, one row per week and resource, weeks outermost."""
    repeats = len(trial.resources)
    columns = {
        "week": np.repeat(trial.weeks.astype("datetime64[D]"), repeats),
        "resource": np.tile(np.asarray(trial.resources, dtype=str), len(trial.weeks)),
        "shadow_price": trial.shadow_prices.reshape(-1),
    }
    for name, values in (("utilization", trial.utilization), ("unconstrained", trial.unconstrained)):
        columns |= {f"{name}_{level}": part.reshape(-1) for level, part in zip(quantile_names(), values, strict=True)}
    return columns | {name: np.repeat(values, repeats) for name, values in trial.flows.items()}


def comparison_summary(trial: PriceComparison) -> dict[str, Any]:
    """Collect what a program may want to read; per-week values are lists in the order of `weeks`."""

    def by_resource(values: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[:, index] for index, name in enumerate(trial.resources)}

    def fan(values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {level: by_resource(part) for level, part in zip(quantile_names(), values, strict=True)}

    return {
        "weeks": trial.weeks,
        "resources": trial.resources,
        "shadow_prices": by_resource(trial.shadow_prices),
        "utilization": fan(trial.utilization),
        "unconstrained": fan(trial.unconstrained),
        "flows": trial.flows,
        "reward": trial.reward,
        "reward_unconstrained": trial.free_reward,
        "reward_kept": reward_kept(trial),
        "price_payments": trial.payments,
        "assumed_columns": sorted(name for name, origin in trial.provenance.items() if origin.startswith("assumed")),
        "provenance": trial.provenance,
        "counts": trial.counts,
        "notes": trial.notes,
    }


def reward_kept(trial: PriceComparison) -> float | None:
    """Give the reward with prices as a share of the reward without; None where that share means nothing."""
    return trial.reward / trial.free_reward if trial.free_reward > 0 else None
