"""Own the measures: statistics that add, the definitions that follow from them, and inference over paths.

CONTRACT: reads records (arrays) only and imports nothing of the package but its errors.
"""

from walras.evaluation.compare import PolicyOutcome, Ranking, rank, reward_ratio
from walras.evaluation.control import (
    ControlMetrics,
    ControlTally,
    control_intervals,
    control_metrics,
    control_tally,
    paired_control_intervals,
)
from walras.evaluation.definitions import BURN_IN_WEEKS, NEAR_LIMIT
from walras.evaluation.forecast import ForecastMetrics, ForecastTally, forecast_metrics, forecast_tally
from walras.evaluation.inference import Interval, block_interval, mean_interval, paired_interval
from walras.evaluation.reward import RewardMetrics, RewardTally, reward_metrics, reward_tally

__all__ = [
    "BURN_IN_WEEKS",
    "NEAR_LIMIT",
    "ControlMetrics",
    "ControlTally",
    "ForecastMetrics",
    "ForecastTally",
    "Interval",
    "PolicyOutcome",
    "Ranking",
    "RewardMetrics",
    "RewardTally",
    "block_interval",
    "control_intervals",
    "control_metrics",
    "control_tally",
    "forecast_metrics",
    "forecast_tally",
    "mean_interval",
    "paired_control_intervals",
    "paired_interval",
    "rank",
    "reward_metrics",
    "reward_ratio",
    "reward_tally",
]
