"""Own the stored values of golden tests; `python tests/golden/refresh.py` writes them anew, or only the cases named.

CONTRACT: refresh only when a change of the numbers is meant, and say in the commit why they moved.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
EXPECTED = FOLDER / "expected.json"
DIGITS = 9
"""Of stored numbers: more than single precision has."""


def plain(values: Any) -> Any:
    """Return what JSON can hold, with numbers rounded; not-a-number and infinity become words."""
    if isinstance(values, dict):
        return {str(name): plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, bool | int | str) or values is None:
        return values
    number = float(values)
    return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else str(number)


def main(names: list[str]) -> None:
    """Write what comes out now, of all cases or of those named."""
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "support")]
    from cases import CASES

    kept = json.loads(EXPECTED.read_text()) if names else {}
    for name in names or CASES:
        began = time.perf_counter()
        kept[name] = plain(CASES[name]())
        print(f"{time.perf_counter() - began:6.1f} s  {name}", flush=True)
    lines = [f" {json.dumps(name)}: {json.dumps(kept[name], ensure_ascii=False)}" for name in sorted(kept)]
    aside = EXPECTED.with_suffix(".part")
    aside.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    aside.replace(EXPECTED)
    print(f"wrote {EXPECTED.name}: {len(kept)} cases, {EXPECTED.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
