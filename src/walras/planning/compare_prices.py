"""Simulate a population under given shadow prices, beside the same futures without prices (`walras simulate`)."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from walras.planning.problem import SimulationProblem
from walras.planning.protocols import Grid
from walras.planning.result import Fan, fan, fan_columns, quantile_names, week_columns
from walras.simulation.run import Rollout, simulate

FLOWS = ("demand", "sales", "lost_sales", "receipts", "orders", "stock_end")
"""Totals shown per week, as means over the futures [units]."""


@dataclass(frozen=True, eq=False)
class PriceComparison:
    """The same futures with and without shadow prices.

    Attributes:
        weeks: first days of the simulated weeks [week].
        resources: names along the resource axis.
        shadow_prices: prices charged [money per unit of resource; week, resource].
        utilization, unconstrained: use with the prices and without [quantile, week, resource].
        flows: name -> mean over futures [units; week].
        reward, free_reward: mean reward over the horizon with the prices and without [money].
        payments: mean of prices times use [money].
        counts, provenance, notes: how the problem was built.
    """

    weeks: np.ndarray
    resources: tuple[str, ...]
    shadow_prices: Grid
    utilization: Fan
    unconstrained: Fan
    flows: dict[str, np.ndarray]
    reward: float
    free_reward: float
    payments: float
    counts: dict[str, int]
    provenance: dict[str, str]
    notes: tuple[str, ...]


def compare_prices(problem: SimulationProblem, shadow_prices: Grid) -> PriceComparison:
    """Simulate a problem's agents on its unseen futures, once with the prices and once without.

    Args:
        problem: population, start and futures.
        shadow_prices: announced in full at the start [money per unit of resource].
    """
    charged = jnp.asarray(shadow_prices, jnp.float32)
    parts = (problem.population, problem.unseen, problem.policy)
    priced = simulate(*parts, initial=problem.initial, shadow_prices=charged)
    free = simulate(*parts, initial=problem.initial)
    use = np.asarray(priced.totals.utilization, float)
    return PriceComparison(
        weeks=problem.panel.next_weeks(len(shadow_prices)),
        resources=problem.population.resources,
        shadow_prices=shadow_prices,
        utilization=fan(use),
        unconstrained=fan(np.asarray(free.totals.utilization, float)),
        flows={name: _mean(priced, name) for name in FLOWS},
        reward=float(np.mean(priced.reward)),
        free_reward=float(np.mean(free.reward)),
        payments=float((use * shadow_prices).sum((1, 2)).mean()),
        counts=problem.counts,
        provenance=dict(problem.panel.provenance),
        notes=problem.notes,
    )


def _mean(rollout: Rollout, name: str) -> Float[np.ndarray, " week"]:
    return np.asarray(getattr(rollout.totals, name), float).mean(0)


def comparison_table(comparison: PriceComparison) -> dict[str, np.ndarray]:
    """List a comparison as columns, one row per week and resource, weeks outermost."""
    numbers = {
        "shadow_price": comparison.shadow_prices,
        **fan_columns("utilization", comparison.utilization),
        **fan_columns("unconstrained", comparison.unconstrained),
    }
    flows = {name: np.repeat(values, len(comparison.resources)) for name, values in comparison.flows.items()}
    return week_columns(comparison.weeks, comparison.resources, numbers) | flows


def comparison_summary(comparison: PriceComparison) -> dict[str, Any]:
    """Return the comparison as nested mappings for JSON; per-week values are in the order of `weeks`."""

    def by_resource(values: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[:, index] for index, name in enumerate(comparison.resources)}

    def by_level(values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {level: by_resource(part) for level, part in zip(quantile_names(), values, strict=True)}

    return {
        "weeks": comparison.weeks,
        "resources": comparison.resources,
        "shadow_prices": by_resource(comparison.shadow_prices),
        "utilization": by_level(comparison.utilization),
        "unconstrained": by_level(comparison.unconstrained),
        "flows": comparison.flows,
        "reward": comparison.reward,
        "reward_unconstrained": comparison.free_reward,
        "reward_kept": reward_kept(comparison),
        "price_payments": comparison.payments,
        "assumed_columns": sorted(name for name, why in comparison.provenance.items() if why.startswith("assumed")),
        "provenance": comparison.provenance,
        "counts": comparison.counts,
        "notes": comparison.notes,
    }


def reward_kept(comparison: PriceComparison) -> float | None:
    """Give the reward with prices as a share of the reward without; None where the latter is not positive."""
    return comparison.reward / comparison.free_reward if comparison.free_reward > 0 else None
