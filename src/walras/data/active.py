"""Own which agents are active: those that sold lately.

FREE: one rule, one parameter.
"""

import numpy as np
from jaxtyping import Bool

from walras.data.panel import Panel
from walras.errors import SettingsError


def active_agents(panel: Panel, weeks: int = 26) -> Bool[np.ndarray, " agent"]:
    """Mark the agents that sold at least one unit in the last `weeks` weeks.

    Args:
        panel: the history.
        weeks: how far back a sale counts [weeks]; a longer window than the history counts all of it.
    """
    if weeks < 1:
        raise SettingsError(f"the window for active products is {weeks} weeks but needs at least 1; give e.g. 26")
    return np.asarray((panel.units[-weeks:] > 0).any(axis=0))
