"""Own the small run that tests start as several processes: ranges of agents, one after the other, with a journal.

EDGE: run as a program: `host_run.py FOLDER [--lose PROCESS RANGE HOW]`.
"""

import argparse
import os
import signal
from pathlib import Path

import jax
import numpy as np
from shops import happenings, order_up_to, prices, shop, start

from walras.engine.shards import FIRST, LAST, AgentMesh, sharded
from walras.errors import InputError
from walras.hosts import join_cluster
from walras.policies.simple import OrderUpTo
from walras.simulate import simulate

AGENTS, RANGE, RANGES = 24, 8, 3


def cut(tree, axis, part):
    """Cut agents out of all arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[(..., part) if axis == LAST else part], tree)


def lose(how: str) -> None:
    """End this process in one of the ways in which processes end."""
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "broken":
        raise ZeroDivisionError("planted")
    raise InputError("`demand` is negative for agent A in week 3; mend the table")


def run_ranges(folder: Path, mesh: AgentMesh, losing=None) -> None:
    """Simulate what the journal does not hold yet; process 0 writes each range when it is finished."""
    people = shop(AGENTS)
    everything = (people, happenings(people), start(people), order_up_to(people).level)
    axes = (FIRST, LAST, LAST, LAST)
    here = AgentMesh.local()
    run = compiled(here)
    done = mesh.first(np.array([(folder / f"{number}.npz").exists() for number in range(RANGES)]))
    for number in np.flatnonzero(~done):
        own = mesh.local_slice(int(number) * RANGE, (int(number) + 1) * RANGE)
        parts = [here.place(cut(tree, axis, own), axis) for tree, axis in zip(everything, axes, strict=True)]
        if losing and (jax.process_index(), number) == (int(losing[0]), int(losing[1])):
            lose(losing[2])
        local = run(*parts, prices(people))
        totals = mesh.totals(local)
        if jax.process_index() == 0:
            np.savez(folder / "part.npz", *jax.tree.leaves(totals))
            os.replace(folder / "part.npz", folder / f"{number}.npz")
            print(f"finished range {number}", flush=True)


def compiled(mesh: AgentMesh):
    """Give the compiled totals of one part."""

    def totals(population, paths, state, level, charged):
        found = simulate(population, paths, OrderUpTo(level), initial=state, shadow_prices=charged, throw=False)
        return found.totals, found.end_value

    return jax.jit(sharded(totals, mesh, (FIRST, LAST, LAST, LAST, None)))


def main() -> None:
    """Be one process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lose", nargs=3)
    given = parser.parse_args()
    with join_cluster():
        run_ranges(given.folder, AgentMesh.of(), given.lose)


if __name__ == "__main__":
    main()
