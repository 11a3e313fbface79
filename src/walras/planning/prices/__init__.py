"""Shadow prices by simulation: solvers, the simulated view, the clairvoyant oracle, model-predictive control."""
