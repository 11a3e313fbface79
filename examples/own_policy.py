"""Compare two policies of one's own, a function and a module, with the newsvendor on a made-up shop."""

import jax
import jax.numpy as jnp
import numpy as np

from walras.exogenous.arrivals import ConstantLeadTime
from walras.exogenous.paths import constant_paths
from walras.policies.base import AbstractPolicy
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.own import FunctionPolicy
from walras.population.from_panel import population_from_panel
from walras.population.generate import generate_panel
from walras.simulate import simulate
from walras.ties import positive_part

WEEKS = 52
panel = generate_panel(agents=300, weeks=104)
shop = population_from_panel(panel)
demand = np.asarray(panel.units[-WEEKS:], np.float32)
scale, spread = np.asarray(panel.units[:-WEEKS]).mean(0), np.asarray(panel.units[:-WEEKS]).std(0)


def enough_for_three_weeks(observation, shadow_prices, parameters):
    charged = (observation.population.use @ shadow_prices[0]) / observation.population.unit_margin
    return positive_part(parameters["level"] * (1.0 - charged) - observation.position)


class Smooth(AbstractPolicy):
    level: jax.Array  # units, one per product
    share: jax.Array  # of what is missing that is ordered in a week, one for all

    def orders(self, observation, shadow_prices):
        return self.share * positive_part(self.level - observation.position)
