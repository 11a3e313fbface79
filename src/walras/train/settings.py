"""Settings of trainings, read from TOML and shown as flags: how long, how often to validate, when to stop."""

import tomllib
import warnings
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from cyclopts import Parameter
from pydantic import Field, model_validator

from walras.config import Settings, TableSettings, checked, read_toml
from walras.errors import SettingsError


class TrainSettings(Settings):
    """Length of a training and what it keeps; subclasses add the fields of one kind of training.

    A training is resumed only with the settings it began with, except for those in `BUDGET`.
    """

    BUDGET: ClassVar[frozenset[str]] = frozenset({"steps", "checkpoint_every", "checkpoint_seconds", "keep"})
    """Fields that no number follows from."""

    steps: int = Field(2500, ge=1, le=10_000_000, description="steps of the optimizer")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of everything that is drawn")
    assess_every: int = Field(100, ge=1, description="steps between two validations")
    patience: int = Field(25, ge=1, description="validations in a row without an improvement, after which it stops")
    checkpoint_every: int = Field(100, ge=1, description="steps between two checkpoints")
    checkpoint_seconds: float = Field(60.0, gt=0, description="longest time between two checkpoints [seconds]")
    keep: int = Field(3, ge=1, le=1000, description="newest checkpoints that are kept, beside the best")


class BuyerTraining(TrainSettings):
    """How a buyer is trained."""

    learning_rate: float = Field(3e-3, gt=0, le=1, description="first step size of Adam, which falls as a half cosine")
    clip_norm: float = Field(0.25, gt=0, description="longest gradient, over all weights together")
    agents: int = Field(512, ge=2, le=1_000_000, description="agents in an episode")
    history_channels: int = Field(8, ge=0, le=256, description="channels of the CNN over the past; 0 for none")
    hidden: int = Field(32, ge=1, le=1024, description="width of the two layers that see stock and open orders")
    held_out_agents: float = Field(0.15, gt=0, lt=1, description="share of products used for validation only")
    held_out_weeks: int = Field(8, ge=1, le=1000, description="last weeks of the table used for validation only")
    composition_shift: float = Field(2.0, ge=0, le=10, description="largest shift towards large or small products")
    common_surprise: float = Field(0.3, ge=0, le=2, description="largest spread of demand shocks common to all")
    discount: float = Field(1.0, gt=0.5, le=1, description="worth next week of one unit of money now")


PRESETS = ("small", "paper")
FORMER_NAMES = {  # of fields of `MapTraining`
    "target": "population_size",
    "rounds": "warm_rounds",
    "rollouts": "rollouts_per_step",
    "blind": "masked_features",
    "attention": "attention_dim",
}


