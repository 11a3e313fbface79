"""Own what holds for the whole suite: checked shapes and types, no silent broadcasting, no screen, no deadlines.

EDGE: everything here must happen before the first test module imports walras.
"""

import hashlib
import os
import platform
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import jaxtyping
import matplotlib
from hypothesis import HealthCheck, settings

# The numeric tower lets an int stand where a float is asked for, as Python's own typing rules do.
HOOK = jaxtyping.install_import_hook("walras", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

matplotlib.use("Agg")
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("walras", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("walras")


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
