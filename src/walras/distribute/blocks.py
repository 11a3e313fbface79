"""Blocks: agents that are simulated together so that they stay in a core's cache, and sums that do not depend on them.

LAW: sums are taken over tiles of 256 agents in their order, then pairwise over tiles; no block size changes a bit.
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
"""Agents that are summed first; a block is a whole number of tiles."""

STACKED_ROWS = 9  # from here on a stack is compiled by itself
CACHE_FILE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
USUAL_CACHE = 1 << 20  # bytes of a core's second-level cache where the system does not report it
LARGEST_BLOCK = 2048  # larger blocks gain nothing on any processor tried
ACCELERATOR_BLOCK = 1 << 19  # an accelerator has no cache to stay in but thousands of threads to fill


def blocked_sums(rows: Sequence[Float[Array, " agent"]], weight: Float[Array, " agent"]) -> Float[Array, "tile row"]:
    """Return the sum of row x weight within each tile of agents; the last tile is padded with zeros.

    Many rows are stacked first. Few are not: a small stack is fused into the computation of its rows, which is slower.
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
    """Add up all tiles pairwise, in an order that depends on the number of tiles only."""
    while parts.shape[0] > 1:
        if parts.shape[0] % 2:
            parts = jnp.concatenate([parts, jnp.zeros_like(parts[:1])])
        parts = parts[0::2] + parts[1::2]
    return parts[0]


def map_blocks(body: Callable[[Array | int, int], Any], first: Array | int, n_agents: int, block: int) -> Any:
    """Run `body(start, size)` over consecutive blocks of agents from `first` on and concatenate the results.

    `body` returns sums by tile (tile axis second to last), values by agent (agent axis last), and values that are the
    same for every block; it is checkpointed, so that a gradient keeps nothing of a block. The result has the sums with
    the tile axis first (for `pairwise_sum`), the values by agent, and those of the first block.
    """
    whole, rest = divmod(n_agents, block)
    alone = whole + (rest > 0) == 1
    run = body if alone else jax.checkpoint(body, static_argnums=(1,))
    pieces = []
    if whole > 1:
        pieces.append(jax.lax.map(lambda number: run(first + number * block, block), jnp.arange(whole)))
    elif whole:
        pieces.append(jax.tree.map(lambda leaf: leaf[None], run(first, block)))
    if rest:
        pieces.append(jax.tree.map(lambda leaf: leaf[None], run(first + whole * block, rest)))
    parts, kept, once = zip(*pieces, strict=True)
    return (
        concatenate_pieces([jax.tree.map(_tiles_first, part) for part in parts], 0),
        concatenate_pieces([jax.tree.map(_merge_blocks, piece) for piece in kept], -1),
        jax.tree.map(lambda leaf: leaf[0], once[0]),
    )


def concatenate_pieces(pieces: Sequence[Any], axis: int) -> Any:
    """Concatenate the same leaf of all pieces."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=axis), *pieces)


def _tiles_first(leaf: Float[Array, "block *axes tile row"]) -> Float[Array, "all *axes row"]:
    moved = jnp.moveaxis(leaf, -2, 1)
    return moved.reshape(-1, *moved.shape[2:])


def _merge_blocks(leaf: Float[Array, "block *axes agent"]) -> Float[Array, "*axes all"]:
    moved = jnp.moveaxis(leaf, 0, -2)
    return moved.reshape(*moved.shape[:-2], moved.shape[-2] * moved.shape[-1])


def block_size(bytes_per_agent: int, wanted: int | None = None) -> int:
    """Choose how many agents, of so many bytes a week, stay in half of a core's cache; or check the number `wanted`.

    Raises:
        SettingsError: not a positive multiple of a tile.
    """
    if wanted is None:
        if jax.default_backend() != "cpu":
            return ACCELERATOR_BLOCK
        fitting = max(core_cache() // 2 // max(bytes_per_agent, 1), TILE)
        return min(1 << (fitting.bit_length() - 1), LARGEST_BLOCK)
    if not isinstance(wanted, int) or wanted < TILE or wanted % TILE:
        raise SettingsError(f"`block_agents` is {wanted!r} but needs to be a multiple of {TILE}; give e.g. {8 * TILE}")
    return wanted


@cache
def core_cache() -> int:
    """Return the size of the second-level cache of one core [bytes]."""
    try:
        text = CACHE_FILE.read_text().strip()
        return int(text.removesuffix("K")) * (1024 if text.endswith("K") else 1)
    except (OSError, ValueError):
        return USUAL_CACHE
