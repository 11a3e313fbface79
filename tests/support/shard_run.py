"""Checks that need several devices: run as a program with forced host devices, it prints the results as JSON."""

import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from shops import Announcer, Leaning, happenings, prices, shop, start

from walras.distribute.device_mesh import FIRST, LAST, SHARED, AgentMesh, pad, sharded
from walras.errors import NotFiniteError, ShapeError
from walras.policies.base import Policy
from walras.simulation.record import Record
from walras.simulation.run import simulate

AGENTS = 7  # not a multiple of the devices

population = shop(AGENTS)
question = (population, happenings(population), start(population), jnp.full(AGENTS, 30.0))
AXES = (FIRST, LAST, LAST, LAST)
charged = prices(population)


def run(population, paths, state, level, charged):
    """Simulate a part: totals, and the final stock of its agents."""
    found = simulate(
        population, paths, Leaning(level), initial=state, shadow_prices=charged, record=Record.totals(), throw=False
    )
    return (found.totals, found.end_value), (found.final, found.info)


def score(function, charged, parts):
    """Give one number that depends on all totals."""
    totals, end = function(*parts, charged)[0]
    return (totals.utilization**2).sum() * 1e-3 + totals.reward.sum() + end


def collectives(text: str) -> dict[str, int]:
    """Count the sums over devices in a compiled program: in its main computation, and anywhere else."""
    where, found = "", {"main": 0, "inside": 0}
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?[\w.\-]+ \(", line):
            where = "main" if head.group(1) else "inside"
        if " all-reduce(" in line or " all-reduce-start(" in line:
            found[where] += 1
    return found


def difference(left, right) -> float:
    """Give the largest difference, relative to the largest value of each array."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max() / (1e-9 + np.abs(b).max())) for a, b in pairs)


def in_simulate(mesh: AgentMesh) -> dict[str, object]:
    """Ask `simulate` itself for values and gradients over a mesh, with agents that do not divide evenly."""
    people, paths, state, level = question
    group = jnp.arange(AGENTS) % 2
    everything = Record(group=group, n_groups=2, agents=True)

    def whole(mesh, charged=charged, record=everything, paths=paths, **more):
        return simulate(
            people, paths, Leaning(level), initial=state, shadow_prices=charged, record=record, mesh=mesh, **more
        )

    def slope(mesh, compile_all):
        gradient = jax.grad(lambda charged: whole(mesh, charged, Record.totals()).reward)
        return (jax.jit(gradient) if compile_all else gradient)(charged)

    many, one = whole(mesh), whole(None)
    futures = happenings(people, scenarios=2)
    announced = simulate(
        people, paths, Leaning(level), initial=state, controller=Announcer(charged), mesh=mesh, throw=False
    )
    return {
        "simulate": difference(many, one),
        "simulate_same_bits": difference(whole(mesh), many) == 0.0,
        "simulate_shapes": [leaf.shape for leaf in jax.tree.leaves(many)]
        == [leaf.shape for leaf in jax.tree.leaves(one)],
        "simulate_scenarios": difference(whole(mesh, paths=futures), whole(None, paths=futures)),
        "simulate_weekly": difference(announced.totals, one.totals),
        "simulate_gradient": difference(slope(mesh, False), slope(None, False)),
        "simulate_gradient_compiled": difference(slope(mesh, True), slope(None, False)),
        "simulate_weightless": difference(filled_up(mesh), one.totals),
        "simulate_nan": said(lambda: whole(mesh, paths=holed(paths), throw=True)),
        "simulate_like_a_part": difference(*(like_a_part(mesh) for mesh in (mesh, None))),
    }


def filled_up(mesh: AgentMesh):
    """Plant what filling up would give if the agents added weighed as much as the last one."""
    more = mesh.padded(AGENTS)
    people, paths, state, level = (pad(tree, axis, more) for tree, axis in zip(question, AXES, strict=True))
    return simulate(people, paths, Leaning(level), initial=state, shadow_prices=charged, mesh=mesh).totals


def holed(paths):
    """Plant a margin that overflows for the agent before the last, in week 3."""
    return eqx.tree_at(lambda e: e.sale_price, paths, paths.sale_price.at[3, AGENTS - 2].set(3e38))


def said(ask) -> str:
    """Return the sentence of a refusal."""
    try:
        ask()
    except NotFiniteError as error:
        return str(error)
    return ""


class Weekdays(Policy):
    """Order by a table that all agents share, as long as a device's part of the agents."""

    table: jax.Array

    def orders(self, observation, shadow_prices):
        """Read the table at the number of units in stock."""
        return self.table[jnp.clip(observation.position, 0, len(self.table) - 1).astype(int)]


def like_a_part(mesh: AgentMesh | None):
    """Simulate with a shared table of 300 entries, where 900 agents make parts of 300 in two blocks."""
    people = shop(900)
    policy = Weekdays(jnp.arange(300.0)[::-1] % 7)
    return simulate(people, happenings(people), policy, block_agents=256, mesh=mesh).totals


def main() -> None:
    """Compare all devices with one."""
    mesh = AgentMesh.of()
    agents = mesh.padded(AGENTS)
    padded = [pad(tree, axis, agents) for tree, axis in zip(question, AXES, strict=True)]
    weight = jnp.where(jnp.arange(agents) < AGENTS, 1.0, 0.0)
    people = padded[0]
    padded[0] = type(people)(
        **{**{name: getattr(people, name) for name in people.__dataclass_fields__}, "weight": weight}
    )
    placed = [mesh.place(tree, axis) for tree, axis in zip(padded, AXES, strict=True)]
    many = jax.jit(sharded(run, mesh, (*AXES, SHARED), kept=(LAST, SHARED)))
    one = jax.jit(run)
    (totals, (final, info)), (expected, (state, steps)) = many(*placed, charged), one(*question, charged)
    again = many(*placed, charged)[0]
    gradient = jax.jit(jax.grad(lambda charged, parts: score(many, charged, parts)))
    tangent = jax.jit(lambda charged, parts: jax.jvp(lambda c: score(many, c, parts), (charged,), (charged + 1,))[1])
    alone = jax.grad(lambda charged: score(one, charged, question))(charged)
    try:
        sharded(run, mesh, (*AXES, SHARED), kept=(LAST, SHARED))(*question, charged)
        refused = ""
    except ShapeError as error:
        refused = str(error)
    answer = {
        "devices": mesh.n_devices,
        "padded": agents,
        "held": len({shard.device for shard in placed[1].demand.addressable_shards}),
        "totals": difference(totals, expected),
        "same_bits": difference(again, totals) == 0.0,
        "kept": difference(jax.tree.map(lambda leaf: leaf[..., :AGENTS], final), state),
        "shared": [int(info.rounds), int(steps.rounds)],
        "gradient": difference(gradient(charged, placed), alone),
        "gradient_size": float(np.abs(alone).max()),
        "tangent": difference(tangent(charged, placed), (alone * (charged + 1)).sum()),
        "collectives": collectives(gradient.lower(charged, placed).compile().as_text()),
        "refused": refused,
        **in_simulate(mesh),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
