"""Compare the ways to find shadow prices by simulation, to the same complementarity residual.

    python benchmarks/shadow_prices.py [--table products.parquet] [--agents 3000] [--repeats 5] [--json]

Uzawa's projected dual steps simulate once per step; Gauss-Newton also differentiates a sample of the agents; the
default tries Newton first and finishes with projected steps. All stop at the same mean residual (2e-3) and start at
price 0, for three flat capacities: 0.9, 1.0 and 1.1 times the mean use without prices.
"""

import argparse
import json
import platform
import statistics
import time

import jax
import numpy as np

from walras.config import PlanSettings
from walras.data.read import read_panel
from walras.planning.prices.dual_ascent import AbstractDualSolver, GaussNewton, NewtonThenProjected, ProjectedDual
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import build_problem
from walras.population.generate import generate_panel

SHARES = (0.9, 1.0, 1.1)


def measure(view: SimulatedView, solver: AbstractDualSolver, capacity: np.ndarray, repeats: int) -> dict:
    """Solve once to compile, then `repeats` times."""
    view.solver = solver
    found = view.solve(capacity)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        found = view.solve(capacity)
        seconds.append(time.perf_counter() - started)
    return {
        "solver": type(solver).__name__,
        "seconds": statistics.median(seconds),
        "queries": found.queries,
        "jacobians": found.jacobians,
        "residual": float(found.residual.max()),
        "converged": found.converged,
    }


def main() -> None:
    """Run the comparison and print a table, or one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", help="table of products and weeks; without it the embedded population")
    parser.add_argument("--agents", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    panel = read_panel(given.table) if given.table else generate_panel(agents=given.agents, weeks=156, seed=0)
    case = build_problem(panel, PlanSettings())
    free = case.view.expected(np.zeros((case.view.n_weeks, 1)))
    rows = []
    for share in SHARES:
        capacity = np.full_like(free, share * free.mean())
        for solver in (GaussNewton(), ProjectedDual(), NewtonThenProjected()):
            rows.append({"share": share, **measure(case.view, solver, capacity, given.repeats)})
    answer = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "agents": case.population.n_agents,
        "scenarios": case.unseen.n_scenarios,
        "rows": rows,
    }
    if given.json:
        print(json.dumps(answer))
        return
    print(f"{'capacity':>8} {'solver':>20} {'seconds':>8} {'queries':>8} {'jacobians':>9} {'residual':>9}")
    for row in rows:
        print(
            f"{row['share']:>8} {row['solver']:>20} {row['seconds']:>8.2f} {row['queries']:>8} "
            f"{row['jacobians']:>9} {row['residual']:>9.5f}"
        )


if __name__ == "__main__":
    main()
