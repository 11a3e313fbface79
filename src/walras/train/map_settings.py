"""Own the settings of map training; presets are TOML files beside this one that give every value.

CONTRACT: commands fill these models, trainings read them; a new field needs a default, a description and a line in
every preset.
"""

import tomllib
from importlib.resources import files
from typing import Literal

from pydantic import Field

from walras.config import checked
from walras.train.settings import FitSettings

PRESETS = ("small", "paper")


class MapTraining(FitSettings):
    """Say how a map is trained, primal or dual."""

    representation: Literal["bucketized", "per-agent", "global", "bottom-up", "deep-sets", "moments"] = Field(
        "bucketized", description="how the map knows its population"
    )
    resources: tuple[str, ...] = Field(("inbound_units",), min_length=1, description="shared resources that are priced")
    target: int = Field(4000, ge=2, le=10_000_000, description="agents that are simulated in a rollout")
    agents: int = Field(512, ge=2, le=1_000_000, description="agents of the cohort that a map reads of them")
    weeks: int = Field(142, ge=60, le=5_000, description="weeks of a rollout, those before its first origin included")
    first_origin: int = Field(64, ge=8, le=1_000, description="weeks of history before the first origin")
    spacing: Literal[1, 2, 4, 8, 16, 32] = Field(8, description="weeks between the origins that primal maps learn from")
    burn_in: int = Field(6, ge=0, le=104, description="first coordinated weeks that do not count in the dual loss")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="first step size of Adam")
    last_rate: float = Field(0.03, gt=0, le=1, description="share of it at the end of a half cosine; 1 keeps it fixed")
    clip_norm: float = Field(0.1, gt=0, description="longest gradient, over all weights together")
    averaged: float = Field(0.99, ge=0, lt=1, description="share of the weights' running average that a step keeps")
    history_width: int = Field(32, ge=1, le=512, description="channels of the CNNs that read history")
    future_width: int = Field(16, ge=1, le=512, description="channels of each CNN that reads coming weeks")
    decoder_width: int = Field(32, ge=1, le=1024, description="width of the decoder")
    attention: int = Field(20, ge=1, le=512, description="dimension of attention")
    buckets: int = Field(10, ge=1, le=1000, description="demand buckets")
    tile: int = Field(16, ge=1, le=4096, description="agents pooled at a time; buckets are filled up to whole tiles")
    worlds: int = Field(2, ge=1, le=64, description="made-up worlds that are trained on")
    world_agents: int = Field(8000, ge=32, le=1_000_000, description="agents of each")
    world_weeks: int = Field(260, ge=120, le=5_000, description="weeks of each")
    held_out_weeks: int = Field(52, ge=0, le=1_000, description="last weeks of a table that training never sees")
    composition_shift: float = Field(2.0, ge=0, le=10, description="largest |alpha| of a drawn composition shift")
    common_surprise: float = Field(0.15, ge=0, le=2, description="largest spread of redrawn surprises that all share")
    violation_weight: float = Field(100.0, ge=0, description="weight of violation in the dual loss")
    price_weight: float = Field(1.0, ge=0, description="weight of prices in the dual loss")
    consistency_weight: float = Field(100.0, ge=0, description="weight of forecast consistency in the dual loss")


def preset(name: str) -> MapTraining:
    """Return a preset, "small" or "paper"."""
    source = files("walras.train") / f"{name}.toml"
    return checked(MapTraining, tomllib.loads(source.read_text()), source.name)
