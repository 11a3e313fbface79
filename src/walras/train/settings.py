"""Own the settings of trainings: how long, how often to look, when to stop; read from TOML and shown as flags.

CONTRACT: commands fill these models, trainings read them; a new field needs a default and a description.
"""

from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import Field

from walras.config import Settings, TableSettings, checked, read_toml


class FitSettings(Settings):
    """Say how long a training lasts and what it keeps; a training adds fields of its own in a class below this one.

    A training goes on only with the settings that it began with, but for those of `BUDGET`.
    """

    BUDGET: ClassVar[frozenset[str]] = frozenset({"steps", "checkpoint_every", "checkpoint_seconds", "keep"})
    """Fields that no number follows from: how long, and what is kept on the way."""

    steps: int = Field(2500, ge=1, le=10_000_000, description="steps of the optimizer")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of everything that is drawn")
    assess_every: int = Field(100, ge=1, description="steps between two looks at what was held out")
    patience: int = Field(25, ge=1, description="looks in a row without an improvement, after which training stops")
    checkpoint_every: int = Field(100, ge=1, description="steps between two checkpoints")
    checkpoint_seconds: float = Field(60.0, gt=0, description="longest time between two checkpoints [seconds]")
    keep: int = Field(3, ge=1, le=1000, description="newest checkpoints that are kept, beside the best")


class BuyerTraining(FitSettings):
    """Say how a buyer is trained."""

    learning_rate: float = Field(3e-3, gt=0, le=1, description="first step size of Adam, which falls as a half cosine")
    clip_norm: float = Field(0.25, gt=0, description="longest gradient, over all weights together")
    agents: int = Field(512, ge=2, le=1_000_000, description="agents in an episode")
    history_channels: int = Field(8, ge=0, le=256, description="channels of what reads the past; 0 for none")
    hidden: int = Field(32, ge=1, le=1024, description="width of the two layers that see stock and open orders")
    held_out_agents: float = Field(0.15, gt=0, lt=1, description="share of products that only judge")
    held_out_weeks: int = Field(8, ge=1, le=1000, description="last weeks of the table that only judge")
    composition_shift: float = Field(2.0, ge=0, le=10, description="largest shift towards large or small products")
    common_surprise: float = Field(0.3, ge=0, le=2, description="largest spread of what all products have in common")
    discount: float = Field(1.0, gt=0.5, le=1, description="worth next week of one unit of money now")


Model = TypeVar("Model", bound=Settings)


def read_training(path: Path | None, flags: Model | None, kind: type[Model]) -> tuple[Model, TableSettings]:
    """Join a settings file with flags, which win over it.

    Args:
        path: a TOML file with fields of `kind` and of `TableSettings` side by side, or None.
        flags: its explicitly given fields count.
        kind: the settings model, whose fields are no tables.

    Raises:
        SettingsError: one sentence with the field, the value and what is allowed.
    """
    content = {} if path is None else read_toml(path)
    source = "the flags" if path is None else str(path)
    table = {name: value for name, value in content.items() if name in TableSettings.model_fields}
    own = {name: value for name, value in content.items() if name not in table}
    checked(kind, own, source)
    both = source if path is None else f"{source} and the flags"
    given = {} if flags is None else flags.model_dump(exclude_unset=True)
    return checked(kind, {**own, **given}, both), checked(TableSettings, table, source)
