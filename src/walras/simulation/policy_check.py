"""`check_policy`: simulate a policy in several ways that must not matter, and report where they do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.errors import InputError, WalrasError
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Policy
from walras.policies.user_policies import number_agents
from walras.population.agent_axis import map_per_agent
from walras.population.population import Population, price_scale
from walras.simulation.checks import locate, name_of
from walras.simulation.controller import Controller, ControlObservation
from walras.simulation.record import Record
from walras.simulation.run import default_state, simulate, window_length
from walras.simulation.week import State

TOLERANCE = 1e-4
"""Orders count as equal within this share of the largest order: a network may sum in another order."""

CHANGED_WEEKS = 3  # spread over the run, from which on the future is exchanged

Orders = Float[np.ndarray, "week agent"]


@dataclass(frozen=True)
class PolicyFindings:
    """The checks of a policy, in words, and one sentence for each that failed."""

    policy: str
    checks: tuple[str, ...]
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Tell whether all checks passed."""
        return not self.findings

    def __str__(self) -> str:
        if self.ok:
            return f"`{self.policy}` passed all {len(self.checks)} checks: {', '.join(self.checks)}"
        return "\n".join(f"- {finding}" for finding in self.findings)


def check_policy(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    *,
    initial: State | None = None,
    shadow_prices: Float[Array, "week resource"] | None = None,
    questions: Sequence["Question"] | None = None,
) -> PolicyFindings:
    """Check that a policy is sound, by simulation on a few dozen agents and weeks.

    Orders must be finite and not negative; the same when repeated, when agents change places, without the other agents,
    beside another scenario and week by week; and must not depend on what is not known yet. The policy's own arrays
    count as known.

    Args:
        population, exogenous, policy, initial: as in `simulate`, a single path; by default agents start with stock.
        shadow_prices: announced in full; by default drawn around the margins.
        questions: the checks; default `QUESTIONS`.

    Raises:
        InputError: paths with scenarios, or fewer than two weeks or agents.
    """
    if exogenous.n_scenarios is not None or min(exogenous.n_weeks, population.n_agents) < 2:
        given = f"{exogenous.n_scenarios or 1} scenarios, {exogenous.n_weeks} weeks and {population.n_agents} agents"
        raise InputError(f"`exogenous` has {given} but a check needs one path of 2 or more of each; cut the paths")
    initial = _some_stock(population, exogenous) if initial is None else initial
    prices = _some_prices(population, exogenous.n_weeks) if shadow_prices is None else jnp.asarray(shadow_prices)
    policy = number_agents(policy, population.n_agents)
    case = _Case(population, _with_all_rows(exogenous), policy, initial, prices)
    checks: list[str] = []
    findings: list[str] = []
    for question in QUESTIONS if questions is None else questions:
        checks.append(question.__name__.strip("_").replace("_", " "))
        try:
            findings += filter(None, [question(case)])
        except WalrasError as error:  # what the simulator refuses is a finding too
            findings.append(str(error))
        if question is _finite_and_not_negative and findings:
            break  # what cannot be simulated cannot be compared
    return PolicyFindings(name_of(policy), tuple(checks), tuple(findings))


@dataclass(frozen=True)
class _Case:
    population: Population
    exogenous: ExogenousPaths
    policy: Policy
    initial: State
    shadow_prices: Float[Array, "week resource"]

    def orders(self, controller: Controller | None = None) -> Float[np.ndarray, "*scenario week agent"]:
        """Simulate, and return what was ordered, refused orders included."""
        run = partial(simulate, self.population, self.exogenous, self.policy, initial=self.initial)
        prices = self.shadow_prices if controller is None else None
        traces = run(shadow_prices=prices, controller=controller, record=Record.traces(), throw=False).agents
        assert traces is not None  # the record asks for them
        return np.asarray(traces.orders + traces.refused)

    def of(self, agents: np.ndarray) -> "_Case":
        """Return the case of some agents, in this order."""
        rest = (self.exogenous, self.policy, self.initial)
        cut = map_per_agent(lambda leaf: leaf[..., agents], rest, self.population.n_agents)
        return _Case(self.population.take(agents), *cut, self.shadow_prices)

    def difference(
        self, name: str, other: Orders, weeks: int | None = None, agents: np.ndarray | None = None
    ) -> str | None:
        """Name the first of these weeks and agents in which other orders differ from this case's."""
        mine = self.orders()[:weeks]
        mine = mine if agents is None else mine[:, agents]
        wrong = ~(np.abs(mine - other[:weeks]) <= TOLERANCE * max(float(np.abs(mine).max()), 1.0))
        if not wrong.any():
            return None
        week, column = np.argwhere(wrong)[0].tolist()
        where = locate(self.population, week=week, agent=column if agents is None else int(agents[column]))
        before = f"{name}: `{name_of(self.policy)}` orders {mine[week, column]:g} {where}"
        return f"{before}, and then {other[week, column]:g}"


Question = Callable[[_Case], str | None]


def _finite_and_not_negative(case: _Case) -> str | None:
    orders = case.orders()
    wrong = ~(np.isfinite(orders) & (orders >= 0))
    if not wrong.any():
        return None
    week, agent = np.argwhere(wrong)[0].tolist()
    where = locate(case.population, week=week, agent=agent)
    return f"`{name_of(case.policy)}` orders {orders[week, agent]:g} {where}; orders must be finite and 0 or more"


