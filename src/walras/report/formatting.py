"""How numbers, dates, measures and sentences are written for people."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

NOT_DEFINED = "not defined"
NOT_GIVEN = "not given"
PERCENT = "\u00a0%"
"""A percent sign that stays on the line of its number."""

MEASURES: dict[str, tuple[str, str]] = {
    "near_limit_mean_violation": (
        "Overrun in near-limit weeks",
        "mean of (utilization − capacity) / capacity, where above 0, over the weeks in which capacity is tight",
    ),
    "mean_violation": ("Overrun over all weeks", "the same mean over every planned week"),
    "irreducible_violation": (
        "of which already committed",
        "overrun that would remain if no orders were placed from now on; no price can remove it",
    ),
    "avoidable_violation": ("of which avoidable", "overrun less the committed part"),
    "near_limit_share": (
        "Share of near-limit weeks",
        "weeks in which utilization without shadow prices is above 90 % of capacity",
    ),
    "share_weeks_over_10_percent": ("Weeks overrun by more than 10 %", "share of all weeks"),
    "near_limit_share_over_10_percent": ("Near-limit weeks overrun by more than 10 %", "share of the near-limit weeks"),
    "reward_kept": (
        "Reward kept",
        "reward under the plan as a share of what the best prices with hindsight reach, at equal overrun",
    ),
    "regret_ratio": (
        "Cost of coordination against hindsight",
        "reward given up under the plan over reward given up by the best prices with hindsight; 1 is the limit",
    ),
    "pooled_regret_ratio": (
        "The same, of all paths together",
        "steadier where some paths are hardly constrained",
    ),
    "idle_capacity": (
        "Idle capacity",
        "mean share of capacity left unused in short weeks: those whose use without prices exceeds capacity",
    ),
    "slackness": ("Price on unused capacity", "sum of shadow price times unused capacity [money]; 0 is ideal"),
    "complementarity_residual": (
        "Complementarity residual",
        "how far weeks are from having either no price or no unused capacity, as a share of capacity; 0 is ideal",
    ),
}
"""Measure -> (name, meaning), in the order of the report."""

PLAIN_MEASURES = ("regret_ratio", "pooled_regret_ratio", "slackness")
"""Measures that are not fractions and are not written in percent."""


def resource_name(name: str) -> str:
    """Write a resource's name as words."""
    return name.replace("_", " ")


def sentence(text: str) -> str:
    """Capitalise a text, end it with a full stop and fix its plurals."""
    text = fix_plurals(text.strip())
    return text if not text else text[0].upper() + text[1:] + ("" if text[-1] in ".!?:" else ".")


def is_missing(value: Any) -> bool:
    """Return whether a number is absent: None, NaN or infinite."""
    return value is None or (isinstance(value, float | np.floating) and not math.isfinite(value))


def number(value: Any) -> str:
    """Write a number with about four significant digits: 1,234,567; 12.3; 0.0123."""
    if is_missing(value):
        return NOT_DEFINED
    if isinstance(value, int | np.integer):
        return f"{int(value):,}".replace("-", "−")
    size = abs(float(value))
    if size >= 100 or float(value) == 0:
        text = f"{float(value):,.0f}"
    elif size >= 10:
        text = f"{float(value):,.1f}"
    elif size >= 0.995:
        text = f"{float(value):.2f}"
    else:
        text = f"{float(value):.3g}"
    return "0" if text == "-0" else text.replace("-", "−")


def short_number(value: Any) -> str:
    """Write a number in few characters: 1.23M, 45.6k, 789."""
    if is_missing(value):
        return NOT_DEFINED
    for least, step, letter in ((1e9, 1e9, "bn"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(float(value)) >= least:
            scaled = float(value) / step
            return (f"{scaled:.3g}" if abs(scaled) < 100 else f"{scaled:,.0f}").replace("-", "−") + letter
    return number(value)


def price(value: Any, largest: float) -> str:
    """Write a price with the decimals that the largest price of its column needs, so that the column lines up."""
    if is_missing(value):
        return NOT_DEFINED
    decimals = next((count for count, least in enumerate((1000, 100, 1, 0.1, 0.01)) if largest >= least), 5)
    return "0" if float(value) == 0 else f"{float(value):,.{decimals}f}".replace("-", "−")


def percent(value: Any, digits: int = 1) -> str:
    """Write a fraction in percent."""
    if is_missing(value):
        return NOT_DEFINED
    text = f"{100 * float(value):.{digits}f}"
    return (text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")) + PERCENT


def signed(text: str) -> str:
    """Put a plus sign before a written number that is above zero."""
    return text if text.startswith("−") or text == NOT_DEFINED or text.strip("0.% \u00a0") == "" else f"+{text}"


def measure(name: str, value: Any) -> str:
    """Write a measure's value: percent for known fractions, a plain number otherwise."""
    return percent(value) if name in MEASURES and name not in PLAIN_MEASURES else number(value)


def interval(name: str, bounds: Any) -> str:
    """Write a measure's 95 % interval; empty where there is none."""
    if bounds is None or any(is_missing(bound) for bound in bounds):
        return ""
    return f"{measure(name, bounds[0]).removesuffix(PERCENT)} to {measure(name, bounds[1])}"


def title_of(name: str) -> str:
    """Return a measure's title."""
    return MEASURES[name][0] if name in MEASURES else name.replace("_", " ").capitalize()


def day(week: np.datetime64) -> str:
    """Write a date as 4 Jul 2011."""
    return f"{day_month(week)} {week.astype(object).year}"


def day_month(week: np.datetime64) -> str:
    """Write a date as 4 Jul."""
    date = week.astype("datetime64[D]").astype(object)
    return f"{date.day} {date:%b}"


def listing(items: Iterable[str], most: int = 6) -> str:
    """Join words with commas and `and`; those beyond `most` are counted."""
    words = list(items)
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else "none"


_COUNTED = "rows|products|weeks|units|days|columns|scenarios|paths|futures"


def fix_plurals(text: str) -> str:
    """Write `1 weeks` as `1 week` and `12345 rows` as `12,345 rows`."""
    text = re.sub(rf"(?<![\w.,`'-])1 ({_COUNTED})\b", lambda match: f"1 {match[1][:-1]}", text)
    counts = rf"(?<![\w.,`'-])\d{{4,}}(?= (?:of (?:the )?[\d,]+ )?(?:{_COUNTED})\b)"
    return re.sub(counts, lambda match: f"{int(match[0]):,}", text)


def format_value(value: Any, absent: str = NOT_DEFINED) -> str:
    """Write a value of unknown type in one line."""
    if is_missing(value):
        return absent
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value)) if abs(int(value)) < 10_000 else f"{int(value):,}"
    if isinstance(value, float | np.floating):
        return number(value)
    if isinstance(value, np.datetime64):
        return day(value)
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(format_value(item, absent) for item in value) or "none"
    return str(value)


def flat(mapping: Mapping[str, Any], prefix: str = "", absent: str = NOT_DEFINED) -> list[tuple[str, str]]:
    """List a nested mapping as (dotted name, written value)."""
    rows: list[tuple[str, str]] = []
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            rows.extend(flat(value, f"{prefix}{name}.", absent))
        else:
            rows.append((f"{prefix}{name}", format_value(value, absent)))
    return rows
