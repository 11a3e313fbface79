"""walras: plan shared capacity for very large populations of agents that decide for themselves."""

__version__ = "0.1.0"
