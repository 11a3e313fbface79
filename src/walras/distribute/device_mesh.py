"""Devices: a mesh of them, of one process or many, each running its own part of the agents; only totals cross.

CONTRACT: totals are those of one device up to rounding, and have the same bits run after run.
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

FIRST, LAST, SHARED = 0, -1, None
"""Position of the agent axis of an argument: first, last, or none (every device holds all of it)."""


@dataclass(frozen=True)
class AgentMesh:
    """Devices in a row along the agents: each holds an equal, contiguous part of them, in order.

    The mesh has one axis, `AXIS`, and may hold the devices of many processes.
    """

    mesh: Mesh

    @staticmethod
    def of(devices: Sequence[jax.Device] | None = None) -> "AgentMesh":
        """Return a mesh of these devices; by default of all devices of all processes."""
        return AgentMesh(Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,)))

    @staticmethod
    def local() -> "AgentMesh":
        """Return a mesh of the devices of this process."""
        return AgentMesh.of(jax.local_devices())

    @property
    def n_devices(self) -> int:
        """Count the devices."""
        return self.mesh.size

    @property
    def processes(self) -> tuple[int, ...]:
        """Return the processes that hold the devices, in the order of their parts of the agents."""
        return tuple(dict.fromkeys(device.process_index for device in self.mesh.devices.flat))

    @property
    def here(self) -> "AgentMesh":
        """Return the mesh of those devices that this process holds."""
        return AgentMesh.of(self.mesh.local_devices)

    def padded(self, agents: int) -> int:
        """Round a number of agents up to a multiple of the devices; added agents need weight zero."""
        return -(-agents // self.n_devices) * self.n_devices

    def local_slice(self, start: int, stop: int) -> slice:
        """Return the part of the agents `start` .. `stop` that this process runs, in the order of the processes.

        Parts are equal after padding; where there are few agents the last parts may be short or empty.
        """
        size = self.padded(stop - start) // self.n_devices * len(self.mesh.local_devices)
        before = start + size * self.processes.index(jax.process_index())
        return slice(min(before, stop), min(before + size, stop))

    def place(self, tree: Tree, axis: int | None) -> Tree:
        """Put arrays onto the devices; with several processes each passes its own part of the agents.

        Raises:
            ShapeError: agents that do not divide evenly.
        """
        parts = len(self.mesh.local_devices)

        def put(leaf: Any) -> Any:
            if not isinstance(leaf, np.ndarray | jax.Array):
                return leaf
            spec = _spec(leaf, axis)
            _refuse_uneven(leaf.shape, spec, parts)
            if len(self.processes) == 1:  # no copy where the array is there already
                return jax.device_put(leaf, NamedSharding(self.mesh, spec))
            return jax.make_array_from_process_local_data(NamedSharding(self.mesh, spec), np.asarray(leaf))

        return jax.tree.map(put, tree)

    def totals(self, local: Tree) -> Tree:
        """Add up the totals of all processes in one exchange; the result is the same in every process.

        They are added in the order of the processes in double precision, and rounded once; shapes are the same in all.
        """
        return self._combine(local, lambda rows: [_add(parts) for parts in zip(*rows, strict=True)])

    def first(self, value: Tree) -> Tree:
        """Broadcast the value of process 0, for decisions that all must take alike; shapes are the same in all."""
        return self._combine(value, lambda rows: rows[0])

    def _combine(self, own: Tree, choose: Callable[[list[list[np.ndarray]]], list[np.ndarray]]) -> Tree:
        arrays, structure = jax.tree.flatten(jax.tree.map(np.asarray, own))
        if len(self.processes) > 1:
            arrays = choose([_unpack(row, arrays) for row in _exchange(_pack(arrays))])
        return jax.tree.unflatten(structure, arrays)

    def first_bytes(self, raw: bytes) -> bytes:
        """Broadcast the bytes of process 0, whose number the others need not know."""
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

    Nothing crosses between devices before its end, and in the gradient nothing before the end of the backward pass.
    May be called under `jax.jit`, and differentiated in both modes.

    Args:
        function: totals of a part of the agents; a pure function of its positional arguments.
        mesh: the devices; every part has the same number of agents (see `AgentMesh.padded`).
        axes: position of the agent axis of each argument; leaves that are no arrays pass, scalars are shared.
        kept: where given, `function` returns (totals, values by agent) and this is the position of the agent axis of
            the latter, by leaf or by branch; `SHARED` for what is the same on all devices.
    """

    def whole(*arguments: Any) -> Any:
        arrays, rest = eqx.partition(arguments, eqx.is_array)
        specs = tuple(_specs(part, axis, mesh) for part, axis in zip(arrays, axes, strict=True))

        def part(*own: Any) -> Any:
            result = function(*eqx.combine(own, rest))
            totals, agents = (result, None) if kept is None else result
            return jax.lax.psum(totals, AXIS), agents

        # check_vma would mark a shared price as varying where it is first used, inside the scan over weeks, and the
        # gradient would then add over devices once a week instead of once.
        out = (PartitionSpec(), PartitionSpec() if kept is None else _kept_specs(function, arguments, kept))
        run = jax.shard_map(part, mesh=mesh.mesh, in_specs=specs, out_specs=out, check_vma=False)
        totals, agents = run(*arrays)
        return totals if kept is None else (totals, agents)

    return whole


def pad(tree: Tree, axis: int, agents: int) -> Tree:
    """Repeat the last agent along `axis` (`FIRST` or `LAST`) up to `agents`; added agents need weight zero."""

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
        own = _spec(leaf, axis)
        _refuse_uneven(leaf.shape, own, mesh.n_devices)
        return own

    return jax.tree.map(spec, tree)


def _kept_specs(function: Callable[..., Any], arguments: tuple[Any, ...], kept: PyTree[int | None]) -> Any:
    """Return the layout of values by agent; apart from the number of agents their shapes are those of one device."""
    shapes = eqx.filter_eval_shape(function, *arguments)[1]
    is_none = lambda value: value is None  # noqa: E731
    whole = jax.tree.map(lambda axis, branch: jax.tree.map(lambda _: axis, branch), kept, shapes, is_leaf=is_none)
    return jax.tree.map(lambda axis, shape: _spec(shape, axis), whole, shapes, is_leaf=is_none)


def _refuse_uneven(shape: tuple[int, ...], spec: PartitionSpec, parts: int) -> None:
    if len(spec) and shape[len(spec) - 1] % parts:
        raise ShapeError(
            f"an array of shape {shape} has {shape[len(spec) - 1]} agents but needs a multiple of {parts}, the number "
            "of devices; pad the agents with `walras.distribute.device_mesh.pad` and give those added weight zero"
        )


def _pack(arrays: list[np.ndarray]) -> np.ndarray:
    """Concatenate the bytes: one exchange for all arrays, in their own precision."""
    return np.frombuffer(b"".join(array.tobytes() for array in arrays), np.uint8)


def _unpack(row: np.ndarray, like: list[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([array.nbytes for array in like])[:-1]
    parts = zip(np.split(row, ends), like, strict=True)
    return [np.frombuffer(part.tobytes(), array.dtype).reshape(array.shape) for part, array in parts]


def _exchange(row: np.ndarray) -> np.ndarray:
    """Return the rows of all processes, in their order."""
    return np.asarray(multihost_utils.process_allgather(row))


def _add(parts: Sequence[np.ndarray]) -> np.ndarray:
    wide = np.float64 if np.issubdtype(parts[0].dtype, np.floating) else parts[0].dtype
    return np.asarray(np.sum(np.stack(parts), axis=0, dtype=wide).astype(parts[0].dtype))
