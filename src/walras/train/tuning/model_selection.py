"""Own what guards tuning against overfitting: choices made by the weeks that follow those a policy was tuned on.

OPEN: a guard is a family made of families; it looks at the question's weeks only.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from walras.errors import SettingsError
from walras.train.tuning.families import AbstractPolicyFamily, AbstractSearchedFamily, TunedPolicy, TuningProblem

FOLDS = 3
"""Times that a choice is tuned on the first weeks and judged on those that follow."""


def time_series_splits(question: TuningProblem, folds: int = FOLDS) -> Iterator[tuple[TuningProblem, TuningProblem]]:
    """Cut the second half of the weeks that count into parts, one after the other.

    Args:
        question: whose weeks are cut.
        folds: number of parts.

    Yields:
        The question of the weeks before a part, and that of the part.

    Raises:
        SettingsError: too few weeks for so many parts.
    """
    first, weeks = question.objective.warm_up, question.exogenous.n_weeks
    edges = np.unique(np.linspace((first + weeks) // 2, weeks, folds + 1).round().astype(int))
    if folds < 1 or len(edges) <= folds or edges[0] <= first:
        raise SettingsError(
            f"`folds` is {folds} but {weeks} weeks with {first} of warm-up cannot be cut into so many; give more weeks "
            "or fewer folds"
        )
    for head, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        early = replace(question.objective, stop=head)
        late = replace(question.objective, warm_up=head, stop=end)
        yield replace(question, objective=early), replace(question, objective=late)


@dataclass(frozen=True)
class CrossValidated(AbstractPolicyFamily):
    """Choose between families by how they do in weeks after those they were tuned on: guards against overfitting.

    Attributes:
        families: to choose from.
        title: name of the choice; what was chosen is named too.
        folds: times that each family is tuned on the first weeks and judged on those that follow: the second half of
            the weeks is cut into so many parts, one after the other.
    """

    families: tuple[AbstractPolicyFamily, ...]
    title: str
    folds: int = FOLDS

    @property
    def name(self) -> str:
        """Name the choice."""
        return self.title

    def tune(self, question: TuningProblem) -> TunedPolicy:
        """Keep the family that earns most in the weeks that followed, and tune it on all."""
        began, tried = time.perf_counter(), 0
        earned = np.zeros(len(self.families))
        for early, late in time_series_splits(question, self.folds):
            for index, family in enumerate(self.families):
                tuned = family.tune(early)
                tried += tuned.tried
                earned[index] += late.outcome(tuned.policy).value.sum(dtype=float)
        best = self.families[int(np.argmax(earned))].tune(question)
        seconds = time.perf_counter() - began
        return replace(best, name=f"{self.title}: {best.name}", seconds=seconds, tried=tried + best.tried)


@dataclass(frozen=True)
class Rescaled(AbstractPolicyFamily):
    """Scale the parameters in units that a search found by one factor for all, found in the weeks that follow.

    A level that is best in hindsight covers the largest demand it has seen and no more: on short histories it is too
    low for what comes. How much too low shows in weeks that it has not seen.

    Attributes:
        family: what is searched.
        factors: to choose from.
        folds: as in `CrossValidated`.
    """

    family: AbstractSearchedFamily
    factors: tuple[float, ...] = (0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5)
    folds: int = FOLDS

    @property
    def name(self) -> str:
        """Name the family that is searched."""
        return self.family.name

    def tune(self, question: TuningProblem) -> TunedPolicy:
        """Search on all weeks, and scale by the factor that earns most in weeks after those searched."""
        began, tried = time.perf_counter(), 0
        earned = np.zeros(len(self.factors))
        for early, late in time_series_splits(question, self.folds):
            found = self.family.tune(early)
            tried += found.tried + len(self.factors)
            for index, factor in enumerate(self.factors):
                policy = self.family.placed(self._scaled(found, factor, question), question)
                earned[index] += late.outcome(policy).value.sum(dtype=float)
        factor = self.factors[int(np.argmax(earned))]
        best = self.family.tune(question)
        parameters = self._scaled(best, factor, question)
        policy = self.family.placed(parameters, question)
        value, seconds = question.outcome(policy).value, time.perf_counter() - began
        return TunedPolicy(f"{self.name} x {factor:g}", policy, value, parameters, seconds, tried + best.tried)

    def _scaled(self, found: TunedPolicy, factor: float, question: TuningProblem) -> dict[str, np.ndarray]:
        """Scale what is in units, and keep it whole where it has to be."""
        step = question.round_to
        scaled = {name: found.parameters[name] * factor for name in self.family.in_units}
        whole = {name: values if step is None else np.rint(values / step) * step for name, values in scaled.items()}
        return {**found.parameters, **whole}
