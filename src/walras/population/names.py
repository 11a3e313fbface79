"""Own the names of agents: labels for sentences that ride beside a population without touching compilation.

CONTRACT: two sets of names always compare equal and hash alike, so that no JAX cache ever tells them apart.
"""

from typing import Any

import numpy as np


class AgentNames:
    """Hold the names of a population's agents, for sentences only; empty where nobody named them.

    Strings cannot be arrays of a JAX transform, so names are part of a population's static structure; and whatever
    is static is compared when a compiled function is looked up. Were names compared, each new table would compile
    everything anew (and half a million strings would be compared at every call). So all names are equal, on purpose:
    never compare names with `==`, compare `labels`.

    The price of it: inside a compiled function, and in a population that a compiled function returns, the names are
    those of whoever compiled it. So compiled code neither reads names nor returns populations; `Population.name_of`
    gives numbers while a transform runs and where the number of names is not the number of agents.

    Attributes:
        labels: one string per agent [agent]; None where agents have no names.
    """

    __slots__ = ("labels",)

    def __init__(self, labels: Any = None) -> None:
        """Keep the labels as strings.

        Args:
            labels: anything numpy can turn into one string per agent; None for no names.
        """
        self.labels: np.ndarray | None = None if labels is None else np.asarray(labels, np.str_)

    def take(self, index: Any) -> "AgentNames":
        """Keep the names that `index` (mask, index or slice) selects, in that order."""
        return (
            self
            if self.labels is None
            else AgentNames(self.labels[index if isinstance(index, slice) else np.asarray(index)])
        )

    def of(self, agent: int, n_agents: int) -> str:
        """Name one agent of so many: `agent "X"`, or `agent 12` where names are missing or do not fit."""
        if self.labels is None or len(self.labels) != n_agents:
            return f"agent {agent}"
        label = str(self.labels[agent])
        return f'agent "{label if label.isprintable() else ascii(label)[1:-1]}"'

    def __eq__(self, other: object) -> bool:
        """Call all names equal; see the class."""
        return isinstance(other, AgentNames)

    def __hash__(self) -> int:
        """Hash all names alike; see the class."""
        return hash(AgentNames)

    def __repr__(self) -> str:
        """Say how many names there are; never print them all."""
        return f"AgentNames({'none' if self.labels is None else len(self.labels)})"


NO_NAMES = AgentNames()
"""Agents that are known by their number only."""
