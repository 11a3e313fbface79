"""How numbers and dates are written: the notation of a column is chosen from its distinct texts, never cell by cell.

Where two notations are possible and nothing in the table decides, the choice is left to the user (`--decimal`,
`--date-order`). A text in another notation than the rest of its column counts as unreadable.
"""

import datetime
import re
import unicodedata
from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

import numpy as np

NO_DAY = np.iinfo(np.int32).min
MISSING = frozenset({"", "na", "n/a", "n.a.", "#n/a", "nan", "null", "none"})
"""Texts that mean an empty cell, in lower case."""
DASHES = frozenset({"-", "–", "—"})
CURRENCY = re.compile(r"^(?:(€|\$|£|¥|₹|EUR|USD|GBP|CHF)\s*)?(.*?)(?:\s*(€|\$|£|¥|₹|EUR|USD|GBP|CHF))?$")
PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
COMMA = re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+|[+-]?[0-9]{1,3}(\.[0-9]{3}){2,}")
POINT = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{2,3})*,[0-9]{3}\.[0-9]+|[+-]?[0-9]{1,3}(,[0-9]{2,3})+,[0-9]{3}")
SPACED = re.compile(r"[+-]?[0-9]{1,3}([ '’][0-9]{3})+([.,][0-9]+)?")
"""Thousands grouped by blanks or apostrophes."""
EITHER = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")
"""One mark before three digits, which may be a decimal mark or group thousands."""
EPOCH = datetime.date(1970, 1, 1).toordinal()
SERIAL_DAY_0 = datetime.date(1899, 12, 30).toordinal() - EPOCH
"""Day 0 of the serial numbers of spreadsheets [days since 1970]."""
MONTHS = {
    name: number
    for number, names in enumerate(
        ("jan", "feb", "mar mär", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec dez"), 1
    )
    for name in names.split()
}


def clean(word: str | None) -> str:
    """Strip blanks, also hard ones, and write wide digits as usual ones; a missing value becomes the empty text."""
    text = unicodedata.normalize("NFKC", word or "").strip()
    return "" if text.lower() in MISSING else text


def split_currency(text: str) -> tuple[str, str]:
    """Split a text into its currency sign, "" where there is none, and the rest."""
    match = CURRENCY.match(text)
    if match is None:
        return "", text
    return match.group(1) or match.group(3) or "", match.group(2).strip()


def decimal_marks(words: Iterable[str]) -> dict[str, str]:
    """Find which decimal marks texts need: "." or "," for evidence, "?" for a text that fits both; with an example."""
    found: dict[str, str] = {}
    for word in words:
        text = re.sub("[ '’]", "", split_currency(clean(word).rstrip("%"))[1])
        if EITHER.fullmatch(text):
            found.setdefault("?", word)
        elif COMMA.fullmatch(text):
            found.setdefault(",", word)
        elif POINT.fullmatch(text) or ("." in text and PLAIN.fullmatch(text)):
            found.setdefault(".", word)
    return found


def number_of(text: str, decimal: str) -> float:
    """Read a number with the given decimal mark; NaN where the text is none.

    Args:
        text: cleaned text; a trailing minus or brackets mean a negative number.
        decimal: "." or ",".
    """
    if text.startswith("(") and text.endswith(")"):
        text = "-" + text[1:-1]
    elif text.endswith("-"):
        text = "-" + text[:-1]
    group = "," if decimal == "." else "."
    if SPACED.fullmatch(text):
        text = re.sub("[ '’]", "", text)
    if re.fullmatch(rf"[+-]?[0-9]{{1,3}}(\{group}[0-9]{{2,3}})*\{group}[0-9]{{3}}(\{decimal}[0-9]+)?", text):
        text = text.replace(group, "")
    elif group in text:
        return float("nan")
    text = text.replace(decimal, ".")
    return float(text) if PLAIN.fullmatch(text) else float("nan")


SHAPES = (
    ("ISO dates", re.compile(r"\d{4}-\d\d-\d\d")),
    ("ISO times", re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d.*")),
    ("compact dates", re.compile(r"(19|20)\d{6}")),
    ("ISO weeks", re.compile(r"(\d{4})[-/ ]?(?:[WK]W?|CW)[ ]?(\d\d?)")),
    ("weeks before the year", re.compile(r"(?:W|KW|CW|WK|Week)[ _.-]*(\d\d?)[ /_.-]+(\d{4})", re.IGNORECASE)),
    ("year first", re.compile(r"(\d{4})[/.](\d\d?)[/.](\d\d?)")),
    ("numeric dates", re.compile(r"(\d\d?)([./-])(\d\d?)\2(\d{4}|\d\d)(?: \d\d?:\d\d(?::\d\d)?)?")),
    ("day, month name, year", re.compile(r"(\d\d?)[ .-]+([A-Za-zä]{3})[a-zé]*[ .,-]+(\d{4}|\d\d)")),
    ("serial numbers of a spreadsheet", re.compile(r"[2-6]\d{4}(\.0+)?")),
)


MONTH = re.compile(
    r"\d{4}[-/. ]?(0?[1-9]|1[0-2])|(0?[1-9]|1[0-2])[-/.]\d{4}|(?P<name>[A-Za-zä]{3})[a-zé]*[ .,'-]+(\d{4}|\d\d)"
)


def is_month(text: str) -> bool:
    """Tell whether a text names a month and no day, like 2024-01, 01/2024 or Jan 24."""
    match = MONTH.fullmatch(text)
    return match is not None and (match["name"] is None or match["name"].lower() in MONTHS)


def shape_of(text: str) -> str | None:
    """Name the notation of a date, or None."""
    return next((name for name, pattern in SHAPES if pattern.fullmatch(text)), None)


def _year(text: str) -> int:
    return int(text) if len(text) == 4 else 2000 + int(text)


def day_of(text: str, shape: str, day_first: bool, zone: ZoneInfo | None) -> int:
    """Read a date as days since 1970 in the notation `shape`; `NO_DAY` where it does not exist.

    A time with an offset counts as its own local day, or that of `zone`.
    """
    pattern = dict(SHAPES)[shape].fullmatch(text)
    if pattern is None:
        return int(NO_DAY)
    part = pattern.groups()
    try:
        if shape == "serial numbers of a spreadsheet":
            return SERIAL_DAY_0 + int(float(text))
        if shape == "compact dates":
            date = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
        elif shape == "ISO weeks":
            date = datetime.date.fromisocalendar(int(part[0]), int(part[1]), 1)
        elif shape == "weeks before the year":
            date = datetime.date.fromisocalendar(int(part[1]), int(part[0]), 1)
        elif shape == "year first":
            date = datetime.date(int(part[0]), int(part[1]), int(part[2]))
        elif shape == "numeric dates":
            day, month = (part[0], part[2]) if day_first else (part[2], part[0])
            date = datetime.date(_year(part[3]), int(month), int(day))
        elif shape == "day, month name, year":
            date = datetime.date(_year(part[2]), MONTHS[part[1].lower()], int(part[0]))
        else:
            time = datetime.datetime.fromisoformat(text)
            date = (time.astimezone(zone) if zone is not None and time.tzinfo is not None else time).date()
    except (ValueError, KeyError, OverflowError):
        return int(NO_DAY)
    return date.toordinal() - EPOCH


def day_orders(texts: Sequence[str]) -> tuple[str | None, str | None]:
    """Find examples that prove the day first and the month first among numeric dates."""
    pattern = dict(SHAPES)["numeric dates"]
    day = month = None
    for text in texts:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        if int(match.group(1)) > 12 or match.group(2) == ".":
            day = day or text
        elif int(match.group(3)) > 12:
            month = month or text
    return day, month


def is_utc_midnight(texts: Sequence[str]) -> bool:
    """Tell whether every time is 22:00 or 23:00 UTC, the midnight of a place one or two hours ahead."""
    return bool(texts) and all(re.fullmatch(r".{10}[T ]2[23]:00(:00(\.0+)?)?(Z|\+00:?00)", text) for text in texts)
