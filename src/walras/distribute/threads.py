"""Own the use of all cores by one process: the same compiled program on different agents, side by side.

FREE: results come back in the order of the tasks; how many run at once changes the time only.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from walras.distribute.blocks import ranges

Result = TypeVar("Result")

CPU_OPTIONS = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""How a processor's programs are compiled: wide vectors (where there are none, narrower ones are used), and kernels one
after the other, since the small ones of a week are done sooner than another thread is woken; lanes fill the cores."""


@cache
def single_core_options() -> dict[str, Any]:
    """Return how to compile a program that has one of a processor's lanes to itself (arguments of a JAX jit).

    Compilers of other versions may not know the options, which a program of one addition finds out.
    """
    try:
        jax.jit(lambda x: x + 1, compiler_options=CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return {"compiler_options": CPU_OPTIONS}


def cores() -> int:
    """Count the cores this process may use for lanes; an accelerator needs only one lane."""
    if jax.default_backend() != "cpu":
        return 1
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system tells
        return os.cpu_count() or 1


def run_parallel(tasks: Sequence[Callable[[], Result]], lanes: int) -> list[Result]:
    """Run all tasks, as many at a time as there are lanes; the first error ends them.

    A compiled program occupies one core, and lets go of the interpreter while it runs, so threads suffice.
    """
    if lanes == 1 or len(tasks) == 1:
        return [task() for task in tasks]
    double = jax.dtypes.canonicalize_dtype(float) == jnp.float64  # a setting of the calling thread

    def run(task: Callable[[], Result]) -> Result:
        with jax.enable_x64(double):
            return jax.block_until_ready(task())

    return list(_pool(lanes).map(run, tasks))


def map_ranges(run: Callable[..., Result], arguments: tuple, n_agents: int, block: int) -> list[Result]:
    """Run `run(*arguments, first, count)`, compiled, over ranges of whole blocks, on all cores where nothing is traced.

    Args:
        run: a function at the top of a module, since what was compiled for it is kept as long as the process lives.
        arguments: arrays, and what can be compared: any other value is compiled in.
        n_agents: agents in all.
        block: agents per block.

    Returns:
        One answer for every range, in the order of the agents.
    """
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
    lanes = 1 if traced else cores()
    compiled = _compiled(run, alone=not traced and jax.default_backend() == "cpu")
    tasks = [
        partial(compiled, *arguments, jnp.asarray(first), count) for first, count in ranges(n_agents, block, lanes)
    ]
    return run_parallel(tasks, lanes)


@cache
def _compiled(run: Callable[..., Result], alone: bool) -> Callable[..., Result]:
    """Compile what runs inside a larger program or on an accelerator, or what has a lane to itself."""
    return eqx.filter_jit(run, **(single_core_options() if alone else {}))


@cache
def _pool(lanes: int) -> ThreadPoolExecutor:
    """Keep the threads: starting them anew costs as much as simulating thousands of agents."""
    return ThreadPoolExecutor(lanes, thread_name_prefix="lane")
