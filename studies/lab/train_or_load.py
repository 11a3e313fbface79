"""Own the maps that studies train to compare: each once, in a folder that all studies share.

EDGE: disk. A training that was stopped goes on, one that is done is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from walras.config import checked
from walras.data.resume_log import digest
from walras.maps.file import PRIMAL, LearnedMap
from walras.train.maps_training import WORLDS, train_primal
from walras.train.settings import MapTraining, preset_values


def trained_map(given: Mapping[str, Any], folder: Path) -> LearnedMap:
    """Train a primal map, or read it.

    Args:
        given: settings other than those of the preset `small`; delegates are 0 unless given.
        folder: that studies share.
    """
    values = {**preset_values(PRIMAL, "small"), "delegates": 0, **given}
    settings = checked(MapTraining, values, "the settings of a study")
    place = folder / "trained" / f"{settings.representation}-{digest(settings.model_dump(mode='json'))[:12]}"
    return train_primal(settings, place, folder / WORLDS)


def held_out_curve(learned: LearnedMap) -> dict[str, Any]:
    """Return when a training was best and how good on what was held out, and how long it lasted."""
    return {name: learned.facts[name] for name in ("steps", "best_step", "held_out_error")}
