"""A small run that tests start as several processes: chunks of agents with a journal."""

import argparse
import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
from shops import Leaning, happenings, prices, shop, start

from walras.distribute.device_mesh import AgentMesh
from walras.distribute.launch import join_cluster
from walras.errors import InputError
from walras.simulation.out_of_core import ChunkedRecord, ChunkedTotals, MemorySource, simulate_out_of_core

AGENTS, RANGE = 25, 8
ASKED = (20, 3, 6, 24)


def lose(how: str) -> None:
    """End this process in one of the ways in which processes end."""
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "broken":
        raise ZeroDivisionError("planted")
    raise InputError("`demand` is negative for agent A in week 3; mend the table")


def run_ranges(folder: Path, mesh: AgentMesh | None, losing=None) -> ChunkedTotals:
    """Simulate what the journal does not hold yet; the last range has one agent, so that some processes have none."""
    people = shop(AGENTS)
    levels = np.linspace(10, 40, AGENTS).astype(np.float32)

    def policy(first: int, last: int) -> Leaning:
        number = first // RANGE
        if losing and (jax.process_index(), number) == (int(losing[0]), int(losing[1])):
            while len(list(folder.glob("agents-*"))) < number:  # the ranges before have been noted
                time.sleep(0.01)
            lose(losing[2])
        return Leaning(jax.numpy.asarray(levels[first:last]))

    return simulate_out_of_core(
        MemorySource(people, happenings(people), start(people)),
        policy,
        shadow_prices=prices(people),
        record=ChunkedRecord(agents=ASKED, final=True),
        chunk_agents=RANGE,
        journal=folder,
        mesh=mesh,
    )


def main() -> None:
    """Be one process; write what this one found, and say how much of it came from the journal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lose", nargs=3)
    given = parser.parse_args()
    with join_cluster():
        found = run_ranges(given.folder / "journal", AgentMesh.of(), given.lose)
        leaves = jax.tree.leaves((found.totals, found.end_value, found.agents, found.final))
        np.savez(given.folder / f"found-{jax.process_index()}.npz", *leaves)
        print(f"{found.n_chunks - found.resumed} of {found.n_chunks} chunks simulated", flush=True)


if __name__ == "__main__":
    main()
