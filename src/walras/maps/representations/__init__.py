"""Own the ways in which a map may know its population.

OPEN: add a representation as a file beside these, and name it in `named.py`.
"""
