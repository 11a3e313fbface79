"""walras: plan shared capacity for very large populations of agents that decide for themselves.

CONTRACT: importing it changes nothing and costs nothing; import what you need from the modules below.
"""

__version__ = "0.1.0"
