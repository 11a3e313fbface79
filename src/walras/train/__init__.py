"""Training: `buyer`, `dual` and `primal` train into a folder and resume there; `compare_policies` tunes and ranks.

Results print as small tables. Everything heavy is imported when one of these is called.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from walras.data.panel import Panel
    from walras.policies.base import Policy
    from walras.progress import Progress
    from walras.train.loop import TrainResult
    from walras.train.policy_comparison import PolicyComparison
    from walras.train.settings import BuyerTraining, MapTraining, map_training

__all__ = ["BuyerTraining", "MapTraining", "buyer", "compare_policies", "dual", "map_training", "primal"]


def __getattr__(name: str) -> Any:
    """Import the settings when they are first used."""
    if name in ("BuyerTraining", "MapTraining", "map_training"):
        from walras.train import settings

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def buyer(
    panel: "Panel | None" = None,
    config: "BuyerTraining | None" = None,
    *,
    out: str | Path = "walras-out/buyer",
    resume: bool = True,
    progress: "Progress | None" = None,
) -> "TrainResult":
    """Train a buyer on a table's history, or on a generated population; its file is `result.path`.

    The folder `out` gets checkpoints, records and the buyer; its training is continued unless `resume` is False.
    """
    from walras.train.buyer_training import train_buyer
    from walras.train.settings import BuyerTraining

    return train_buyer(panel, config or BuyerTraining(), out, progress=progress, resume=resume)


def dual(
    config: "MapTraining | str" = "small",
    panel: "Panel | None" = None,
    *,
    out: str | Path = "walras-out/interface",
    policy: "Policy | None" = None,
    resume: bool = True,
    progress: "Progress | None" = None,
) -> "TrainResult":
    """Train a dual map (capacity to shadow prices) into an interface's folder.

    Args:
        config: settings, or the name of a preset.
        panel: table to train on, as read; generated populations where not given.
        out: folder of the interface; both maps of one go to the same.
        policy: that agents follow, valid for any population; the priced newsvendor where not given.
        resume: continue the folder's training, or begin again.
    """
    return _train_map("dual", config, panel, out, policy=policy, resume=resume, progress=progress)


def primal(
    config: "MapTraining | str" = "small",
    panel: "Panel | None" = None,
    *,
    out: str | Path = "walras-out/interface",
    policy: "Policy | None" = None,
    resume: bool = True,
    progress: "Progress | None" = None,
) -> "TrainResult":
    """Train a primal map (shadow prices to utilization) into an interface's folder, after its dual map."""
    return _train_map("primal", config, panel, out, policy=policy, resume=resume, progress=progress)


def _train_map(
    kind: str, config: "MapTraining | str", panel: "Panel | None", out: str | Path, **options: Any
) -> "TrainResult":
    from walras.train.maps_training import train_map
    from walras.train.settings import map_training

    settings = map_training(config, kind) if isinstance(config, str) else config
    return train_map(f"{kind} map", panel, settings, out, **options)


def compare_policies(
    panel: "Panel", names: Sequence[str] = (), *, holdout: int = 26, progress: "Progress | None" = None, **options: Any
) -> "PolicyComparison":
    """Tune policies on a table's earlier weeks and rank them by what they earn in its `holdout` last weeks.

    All competitors take part where none is named; `options` are those of
    `walras.train.policy_comparison.compare_on_split`, such as `shadow_price` or `competitors`.
    """
    from walras.config import HistorySettings
    from walras.train import policy_comparison
    from walras.train.history import train_test_split

    split = train_test_split(panel, HistorySettings(holdout=holdout), progress=progress)
    return policy_comparison.compare_on_split(split, names, progress=progress, **options)
