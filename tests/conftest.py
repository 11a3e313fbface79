"""Own what holds for the whole suite: checked shapes and types, no silent broadcasting, no screen, no deadlines.

EDGE: everything here must happen before the first test module imports walras.
"""

import gc
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
# Most of the suite's time is compilation, which these flags more than halve. XLA stops at a flag that it does not know.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    if metadata.version("jaxlib").startswith("0.10.")
    else "",
)

import jax
import jaxtyping
import matplotlib
import pytest
from hypothesis import HealthCheck, settings

# The numeric tower lets an int stand where a float is asked for, as Python's own typing rules do.
HOOK = jaxtyping.install_import_hook("walras", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

matplotlib.use("Agg")
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("walras", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("walras")


MOST_MAPPINGS = 30_000
"""Pieces of memory that compiled programs may hold: Linux gives a process 65,530 by default, and beyond them compiling
crashes."""


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Forget compiled programs between modules where they have become too many to go on."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and len(mappings.read_bytes().splitlines()) > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


def machine_name() -> str:
    """Name this processor, since code compiled for another one may use instructions that it lacks."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = ""
    if cpuinfo.exists():
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{platform.machine()} {platform.processor()} {flags}".encode()).hexdigest()[:12]


def pytest_configure(config) -> None:
    """Keep compiled programs between runs, unless the user has named a place of their own."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not hasattr(config, "cache"):
        return
    folder = config.cache.mkdir("jax") / machine_name()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
