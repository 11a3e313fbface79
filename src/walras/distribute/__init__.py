"""How work is split: cache blocks of agents, threads, the devices of one machine, processes of several."""

from walras.lazy import lazy_names

_HOME = {
    "AgentMesh": "device_mesh",
    "run_processes": "launch",
    "join_cluster": "launch",
}
"""Public names and the modules that define them."""

__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME)
