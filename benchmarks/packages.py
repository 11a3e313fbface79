"""Own the same store in two packages for inventories and queues; either may be missing.

SimPy is a toolbox for discrete events, so that the store is written here, one process per agent, and gives the bare
scan's totals. stockpyl simulates its own single stage under a base-stock policy and with its own demand draws; there,
unmet demand waits.
"""

from importlib import metadata

import numpy as np
from bare_scan import HOLDING, LEVEL, PENALTY, SALE_PRICE, UNIT_COST

LEAD = 2
MEAN_DEMAND = 5


def version_of(package):
    """Return the version of an installed package; None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def simpy_stores(demand, prices):
    """Run one process per agent and one event per week and per delivery; return receipts and money of every week."""
    import simpy

    environment = simpy.Environment()
    prices = [float(price) for price in prices]
    receipts, money = np.zeros(len(demand)), np.zeros(len(demand))

    def deliver(store, order):
        yield environment.timeout(LEAD)
        if environment.now < len(demand):
            store["stock"] += order
            store["on_order"] -= order
            receipts[int(environment.now)] += order

    def run(wanted):
        store = {"stock": 0.0, "on_order": 0.0}
        for week in range(len(wanted)):
            order = max(LEVEL - prices[week] - store["stock"] - store["on_order"], 0.0)
            store["on_order"] += order
            environment.process(deliver(store, order))
            sales = min(wanted[week], store["stock"])
            store["stock"] -= sales
            lost = wanted[week] - sales
            money[week] += SALE_PRICE * sales - UNIT_COST * order - HOLDING * store["stock"] - PENALTY * lost
            yield environment.timeout(1)

    for agent in range(demand.shape[1]):
        environment.process(run([float(units) for units in demand[:, agent]]))
    environment.run()
    return receipts, money


def stockpyl_stages(agents, weeks):
    """Simulate one stage after the other with stockpyl's own loop; return the total cost."""
    from stockpyl.sim import simulation
    from stockpyl.supply_chain_network import single_stage_system

    total = 0.0
    for agent in range(agents):
        stage = single_stage_system(
            holding_cost=HOLDING,
            stockout_cost=PENALTY,
            demand_type="P",
            mean=MEAN_DEMAND,
            policy_type="BS",
            base_stock_level=LEVEL,
            shipment_lead_time=LEAD,
        )
        total += simulation(stage, weeks, rand_seed=agent, progress_bar=False, consistency_checks="N")
    return total
