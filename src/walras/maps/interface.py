"""Interface: trained maps in one folder (`FILES` and `SUPPORT_FILE`), which encode a population for a planner."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
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
from walras.maps.view import LearnedView, controllable_weeks, population_ood_reasons
from walras.policies.base import Policy
from walras.population.cohort import Cohort, StratifiedSample, demand_size
from walras.population.population import NO_NAMES, Population, choke_price

SHIPPED = ("default", "retail")  # interfaces that come with the package

FILES = {PRIMAL: "primal.walras", DUAL: "dual.walras"}
SUPPORT_FILE = "coverage.walras"

COHORT = 20_000  # most agents that are read by default; of more, a cohort of this size is drawn

_units_of = jax.jit(units_of)  # compiled as one program: a dozen small ones would take as long as a query each


@dataclass(frozen=True, eq=False)
class Interface:
    """Trained maps: prices to utilization, capacity to prices, or both.

    Attributes:
        primal, dual: the maps; at least one.
        support: what training covered; None where it is not known.
        source: name of the folder, for messages.
    """

    primal: LearnedMap | None
    dual: LearnedMap | None
    support: TrainingSupport | None = None
    source: str = "the interface"

    def __post_init__(self) -> None:
        """Check that there is a map and that maps belong together; InputError if not."""
        for kind, learned in {PRIMAL: self.primal, DUAL: self.dual}.items():
            if learned is not None and learned.kind != kind:
                raise InputError(f"a {quote(learned.kind)} was given as {kind} but a {kind} is needed; swap the two")
        if not self._maps:
            raise InputError(f"{self.source} holds no map but needs one; give a primal map, a dual map, or both")
        resources = [learned.resources for learned in self._maps]
        if len(set(resources)) > 1:
            raise InputError(
                f"the primal map of {self.source} knows {join(resources[0])} but the dual map knows "
                f"{join(resources[1])}; train both for the same resources"
            )
        if self.dual is not None and self.dual.shape.kind.by_agent:
            raise InputError(
                f"the dual map of {self.source} is {quote(self.dual.shape.representation)}, which adds up agents, but "
                "prices of agents do not add up; train it with another representation"
            )

    @property
    def _maps(self) -> list[LearnedMap]:
        return [learned for learned in (self.primal, self.dual) if learned is not None]

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of the resources that the maps know, in the order of their axis."""
        return self._maps[0].resources

    @property
    def facts(self) -> Mapping[str, Any]:
        """How the maps were made, by kind of map."""
        return {learned.kind: learned.facts for learned in self._maps}

    def __str__(self) -> str:
        """Return a small table of the maps."""
        trained = "not known" if self.support is None else f"policy {self.support.policy_name}"
        lines = [f"Interface {self.source}", *(f"  {learned}" for learned in self._maps), f"  training: {trained}"]
        return "\n".join(lines)

    __repr__ = __str__

    @staticmethod
    def load(name_or_path: str | Path) -> "Interface":
        """Read a folder that `save` wrote, or one that comes with the package ("default", "retail").

        Raises:
            InputError: no such folder, no map in it, or a damaged file.
        """
        named = isinstance(name_or_path, str) and name_or_path in SHIPPED
        folder: Traversable = files("walras.maps") / "shipped" / str(name_or_path) if named else Path(name_or_path)
        source = quote(name_or_path, 200)
        if not folder.is_dir():
            raise InputError(
                f"{source} is no folder of trained maps; give one, or the name of one that comes with walras "
                f"({join(SHIPPED)})"
            )
        present = {name: folder / name for name in (*FILES.values(), SUPPORT_FILE) if (folder / name).is_file()}
        maps = {kind: load_map(present[name], kind) for kind, name in FILES.items() if name in present}
        if not maps:
            raise InputError(
                f"{source} holds neither {' nor '.join(FILES.values())}; train maps into it with `walras train dual "
                f"--out {source}` and `walras train primal --out {source}`, or give the name of one that comes with "
                f"walras ({join(SHIPPED)})"
            )
        support = load_support(present[SUPPORT_FILE]) if SUPPORT_FILE in present else None
        return Interface(maps.get(PRIMAL), maps.get(DUAL), support, source)

    def save(self, folder: str | Path) -> None:
        """Write all to a folder in an existing one, aside and then renamed; an interface there is replaced.

        Raises:
            InputError: a folder that holds other things than an interface, or that cannot be written to.
        """
        folder = Path(folder)
        _check_replaceable(folder)
        try:
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                (aside / "new").mkdir()
                for learned in self._maps:
                    save_map(aside / "new" / FILES[learned.kind], learned)
                if self.support is not None:
                    save_support(aside / "new" / SUPPORT_FILE, self.support)
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
        """Encode a population once, so that queries about it are answered in milliseconds.

        Args:
            population: all agents; or the drawn agents of a cohort (`Cohort.subset`), where no more is known.
            history: of the same agents.
            policy: what they follow: compared with that of training, and simulated by maps with probes, which need it.
            cohort: whose histories are read; default all, and of more than 20,000 agents that many, drawn by strata.
            weeks: of the view, the origin's own and those after it; at most 27.
            reserve: standard deviations of the primal map's error that a plan shall leave room for.
            seed: of the default cohort and of probes.

        Raises:
            ShapeError, InputError, SettingsError: other resources, agents or weeks than needed; a reserve for a map
                that does not say how far off it is.
        """
        self._check(population, policy, history, weeks, reserve, seed)
        read, error = _cohort_to_read(population, history, cohort, seed)
        anonymous = population.named(NO_NAMES)
        units = _units_of(anonymous)
        parts = (anonymous, units, read, history, policy)
        primal = None if self.primal is None else EncoderState.of(self.primal, *parts, seed=seed)
        dual = None if self.dual is None else EncoderState.of(self.dual, *parts, seed=seed)
        policy_id = None if policy is None else (policy_hash(policy, population.n_agents), type(policy).__name__)
        return LearnedView(
            population=anonymous,
            units=units,
            primal=primal,
            dual=dual,
            n_weeks=weeks,
            history=history,
            weeks_read=history.n_weeks,
            max_price=choke_price(anonymous),
            controllable=controllable_weeks(anonymous, weeks),
            scale_error=error,
            support=self.support,
            ood_reasons=population_ood_reasons(self.support, primal, dual, history.n_weeks, policy_id),
            policy_id=policy_id,
            reserve=reserve,
        )

    def _check(
        self, population: Population, policy: Any, history: History, weeks: int, reserve: float, seed: int
    ) -> None:
        if population.resources != self.resources:
            raise InputError(
                f"the population uses {join(population.resources)} but the maps of {self.source} know "
                f"{join(self.resources)}; load maps that were trained for these resources"
            )
        shape = (history.n_agents, history.known.stock.shape[0])
        own = (population.n_agents, len(population.resources))
        if shape != own:
            remedy = "give the history of the same agents and resources"
            raise shape_mismatch("history", f"{shape} (agents, resources)", f"{own} as the population", remedy)
        if not 2 <= weeks <= HORIZON + 1:
            raise SettingsError(f"`weeks` is {weeks} but a view has 2 to {HORIZON + 1} weeks; give one of these")
        if not 0.0 <= reserve < float("inf"):
            raise SettingsError(f"`reserve` is {reserve:g} but must be 0 or more and finite; give e.g. 1")
        if reserve and (self.primal is None or "relative_error" not in self.primal.facts):
            raise SettingsError(
                f"`reserve` is {reserve:g} but the maps of {self.source} do not say how far off they are; give 0"
            )
        if policy is not None and not isinstance(policy, Policy):
            needed = "must be a policy; give an instance, e.g. PricedNewsvendor()"
            raise InputError(f"`policy` is {quote(policy)} but {needed}")
        if not float(np.sum(np.asarray(population.weight))) > 0:
            raise InputError("all agents have weight 0 but one above 0 is needed; give a weight to those who count")
        if seed < 0:
            raise SettingsError(f"`seed` is {seed} but must be 0 or more; give e.g. 0")


