"""The laws of a week, and one pure function that runs them: `simulate`, its gradients, checks and closed loops."""
