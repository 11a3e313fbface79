"""Malformed input is refused by one sentence with its place; sound input is read only once."""

import gc
import os
import re
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import AGENTS, MAX_LEAD, SCENARIOS, happenings, prices, shop, start

from walras.errors import InputError, NotFiniteError, ShapeError, WalrasError
from walras.exogenous.arrivals import AbstractArrivals
from walras.exogenous.paths import ExogenousPaths
from walras.population.population import AgentNames
from walras.simulation import checks
from walras.simulation.checks import check_shapes, check_values
from walras.simulation.week import State

PEOPLE = shop().named(AgentNames([f"shop-{letter}" for letter in "abcdefg"]))
NAN, INF = float("nan"), float("inf")


def question(kind: str = "integer", scenarios: int | None = None) -> dict:
    return {
        "population": PEOPLE,
        "exogenous": happenings(PEOPLE, kind=kind, scenarios=scenarios, supply=True),
        "initial": start(PEOPLE),
        "shadow_prices": prices(PEOPLE, scenarios=scenarios),
    }


def spoil(asked: dict, name: str, change) -> dict:
    """Replace an array by `change(array)`, past the checks of the classes themselves."""
    root, *path = name.split(".")
    if not path:
        return {**asked, root: change(asked[root])}

    def where(tree):
        for part in path:
            tree = getattr(tree, part)
        return tree

    return {**asked, root: eqx.tree_at(where, asked[root], change(where(asked[root])))}


def put(place: tuple, value: float):
    return lambda array: array.at[place].set(value)


def refused(asked: dict, kind: type[WalrasError]) -> str:
    with pytest.raises(WalrasError) as caught:
        check_shapes(**asked)
        check_values(**asked)
    assert type(caught.value) is kind, caught.value
    assert "\n" not in str(caught.value) and "; " in str(caught.value)
    return str(caught.value)


WEEK_FIELDS = ("sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd", "supply.units")
NAMED_FIELDS = ("holding_cost", "lost_sale_penalty", "demand_scale", "unit_margin", "weight")


@pytest.mark.parametrize("kind", ["integer", "shares"])
@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_sound_input_passes(kind, scenarios):
    asked = question(kind, scenarios)
    check_shapes(**asked)
    check_values(**asked)
    check_values(**{**asked, "shadow_prices": None})
    endless = spoil(asked, "exogenous.supply.units", put((2, 3), INF))
    check_values(**endless)
    own_start = State(
        stock_end=jnp.ones((SCENARIOS, AGENTS)), pipeline=jnp.ones((SCENARIOS, MAX_LEAD, AGENTS), jnp.float32)
    )
    if scenarios:
        check_shapes(**{**asked, "initial": own_start})


@pytest.mark.parametrize("field", ["demand", *WEEK_FIELDS])
def test_nan_in_the_paths_is_named_by_field_week_and_agent(field):
    said = refused(
        spoil(question(), f"exogenous.{field}", lambda a: a.at[5, 2].set(NAN).at[6, 0].set(NAN)), NotFiniteError
    )
    assert said.startswith(f'`exogenous.{field}` is nan in week 5 for agent "shop-c" (counted from 0); it must be')


@pytest.mark.parametrize("field", ["demand", "sale_price", "unit_cost", "lead_demand_sd", "supply.units"])
def test_what_cannot_be_negative_is_refused(field):
    said = refused(spoil(question(), f"exogenous.{field}", put((7, 6), -1.5)), InputError)
    assert f'`exogenous.{field}` is -1.5 in week 7 for agent "shop-g" (counted from 0); it must be' in said
    assert "of at least 0" in said


@pytest.mark.parametrize("value", [INF, -INF])
@pytest.mark.parametrize("field", ["demand", "sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd"])
def test_infinity_is_refused(field, value):
    said = refused(spoil(question(), f"exogenous.{field}", put((0, 0), value)), NotFiniteError)
    assert f'`exogenous.{field}` is {value:g} in week 0 for agent "shop-a"' in said


def test_a_negative_forecast_and_margin_pass():
    check_values(**spoil(question(), "exogenous.lead_demand_mean", put((3, 3), -1.0)))
    check_values(**spoil(question(), "population.unit_margin", put((3,), -1.0)))


