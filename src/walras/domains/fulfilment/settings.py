"""Own the settings of order fulfilment: which world, which policy; shown as flags and checked once.

CONTRACT: commands fill these models; a new field needs a default and a description.
"""

from typing import Literal

from pydantic import Field

from walras.config import Settings

PolicyName = Literal["greedy", "mlp", "dual", "capacity"]


class WorldSettings(Settings):
    """Say what world orders are decided in: a made-up one, or shares of stock and capacity beside a table of orders."""

    orders: int = Field(20_000, ge=1, le=100_000_000, description="orders of the made-up world")
    products: int = Field(6_600, ge=1, le=100_000_000, description="its products")
    centres: int = Field(30, ge=1, le=10_000, description="its centres")
    beta: float = Field(
        -0.8, ge=-20, le=20, description="popularity is the rank to this power; real catalogues have -0.6 to -0.8"
    )
    most_units: int = Field(1, ge=1, le=1000, description="units of an order are drawn from 1 to this")
    stock: float = Field(0.8, ge=0, le=1000, description="units in stock over units ordered, where no file gives stock")
    capacity: float = Field(
        0.8, ge=0, le=1000, description="units that all centres can send, over units ordered; 0.6 is tight"
    )
    refills: int = Field(0, ge=0, le=10_000, description="times at which capacity is granted anew, evenly spaced")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of everything that is drawn")


MADE_UP = ("orders", "products", "centres", "beta", "most_units")
"""Fields that say nothing of orders that come from a table."""


class DecisionSettings(WorldSettings):
    """Say which policy decides, besides the world."""

    policy: PolicyName = Field("greedy", description="what decides")
    width: int = Field(64, ge=1, le=16_384, description="units of a hidden layer of `mlp` and `capacity`")
    gamma: float = Field(
        0.5, ge=0, le=16, description="price of a centre without capacity left, for `capacity` [reward]"
    )
    window: int | None = Field(
        None, ge=1, description="orders worked on together; without it all of few, and of many as many as is quickest"
    )


class LearningSettings(WorldSettings):
    """Say how prices are learned, besides the world."""

    capacity: float = Field(0.6, ge=0, le=1000, description="units that all centres can send, over units ordered")
    steps: int = Field(40, ge=1, le=100_000, description="steps of the prices, with a trajectory of every sample each")
    rate: float = Field(0.3, gt=0, le=100, description="of the first step of capacity prices")
    samples: int = Field(
        4,
        ge=0,
        le=1000,
        description="samples of the orders to learn from, with replacement; 0: the orders themselves",
    )
