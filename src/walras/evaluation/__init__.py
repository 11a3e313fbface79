"""Own the measures: statistics that add, the definitions that follow from them, and inference over paths.

CONTRACT: reads records (arrays) only and imports nothing of the package but its errors.
"""

from walras.evaluation.control_metrics import (
    ControlMetrics,
    ControlTally,
    control_intervals,
    control_metrics,
    control_tally,
    paired_control_intervals,
)
from walras.evaluation.inference import Interval, block_interval, mean_interval, paired_interval
from walras.evaluation.metrics import (
    BURN_IN_WEEKS,
    NEAR_LIMIT,
    RewardMetrics,
    RewardTally,
    reward_metrics,
    reward_tally,
)
from walras.evaluation.ranking import PolicyOutcome, Ranking, rank, reward_ratio

__all__ = [
    "BURN_IN_WEEKS",
    "NEAR_LIMIT",
    "ControlMetrics",
    "ControlTally",
    "Interval",
    "PolicyOutcome",
    "Ranking",
    "RewardMetrics",
    "RewardTally",
    "block_interval",
    "control_intervals",
    "control_metrics",
    "control_tally",
    "mean_interval",
    "paired_control_intervals",
    "paired_interval",
    "rank",
    "reward_metrics",
    "reward_ratio",
    "reward_tally",
]
