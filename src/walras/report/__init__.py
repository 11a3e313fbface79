"""Reports: HTML pages, charts, tables and JSON of plans, simulations and order fulfilment."""
