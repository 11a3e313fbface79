"""Wide tables turned into long ones: a column per week, or a column per product."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from walras.config import Reading
from walras.data.notation import NO_DAY, clean, day_of, day_orders, is_month, shape_of
from walras.data.sources import Source, normal
from walras.errors import FailFast, InputError, join, quote

NUMBERED_WEEK = re.compile(r"(?:w|wk|week|kw|cw)[ _.-]*([0-9]{1,3})", re.IGNORECASE)
FEWEST = 3
"""Columns of weeks that make a table a wide one."""


def long_form(
    opened: Source, mapping: Mapping[str, str], reading: Reading, findings: FailFast
) -> tuple[Source, dict[str, str]] | None:
    """Turn a wide table; a long one is returned as it is. None where weeks without a year were found."""
    names = [normal(name) for name in opened.names]
    has = {field: field in mapping or field in names for field in ("unique_id", "ds", "units")}
    if has["units"]:
        return opened, dict(mapping)
    weeks = [name for name in opened.names if shape_of(clean(name)) is not None]
    numbered = [name for name in opened.names if NUMBERED_WEEK.fullmatch(name.strip())]
    if len(weeks) >= FEWEST and not has["ds"]:
        return _turn_weeks(opened, mapping, weeks, _iso_names(weeks, reading), findings)
    if len(numbered) >= FEWEST and not has["ds"]:
        if reading.first_week is None:
            findings.problem(
                f"columns {join(numbered, 3)} of {opened.name} are weeks without a year; give the date of the first "
                "one with --first-week, e.g. --first-week 2024-01-01",
                "weeks without a year",
                examples=numbered[:3],
                remedy="--first-week DATE",
            )
            return None
        return _turn_weeks(opened, mapping, numbered, _counted(numbered, reading.first_week), findings)
    months = [name for name in opened.names if is_month(clean(name))]
    if len(months) >= FEWEST and not has["ds"]:
        raise InputError(
            f"columns {join(months, 3)} of {opened.name} are months, no weeks; give weeks or days, or spread each "
            "month over its weeks"
        )
    if has["ds"] and not has["unique_id"] and len(opened.names) > 1:
        day = mapping.get("ds", opened.names[names.index("ds")] if "ds" in names else "")
        return _turned(
            opened, mapping, "ds", day, [name for name in opened.names if name != day], "unique_id", findings
        )
    return opened, dict(mapping)


def _iso_names(weeks: Sequence[str], reading: Reading) -> list[str]:
    """Write the dates of column names in ISO form."""
    texts = [clean(name) for name in weeks]
    day, month = day_orders(texts)
    first = reading.date_order == "day" if reading.date_order else month is None
    if reading.date_order is None and any(shape_of(text) == "numeric dates" for text in texts) and not (day or month):
        raise InputError(f"the day and month of column {texts[0]} can be exchanged; write --date-order day or month")
    days = [day_of(text, shape_of(text) or "", first, None) for text in texts]
    bad = [name for name, at in zip(weeks, days, strict=True) if at == NO_DAY]
    if bad:
        raise InputError(f"the column {quote(bad[0])} names no date; correct it")
    return [str(np.datetime64(at, "D")) for at in days]


def _counted(numbered: Sequence[str], first_week: str) -> list[str]:
    try:
        first = np.datetime64(first_week, "D")
    except ValueError:
        raise InputError(f"`first_week` is {quote(first_week)}; give a date such as 2024-01-01") from None
    counts = [int(match.group(1)) for name in numbered if (match := NUMBERED_WEEK.fullmatch(name.strip()))]
    return [str(first + 7 * (count - min(counts))) for count in counts]


def _turn_weeks(
    opened: Source, mapping: Mapping[str, str], weeks: Sequence[str], dates: list[str], findings: FailFast
) -> tuple[Source, dict[str, str]]:
    others = [name for name in opened.names if name not in weeks]
    product = mapping.get("unique_id") or next((name for name in others if normal(name) == "unique_id"), None)
    if product is None and others:
        product = others[0]
        findings.note(f"`{product}` of {opened.name} was taken for the product.", "layout")
    if product is None:
        raise InputError(f"{opened.name} has a column per week but none for the product; add one called unique_id")
    return _turned(opened, mapping, "unique_id", product, list(weeks), "ds", findings, dates)


def _turned(
    opened: Source,
    mapping: Mapping[str, str],
    kept: str,
    column: str,
    spread: list[str],
    field: str,
    findings: FailFast,
    labels: list[str] | None = None,
) -> tuple[Source, dict[str, str]]:
    """Make one row of each cell of the columns `spread`, row by row."""
    wide, count = opened.read(opened.names), len(spread)
    rows = wide.num_rows
    at = pa.array(np.repeat(np.arange(rows), count))
    cells = pa.chunked_array([pa.concat_arrays([_text(wide[name]) for name in spread])])
    by_row = pa.array(np.arange(rows * count).reshape(count, rows).T.ravel())
    table = {name: wide[name].take(at) for name in opened.names if name not in spread and name != column} | {
        kept: wide[column].take(at),
        field: pa.array(np.tile(np.array(labels or spread, dtype=object), rows), pa.string()),
        "units": cells.take(by_row),
    }
    filled = pc.not_equal(pc.utf8_trim_whitespace(table["units"]), "")
    long = pa.table(table).filter(filled)
    findings.row_numbers = np.repeat(np.arange(rows), count)[filled.to_numpy()]
    each = "week" if field == "ds" else "product"
    findings.read_as["layout"] = f"wide, a column per {each}"
    findings.note(f"{opened.name} has a column per {each} ({join(spread, 3)}), which was turned into rows.", "layout")
    rest = {ours: theirs for ours, theirs in mapping.items() if ours not in ("unique_id", "ds")}
    return Source(opened.name, long.column_names, lambda wanted, text=None: long.select(list(wanted))), rest


def _text(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    values = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
    values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    return pc.fill_null(values.cast(pa.string()), "")
