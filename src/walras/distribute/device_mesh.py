"""Own how agents are spread over devices and processes: every one runs its own part, and only totals cross.

CONTRACT: knows nothing of inventory; the totals are those of one device up to rounding, and the same run after run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from walras.errors import ShapeError

Tree = TypeVar("Tree")

AXIS = "agents"
"""Name of the one axis of the mesh."""

FIRST, LAST, SHARED = 0, -1, None
"""Where the agent axis of an argument lies: first, last, or nowhere (every device sees all of it)."""


@dataclass(frozen=True)
class AgentMesh:
    """Line devices up along the agents: each holds an equal, contiguous part of them, in order.

    Attributes:
        mesh: one axis, `AXIS`; may hold the devices of many processes.
    """

    mesh: Mesh

    @staticmethod
    def of(devices: Sequence[jax.Device] | None = None) -> "AgentMesh":
        """Line up these devices; by default all devices of all processes of the run."""
        return AgentMesh(Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,)))

    @staticmethod
    def local() -> "AgentMesh":
        """Line up the devices of this process only, which then runs its part without waiting for any other."""
        return AgentMesh.of(jax.local_devices())

    @property
    def n_devices(self) -> int:
        """Count the devices."""
        return self.mesh.size

    @property
    def processes(self) -> tuple[int, ...]:
        """Name the processes that hold the devices, in the order of their parts of the agents."""
        return tuple(dict.fromkeys(device.process_index for device in self.mesh.devices.flat))

    @property
    def here(self) -> "AgentMesh":
        """Line up those of the devices that this process holds."""
        return AgentMesh.of(self.mesh.local_devices)

    def padded(self, agents: int) -> int:
        """Round a number of agents up to a multiple of the devices; the caller gives those added weight zero."""
        return -(-agents // self.n_devices) * self.n_devices

    def local_slice(self, start: int, stop: int) -> slice:
        """Cut from the agents `start` .. `stop` the part that this process runs.

        The parts follow each other in the order of the processes, and are equal in number after padding; a process may
        find its part short or empty where there are few agents.
        """
        size = self.padded(stop - start) // self.n_devices * len(self.mesh.local_devices)
        before = start + size * self.processes.index(jax.process_index())
        return slice(min(before, stop), min(before + size, stop))

    def place(self, tree: Tree, axis: int | None) -> Tree:
        """Put arrays onto the devices; with several processes each gives its own part of the agents only.

        Args:
            tree: arrays; numbers, functions and other leaves pass.
            axis: `FIRST`, `LAST` or `SHARED`.

        Raises:
            ShapeError: agents that do not divide evenly.
        """
        parts = len(self.mesh.local_devices)

        def put(leaf: Any) -> Any:
            if not isinstance(leaf, np.ndarray | jax.Array):
                return leaf
            spec = _spec(leaf, axis)
            _refuse_uneven(leaf.shape, spec, parts)
            if len(self.processes) == 1:  # from device to device, and not at all where it lies there already
                return jax.device_put(leaf, NamedSharding(self.mesh, spec))
            return jax.make_array_from_process_local_data(NamedSharding(self.mesh, spec), np.asarray(leaf))

        return jax.tree.map(put, tree)

    def totals(self, local: Tree) -> Tree:
        """Add up the totals of all processes: one exchange of a few kilobytes, the same result in every process.

        Added in the order of the processes and in double precision, rounded once.

        Args:
            local: what this process found for its own agents; shapes are the same in all processes.
        """
        leaves, structure = jax.tree.flatten(local)
        arrays = [np.asarray(leaf) for leaf in leaves]
        if len(self.processes) == 1:
            return jax.tree.unflatten(structure, arrays)
        rows = [_unpack(row, arrays) for row in _exchange(_pack(arrays))]
        return jax.tree.unflatten(structure, [_add(parts) for parts in zip(*rows, strict=True)])

    def first(self, value: Tree) -> Tree:
        """Give every process what process 0 holds, so that all take the same decision; shapes are the same in all."""
        leaves, structure = jax.tree.flatten(value)
        arrays = [np.asarray(leaf) for leaf in leaves]
        if len(self.processes) > 1:
            arrays = _unpack(_exchange(_pack(arrays))[0], arrays)
        return jax.tree.unflatten(structure, arrays)

    def first_bytes(self, raw: bytes) -> bytes:
        """Give every process the bytes that process 0 holds; the others need not know how many, and give none."""
        if len(self.processes) == 1:
            return raw
        count = int(self.first(np.array(len(raw), np.int64)))
        return self.first(np.frombuffer(raw.ljust(count, b"\0")[:count], np.uint8)).tobytes()


def sharded(
    function: Callable[..., Any],
    mesh: AgentMesh,
    axes: Sequence[int | None],
    kept: PyTree[int | None] | None = None,
) -> Callable[..., Any]:
    """Run a function of agents on every device's own part of them, and add up the totals it returns.

    The function is partitioned by hand, not by the compiler: nothing crosses before its end, and in the gradient
    nothing before the end of the backward pass. May be called under `jax.jit`, and differentiated in both modes.

    Args:
        function: totals of a part of the agents; a pure function of its positional arguments.
        mesh: the devices; every part is the same number of agents (see `AgentMesh.padded`).
        axes: where the agent axis of each argument lies. Leaves that are no arrays pass, scalars are shared.
        kept: where given, `function` returns (totals, what is kept of its agents) and this says where the agent axis of
            the latter lies, counted from either end, leaf by leaf or for a whole branch; `SHARED` for what is the same
            on all devices.

    Returns:
        The function of all agents: the totals, the same on every device; with `kept` also the agents, lined up again.
    """

    def whole(*arguments: Any) -> Any:
        arrays, rest = eqx.partition(arguments, eqx.is_array)
        specs = tuple(_specs(part, axis, mesh) for part, axis in zip(arrays, axes, strict=True))

        def part(*own: Any) -> Any:
            found = function(*eqx.combine(own, rest))
            totals, agents = (found, None) if kept is None else found
            return jax.lax.psum(totals, AXIS), agents

        # Unchecked on purpose: the check marks a shared price as varying where it is first used, inside the scan over
        # weeks, and the gradient then adds over devices once a week instead of once.
        out = (PartitionSpec(), PartitionSpec() if kept is None else _kept_specs(function, arguments, kept))
        run = jax.shard_map(part, mesh=mesh.mesh, in_specs=specs, out_specs=out, check_vma=False)
        totals, agents = run(*arrays)
        return totals if kept is None else (totals, agents)

    return whole


def pad(tree: Tree, axis: int, agents: int) -> Tree:
    """Repeat the last agent until there are `agents` of them; the caller gives those added weight zero.

    Args:
        tree: arrays with the agent axis at `axis`; scalars and other leaves pass.
        axis: `FIRST` or `LAST`.
        agents: number wanted.
    """

    def grow(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray | jax.Array) or leaf.ndim == 0 or leaf.shape[axis] >= agents:
            return leaf
        more = [(0, 0)] * leaf.ndim
        more[axis] = (0, agents - leaf.shape[axis])
        module = np if isinstance(leaf, np.ndarray) else jax.numpy
        return module.pad(leaf, more, mode="edge")

    return jax.tree.map(grow, tree)


def _spec(leaf: Array | np.ndarray, axis: int | None) -> PartitionSpec:
    if axis is SHARED or leaf.ndim == 0:
        return PartitionSpec()
    return PartitionSpec(*[None] * (axis % leaf.ndim), AXIS)


def _specs(tree: Any, axis: int | None, mesh: AgentMesh) -> Any:
    def spec(leaf: Array) -> PartitionSpec:
        found = _spec(leaf, axis)
        _refuse_uneven(leaf.shape, found, mesh.n_devices)
        return found

    return jax.tree.map(spec, tree)


def _kept_specs(function: Callable[..., Any], arguments: tuple[Any, ...], kept: PyTree[int | None]) -> Any:
    """Say how what is kept lies on the devices; its shapes, up to the number of agents, are those of one device."""
    shapes = eqx.filter_eval_shape(function, *arguments)[1]
    whole = jax.tree.map(lambda axis, branch: jax.tree.map(lambda _: axis, branch), kept, shapes, is_leaf=_is_none)
    return jax.tree.map(lambda axis, shape: _spec(shape, axis), whole, shapes, is_leaf=_is_none)


def _is_none(value: object) -> bool:
    return value is None


def _refuse_uneven(shape: tuple[int, ...], spec: PartitionSpec, parts: int) -> None:
    if len(spec) and shape[len(spec) - 1] % parts:
        raise ShapeError(
            f"an array of shape {shape} has {shape[len(spec) - 1]} agents but needs a multiple of {parts}, the number "
            "of devices; pad the agents with `walras.distribute.device_mesh.pad` and give those added weight zero"
        )


def _pack(arrays: list[np.ndarray]) -> np.ndarray:
    """Line the bytes up: one exchange for all arrays, and none is rounded to what devices compute in."""
    return np.frombuffer(b"".join(array.tobytes() for array in arrays), np.uint8)


def _unpack(row: np.ndarray, like: list[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([array.nbytes for array in like])[:-1]
    parts = zip(np.split(row, ends), like, strict=True)
    return [np.frombuffer(part.tobytes(), array.dtype).reshape(array.shape) for part, array in parts]


def _exchange(row: np.ndarray) -> np.ndarray:
    """Give every process the rows of all, in the order of the processes."""
    return np.asarray(multihost_utils.process_allgather(row))


def _add(parts: Sequence[np.ndarray]) -> np.ndarray:
    wide = np.float64 if np.issubdtype(parts[0].dtype, np.floating) else parts[0].dtype
    return np.asarray(np.sum(np.stack(parts), axis=0, dtype=wide).astype(parts[0].dtype))
