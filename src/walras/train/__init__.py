"""Own what is learned or tuned: policies through the simulator, on weeks before those that judge them."""
