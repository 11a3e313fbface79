"""Own the settings of map training; presets are TOML files beside this one that give every value.

CONTRACT: commands fill these models, trainings read them; a new field needs a default, a description and a line in
every preset.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from walras.config import TableSettings, checked
from walras.errors import SettingsError
from walras.train.settings import FitSettings, read_training

PRESETS = ("small", "paper")


class MapTraining(FitSettings):
    """Say how a map is trained, primal or dual."""

    representation: Literal["bucketized", "per-agent", "global", "bottom-up", "deep-sets", "moments"] = Field(
        "bucketized", description="how the map knows its population"
    )
    resources: tuple[str, ...] = Field(("inbound_units",), min_length=1, description="shared resources that are priced")
    target: int = Field(4000, ge=20, le=10_000_000, description="agents that are simulated in a rollout")
    agents: int = Field(512, ge=20, le=1_000_000, description="agents of the cohort that a map reads of them")
    weeks: int = Field(142, ge=60, le=5_000, description="weeks of a rollout, those before its first origin included")
    rollouts: int = Field(4, ge=1, le=1000, description="rollouts in a step of a primal training")
    rounds: int = Field(2, ge=0, le=100, description="rounds over them from which only the totals' part learns")
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
    delegates: int = Field(1024, ge=0, le=100_000, description="agents whose policies are asked in every query")
    tile: int = Field(16, ge=1, le=4096, description="agents pooled at a time; buckets are filled up to whole tiles")
    worlds: int = Field(2, ge=1, le=64, description="made-up worlds that are trained on")
    world_agents: int = Field(6000, ge=32, le=1_000_000, description="agents of each")
    world_weeks: int = Field(260, ge=120, le=5_000, description="weeks of each")
    refit_weeks: int = Field(2, ge=1, le=52, description="weeks between two fits of the forecasts")
    held_out_weeks: int = Field(52, ge=0, le=1_000, description="last weeks of a table that training never sees")
    composition_shift: float = Field(2.0, ge=0, le=10, description="largest |alpha| of a drawn composition shift")
    margin_tilt: float = Field(1.0, ge=0, le=10, description="largest tilt towards high or low margins among alikes")
    blind: tuple[Literal["economics"], ...] = Field(
        (), description="what maps do not see of agents, to learn its worth"
    )
    prices: Literal["mixed", "drawn", "haar"] = Field(
        "mixed", description="prices that primal maps learn under: drawn and proposed ones, drawn ones, or Haar paths"
    )
    common_surprise: float = Field(0.15, ge=0, le=2, description="largest spread of redrawn surprises that all share")
    violation_weight: float = Field(100.0, ge=0, description="weight of violation in the dual loss")
    slackness_weight: float = Field(10.0, ge=0, description="weight of prices of capacity left over in the dual loss")
    price_weight: float = Field(0.2, ge=0, description="weight of prices in the dual loss")
    consistency_weight: float = Field(100.0, ge=0, description="weight of forecast consistency in the dual loss")

    @property
    def asks(self) -> int:
        """Count the delegates; a map that adds up agents' own answers asks nobody else."""
        return 0 if self.representation == "bottom-up" else self.delegates


def map_training(
    kind: str, preset: str, settings: Path | None = None, flags: MapTraining | None = None
) -> tuple[MapTraining, TableSettings]:
    """Join a preset with a settings file and flags; what is named later wins.

    Args:
        kind: "primal map" or "dual map"; a preset has a table of values for each, beside those of both.
        preset: one of `PRESETS`.
        settings: a TOML file with fields of `MapTraining` and of `TableSettings` side by side, or None.
        flags: its explicitly given fields count.

    Raises:
        SettingsError: one sentence with the field, the value and what is allowed.
    """
    given, table = read_training(settings, flags, MapTraining)
    values = {**preset_values(kind, preset), **given.model_dump(exclude_unset=True)}
    return checked(MapTraining, values, f"the preset {preset} and what was given"), table


def preset_values(kind: str, preset: str) -> dict[str, Any]:
    """Return the values of a preset for one kind of map."""
    if preset not in PRESETS:
        raise SettingsError(f"preset `{preset}` is not known; choose from {', '.join(PRESETS)}")
    content = tomllib.loads((files("walras.train") / f"{preset}.toml").read_text())
    own = {each: content.pop(each) for each in ("primal", "dual")}
    return {**content, **own[kind.split()[0]]}