def test_the_scenario_is_named_and_the_earliest_week_comes_first():
    asked = spoil(question(scenarios=3), "exogenous.demand", lambda a: a.at[0, 6, 1].set(NAN).at[2, 4, 3].set(NAN))
    assert 'is nan in week 4 of scenario 2 for agent "shop-d" (counted from 0)' in refused(asked, NotFiniteError)


def test_agents_without_names_are_numbered():
    asked = {**spoil(question(), "exogenous.demand", put((5, 2), NAN)), "population": shop()}
    assert "in week 5 for agent 2 (counted from 0);" in refused(asked, NotFiniteError)


@pytest.mark.parametrize("field", NAMED_FIELDS)
def test_attributes_that_are_nan_are_named_by_agent(field):
    said = refused(spoil(question(), f"population.{field}", put((4,), NAN)), NotFiniteError)
    assert said.startswith(f'`population.{field}` is nan for agent "shop-e"; it must be')


def test_the_use_of_a_resource_is_named_by_agent_and_resource():
    said = refused(spoil(question(), "population.use", put((4, 2), -1.0)), InputError)
    assert '`population.use` is -1 for agent "shop-e" for resource `storage`;' in said


def test_a_lead_time_below_zero_is_refused():
    said = refused(spoil(question(), "exogenous.arrivals.weeks", put((5, 2), -1)), InputError)
    assert '`exogenous.arrivals.weeks` is -1 in week 5 for agent "shop-c" (counted from 0); it must be' in said


@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_a_lead_time_beyond_the_pipeline_names_the_order(scenarios):
    place = (5, 2) if scenarios is None else (1, 5, 2)
    words = "in week 5" if scenarios is None else "in week 5 of scenario 1"
    said = refused(spoil(question(scenarios=scenarios), "exogenous.arrivals.weeks", put(place, 9)), ShapeError)
    assert said == (
        "`initial.pipeline` has shape (3, 7) but needs [at least 9 weeks of lead time, 7 agents], as the order "
        f'{words} for agent "shop-c" (counted from 0) takes 9 weeks; give it a row for every lead time that occurs'
    )


def test_lead_times_are_whole_weeks():
    said = refused(spoil(question(), "exogenous.arrivals.weeks", lambda a: a.astype(jnp.float32)), InputError)
    assert "`exogenous.arrivals.weeks` holds float32 numbers but lead times are whole weeks" in said


def test_shares_for_more_weeks_than_the_pipeline_holds_are_refused():
    asked = {**question("shares"), "initial": start(PEOPLE, max_lead=MAX_LEAD - 1)}
    assert "`initial.pipeline` has shape (2, 7) but needs [at least 3 weeks of lead time" in refused(asked, ShapeError)


@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_shares_that_do_not_add_up_are_named(scenarios):
    def change(shares):
        place = (4, slice(None), 3) if scenarios is None else (2, 4, slice(None), 3)
        return shares.at[place].multiply(0.5)

    words = "in week 4" if scenarios is None else "in week 4 of scenario 2"
    said = refused(spoil(question("shares", scenarios), "exogenous.arrivals.shares", change), InputError)
    assert f'`exogenous.arrivals.shares` adds up to 0.5 {words} for agent "shop-d" (counted from 0);' in said


@pytest.mark.parametrize(("value", "kind"), [(NAN, NotFiniteError), (-0.25, InputError)])
def test_a_bad_share_is_named_with_its_lead(value, kind):
    said = refused(spoil(question("shares"), "exogenous.arrivals.shares", put((4, 1, 3), value)), kind)
    assert f'is {value:g} in week 4 after 1 weeks for agent "shop-d" (counted from 0);' in said


def test_the_start_is_checked():
    said = refused(spoil(question(), "initial.stock_end", put((1,), NAN)), NotFiniteError)
    assert '`initial.stock_end` is nan for agent "shop-b"; it must be' in said
    said = refused(spoil(question(), "initial.pipeline", put((2, 1), -4.0)), InputError)
    assert '`initial.pipeline` is -4 in row 2 (arriving 3 weeks on) for agent "shop-b"; it must be' in said


def test_negative_stock_is_demand_that_waits():
    asked = spoil(question(), "initial.stock_end", put((1,), -2.0))
    assert "let demand wait with `backlog=True`" in refused(asked, InputError)
    check_values(**asked, backlog=True)
    nan = spoil(question(), "initial.stock_end", put((1,), NAN))
    with pytest.raises(NotFiniteError):
        check_values(**nan, backlog=True)


