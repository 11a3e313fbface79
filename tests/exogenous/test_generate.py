"""Ask whether generated examples are ready to simulate, and the same for the same seed."""

import numpy as np

from walras.exogenous.scenarios import generate
from walras.population.generate import generate_panel


def test_a_generated_population_has_one_path_and_prints_as_a_table():
    population, paths = generate(agents=40, weeks=26, seed=3, resources=("inbound_units", "storage"))
    assert (population.n_agents, paths.n_agents, paths.n_weeks, paths.n_scenarios) == (40, 40, 26, None)
    assert np.isfinite(np.asarray(paths.lead_demand_mean)).all() and float(paths.demand.sum()) > 0
    again = generate(agents=40, weeks=26, seed=3)[1]
    np.testing.assert_array_equal(again.demand, paths.demand)
    assert "40 agents" in str(population) and "storage" in str(population) and "unit_margin" in str(population)


def test_a_panel_prints_its_size_dates_and_origins():
    text = str(generate_panel(20, 60, 1))
    assert "20" in text and "2024-08-26" in text and "generated" in text