def _cohort_to_read(
    population: Population, history: History, cohort: Cohort | None, seed: int
) -> tuple[Cohort, Float[np.ndarray, " resource"]]:
    """Return the agents whose histories are read, and the relative standard error of S(P)."""
    size, n_agents = demand_size(population), population.n_agents
    exact = np.zeros(len(population.resources))
    if cohort is None:
        return StratifiedSample().draw(size, COHORT, np.random.default_rng([seed, 0xC0])), exact
    if cohort.n_agents == n_agents:
        return cohort, exact
    if cohort.n_drawn != n_agents:
        raise shape_mismatch(
            "cohort",
            f"{cohort.n_drawn} agents drawn of {cohort.n_agents}",
            f"{n_agents} agents as the population",
            "give the population that it was drawn from, or `cohort.subset` of it",
        )
    use = (size / cohort.weight)[None, :] * np.asarray(population.use, float).T
    index = np.arange(n_agents)
    drawn = Cohort(index, np.ones(n_agents), np.zeros_like(index), n_agents, cohort.design)
    return drawn, cohort.standard_error(use) / np.maximum(cohort.total(use), np.finfo(float).tiny)


def _check_replaceable(folder: Path) -> None:
    """Check that a folder to be replaced holds an interface and nothing else."""
    if not folder.exists():
        return
    ours = {*FILES.values(), SUPPORT_FILE}
    others = [entry.name for entry in folder.iterdir() if entry.name not in ours] if folder.is_dir() else [folder.name]
    if others:
        names = join(sorted(others))
        raise InputError(f"{quote(folder, 200)} holds {names}, which is no part of an interface; choose another folder")
