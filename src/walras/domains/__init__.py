"""Other worlds on the parallel engine."""
