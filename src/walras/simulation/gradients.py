"""Derivatives of a simulation: reward in shadow prices and in a policy's parameters, utilization in prices.

Each block of agents is differentiated by itself, and the derivatives of sums over agents are added.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.distribute.blocks import concatenate_pieces, map_blocks, pairwise_sum
from walras.distribute.threads import map_ranges
from walras.errors import shape_mismatch
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Policy
from walras.policies.user_policies import callback_names
from walras.population.agent_axis import agent_axis_of
from walras.population.population import Population
from walras.simulation.record import Record, Totals, as_totals
from walras.simulation.run import PathPrices, announced_windows, full_prices, prepare, window_length
from walras.simulation.setup import Setup

DIRECTIONS_AT_ONCE = 4
"""Price directions pushed through a block of agents together: fastest of 4, 8, 13 and 26."""


def reward_gradient(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    *,
    shadow_prices: PathPrices,
    weights_of_use: Float[Array, "*weighted week resource"] | None = None,
    **settings: Any,
) -> tuple[Float[Array, "*scenario"], PathPrices]:
    """Return total reward and its gradient in the shadow prices (reverse mode).

    With `weights_of_use` it is the gradient of reward + sum(weights * utilization) at fixed weights: a Lagrangian whose
    multipliers are minus the weights, up to the constant for the capacity.

    Args:
        population, exogenous, policy, shadow_prices: as in `simulate`.
        weights_of_use: money per unit of resource used [*scenario, week, resource]; default none.
        settings: `initial`, `engine`, `backlog` and `block_agents` of `simulate`.

    Returns:
        The value of every scenario [money]; and the derivative of its sum over scenarios, of the shape of
        `shadow_prices`: prices that all scenarios share have the sum of their gradients.

    Raises:
        ShapeError, InputError, NotFiniteError, SettingsError: as `simulate`; weights of another shape.
    """
    case = _Case.of(population, exogenous, policy, shadow_prices, **settings)
    weights = _full_weights(case, weights_of_use)
    totals, end, slope = _sum_ranges(case.map_ranges(_reward_range, weights))
    return _value(totals, end, weights), slope


def policy_gradient(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    *,
    shadow_prices: PathPrices | None = None,
    weights_of_use: Float[Array, "*weighted week resource"] | None = None,
    **settings: Any,
) -> tuple[Float[Array, "*scenario"], Policy]:
    """Return total reward and its gradient in the policy's arrays of floating-point numbers (reverse mode).

    Arguments and errors are those of `reward_gradient`. The gradient is a policy that holds, in place of every such
    array, the derivative of the value's sum over scenarios, and None in place of all else (as `equinox.filter_grad`).
    Arrays whose last axis is that of the agents hold each agent's own derivative; all agents share the others.
    """
    case = _Case.of(population, exogenous, policy, shadow_prices, **settings)
    weights = _full_weights(case, weights_of_use)
    sums, theirs = zip(*case.map_ranges(_policy_range, weights), strict=True)
    totals, end, flat = _sum_ranges(sums)
    numbers = eqx.filter(policy, eqx.is_inexact_array)
    like = eqx.partition(numbers, agent_axis_of(numbers, population.n_agents))[1]
    shared = jax.tree.map(lambda slope, leaf: slope.reshape(leaf.shape), flat, like)
    return _value(totals, end, weights), eqx.combine(concatenate_pieces(theirs, -1), shared)


def utilization_jvp(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    *,
    shadow_prices: PathPrices,
    direction: Float[Array, "*directed week resource"],
    **settings: Any,
) -> tuple[Float[Array, "*scenario week resource"], Float[Array, "*scenario week resource"]]:
    """Return utilization and its derivative along a direction of the shadow prices (forward mode).

    The direction is a change of the prices, of their shape or without their scenario axis [money per unit of resource].
    The rest, and the errors, are as in `reward_gradient`.
    """
    case = _Case.of(population, exogenous, policy, shadow_prices, **settings)
    along = _as_wide(direction, case.shadow_prices.shape, "direction", "give one number for every price")
    totals, _, slope = _sum_ranges(case.map_ranges(_jvp_range, along))
    return totals.utilization, slope


def utilization_jacobian(
    population: Population, exogenous: ExogenousPaths, policy: Policy, *, shadow_prices: PathPrices, **settings: Any
) -> Float[Array, "*scenario week resource week resource"]:
    """Return the derivative of utilization in the shadow prices, all entries of it (forward mode).

    It is the change of use [units of resource], first two axes, per unit of price [money per unit of resource], last
    two; with scenarios each one's use in the prices that it is charged. Arguments and errors are as in
    `reward_gradient`.
    """
    case = _Case.of(population, exogenous, policy, shadow_prices, carried=1 + DIRECTIONS_AT_ONCE, **settings)
    flat = _sum_ranges(case.map_ranges(_jacobian_range))
    entry = case.shadow_prices.shape[-2:]
    return flat.reshape(*flat.shape[:-2], *entry, *entry)


class _Case(eqx.Module):
    """A setup and the prices that are announced in it, of all agents or of a block of them."""

    setup: Setup
    shadow_prices: PathPrices

    @staticmethod
    def of(
        population: Population, exogenous: ExogenousPaths, policy: Policy, prices: PathPrices | None, **settings: Any
    ) -> "_Case":
        """Check the arguments and fill in defaults as `simulate` does."""
        record = Record.use_and_reward()
        setup = prepare(population, exogenous, policy, shadow_prices=prices, record=record, **settings)
        return _Case(setup, full_prices(population, exogenous, prices))

    def map_ranges(self, run: Any, *more: Any) -> list[Any]:
        """Run ranges of agents, side by side where nothing is being traced."""
        with callback_names(self.setup.population):
            return map_ranges(run, (self, *more), self.setup.population.n_agents, self.setup.block)

    def run(
        self, policy: Policy, shadow_prices: PathPrices
    ) -> tuple[Float[Array, "*scenario week tile row"], Float[Array, "*scenario tile one"]]:
        """Return utilization and reward in rows, and the value of what is left, by tile."""
        windows = announced_windows(shadow_prices, window_length(policy, self.setup.initial.max_lead))
        (rows, _, end), _, _ = replace(self.setup, policy=policy, windows=windows).run()
        return rows, end

    def map_blocks(self, differentiate: Callable[["_Case"], Any], first: Array | int, count: int) -> Any:
        """Differentiate `count` agents from `first` on, block after block."""

        def body(start: Array | int, size: int) -> Any:
            return differentiate(_Case(self.setup.cut(start, size), self.shadow_prices))

        return map_blocks(body, first, count, self.setup.block)


def _full_weights(case: _Case, weights: Array | None) -> Float[Array, "*scenario week resource"] | None:
    if weights is None:
        return None
    scenarios = () if case.setup.exogenous.n_scenarios is None else (case.setup.exogenous.n_scenarios,)
    shape = (*scenarios, *case.shadow_prices.shape[-2:])
    return _as_wide(weights, shape, "weights_of_use", "give one number for every week and resource")


def _as_wide(values: Array, shape: tuple[int, ...], name: str, remedy: str) -> Float[Array, "*scenario week resource"]:
    """Repeat values for every scenario where they have no such axis."""
    values = jnp.asarray(values, jnp.float32)
    if values.shape not in (shape, shape[-2:]):
        raise shape_mismatch(name, values.shape, str(list(shape)), remedy)
    return jnp.broadcast_to(values, shape)


def _objective(rows: Array, end: Array, weights: Array | None) -> Float[Array, ""]:
    money = rows[..., -1].sum() + end.sum()
    return money if weights is None else money + (rows[..., :-1] * weights[..., None, :]).sum()


def _value(totals: Totals, end: Float[Array, "*scenario one"], weights: Array | None) -> Float[Array, "*scenario"]:
    money = totals.reward.sum(-1) + end[..., 0]
    return money if weights is None else money + (weights * totals.utilization).sum((-2, -1))


def _reward_range(case: _Case, weights: Array | None, first: Array | int, count: int) -> Any:
    """Differentiate `count` agents from `first` on in the prices."""

    def body(part: _Case) -> Any:
        def objective(prices: Array) -> Any:
            rows, end = part.run(part.setup.policy, prices)
            return _objective(rows, end, weights), (rows, end)

        slope, sums = jax.grad(objective, has_aux=True)(case.shadow_prices)
        return (*sums, slope[..., None, :]), None, None

    return case.map_blocks(body, first, count)[0]


def _policy_range(case: _Case, weights: Array | None, first: Array | int, count: int) -> Any:
    """Differentiate `count` agents from `first` on in the policy: shared arrays are summed, the rest concatenated."""
    is_own = agent_axis_of(eqx.filter(case.setup.policy, eqx.is_inexact_array), case.setup.population.n_agents)

    def body(part: _Case) -> Any:
        numbers, others = eqx.partition(part.setup.policy, eqx.is_inexact_array)

        def objective(numbers: Policy) -> Any:
            rows, end = part.run(eqx.combine(numbers, others), case.shadow_prices)
            return _objective(rows, end, weights), (rows, end)

        slope, sums = jax.grad(objective, has_aux=True)(numbers)
        theirs, shared = eqx.partition(slope, is_own)
        return (*sums, jax.tree.map(lambda leaf: leaf.reshape(1, -1), shared)), theirs, None

    sums, theirs, _ = case.map_blocks(body, first, count)
    return sums, theirs


def _jvp_range(case: _Case, along: Array, first: Array | int, count: int) -> Any:
    """Push one direction of the prices through `count` agents from `first` on."""

    def body(part: _Case) -> Any:
        run = lambda prices: part.run(part.setup.policy, prices)  # noqa: E731
        sums, (slope, _) = jax.jvp(run, (case.shadow_prices,), (along,))
        return (*sums, slope[..., :-1]), None, None

    return case.map_blocks(body, first, count)[0]


def _jacobian_range(case: _Case, first: Array | int, count: int) -> Float[Array, "one *scenario entry entry"]:
    """Push all directions of the prices through `count` agents from `first` on, and add up their blocks."""
    prices = case.shadow_prices
    entry = prices.shape[-2:]
    directions = _directions(entry[0] * entry[1])

    def body(part: _Case) -> Any:
        def use(prices: Array) -> Float[Array, "*scenario week resource"]:
            return part.run(part.setup.policy, prices)[0][..., :-1].sum(-2)

        def push(direction: Float[Array, " entry"]) -> Float[Array, "*scenario week resource"]:
            return jax.jvp(use, (prices,), (jnp.broadcast_to(direction.reshape(entry), prices.shape),))[1]

        columns = jax.lax.map(jax.vmap(push), directions)
        columns = columns.reshape(-1, *columns.shape[2:-2], 1, entry[0] * entry[1])
        return jnp.swapaxes(jnp.moveaxis(columns, 0, -1), -3, -2), None, None

    slopes = pairwise_sum(case.map_blocks(body, first, count)[0])
    return slopes[None, ..., : entry[0] * entry[1]]


def _directions(entries: int) -> Float[Array, "batch direction entry"]:
    """Divide unit vectors evenly into batches, padded with zeros."""
    batches = -(-entries // DIRECTIONS_AT_ONCE)
    size = -(-entries // batches)
    return jnp.eye(batches * size, entries, dtype=jnp.float32).reshape(batches, size, entries)


@eqx.filter_jit
def _sum_ranges(pieces: Any) -> Any:
    """Add up the parts of all ranges in the order of the agents, and name rows."""
    sums = jax.tree.map(pairwise_sum, concatenate_pieces(pieces, 0))
    if isinstance(sums, tuple):
        rows, end, slope = sums
        return as_totals(rows, ()), end, slope
    return sums