@pytest.mark.parametrize(("value", "kind"), [(NAN, NotFiniteError), (INF, NotFiniteError), (-1.0, InputError)])
def test_shadow_prices_are_named_by_week_and_resource(value, kind):
    for scenarios, words in ((None, "in week 6"), (SCENARIOS, "in week 6 of scenario 0")):
        place = (6, 2) if scenarios is None else (0, 6, 2)
        said = refused(spoil(question(scenarios=scenarios), "shadow_prices", put(place, value)), kind)
        assert f"`shadow_prices` is {value:g} {words} for resource `storage` (counted from 0);" in said


def test_numpy_arrays_are_checked_as_well():
    asked = question()
    charged = np.array(asked["shadow_prices"])
    charged[6, 2] = NAN
    assert "is nan in week 6" in refused({**asked, "shadow_prices": charged}, NotFiniteError)


SHAPES = [
    ("population.use", lambda a: a[:, :2], "`population.use` has shape (7, 2) but needs [7 agents, 3 resources];"),
    ("population.weight", lambda a: a[:5], "`population.weight` has shape (5,) but needs [7 agents];"),
    ("population.lead_time", lambda a: a[:, None], "`population.lead_time` has shape (7, 1) but needs [7 agents];"),
    ("exogenous.demand", lambda a: a[:, :6], "`exogenous.demand` has shape (8, 6) but needs [8 weeks, 7 agents];"),
    ("exogenous.demand", lambda a: a[0], "`exogenous.demand` has shape (7,) but needs [week, 7 agents] or [scenario"),
    ("exogenous.sale_price", lambda a: a[:, :1], "(8, 1) but needs [8 weeks, 7 agents];"),
    ("exogenous.unit_cost", lambda a: a[:-1], "`exogenous.unit_cost` has shape (7, 7) but needs [8 weeks, 7 agents];"),
    ("exogenous.lead_demand_sd", lambda a: a[0], "`exogenous.lead_demand_sd` has shape (7,) but needs [8 weeks,"),
    ("exogenous.supply.units", lambda a: a[:, :-1], "`exogenous.supply.units` has shape (8, 6) but needs [8 weeks, 7"),
    ("exogenous.arrivals.weeks", lambda a: a[1:], "`exogenous.arrivals.weeks` has shape (7, 7) but needs [8 weeks, 7"),
    ("initial.stock_end", lambda a: a[1:], "`initial.stock_end` has shape (6,) but needs [7 agents];"),
    ("initial.pipeline", lambda a: a[:, 1:], "`initial.pipeline` has shape (3, 6) but needs [lead, 7 agents];"),
    ("shadow_prices", lambda a: a[1:], "`shadow_prices` has shape (7, 3) but needs [8 weeks, 3 resources];"),
    ("shadow_prices", lambda a: a[:, :2], "`shadow_prices` has shape (8, 2) but needs [8 weeks, 3 resources];"),
    ("shadow_prices", lambda a: a[:, 0], "`shadow_prices` has shape (8,) but needs [8 weeks, 3 resources];"),
    ("shadow_prices", lambda a: a[None], "`shadow_prices` has shape (1, 8, 3) but needs [8 weeks, 3 resources];"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), SHAPES)
def test_shapes_that_do_not_meet_are_named_with_both(name, change, sentence):
    assert sentence in refused(spoil(question(), name, change), ShapeError)


def test_scenarios_must_meet_too():
    asked = question("shares", SCENARIOS)
    said = refused(spoil(asked, "exogenous.arrivals.shares", lambda a: a[0]), ShapeError)
    assert "has shape (8, 4, 7) but needs [3 scenarios, 8 weeks, lead, 7 agents];" in said
    said = refused(spoil(asked, "shadow_prices", lambda a: a[:2]), ShapeError)
    assert "has shape (2, 8, 3) but needs [8 weeks, 3 resources] with or without an axis of scenarios;" in said


def test_shapes_are_checked_inside_a_transform_and_numbers_are_not():
    asked = spoil(question(), "exogenous.demand", put((0, 0), NAN))
    seen = []

    @jax.jit
    def inside(paths: ExogenousPaths, charged):
        check_values(PEOPLE, paths, asked["initial"], charged)
        with pytest.raises(ShapeError):
            check_shapes(PEOPLE, paths, asked["initial"], charged[1:])
        seen.append(charged)
        return charged

    inside(asked["exogenous"], asked["shadow_prices"])
    assert len(seen) == 1


