"""Compare two policies of one's own, a function and a module, with the newsvendor on a made-up shop."""

import jax
import jax.numpy as jnp
import numpy as np

from walras.clipping import positive_part
from walras.config import PlanSettings
from walras.planning.problem import build_problem
from walras.policies.base import Policy
from walras.policies.user_policies import FunctionPolicy
from walras.population.generate import generate_panel
from walras.simulation.run import simulate


def weeks_of_demand(observation, shadow_prices, parameters):
    level = parameters["weeks"] * observation.population.demand_scale
    return positive_part(level - observation.position)


class Smooth(Policy):
    spreads: jax.Array  # of lead-time demand, kept beyond its mean
    share: jax.Array  # of what is missing, ordered in a week

    def orders(self, observation, shadow_prices):
        target = observation.lead_demand_mean + self.spreads * observation.lead_demand_sd
        return self.share * positive_part(target - observation.position)


case = build_problem(generate_panel(agents=200, weeks=104), PlanSettings(weeks=26, scenarios=2, paths=8))
policies = {
    "newsvendor": case.policy,
    "six weeks of demand": FunctionPolicy(weeks_of_demand, {"weeks": 6.0}),
    "smooth": Smooth(jnp.asarray(1.0), jnp.asarray(0.5)),
}
reward = {
    name: simulate(case.population, case.unseen, each, initial=case.initial).reward for name, each in policies.items()
}
for name, found in reward.items():
    against = np.asarray(found - reward["newsvendor"])  # on the same futures, so the difference is the policies' own
    error = against.std(ddof=1) / len(against) ** 0.5
    print(f"{name:20} reward {found.mean():10,.0f}, against the newsvendor {against.mean():+10,.0f} +- {error:,.0f}")
