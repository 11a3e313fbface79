"""Own the file of a trained buyer: its weights, its shape, and how it was made.

CONTRACT: files are shipped and kept by users; a change of what the network is fed is a new `VERSION`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jax

from walras.data.array_file import Stored, flatten, read_arrays, restore, write_arrays
from walras.errors import InputError, quote
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer, BuyerNetwork, BuyerShape
from walras.population.agent_axis import Broadcast

KIND = "buyer"
VERSION = 1
"""Of what the network is fed, and in which order."""

SHIPPED = "buyer.walras"
"""Name of the buyer that comes with the package, beside the policies."""


@dataclass(frozen=True, eq=False)
class TrainedBuyer:
    """Hold a buyer and how it was made.

    Attributes:
        buyer: the policy.
        facts: what its training noted: settings, steps, what it was trained on, loss on what was held out.
        source: name of its file.
    """

    buyer: Buyer
    facts: Mapping[str, Any]
    source: str


def save_buyer(path: str | Path, buyer: Buyer, facts: Mapping[str, Any]) -> None:
    """Write a buyer to a file, aside and then renamed.

    Args:
        path: where; the folder must exist.
        buyer: with the default law of demand.
        facts: words and numbers on how it was made.
    """
    shape = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(buyer.shape).items()}
    header = {"version": VERSION, "shape": shape, "discount": buyer.base.discount, "facts": dict(facts)}
    write_arrays(path, KIND, flatten(buyer.network.value), header)


def load_buyer(path: str | Path | Traversable | None = None) -> TrainedBuyer:
    """Read a buyer; no code is run, and every byte is checked.

    Args:
        path: a file written by `save_buyer`; the shipped buyer where not given.

    Raises:
        DamagedFileError, InputError: a damaged file, another kind of file, or one of another version.
    """
    stored = read_arrays(files("walras.policies") / SHIPPED if path is None else path, KIND)
    shape, discount = _shape_of(stored)
    network = restore(jax.eval_shape(lambda: BuyerNetwork.draw(shape, 0)), stored)
    buyer = Buyer(Broadcast(network), shape, PricedNewsvendor(discount=discount))
    return TrainedBuyer(buyer, stored.header.get("facts", {}), stored.source)


def _shape_of(stored: Stored) -> tuple[BuyerShape, float]:
    """Read the shape off the header, or say what is wrong with it."""
    version = stored.header.get("version")
    if version != VERSION:
        raise InputError(
            f"{stored.source} holds a buyer of version {quote(version)} but this walras reads version {VERSION}; "
            "train it again"
        )
    try:
        fields: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in dict(stored.header["shape"]).items()
        }
        return BuyerShape(**fields), float(stored.header["discount"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{stored.source} does not say what shape its buyer has; train it again") from None
