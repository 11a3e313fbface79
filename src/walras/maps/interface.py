"""Own the Interface: trained maps in one folder, which read a population and then answer a planner.

EDGE: folders are shipped and kept by users: `primal.walras`, `dual.walras` and `coverage.walras`, one of the maps at
least. A folder is written aside and then renamed.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from walras.errors import InputError, SettingsError, join, quote, shape_mismatch
from walras.maps.encoder import EncoderState
from walras.maps.features import HORIZON, units_of
from walras.maps.file import DUAL, PRIMAL, LearnedMap, load_map, save_map
from walras.maps.history import History
from walras.maps.support import TrainingSupport, load_support, policy_hash, save_support
from walras.maps.view import LearnedView, check_view, controllable_weeks
from walras.policies.base import Policy
from walras.population.cohort import Cohort, StratifiedSample, demand_size
from walras.population.population import NO_NAMES, Population, choke_price

SHIPPED = ("default", "retail")
"""Interfaces that come with the package."""

FILES = {PRIMAL: "primal.walras", DUAL: "dual.walras"}
COVERAGE = "coverage.walras"

COHORT = 20_000
"""Agents beyond which a cohort is read, where none is given."""


@dataclass(frozen=True, eq=False)
class Interface:
    """Hold trained maps: prices to utilization, capacity to prices, or both.

    Attributes:
        primal, dual: the maps; one of them at least.
        coverage: what training covered; None where nothing is known of it.
        source: name of the folder, for sentences.
    """

    primal: LearnedMap | None
    dual: LearnedMap | None
    coverage: TrainingSupport | None = None
    source: str = field(default="the interface")

    def __post_init__(self) -> None:
        """Refuse maps that do not belong together.

        Raises:
            InputError: no map, maps of the other kind, of different resources, or a dual map that cannot be one.
        """
        maps = {PRIMAL: self.primal, DUAL: self.dual}
        for kind, learned in maps.items():
            if learned is not None and learned.kind != kind:
                raise InputError(f"a {quote(learned.kind)} was given as {kind} but a {kind} is needed; swap the two")
        there = [learned for learned in maps.values() if learned is not None]
        if not there:
            raise InputError(f"{self.source} holds no map but needs one; give a primal map, a dual map, or both")
        if len({learned.resources for learned in there}) > 1:
            raise InputError(
                f"the primal map of {self.source} knows {join(there[0].resources)} but the dual map knows "
                f"{join(there[1].resources)}; train both for the same resources"
            )
        if self.dual is not None and self.dual.shape.kind.by_agent:
            raise InputError(
                f"the dual map of {self.source} is {quote(self.dual.shape.representation)}, which adds up agents, but "
                "prices of agents do not add up; train it with another representation"
            )

    @property
    def resources(self) -> tuple[str, ...]:
        """Name the resources that the maps know, in the order of their axis."""
        return self._any.resources

    @property
    def facts(self) -> Mapping[str, Any]:
        """Say how the maps were made, by kind of map."""
        return {each.kind: each.facts for each in (self.primal, self.dual) if each is not None}

    @property
    def _any(self) -> LearnedMap:
        found = self.dual if self.primal is None else self.primal
        assert found is not None  # one of them is there
        return found

    @staticmethod
    def load(name_or_path: str | Path) -> "Interface":
        """Read a folder that `save` wrote, or one that comes with the package.

        Args:
            name_or_path: "default", "retail", or a folder.

        Raises:
            InputError: no such folder, no map in it, or a damaged file.
        """
        named = str(name_or_path) in SHIPPED and isinstance(name_or_path, str)
        folder: Traversable = files("walras.maps") / "shipped" / str(name_or_path) if named else Path(name_or_path)
        source = quote(name_or_path, 200)
        if not folder.is_dir():
            raise InputError(
                f"{source} is no folder of trained maps; give one, or the name of one that comes with walras "
                f"({join(SHIPPED)})"
            )
        there = {name: folder / name for name in (*FILES.values(), COVERAGE) if (folder / name).is_file()}
        if not there.keys() & set(FILES.values()):
            raise InputError(
                f"{source} holds neither {' nor '.join(FILES.values())}; train maps into it with `walras train dual "
                f"--out {source}` and `walras train primal --out {source}`, or give the name of one that comes with "
                f"walras ({join(SHIPPED)})"
            )
        maps = {kind: load_map(there[name], kind) for kind, name in FILES.items() if name in there}
        coverage = load_support(there[COVERAGE]) if COVERAGE in there else None
        return Interface(maps.get(PRIMAL), maps.get(DUAL), coverage, source)

    def save(self, folder: str | Path) -> None:
        """Write all to a folder, aside and then renamed; an interface that was there is replaced.

        Args:
            folder: where; the folder around it must exist.

        Raises:
            InputError: a folder that holds other things than an interface, or that cannot be written to.
        """
        folder = Path(folder)
        _refuse_other(folder)
        try:
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                self._write(aside / "new")
                if folder.exists():
                    folder.rename(aside / "old")
                (aside / "new").rename(folder)
            finally:
                shutil.rmtree(aside)
        except OSError as error:
            reason = quote(error.strerror or error)
            raise InputError(
                f"{quote(folder, 200)} cannot be written ({reason}); choose a place that you may write to"
            ) from error

    def _write(self, folder: Path) -> None:
        folder.mkdir()
        for learned in (self.primal, self.dual):
            if learned is not None:
                save_map(folder / FILES[learned.kind], learned)
        if self.coverage is not None:
            save_support(folder / COVERAGE, self.coverage)

    def encode(
        self,
        population: Population,
        history: History,
        policy: Policy | None = None,
        *,
        cohort: Cohort | None = None,
        weeks: int = HORIZON,
        reserve: float = 0.0,
        seed: int = 0,
    ) -> LearnedView:
        """Read a population once, so that questions about it are answered in milliseconds.

        Args:
            population: everybody; or the drawn agents of a cohort (`Cohort.subset`), where no more is known.
            history: of the same agents.
            policy: what they follow, to be compared with that of training, and asked by maps that ask delegates; None
                compares nothing, and is refused by these.
            cohort: whose histories are read; default everybody, and beyond 20,000 agents so many, drawn by strata.
            weeks: of the view, the origin's own and those after it; at most 27.
            reserve: standard deviations of the primal map's error that a plan shall leave room for.
            seed: of the default cohort and of delegates.

        Raises:
            ShapeError, InputError, SettingsError: other resources, agents or weeks than needed; a reserve for a map
                that does not say how far off it is.
        """
        self._refuse(population, history, weeks, reserve)
        _refuse_agents(population, policy, seed)
        read, error = _who_is_read(population, history, cohort, seed)
        people = population.named(NO_NAMES)
        units = _scales(people)
        parts = (people, units, read, history, policy)
        primal = None if self.primal is None else EncoderState.of(self.primal, *parts, seed=seed)
        dual = None if self.dual is None else EncoderState.of(self.dual, *parts, seed=seed)
        name = None if policy is None else (policy_hash(policy, population.n_agents), type(policy).__name__)
        return LearnedView(
            population=people,
            units=units,
            primal=primal,
            dual=dual,
            n_weeks=weeks,
            history=history,
            weeks_read=history.n_weeks,
            max_price=choke_price(people),
            controllable=controllable_weeks(people, weeks),
            scale_error=error,
            coverage=self.coverage,
            found=check_view(self.coverage, primal, dual, history.n_weeks, name),
            followed=name,
            reserve=reserve,
        )

    def _refuse(self, population: Population, history: History, weeks: int, reserve: float) -> None:
        if population.resources != self.resources:
            raise InputError(
                f"the population uses {join(population.resources)} but the maps of {self.source} know "
                f"{join(self.resources)}; load maps that were trained for these resources"
            )
        shape = (history.n_agents, history.known.stock.shape[0])
        needed = (population.n_agents, len(population.resources))
        if shape != needed:
            remedy = "give the history of the same agents and resources"
            raise shape_mismatch("history", f"{shape} (agents, resources)", f"{needed} as the population", remedy)
        if not 2 <= weeks <= HORIZON + 1:
            raise SettingsError(f"`weeks` is {weeks} but a view has 2 to {HORIZON + 1} weeks; give one of these")
        if not 0.0 <= reserve < float("inf"):
            raise SettingsError(f"`reserve` is {reserve:g} but must be 0 or more and finite; give e.g. 1")
        if reserve and (self.primal is None or "relative_error" not in self.primal.facts):
            raise SettingsError(
                f"`reserve` is {reserve:g} but the maps of {self.source} do not say how far off they are; give 0"
            )


def _refuse_agents(population: Population, policy: Any, seed: int) -> None:
    """Refuse what is no policy, nobody at all, and a seed that draws nothing."""
    if policy is not None and not isinstance(policy, Policy):
        raise InputError(f"`policy` is {quote(policy)} but must be a policy; give an instance, e.g. PricedNewsvendor()")
    if not float(np.sum(np.asarray(population.weight))) > 0:
        raise InputError("all agents have weight 0 but somebody is needed; give a weight above 0 to those who count")
    if seed < 0:
        raise SettingsError(f"`seed` is {seed} but must be 0 or more; give e.g. 0")


_scales = jax.jit(units_of)
"""Compiled as one program: a dozen small ones would take as long as a query each."""


def _who_is_read(
    population: Population, history: History, cohort: Cohort | None, seed: int
) -> tuple[Cohort, Float[np.ndarray, " resource"]]:
    """Return whose histories are read, and the relative standard error of S(P)."""
    size, n_agents = demand_size(population), population.n_agents
    known = np.zeros(len(population.resources))
    if cohort is None:
        return StratifiedSample().draw(size, COHORT, np.random.default_rng([seed, 0xC0])), known
    if cohort.n_agents == n_agents:
        return cohort, known
    if cohort.n_drawn != n_agents:
        raise shape_mismatch(
            "cohort",
            f"{cohort.n_drawn} agents drawn of {cohort.n_agents}",
            f"{n_agents} agents as the population",
            "give the population that it was drawn from, or `cohort.subset` of it",
        )
    each = (size / cohort.weight)[None, :] * np.asarray(population.use, float).T
    everyone = np.arange(n_agents)
    drawn = Cohort(everyone, np.ones(n_agents), np.zeros_like(everyone), n_agents, cohort.design)
    return drawn, cohort.standard_error(each) / np.maximum(cohort.total(each), np.finfo(float).tiny)


def _refuse_other(folder: Path) -> None:
    """Refuse to replace what is no interface."""
    if not folder.exists():
        return
    ours = {*FILES.values(), COVERAGE}
    others = [each.name for each in folder.iterdir() if each.name not in ours] if folder.is_dir() else [folder.name]
    if others:
        names = join(sorted(others))
        raise InputError(f"{quote(folder, 200)} holds {names}, which is no part of an interface; choose another folder")