class MapTraining(TrainSettings):
    """How a primal or dual map is trained."""

    representation: Literal["bucketized", "per-agent", "global", "bottom-up", "deep-sets", "moments"] = Field(
        "bucketized", description="how the map represents its population"
    )
    resources: tuple[str, ...] = Field(("inbound_units",), min_length=1, description="shared resources that are priced")
    population_size: Annotated[int, Parameter(name=("--population-size", "--target"))] = Field(
        4000, ge=20, le=10_000_000, description="agents simulated in a rollout"
    )
    agents: int = Field(512, ge=20, le=1_000_000, description="agents of the cohort whose histories a map reads")
    weeks: int = Field(142, ge=60, le=5_000, description="weeks of a rollout, those before its first origin included")
    rollouts_per_step: Annotated[int, Parameter(name=("--rollouts-per-step", "--rollouts"))] = Field(
        4, ge=1, le=1000, description="rollouts in a step of a primal training"
    )
    warm_rounds: Annotated[int, Parameter(name=("--warm-rounds", "--rounds"))] = Field(
        2, ge=0, le=100, description="first rounds over them that train on totals alone"
    )
    first_origin: int = Field(64, ge=8, le=1_000, description="weeks of history before the first origin")
    spacing: Literal[1, 2, 4, 8, 16, 32] = Field(8, description="weeks between the origins that primal maps learn from")
    burn_in: int = Field(6, ge=0, le=104, description="first coordinated weeks that do not count in the dual loss")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="first step size of Adam")
    last_rate: float = Field(0.03, gt=0, le=1, description="share of it at the end of a half cosine; 1 keeps it fixed")
    clip_norm: float = Field(0.1, gt=0, description="longest gradient, over all weights together")
    averaged: float = Field(0.99, ge=0, lt=1, description="share of the weights' running average that a step keeps")
    history_width: int = Field(32, ge=1, le=512, description="channels of the CNNs over the history")
    future_width: int = Field(16, ge=1, le=512, description="channels of each CNN over the coming weeks")
    decoder_width: int = Field(32, ge=1, le=1024, description="width of the decoder")
    attention_dim: Annotated[int, Parameter(name=("--attention-dim", "--attention"))] = Field(
        20, ge=1, le=512, description="dimension of attention"
    )
    buckets: int = Field(10, ge=1, le=1000, description="demand buckets")
    delegates: int = Field(1024, ge=0, le=100_000, description="probe agents: their policies are run in every query")
    tile: int = Field(16, ge=1, le=4096, description="agents pooled at a time; buckets are filled up to whole tiles")
    worlds: int = Field(2, ge=1, le=64, description="generated agent pools to train on")
    world_agents: int = Field(6000, ge=32, le=1_000_000, description="agents of each pool")
    world_weeks: int = Field(260, ge=120, le=5_000, description="weeks of each pool")
    refit_weeks: int = Field(2, ge=1, le=52, description="weeks between two fits of the forecasts")
    held_out_weeks: int = Field(52, ge=0, le=1_000, description="last weeks of a table that training never sees")
    composition_shift: float = Field(2.0, ge=0, le=10, description="largest |alpha| of a drawn composition shift")
    margin_tilt: float = Field(1.0, ge=0, le=10, description="largest tilt towards high or low margins within buckets")
    masked_features: Annotated[
        tuple[Literal["economics", "prices"], ...], Parameter(name=("--masked-features", "--blind"))
    ] = Field((), description="hidden from the map, to measure their worth: costs and margins, or shadow prices")
    prices: Literal["mixed", "drawn", "haar"] = Field(
        "mixed", description="prices that primal maps learn under: drawn and proposed, drawn, or Haar paths alone"
    )
    common_surprise: float = Field(0.15, ge=0, le=2, description="largest spread of demand shocks common to all")
    violation_weight: float = Field(100.0, ge=0, description="weight of violation in the dual loss")
    slackness_weight: float = Field(10.0, ge=0, description="weight of prices of unused capacity in the dual loss")
    price_weight: float = Field(0.2, ge=0, description="weight of prices in the dual loss")
    consistency_weight: float = Field(100.0, ge=0, description="weight of forecast consistency in the dual loss")

    @model_validator(mode="before")
    @classmethod
    def _rename_former(cls, values: Any) -> Any:
        """Accept the earlier names of fields."""
        former = [name for name in FORMER_NAMES if isinstance(values, Mapping) and name in values]
        if not former:
            return values
        for name in former:
            if FORMER_NAMES[name] in values:
                raise ValueError(f"`{name}` is the former name of `{FORMER_NAMES[name]}`; give only the new one")
        new = ", ".join(f"`{name}` is now called `{FORMER_NAMES[name]}`" for name in former)
        warnings.warn(f"{new}; the old name still works", FutureWarning, stacklevel=2)
        return {FORMER_NAMES.get(name, name): value for name, value in values.items()}

    @property
    def n_probes(self) -> int:
        """Number of probe agents; a map that sums agents' own responses needs none."""
        return 0 if self.representation == "bottom-up" else self.delegates


Model = TypeVar("Model", bound=Settings)


def read_training(path: Path | None, flags: Model | None, kind: type[Model]) -> tuple[Model, TableSettings]:
    """Join a settings file with flags, which win over it; raise a `SettingsError` that names the field."""
    content = {} if path is None else read_toml(path)
    source = "the flags" if path is None else str(path)
    table = {name: value for name, value in content.items() if name in TableSettings.model_fields}
    in_file = checked(kind, {name: value for name, value in content.items() if name not in table}, source)
    both = source if path is None else f"{source} and the flags"
    given = [in_file.model_dump(exclude_unset=True), {} if flags is None else flags.model_dump(exclude_unset=True)]
    return checked(kind, {**given[0], **given[1]}, both), checked(TableSettings, table, source)


def read_map_training(
    kind: str, preset: str, settings: Path | None = None, flags: MapTraining | None = None
) -> tuple[MapTraining, TableSettings]:
    """Join a preset with a settings file and flags; what is named later wins. Errors are those of `read_training`."""
    given, table = read_training(settings, flags, MapTraining)
    values = {**preset_values(kind, preset), **given.model_dump(exclude_unset=True)}
    return checked(MapTraining, values, f"the preset {preset} and what was given"), table


def map_training(preset: str, kind: str, **changes: Any) -> MapTraining:
    """Return a preset ("small": minutes on two cores, "paper": published sizes) of "primal" or "dual", changed."""
    return checked(MapTraining, {**preset_values(kind, preset), **changes}, f"the preset {preset} and the changes")


def preset_values(kind: str, preset: str) -> dict[str, Any]:
    """Return the values of a preset for one kind of map."""
    if preset not in PRESETS:
        raise SettingsError(f"preset `{preset}` is not known; choose from {', '.join(PRESETS)}")
    content = tomllib.loads((files("walras.train") / f"{preset}.toml").read_text())
    by_kind = {name: content.pop(name) for name in ("primal", "dual")}
    return {**content, **by_kind[kind.split()[0]]}
