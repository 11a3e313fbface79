"""Own the two small runs whose numbers are kept; `python tests/golden/refresh.py` writes them anew.

CONTRACT: nothing is drawn, so that the same numbers come out of every version of every library; refresh only when a
change of the numbers is meant, and say in the commit why they moved.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from walras.exogenous.arrivals import ArrivalShares, IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.supply import SupplyLimit
from walras.parallel.sequential import AbstractEngine
from walras.policies.base_stock import PricedBaseStock, PricedNewsvendor
from walras.population.population import Population
from walras.simulation.run import simulate
from walras.simulation.state import State

EXPECTED = Path(__file__).parent / "expected.json"
AGENTS, WEEKS, MAX_LEAD = 20, 12, 3
TOTALS = ("reward", "demand", "sales", "lost_sales", "receipts", "orders", "refused", "stock_end")


def spread(count: int, low: float, high: float, step: int, *shape: int) -> np.ndarray:
    """Fill a shape with `count` levels between low and high, in an order that looks drawn but is counted off."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    return low + (high - low) * ((places * places * step + 7 * places) % count) / (count - 1)


def population(resources: tuple[str, ...]) -> Population:
    """Make agents of different lead times, margins and use."""
    return Population(
        holding_cost=jnp.asarray(spread(11, 0.05, 0.3, 3, AGENTS), jnp.float32),
        lost_sale_penalty=jnp.asarray(spread(7, 0.5, 2.0, 5, AGENTS), jnp.float32),
        lead_time=jnp.asarray(spread(3, 1, 3, 1, AGENTS), jnp.int32),
        demand_scale=jnp.asarray(spread(13, 4.0, 12.0, 3, AGENTS), jnp.float32),
        unit_margin=jnp.asarray(spread(9, 2.0, 8.0, 2, AGENTS), jnp.float32),
        use=jnp.asarray(spread(17, 0.5, 2.0, 3, AGENTS, len(resources)), jnp.float32),
        weight=jnp.asarray(spread(5, 1.0, 1.4, 2, AGENTS), jnp.float32),
        resources=resources,
    )


def paths(shares: bool) -> ExogenousPaths:
    """Make whole demand, moving prices and costs, and arrivals of either kind."""
    full = (WEEKS, AGENTS)
    whole = np.asarray(spread(3, 1, 3, 5, *full), np.int8)
    marks = np.stack(
        [np.zeros(full), spread(5, 0, 0.5, 3, *full), spread(5, 0.5, 1.0, 2, *full), np.ones(full)], axis=1
    )
    return ExogenousPaths(
        demand=jnp.asarray(np.floor(spread(19, 0, 18, 3, *full)), jnp.float32),
        sale_price=jnp.asarray(spread(7, 11.0, 13.0, 3, *full), jnp.float32),
        unit_cost=jnp.asarray(spread(5, 4.0, 5.0, 2, *full), jnp.float32),
        arrivals=ArrivalShares(jnp.asarray(np.diff(marks, axis=1), jnp.float32))
        if shares
        else IntegerLeadTimes(jnp.asarray(whole)),
        lead_demand_mean=jnp.asarray(spread(11, 15.0, 40.0, 4, *full), jnp.float32),
        lead_demand_sd=jnp.asarray(spread(7, 4.0, 12.0, 2, *full), jnp.float32),
        supply=SupplyLimit(jnp.asarray(spread(5, 6.0, 40.0, 3, *full), jnp.float32)) if shares else None,
    )


def configurations() -> dict[str, dict]:
    """Name the runs: all that `simulate` is given."""
    state = State(
        stock_end=jnp.asarray(spread(9, 0.0, 16.0, 2, AGENTS), jnp.float32),
        pipeline=jnp.asarray(spread(7, 0.0, 9.0, 3, MAX_LEAD, AGENTS), jnp.float32),
    )
    wide = ("inbound_volume", "storage")
    return {
        "lost sales, one resource": {
            "population": population(("inbound_units",)),
            "exogenous": paths(shares=False),
            "policy": PricedNewsvendor(),
            "initial": state,
            "shadow_prices": jnp.asarray(spread(5, 0.0, 2.0, 3, WEEKS, 1), jnp.float32),
        },
        "backlog, volume and storage, shares": {
            "population": population(wide),
            "exogenous": paths(shares=True),
            "policy": PricedBaseStock(discount=0.99),
            "initial": state,
            "shadow_prices": jnp.asarray(spread(5, 0.0, 0.4, 3, WEEKS, 2), jnp.float32),
            "backlog": True,
        },
    }


def found(configuration: dict, engine: AbstractEngine | None = None) -> dict[str, list]:
    """Run one configuration; return its totals by week, its use by week and resource, and the total reward."""
    rollout = simulate(**configuration, engine=engine)
    totals = {name: np.asarray(getattr(rollout.totals, name), float).tolist() for name in TOTALS}
    use = np.asarray(rollout.totals.utilization, float)
    return {**totals, "utilization": use.tolist(), "total reward": [float(rollout.reward)]}


def main() -> None:
    """Write what comes out now."""
    kept = {name: found(configuration) for name, configuration in configurations().items()}
    rounded = json.loads(json.dumps(kept), parse_float=lambda text: float(f"{float(text):.8g}"))
    aside = EXPECTED.with_suffix(".part")
    aside.write_text(json.dumps(rounded, indent=1) + "\n")
    aside.replace(EXPECTED)
    print(f"wrote {EXPECTED.name}: {len(kept)} configurations")


if __name__ == "__main__":
    main()
