"""Own the judgement of a plan in words: week by week, and as a whole.

FREE: sentences may be reworded; what they claim must come from the numbers of the result.
"""

import numpy as np
from jaxtyping import Float

from walras.control.paths import PathOutcome
from walras.planner.result import PlanRecord, PlanResult

FITS_TO = 0.01
"""A week whose mean violation over the paths is at most this fits."""

AT_THE_TOP = 0.98
"""A price of at least this share of the highest one tried is at the top."""


def week_verdicts(
    record: PlanRecord,
    seen: PathOutcome,
    committed: Float[np.ndarray, "path week resource"],
    max_price: float,
) -> tuple[str, ...]:
    """Say for every week whether it fits, and if not, why; the worst resource speaks for the week.

    Args:
        record: the plan.
        seen: what happened under it.
        committed: utilization on the same paths if nobody ordered after the origin [units of resource].
        max_price: the price beyond which nobody would order [money per unit of resource].
    """
    capacity = np.maximum(record.capacity, 1e-9)
    over, bound = (np.maximum(use - capacity, 0) / capacity for use in (seen.utilization, committed))
    words = []
    for week, worst in enumerate(over.mean(0).argmax(-1)):
        at = np.s_[:, week, worst]
        average = seen.utilization[at].mean() / capacity[week, worst] - 1
        kept = committed[at].mean() / capacity[week, worst] - 1
        charged = seen.shadow_prices[at].mean() / max_price
        words.append(_word(over[at], bound[at], float(average), float(kept), float(charged)))
    return tuple(words)


def _word(
    over: Float[np.ndarray, " path"], bound: Float[np.ndarray, " path"], average: float, kept: float, charged: float
) -> str:
    """Judge a week.

    Args:
        over: violation, relative.
        bound: the part of it that was committed at the origin.
        average: mean use over capacity, less 1; `kept` what is committed of it.
        charged: mean price, as a share of the highest.
    """
    share = f"{round(100 * (over > FITS_TO).mean())} % of paths"
    if over.mean() <= FITS_TO:
        return "fits"
    if kept > FITS_TO:
        return "already committed"
    if np.maximum(over - bound, 0).mean() <= FITS_TO:
        return f"already committed on {share}"
    # Where use fits on average, the price is right for most paths; where it does not, no price would do more in time.
    return "over at the highest price" if average > FITS_TO and charged >= AT_THE_TOP else f"over on {share}"


def verdict(result: PlanResult) -> tuple[str, ...]:
    """Say in a few sentences whether the plan holds, what it buys, and where capacity is scarcest."""
    return _holds(result), _bought(result), _priced(result)


def _day(date: np.datetime64) -> str:
    day = date.astype("datetime64[D]").item()
    return f"{day.day} {day:%b %Y}"


def _holds(result: PlanResult) -> str:
    near = result.verified["near_limit_mean_violation"]
    fixed = result.verified_fixed["near_limit_mean_violation"]
    feasible = result.record.feasible
    if near is None or fixed is None:
        if feasible and not result.verified.get("near_limit_share"):
            return "Capacity is never short: utilization without any prices stays well below the plan."
        return "The plan is not feasible: in the weeks that are short there is no capacity to speak of."
    word = "Expected use fits the plan" if feasible else "The plan is not feasible in every week"
    reissued = result.settings.get("plan", {}).get("reissue", True)
    how = f" with prices re-issued weekly ({fixed:.1%} with the planned prices fixed)" if reissued else ""
    kept = result.verified.get("reward_kept")
    rest = "" if kept is None else f", keeping {kept:.1%} of the reward of the best prices with hindsight"
    return (
        f"{word}: on {result.counts.get('paths', 0)} futures it was not made on, weeks near the limit exceed capacity "
        f"by {near:.1%} on average{how}{rest}."
    )


def _bought(result: PlanResult) -> str:
    extra = np.maximum(result.record.capacity - result.regular_capacity, 0)
    weeks = int((extra.sum(1) > 1e-6 * np.maximum(result.regular_capacity.sum(1), 1e-9)).sum())
    if weeks == 0:
        return "No capacity beyond the regular one is worth its cost."
    share = extra.sum() / max(float(result.regular_capacity.sum()), 1e-9)
    spread = "in one week" if weeks == 1 else f"spread over {weeks} weeks"
    return f"Beyond regular capacity the plan buys {share:.1%} more, {spread}."


def _priced(result: PlanResult) -> str:
    prices = result.record.shadow_prices
    if prices.max(initial=0.0) <= 0:
        return "No week needs a shadow price."
    week, resource = np.unravel_index(int(np.argmax(prices)), prices.shape)
    return (
        f"Capacity is scarcest in the week of {_day(result.weeks[week])}: one unit more of "
        f"{result.resources[resource].replace('_', ' ')} would be worth {prices[week, resource]:.3g} "
        f"(the median product earns {result.money['price_scale']:.3g} per unit)."
    )
