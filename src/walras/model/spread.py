"""Own the run of a population over several devices: each runs its own part of the agents, and only totals cross.

LAW: agents added to fill the devices weigh nothing and are cut off again; totals are those of one device to rounding.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.engine.base import AbstractEngine
from walras.engine.shards import FIRST, LAST, SHARED, AgentMesh, pad, sharded
from walras.engine.tiles import fold
from walras.exogenous.paths import ExogenousPaths
from walras.model.record import Record
from walras.model.run import run_range
from walras.model.state import State
from walras.policies.base import AbstractPolicy
from walras.population.along import own
from walras.population.population import Population


def run_spread(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    record: Record,
    backlog: bool,
    block: int,
    following_cost: Float[Array, " agent"] | None,
    first_week: Array | int,
    mesh: AgentMesh,
) -> Any:
    """Run all agents, every device its own part of them.

    Returns:
        Sums over all agents, the same on every device; what is kept by agent, each on the device that ran it; and the
        engine's account.
    """
    count = population.n_agents
    told = (exogenous, policy, initial, record, following_cost)
    by_agent, shared = eqx.partition(told, own(told, count))
    padded = _padded(mesh, count, (shared, windows))
    people, by_agent = pad(population, FIRST, padded), pad(by_agent, LAST, padded)
    people = eqx.tree_at(lambda p: p.weight, people, jnp.where(jnp.arange(padded) < count, people.weight, 0))
    windows, engine, first_week, shared = mesh.place((windows, engine, first_week, shared), SHARED)
    people, by_agent = mesh.place(people, FIRST), mesh.place(by_agent, LAST)
    sums, kept, info = _run_placed(people, by_agent, shared, windows, engine, first_week, backlog, block, mesh)
    return sums, kept if padded == count else jax.tree.map(lambda leaf: leaf[..., :count], kept), info


@eqx.filter_jit
def _run_placed(
    population: Population,
    by_agent: Any,
    shared: Any,
    windows: Float[Array, "*scenario week lead resource"],
    engine: AbstractEngine,
    first_week: Array | int,
    backlog: bool,
    block: int,
    mesh: AgentMesh,
) -> Any:
    """Fold on every device the tiles of its own agents, and add the devices' sums at the end."""

    def part(
        population: Population, by_agent: Any, shared: Any, windows: Array, engine: AbstractEngine, week: Array | int
    ) -> Any:
        exogenous, policy, initial, record, following = eqx.combine(by_agent, shared)
        parts = (population, exogenous, policy, initial, windows, engine, record, backlog, block, following, week)
        tiles, kept, info = run_range(*parts, 0, population.n_agents)
        return jax.tree.map(fold, tiles), (kept, info)

    run = sharded(part, mesh, (FIRST, LAST, SHARED, SHARED, SHARED, SHARED), kept=(LAST, SHARED))
    sums, (kept, info) = run(population, by_agent, shared, windows, engine, first_week)
    return sums, kept, info


def _padded(mesh: AgentMesh, count: int, shared: Any) -> int:
    """Fill the devices; an array that all share must not look as if it had one entry for each agent of a part."""
    lengths = {jnp.shape(leaf)[-1] for leaf in jax.tree.leaves(shared) if eqx.is_array(leaf) and jnp.ndim(leaf)}
    each = mesh.padded(count) // mesh.n_devices
    while not lengths.isdisjoint((each, each * mesh.n_devices)):
        each += 1
    return each * mesh.n_devices
