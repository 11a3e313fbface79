"""Bad input ends in one sentence with the row and the field, never in a traceback."""

import malformed
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from walras.cli.app import main
from walras.data.check import check_table
from walras.data.read import read_panel
from walras.errors import InputError, SettingsError

CASES = malformed.all_cases()
LONGEST_SENTENCE = 600


def test_there_are_enough_cases_and_the_unspoilt_table_is_fine(tmp_path, capsys):
    assert len(CASES) >= 200
    for write in (
        malformed.put("table.csv", malformed.comma_text(malformed.good_rows())),
        malformed.put_parquet(malformed.good_arrow()),
    ):
        path = write(tmp_path)
        assert read_panel(path).units.shape == (malformed.WEEKS, len(malformed.PRODUCTS))
        assert check_table(path).ok
        assert main(["data", "check", str(path)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reading_refuses_in_one_sentence(case, tmp_path):
    path = case.write(tmp_path)
    static = tmp_path / case.static if case.static else None
    with pytest.raises((InputError, SettingsError)) as refusal:
        read_panel(path, columns=case.columns, static=static)
    sentence = str(refusal.value)
    assert "\n" not in sentence and len(sentence) < LONGEST_SENTENCE
    for word in case.words:
        assert word in sentence, sentence
    found = check_table(path, columns=case.columns, static=static)
    assert found.problems and sentence in found.problems
    assert not any("\n" in problem for problem in found.problems)


@pytest.mark.parametrize("case", CASES[::12], ids=lambda case: case.name)
def test_the_command_ends_with_one_line_and_code_2(case, tmp_path, capsys):
    words = ["data", "check", str(case.write(tmp_path))]
    words += [word for ours, theirs in case.columns.items() for word in ("--column", f"{ours}={theirs}")]
    words += ["--static", str(tmp_path / case.static)] if case.static else []
    code = main(words)
    shown = capsys.readouterr().err
    assert code == 2, shown
    assert shown.count("\n") == 1 and "Traceback" not in shown


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_file_is_read_or_refused_but_nothing_else(seed, tmp_path):
    """Flip, cut and repeat bytes anywhere: whatever comes, it is an answer and not a crash."""
    rng = np.random.default_rng(seed)
    good = malformed.put("table.csv", malformed.comma_text(malformed.good_rows()))
    path = (good if seed % 3 else malformed.put_parquet(malformed.good_arrow()))(tmp_path)
    content = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(content)))
        until = at + int(rng.integers(0, 3))
        content[at:until] = bytes(rng.integers(0, 256, int(rng.integers(0, 4)), dtype=np.uint8))
    path.write_bytes(content)
    try:
        panel = read_panel(path)
    except (InputError, SettingsError) as refusal:
        assert "\n" not in str(refusal)
    else:
        assert np.isfinite(panel.units).all()


@pytest.mark.parametrize(
    "source",
    [
        None,
        3,
        [1, 2],
        {"unique_id": ["a"]},
        pd.DataFrame(),
        pa.table({}),
        pd.DataFrame({"unique_id": ["a", 1], "ds": ["2024-01-01"] * 2, "units": [1, 2]}),
        pd.DataFrame({"unique_id": ["a"], "ds": ["2024-01-01"], "units": [object()]}),
    ],
    ids=["none", "number", "list", "dict", "empty frame", "empty table", "mixed names", "objects"],
)
def test_what_is_no_table_is_refused(source):
    with pytest.raises(InputError) as refusal:
        read_panel(source)
    assert "\n" not in str(refusal.value)
