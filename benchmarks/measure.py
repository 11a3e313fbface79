"""Own how things are timed: in turn, so that other work on the machine slows all alike; medians are reported."""

import resource
import statistics
import sys
import time
from pathlib import Path

import jax


def medians(calls, rounds, patience=float("inf"), fewest=3):
    """Time every call once per round, after one call each to compile; return median seconds by name, and the rounds.

    Where one round takes longer than `patience` seconds, the `fewest` rounds have to do.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    seconds = {name: [] for name in calls}
    started, done = time.perf_counter(), 0
    while done < rounds:
        for name, call in calls.items():
            seconds[name].append(_seconds(call))
        done += 1
        if done == 1 and time.perf_counter() - started > patience:
            rounds = min(rounds, fewest)
    return {name: statistics.median(values) for name, values in seconds.items()}, done


def _seconds(call):
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def peak_gb():
    """Return the most memory this process ever held [GB].

    On Linux `ru_maxrss` survives the start of a new program and would be the parent's peak, where that was higher; the
    high-water mark in /proc starts anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
