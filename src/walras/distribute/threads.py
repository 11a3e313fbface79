"""Threads: one compiled program on different agents, side by side on all cores of a processor."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

Result = TypeVar("Result")

THREADS = "walras"  # their names begin so
BLOCKS_AT_ONCE = 64  # of one call of a compiled program: enough to hide the call, few enough to balance threads
CPU_OPTIONS = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""Wide vectors (narrower ones where there are none), and kernels one after the other, since the small kernels of a week
take less time than waking another thread; our own threads fill the cores."""


@cache
def single_core_options() -> dict[str, Any]:
    """Return the arguments of a JAX jit that compiles for one thread; none where this version does not know them."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return {"compiler_options": CPU_OPTIONS}


def cores() -> int:
    """Return the number of cores this process may use; an accelerator needs one thread only."""
    if jax.default_backend() != "cpu":
        return 1
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def run_parallel(tasks: Sequence[Callable[[], Result]], n_threads: int) -> list[Result]:
    """Run all tasks on threads, which suffice as a compiled program releases the GIL; raise the first error.

    Tasks of a task run one after the other: waiting for threads that wait themselves would never end.
    """
    if n_threads == 1 or len(tasks) == 1 or threading.current_thread().name.startswith(THREADS):
        return [task() for task in tasks]
    double = jax.dtypes.canonicalize_dtype(float) == jnp.float64  # a setting of the calling thread

    def run(task: Callable[[], Result]) -> Result:
        with jax.enable_x64(double):
            return jax.block_until_ready(task())

    return list(_pool(n_threads).map(run, tasks))


def map_ranges(run: Callable[..., Result], arguments: tuple, n_agents: int, block: int) -> list[Result]:
    """Run `run(*arguments, first, count)`, compiled, over ranges of whole blocks; on all cores unless traced.

    `run` is a module-level function, since what is compiled for it is kept as long as the process lives. Returns one
    result for every range, in the order of the agents.
    """
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
    n_threads = 1 if traced else cores()
    compiled = _compiled(run, alone=not traced and jax.default_backend() == "cpu")
    parts = thread_ranges(n_agents, block, n_threads)
    return run_parallel([partial(compiled, *arguments, jnp.asarray(first), n) for first, n in parts], n_threads)


def thread_ranges(n_agents: int, block: int, n_threads: int) -> list[tuple[int, int]]:
    """Cut agents into ranges (first, number) of whole blocks, equally many for every thread, the last one shorter."""
    if n_threads == 1:
        return [(0, n_agents)]
    blocks = -(-n_agents // block)
    rounds = -(-blocks // (n_threads * BLOCKS_AT_ONCE))
    size = -(-blocks // (n_threads * rounds)) * block
    return [(first, min(size, n_agents - first)) for first in range(0, n_agents, size)]


@cache
def _compiled(run: Callable[..., Result], alone: bool) -> Callable[..., Result]:
    """Compile for one core, unless the function runs inside a larger program or on an accelerator."""
    return eqx.filter_jit(run, **(single_core_options() if alone else {}))


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Keep the threads: starting them anew takes as long as simulating thousands of agents."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix=THREADS)
