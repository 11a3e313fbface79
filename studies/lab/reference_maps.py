"""Maps that studies compare: the shipped ones, others trained alike beside the source, and maps trained on demand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from walras.config import checked
from walras.data.resume_log import digest
from walras.maps.file import DUAL, PRIMAL, LearnedMap, load_map
from walras.maps.interface import FILES, Interface
from walras.train.maps_training import POOLS, train_map
from walras.train.settings import MapTraining, preset_values

COMPETITORS = Path(__file__).parents[2] / "benchmarks" / "maps"
"""Folder of maps to compare with: `primal-NAME.walras` and `dual-NAME.walras`; they are not part of the package."""


def reference_maps(kind: str, own: LearnedMap, folder: Path = COMPETITORS) -> dict[str, LearnedMap]:
    """Return all maps of a kind by representation, the given one first."""
    maps = {own.shape.name: own}
    for path in sorted(folder.glob(f"{kind.split()[0]}-*.walras")):
        learned = load_map(path, kind)
        if learned.resources == own.resources:
            maps.setdefault(learned.shape.name, learned)
    return maps


def default_maps(kind: str, names: Sequence[str] = ()) -> dict[str, LearnedMap]:
    """Return the map of the shipped default interface and the others trained on the same data.

    Args:
        kind: `PRIMAL` or `DUAL`.
        names: wanted ones, default all; missing ones are left out.
    """
    interface = Interface.load("default")
    own = interface.primal if kind == PRIMAL else interface.dual
    assert own is not None and kind in (PRIMAL, DUAL)  # the shipped interface holds both
    maps = reference_maps(kind, own)
    return {name: maps[name] for name in names or maps if name in maps}


def train_or_load(given: Mapping[str, Any], folder: Path) -> LearnedMap:
    """Train a primal map, resume a stopped training, or read a finished one."""
    values = {**preset_values(PRIMAL, "small"), "delegates": 0, **given}
    settings = checked(MapTraining, values, "the settings of a study")
    place = folder / "trained" / f"{settings.representation}-{digest(settings.model_dump(mode='json'))[:12]}"
    path = place / FILES[PRIMAL]
    if not path.exists():
        train_map(PRIMAL, None, settings, place, pools=folder / POOLS, support=False)
    return load_map(path, PRIMAL)


def training_facts(learned: LearnedMap) -> dict[str, Any]:
    """Return steps, best step and validation error of a training."""
    return {name: learned.facts[name] for name in ("steps", "best_step", "held_out_error")}
