"""Own random numbers that belong to a product: the same name and seed give the same number, whoever else is there.

FREE: a hash of the name is mixed with the seed and the purpose (splitmix64).
"""

import hashlib

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST_MIX = np.uint64(0xBF58476D1CE4E5B9)
SECOND_MIX = np.uint64(0x94D049BB133111EB)
MANTISSA_BITS = 53


def keyed_uniform(names: np.ndarray, purpose: str, seed: int) -> Float[np.ndarray, " agent"]:
    """Draw one number between 0 and 1 (both excluded) for each name.

    Args:
        names: products, vendors or whatever the number belongs to [agent].
        purpose: what the number is for; another purpose gives an independent number.
        seed: any whole number.
    """
    distinct, place = np.unique(names, return_inverse=True)
    hashes = np.array([_hash(str(name)) for name in distinct.tolist()], dtype=np.uint64)[place]
    with np.errstate(over="ignore"):
        mixed = _mix(hashes + GOLDEN * np.uint64(_hash(f"{seed}/{purpose}") | 1))
    return ((mixed >> np.uint64(64 - MANTISSA_BITS)).astype(np.float64) + 0.5) / 2.0**MANTISSA_BITS


def keyed_normal(names: np.ndarray, purpose: str, seed: int) -> Float[np.ndarray, " agent"]:
    """Draw one standard normal number for each name."""
    return np.asarray(ndtri(keyed_uniform(names, purpose, seed)))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * FIRST_MIX
    bits = (bits ^ (bits >> np.uint64(27))) * SECOND_MIX
    return bits ^ (bits >> np.uint64(31))
