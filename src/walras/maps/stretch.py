"""Own the Stretch: some agents over some weeks, with all that a map may know of them beside what the policies do.

CONTRACT: maps are trained and judged on stretches; equal numbers of slots and weeks give arrays of equal shapes.
"""

import equinox as eqx
from jaxtyping import Array, Bool, Float

from walras.exogenous.paths import ExogenousPaths
from walras.model.state import State
from walras.population.population import Population


class Stretch(eqx.Module):
    """Hold some agents over some weeks, cut out of a `World`.

    Attributes:
        population: who is in each slot; weight 0 marks an empty slot, whose numbers are those of some agent.
        exogenous: one path, every field with a row for every week [week, slot].
        initial: stock of the expected demand of a lead time, nothing on order.
        valid: the slot's agent was on sale in that week: it has a history.
        expected_use: sum over agents of weight x use x expected demand of weeks t, t + 1, ..., t + HORIZON, as known in
            week t before its demand [resource].
        holidays: weeks since the last holiday and to the next, 0..1, of weeks t .. t + HORIZON for every week t.
    """

    population: Population
    exogenous: ExogenousPaths
    initial: State
    valid: Bool[Array, "week slot"]
    expected_use: Float[Array, "week ahead resource"]
    holidays: Float[Array, "reach 2"]

    @property
    def n_weeks(self) -> int:
        """Count the weeks."""
        return self.valid.shape[0]

    @property
    def n_slots(self) -> int:
        """Count the slots, empty ones included."""
        return self.valid.shape[1]
