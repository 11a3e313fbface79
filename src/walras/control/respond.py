"""Own how a population answers prices: use and reward of every path, and their mean.

FREE: compiled once per size; everything in control that simulates whole populations asks here.
"""

import equinox as eqx
from jaxtyping import Array, Float

from walras.exogenous.paths import ExogenousPaths
from walras.model.state import State
from walras.policies.base import AbstractPolicy
from walras.policies.called_back import told
from walras.population.population import Population
from walras.simulate import simulate


def respond(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
) -> tuple[Float[Array, "path week resource"], Float[Array, " path"]]:
    """Return utilization and reward of every path."""
    with told(population):
        return _respond(population, exogenous, policy, initial, shadow_prices)


@eqx.filter_jit
def _respond(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
) -> tuple[Float[Array, "path week resource"], Float[Array, " path"]]:
    rollout = simulate(population, exogenous, policy, initial=initial, shadow_prices=shadow_prices, throw=False)
    return rollout.totals.utilization, rollout.reward


def mean_response(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
    reserve: float = 0.0,
) -> tuple[Float[Array, "week resource"], Float[Array, ""]]:
    """Return utilization averaged over paths plus `reserve` standard deviations, and mean reward."""
    with told(population):
        return _mean_response(population, exogenous, policy, initial, shadow_prices, reserve)


@eqx.filter_jit
def _mean_response(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
    reserve: float,
) -> tuple[Float[Array, "week resource"], Float[Array, ""]]:
    use, reward = _respond(population, exogenous, policy, initial, shadow_prices)
    return use.mean(0) + reserve * use.std(0), reward.mean(0)
