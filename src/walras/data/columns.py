"""Own the column names: which fields tables may have, and how a user's names map to them.

CONTRACT: `--column ours=theirs` and the `[columns]` table of a TOML file both end here.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from walras.data.sources import existing_file
from walras.errors import FailFast, InputError, SettingsError, join, quote

REQUIRED = ("unique_id", "ds", "units")
FLOWS = ("units", "orders", "receipts", "forecast")
"""Quantities that add up over the days of a week."""
MONEY = ("price", "unit_cost")
"""Money per unit: averaged over the days of a week, weighted by units."""
NUMBERS_PER_AGENT = ("lead_time", "volume", "fill_rate")
LABELS = ("vendor", "category")
NUMBERS = (*FLOWS, *MONEY, "on_hand", *NUMBERS_PER_AGENT)
TABLE_COLUMNS = ("unique_id", "ds", *NUMBERS, *LABELS)
STATIC_COLUMNS = ("unique_id", *LABELS, *NUMBERS_PER_AGENT, *MONEY)
TEXT = ("unique_id", *LABELS)


def checked_mapping(columns: Mapping[str, Any] | None) -> dict[str, str]:
    """Refuse a mapping that names a field we do not know or uses one column twice.

    Args:
        columns: our name -> the table's name.

    Raises:
        SettingsError: with the names that are allowed.
    """
    given = dict(columns or {})
    for ours, theirs in given.items():
        if ours not in TABLE_COLUMNS:
            raise SettingsError(
                f"column mapping names `{quote(ours)}`, which is none of our fields; write ours=theirs with one of "
                f"{', '.join(TABLE_COLUMNS)}"
            )
        if not isinstance(theirs, str) or not theirs:
            raise SettingsError(
                f"column mapping gives `{ours}` the name {quote(theirs)!r}; give the table's column name"
            )
    theirs_all = list(given.values())
    twice = sorted({theirs for theirs in theirs_all if theirs_all.count(theirs) > 1})
    if twice:
        raise SettingsError(f"column mapping uses the table's column {join(twice)} for two fields; map it once")
    return given


def parse_options(options: Iterable[str]) -> dict[str, str]:
    """Read `ours=theirs` options of a command line."""
    mapping: dict[str, str] = {}
    for option in options:
        ours, sign, theirs = option.partition("=")
        if not sign or not ours.strip() or not theirs.strip():
            raise SettingsError(f"column option {quote(option)!r} is not of the form ours=theirs; write e.g. units=qty")
        mapping[ours.strip()] = theirs.strip()
    return checked_mapping(mapping)


def read_mapping(path: str | Path) -> dict[str, str]:
    """Read the `[columns]` table of a TOML file."""
    path = existing_file(Path(path))
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is not a TOML file ({quote(error, 100)}); mend it") from error
    table = document.get("columns")
    if not isinstance(table, dict):
        raise SettingsError(f'{path.name} has no [columns] table; write [columns] and below it e.g. units = "qty"')
    return checked_mapping(table)


def match_columns(
    names: Sequence[str],
    mapping: Mapping[str, str],
    fields: Sequence[str],
    required: Sequence[str],
    name: str,
    findings: FailFast,
) -> dict[str, str]:
    """Find which of the table's columns is which field: our name -> the table's name.

    Args:
        names: columns the table has.
        mapping: the user's mapping, already checked.
        fields: fields this kind of table may have.
        required: fields it must have.
        name: how sentences call the table.
        findings: told about missing and unused columns.
    """
    taken = set(mapping.values())
    found = {}
    for ours in fields:
        theirs = mapping.get(ours, ours)
        if theirs in names and (ours in mapping or theirs not in taken):
            found[ours] = theirs
    missing = [ours for ours in required if ours not in found]
    if missing:
        findings.problem(_missing_sentence(missing, names, mapping, name))
    unused = [column for column in names if column not in found.values()]
    if unused:
        findings.note(f"columns of {name} that were not used: {join(unused)}.")
    return found


def _missing_sentence(missing: Sequence[str], names: Sequence[str], mapping: Mapping[str, str], name: str) -> str:
    wanted = ", ".join(
        f"`{ours}`" + (f" (mapped to {quote(mapping[ours])})" if ours in mapping else "") for ours in missing
    )
    return (
        f"{name} lacks the required {'column' if len(missing) == 1 else 'columns'} {wanted}; its columns are "
        f"{join(names, 12) or 'none'}: "
        f"map yours with --column {missing[0]}=NAME"
    )