def test_arrays_closed_over_by_a_transform_are_checked():
    asked = spoil(question(), "exogenous.demand", put((1, 1), NAN))

    @jax.jit
    def inside(charged):
        check_values(PEOPLE, asked["exogenous"], asked["initial"], charged)
        return charged

    with pytest.raises(NotFiniteError, match=r'in week 1 for agent "shop-b"'):
        inside(asked["shadow_prices"])


class Slow(AbstractArrivals):
    """An arrival model of another file: a delay of so many weeks, as numbers."""

    delay: jax.Array

    def spread(self, delivered, max_lead):
        """Never asked."""
        raise NotImplementedError

    def longest(self):
        """Never asked for more than it says."""
        return 1


@pytest.mark.parametrize(
    ("shape", "place", "words"), [((8, 7), (3, 1), "in week 3 "), ((7,), (1,), ""), ((), (), None)]
)
def test_models_of_other_files_are_checked_for_nan(shape, place, words):
    asked = question()
    asked["exogenous"] = eqx.tree_at(lambda e: e.arrivals, asked["exogenous"], Slow(jnp.full(shape, -1.0)))
    check_shapes(**asked)
    check_values(**asked)
    said = refused(spoil(asked, "exogenous.arrivals.delay", put(place, NAN)), NotFiniteError)
    agent = "" if words is None else f'{words}for agent "shop-b"'
    assert re.match(rf"`exogenous.arrivals.delay` is nan ?{agent}", said)


@pytest.fixture
def passes(monkeypatch):
    """Count how often an array is read."""
    counts, min_max = [], checks.min_max

    def counted(array):
        counts.append(array.shape)
        return min_max(array)

    monkeypatch.setattr(checks, "min_max", counted)
    return counts


def test_an_array_is_read_through_once_however_often_it_is_checked(passes):
    asked = question(scenarios=SCENARIOS)
    check_values(**asked)
    first = len(passes)
    assert first > 15
    check_values(**asked)
    check_values(
        **{**asked, "exogenous": eqx.tree_at(lambda e: e.demand, asked["exogenous"], asked["exogenous"].demand)}
    )
    assert len(passes) == first
    check_values(**spoil(asked, "exogenous.demand", lambda a: a + 1.0))
    assert len(passes) == first + 1


def test_numpy_arrays_may_have_changed_and_are_read_again(passes):
    asked = question()
    asked["shadow_prices"] = np.array(asked["shadow_prices"])
    check_values(**asked)
    first = len(passes)
    check_values(**asked)
    assert len(passes) == first + 1
    asked["shadow_prices"][3, 1] = NAN
    with pytest.raises(NotFiniteError, match="in week 3"):
        check_values(**asked)


def test_statistics_are_forgotten_with_the_array():
    gc.collect()
    before, lasting = len(checks._STATS), jnp.arange(4.0)
    for number in range(50):
        passing = jnp.full(4, float(number))
        assert checks.cached_stats(passing, checks.min_max) == (number, number)
        assert checks.cached_stats(lasting, checks.min_max) == (0.0, 3.0)
    del passing
    gc.collect()
    assert len(checks._STATS) == before + 1


def test_a_bad_array_is_refused_every_time():
    asked = spoil(question(), "exogenous.demand", put((5, 2), NAN))
    assert refused(asked, NotFiniteError) == refused(asked, NotFiniteError)


SPREAD = """
import jax, jax.numpy as jnp, numpy as np
from walras.simulation import checks
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("agent",))
spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "agent"))
copied = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
values = jax.device_put(jnp.arange(12.0).reshape(3, 4), spread)
assert len(values.addressable_shards) == 2 and checks.min_max(values) == (0.0, 11.0)
values = values.at[2, 0].set(jnp.nan).at[1, 3].set(jnp.nan)
assert np.isnan(checks.min_max(values)).all()
assert checks.first_place(values, np.isnan, 0)[0] == (1, 3)
assert checks.min_max(jax.device_put(jnp.arange(4.0), copied)) == (0.0, 3.0)
print("read")
"""


def test_arrays_over_several_devices_are_read_where_they_lie():
    """In a process of its own, since the number of devices is fixed when JAX starts."""
    own = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", SPREAD], env=own, capture_output=True, text=True, timeout=120)
    assert done.stdout == "read\n", done.stderr
