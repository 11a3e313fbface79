"""Who the agents are: populations, cohorts that represent them, shifts of their mix, generated tables."""
