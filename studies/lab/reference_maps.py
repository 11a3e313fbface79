"""Own the maps that studies compare: the shipped interface's, and those of other representations beside the source.

EDGE: disk. Others are no part of the installed package; without them only the shipped maps are there.
"""

from collections.abc import Sequence
from pathlib import Path

from walras.maps.file import DUAL, PRIMAL, LearnedMap, load_map
from walras.maps.interface import Interface

COMPETITORS = Path(__file__).parents[2] / "benchmarks" / "maps"
"""Folder of the maps that others are compared with: `primal-NAME.walras` and `dual-NAME.walras`."""


def reference_maps(kind: str, own: LearnedMap, folder: Path = COMPETITORS) -> dict[str, LearnedMap]:
    """Return all maps of a kind by what they know their population by, an interface's own first.

    Args:
        kind: "primal map" or "dual map".
        own: the interface's.
        folder: of the others; those of other resources are left out.
    """
    found = {own.shape.name: own}
    for path in sorted(folder.glob(f"{kind.split()[0]}-*.walras")):
        learned = load_map(path, kind)
        if learned.resources == own.resources:
            found.setdefault(learned.shape.name, learned)
    return found


def default_maps(kind: str, names: Sequence[str] = ()) -> dict[str, LearnedMap]:
    """Return the maps of the shipped default interface and the others trained on what it was trained on.

    Args:
        kind: `PRIMAL` or `DUAL`.
        names: of those that are wanted; default all. Names that are not there are left out.
    """
    interface = Interface.load("default")
    own = interface.primal if kind == PRIMAL else interface.dual
    assert own is not None and kind in (PRIMAL, DUAL)  # the shipped interface holds both
    found = reference_maps(kind, own)
    return {name: found[name] for name in names or found if name in found}
