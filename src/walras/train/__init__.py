"""Own what is learned or tuned: policies through the simulator, on weeks before those that judge them.

OPEN: put what is trained beside the others; `loop` trains any of it, `store` keeps it.
"""
