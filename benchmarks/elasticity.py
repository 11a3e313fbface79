"""Fit how use falls with its price, by demand bucket, on a made-up pool that judges nothing.

    python benchmarks/elasticity.py [--out FILE] [--pool pool.walras]

The committed numbers, `src/walras/control/elasticity.json`, are what this writes without options.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from lab.capacity_benchmark import BenchmarkSizes, CapacityBenchmark
from lab.elasticity import fit_elasticities
from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.train.agent_pool import AgentPool

TRAINING_SEED, AGENTS, WEEKS = 17, 6_000, 190
SIZES = BenchmarkSizes(agents=4_000, cohort=100, paths=12)
SHIPPED = Path(__file__).parents[1] / "studies" / "lab" / "elasticity.json"


def main():
    """Fit, write, and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=SHIPPED, help="where the numbers go")
    parser.add_argument("--agent-pool", help="a stored pool to fit on; without it one is generated")
    given = parser.parse_args()
    agent_pool = AgentPool.load(given.agent_pool) if given.agent_pool else _made_up()
    fitted = fit_elasticities(CapacityBenchmark(agent_pool, PricedNewsvendor(), sizes=SIZES))
    fitted.write(given.out)
    print(json.dumps({name: values.round(4).tolist() for name, values in asdict(fitted).items()}))


def _made_up():
    return AgentPool.from_panel(generate_panel(AGENTS, WEEKS, TRAINING_SEED), seed=TRAINING_SEED)


if __name__ == "__main__":
    main()
