"""Let a PyTorch model order, called back from the simulation on NumPy arrays; needs the package torch."""

import jax.numpy as jnp
import numpy as np
import torch

from walras.config import PlanSettings
from walras.planning.problem import build_problem
from walras.policies.user_policies import CallbackPolicy
from walras.population.generate import generate_panel
from walras.simulation.gradients import reward_gradient
from walras.simulation.run import simulate

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1), torch.nn.Softplus())


def model_orders(seen):
    scale = np.maximum(seen.demand_scale, 0.01)
    columns = np.stack([seen.lead_demand_mean, seen.lead_demand_sd, seen.position], axis=1) / scale[:, None]
    with torch.no_grad():
        return scale * model(torch.from_numpy(columns))[:, 0].numpy()


case = build_problem(generate_panel(agents=200, weeks=104), PlanSettings(weeks=26, scenarios=2, paths=4))
found = simulate(case.population, case.unseen, CallbackPolicy(model_orders), initial=case.initial)
print("reward of the model, not trained:", np.asarray(found.reward))

# Derivatives are those of the newsvendor, taken where the model has led the stock: an approximation.
policy = CallbackPolicy(model_orders, surrogate=case.policy)
prices = jnp.zeros((26, len(case.population.resources)))
_, slope = reward_gradient(case.population, case.unseen, policy, initial=case.initial, shadow_prices=prices)
print("reward lost per unit of price, by week:", np.asarray(slope[:, 0]).round(1))