def _the_same_when_repeated(case: _Case) -> str | None:
    return case.difference("when repeated", case.orders())


def _the_same_when_agents_change_places(case: _Case) -> str | None:
    order = np.roll(np.arange(case.population.n_agents)[::-1], 1)
    return case.difference("when agents change places", case.of(order).orders(), agents=order)


def _the_same_without_the_others(case: _Case) -> str | None:
    some = np.arange(0, case.population.n_agents, 2)
    return case.difference("when every second agent is left out", case.of(some).orders(), agents=some)


def _the_same_week_by_week(case: _Case) -> str | None:
    announced = _Announced(case.shadow_prices, window_length(case.policy, case.initial.max_lead))
    return case.difference("run week by week instead of in one pass", case.orders(announced))


def _the_same_in_scenarios(case: _Case) -> str | None:
    own = lambda e: (e.demand, e.arrivals)  # noqa: E731
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, jnp.flip(leaf, 0)]), own(case.exogenous))
    doubled = replace(case, exogenous=eqx.tree_at(own, case.exogenous, both))
    return case.difference("run beside another scenario", doubled.orders()[0])


def _independent_of_the_future(case: _Case) -> str | None:
    """Exchange, one at a time, what is not known yet in some weeks."""
    for week in sorted(set(np.linspace(0, case.exogenous.n_weeks - 2, CHANGED_WEEKS).astype(int).tolist())):
        for name, changed in _other_futures(case, week):
            finding = case.difference(f"when {name} are exchanged, which are not known yet", changed.orders(), week + 1)
            if finding is not None:
                return finding
    return None


def _other_futures(case: _Case, week: int) -> list[tuple[str, _Case]]:
    paths, prices = case.exogenous, case.shadow_prices

    def other(values: Float[Array, "week column"], first: int) -> Float[Array, "week column"]:
        return values.at[first:].multiply(2.0).at[first:].add(1.0 + jnp.mean(values))

    def changed(field: str, first: int) -> _Case:
        values = other(getattr(paths, field), first)
        return replace(case, exogenous=eqx.tree_at(lambda e: getattr(e, field), paths, values))

    ahead = week + window_length(case.policy, case.initial.max_lead)
    return [
        (f"demands of weeks from {week} on", changed("demand", week)),
        (f"sale prices of weeks after {week}", changed("sale_price", week + 1)),
        (f"unit costs of weeks after {week + 1}", changed("unit_cost", week + 2)),
        (f"forecasts made after week {week}", changed("lead_demand_mean", week + 1)),
        (f"forecast spreads made after week {week}", changed("lead_demand_sd", week + 1)),
        (f"shadow prices from week {ahead} on", replace(case, shadow_prices=other(prices, ahead))),
    ]


QUESTIONS: tuple[Question, ...] = (
    _finite_and_not_negative,
    _the_same_when_repeated,
    _the_same_when_agents_change_places,
    _the_same_without_the_others,
    _the_same_week_by_week,
    _the_same_in_scenarios,
    _independent_of_the_future,
)
"""The checks in order; users read their names."""


class _Announced(Controller):
    """Issues a path of prices week by week; after the last week the last price holds."""

    def __init__(self, path: Float[Array, "week resource"], ahead: int) -> None:
        self.path, self.ahead = path, ahead

    def opening_prices(self, n_resources: int) -> Float[Array, " resource"]:
        """Return the first week of the path."""
        return self.path[0]

    def issue(self, observation: ControlObservation) -> Float[Array, "ahead resource"]:
        """Return the path after this week."""
        return self.path[np.minimum(observation.week + 1 + np.arange(self.ahead), len(self.path) - 1)]


def _some_prices(population: Population, weeks: int) -> Float[Array, "week resource"]:
    """Draw prices that matter: up to half the median margin per unit of resource, a third of them zero."""
    drawn = np.random.default_rng(0).uniform(-0.5, 1.0, (weeks, len(population.resources)))
    return jnp.asarray(0.5 * np.maximum(drawn, 0.0) * price_scale(population), jnp.float32)


def _some_stock(population: Population, exogenous: ExogenousPaths) -> State:
    """Draw stock and open orders of up to two weeks of demand, so that agents differ from the first week on."""
    rows = default_state(population, exogenous).max_lead + 1
    drawn = np.random.default_rng(1).uniform(0.0, 2.0, (rows, population.n_agents))
    units = jnp.round(jnp.asarray(drawn, jnp.float32) * population.demand_scale[None, :])
    return State(units[0], units[1:])


def _with_all_rows(exogenous: ExogenousPaths) -> ExogenousPaths:
    """Repeat fields that have one row for all weeks, so that a future can be exchanged."""
    rows = lambda leaf: jnp.broadcast_to(leaf, (exogenous.n_weeks, leaf.shape[-1]))  # noqa: E731
    fields = lambda e: (e.sale_price, e.unit_cost, e.lead_demand_mean, e.lead_demand_sd)  # noqa: E731
    return eqx.tree_at(fields, exogenous, jax.tree.map(rows, fields(exogenous)))
