"""Measures of coordination and reward, tallies that add, intervals over paths, and rankings of policies."""
