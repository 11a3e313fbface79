"""Own the tiles: how a function of some agents is run over all of them in blocks, and how its sums are folded.

LAW: sums are taken tile by tile of 256 agents, in the order of the agents, by one tree; no block size changes a bit.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.errors import SettingsError

TILE = 256
"""Agents whose sum is taken first; blocks are whole tiles."""

CACHE_FILE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
USUAL_CACHE = 1 << 20
"""Size of a core's own cache where the machine does not tell [bytes]."""

LARGEST_BLOCK = 2048
"""Larger blocks gain nothing on any processor tried: the cost of starting a kernel is spread thin enough."""

STACKED_ROWS = 9
"""Rows from which a stack is compiled by itself."""

BLOCKS_AT_ONCE = 64
"""Blocks that one call of a compiled program runs: long enough to hide the call, short enough to share out evenly."""

ACCELERATOR_BLOCK = 1 << 19
"""An accelerator has no cache to stay in, but thousands of lanes to fill."""


def blocked_sums(rows: Sequence[Float[Array, " agent"]], weight: Float[Array, " agent"]) -> Float[Array, "tile row"]:
    """Sum every row times weight within each tile of agents; a last tile that is not full counts as zeros.

    Products of a tile's rows and its weights: the order within a tile is the same wherever the tile lies. Many rows are
    stacked first; few are not, since a small stack is compiled into what makes its rows, which then runs slower.
    """
    missing = -weight.shape[0] % TILE

    def tiled(row: Float[Array, " agent"]) -> Float[Array, "tile within"]:
        return (jnp.pad(row, (0, missing)) if missing else row).reshape(-1, TILE)

    if len(rows) < STACKED_ROWS:
        products = [jnp.einsum("tw,tw->t", tiled(row), tiled(weight), precision="highest") for row in rows]
        return jnp.stack(products, axis=1)
    stacked = jnp.stack([tiled(row) for row in rows], axis=1)
    return jnp.einsum("trw,tw->tr", stacked, tiled(weight), precision="highest")


def pairwise_sum(parts: Float[Array, "tile *row"]) -> Float[Array, "*row"]:
    """Add up all tiles pairwise; the tree depends on the number of tiles only."""
    while parts.shape[0] > 1:
        if parts.shape[0] % 2:
            parts = jnp.concatenate([parts, jnp.zeros_like(parts[:1])])
        parts = parts[0::2] + parts[1::2]
    return parts[0]


def map_blocks(body: Callable[[Array | int, int], Any], first: Array | int, n_agents: int, block: int) -> Any:
    """Run `body(start, size)` over consecutive blocks of agents and put the pieces together.

    Args:
        body: returns `(parts, kept, once)`: sums by tile (tile axis second to last), values by agent (agent axis last),
            and values that are the same for every block. It is checkpointed: a gradient keeps nothing of a block.
        first: agent to start with.
        n_agents: agents in all.
        block: agents per block, whole tiles.

    Returns:
        The sums by tile (tile axis first, to be folded), the values by agent in order, and those of the first block.
    """
    whole, rest = divmod(n_agents, block)
    alone = whole + (rest > 0) == 1
    run = body if alone else jax.checkpoint(body, static_argnums=(1,))
    pieces = []
    if whole > 1:
        pieces.append(jax.lax.map(lambda number: run(first + number * block, block), jnp.arange(whole)))
    elif whole:
        pieces.append(_one_piece(run(first, block)))
    if rest:
        pieces.append(_one_piece(run(first + whole * block, rest)))
    parts, kept, once = zip(*pieces, strict=True)
    return (
        join(_tiles_first, parts, 0),
        join(_lined_up, kept, -1),
        jax.tree.map(lambda leaf: leaf[0], once[0]),
    )


def join(ready: Callable[[Array], Array], pieces: Sequence[Any], axis: int) -> Any:
    """Make every leaf of every piece ready, and put the same leaf of all pieces one after the other."""
    return jax.tree.map(lambda *leaves: jnp.concatenate([ready(leaf) for leaf in leaves], axis=axis), *pieces)


def ranges(n_agents: int, block: int, lanes: int) -> list[tuple[int, int]]:
    """Cut agents into ranges (first, number) of whole blocks, as many for every lane, the last one shorter."""
    blocks = -(-n_agents // block)
    rounds = -(-blocks // (lanes * BLOCKS_AT_ONCE))
    each = -(-blocks // (lanes * rounds)) * block
    if lanes == 1:
        return [(0, n_agents)]
    return [(first, min(each, n_agents - first)) for first in range(0, n_agents, each)]


def _one_piece(piece: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], piece)


def _tiles_first(leaf: Float[Array, "block *axes tile row"]) -> Float[Array, "all *axes row"]:
    """Put the tiles of all blocks into one leading axis."""
    moved = jnp.moveaxis(leaf, -2, 1)
    return moved.reshape(-1, *moved.shape[2:])


def _lined_up(leaf: Float[Array, "block *axes agent"]) -> Float[Array, "*axes all"]:
    """Put the agents of all blocks one after the other."""
    moved = jnp.moveaxis(leaf, 0, -2)
    return moved.reshape(*moved.shape[:-2], moved.shape[-2] * moved.shape[-1])


def block_size(bytes_per_agent: int, wanted: int | None = None) -> int:
    """Choose how many agents a block has, so that what they carry from week to week stays in half a core's own cache.

    Args:
        bytes_per_agent: carried and read per agent and week.
        wanted: agents per block, where the caller decides.

    Raises:
        SettingsError: not a positive multiple of a tile.
    """
    if wanted is None:
        if jax.default_backend() != "cpu":
            return ACCELERATOR_BLOCK
        fitting = max(cache_of_a_core() // 2 // max(bytes_per_agent, 1), TILE)
        return min(1 << (fitting.bit_length() - 1), LARGEST_BLOCK)
    if not isinstance(wanted, int) or wanted < TILE or wanted % TILE:
        raise SettingsError(f"`block_agents` is {wanted!r} but needs to be a multiple of {TILE}; give e.g. {8 * TILE}")
    return wanted


@cache
def cache_of_a_core() -> int:
    """Ask the machine for the second-level cache of one core [bytes]."""
    try:
        text = CACHE_FILE.read_text().strip()
        return int(text.removesuffix("K")) * (1024 if text.endswith("K") else 1)
    except (OSError, ValueError):
        return USUAL_CACHE
